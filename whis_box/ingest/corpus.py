"""The corpus: one SQLite file with every accepted record and an account of everything that was not.

Invariant: what is written is sanitized; each file of a source is either done or will be read again; a kill
at any moment loses at most the records since the last commit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import apsw

from whis_box.errors import NotReadyError, StorageError, VerificationError
from whis_box.ingest.readers.draft import Skip
from whis_box.ingest.sanitize.pseudonyms import Pseudonyms
from whis_box.ingest.sanitize.redact import Redaction
from whis_box.paths import written_beside
from whis_box.schemas import Record

_SCHEMA = """
create table if not exists meta (key text primary key, value text not null);
create table if not exists files (
    source text, uri text, sha256 text not null, pipeline text not null, drafts integer not null,
    primary key (source, uri)) without rowid;
create table if not exists records (
    id text primary key, source text not null, uri text not null, draft_sha256 text not null,
    pipeline text not null, text_sha256 text not null, signature blob, body text not null) without rowid;
create index if not exists records_by_file on records (source, uri);
create index if not exists records_by_text on records (text_sha256);
create table if not exists redactions (record_id text not null, body text not null);
create index if not exists redactions_by_record on redactions (record_id);
create table if not exists rejects (source text, uri text, position text, title text, reason text);
create table if not exists skips (source text, uri text, position text, reason text);
create table if not exists duplicates (
    source text, uri text, dropped_id text, kept_id text, kind text, similarity real, draft_sha256 text);
create table if not exists purged (id text primary key, at text not null);
create table if not exists pseudonyms (label text, token text, number integer, primary key (label, token));
"""


class Corpus:
    """Reads and writes one corpus file; a context manager, one process at a time."""

    def __init__(self, path: Path) -> None:
        """Open or create.

        Raises: StorageError; VerificationError if the file is not a corpus.
        """
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = apsw.Connection(str(path))
            self._db.set_busy_timeout(5000)
            self._db.execute(
                "pragma journal_mode = wal; pragma synchronous = normal; pragma secure_delete = on"
            )
            self._db.execute(_SCHEMA)
        except (apsw.NotADBError, apsw.CorruptError):
            raise VerificationError(
                f"{path}: is not a corpus, or damaged; move it away and ingest again"
            ) from None
        except (apsw.Error, OSError) as cause:
            raise StorageError(f"{path}: cannot open the corpus: {cause}; check the folder") from cause
        self._db.execute("begin")

    def __enter__(self) -> Corpus:
        return self

    def __exit__(self, *_: object) -> None:
        self.commit()
        self._db.execute("commit")
        self._db.close()

    def commit(self) -> None:
        """Make everything so far survive a kill.

        Raises: StorageError when the disk is full.
        """
        try:
            self._db.execute("commit; begin")
        except apsw.Error as cause:
            raise StorageError(
                f"{self.path}: cannot write: {cause}; free some space and run it again"
            ) from cause

    # -------------------------------------------------------------- files

    def is_done(self, source: str, uri: str, sha256: str, pipeline: str) -> bool:
        """Whether this very file went through this very pipeline."""
        row = self._row(
            "select 1 from files where source = ? and uri = ? and sha256 = ? and pipeline = ?",
            (source, uri, sha256, pipeline),
        )
        return row is not None

    def begin_file(self, source: str, uri: str) -> None:
        """Forget what was skipped, rejected and dropped of the file: it is read again."""
        for table in ("rejects", "skips", "duplicates"):
            self._db.execute(f"delete from {table} where source = ? and uri = ?", (source, uri))
        self._db.execute("delete from files where source = ? and uri = ?", (source, uri))

    def finish_file(
        self, source: str, uri: str, sha256: str, pipeline: str, ids: set[str], drafts: int
    ) -> int:
        """Mark the file done and remove its records that are no longer in it; how many were removed."""
        rows = self._db.execute("select id from records where source = ? and uri = ?", (source, uri))
        stale = [str(record_id) for (record_id,) in rows.fetchall() if record_id not in ids]
        for record_id in stale:
            self._remove(record_id)
        self._db.execute(
            "insert or replace into files values (?, ?, ?, ?, ?)", (source, uri, sha256, pipeline, drafts)
        )
        self.commit()
        return len(stale)

    # ------------------------------------------------------------ records

    def holder(self, record_id: str) -> tuple[str, str, str, str] | None:
        """(source, uri, draft sha256, pipeline) of a record."""
        row = self._row("select source, uri, draft_sha256, pipeline from records where id = ?", (record_id,))
        return None if row is None else (str(row[0]), str(row[1]), str(row[2]), str(row[3]))

    def put(
        self,
        record: Record,
        origin: tuple[str, str],
        digests: tuple[str, str, str],
        signature: bytes,
        log: Sequence[Redaction],
    ) -> None:
        """Store a record; `origin` is (source, uri), `digests` are (draft, pipeline, comparable text)."""
        self._remove(record.id)
        draft, pipeline, text = digests
        self._db.execute(
            "insert into records values (?, ?, ?, ?, ?, ?, ?, ?)",
            (record.id, *origin, draft, pipeline, text, signature, record.model_dump_json()),
        )
        for entry in log:
            self._db.execute("insert into redactions values (?, ?)", (record.id, entry.model_dump_json()))

    def same_text(self, text_sha256: str) -> str | None:
        """Id of a record whose comparable text is the same."""
        row = self._row("select id from records where text_sha256 = ? order by id limit 1", (text_sha256,))
        return None if row is None else str(row[0])

    def signatures(self) -> Iterator[tuple[str, bytes]]:
        """(record id, MinHash signature) of every record that has one."""
        for record_id, signature in self._db.execute(
            "select id, signature from records where length(signature) > 0"
        ):
            yield str(record_id), bytes(signature)

    def records(self) -> Iterator[Record]:
        """Every record, in order of id."""
        for (body,) in self._db.execute("select body from records order by id"):
            yield Record.model_validate_json(body)

    def records_since(self, source: str, at: str) -> Iterator[Record]:
        """Records of a source that came in at or after `at`, in order of id."""
        for (body,) in self._db.execute(
            "select body from records where source = ? and body ->> '$.source.retrieved_at' >= ? order by id",
            (source, at),
        ):
            yield Record.model_validate_json(str(body))

    def left_out(self, source: str) -> Iterator[tuple[str, str, str]]:
        """What of a source's files is not in the corpus: `(kind, where, why)`."""
        place = "case when position in ('', uri) then uri else uri || ' ' || position end"
        yield from self._db.execute(
            f"select 'rejected', {place}, reason from rejects where source = ?1"
            f" union all select 'skipped', {place}, reason from skips where source = ?1"
            " union all select 'duplicate', dropped_id, kind || ' copy of ' || kept_id from duplicates"
            " where source = ?1",
            (source,),
        )

    def count(self) -> int:
        """Number of records."""
        row = self._row("select count(*) from records", ())
        return int(str(row[0])) if row else 0

    def record(self, record_id: str) -> Record | None:
        """One record, or None."""
        row = self._row("select body from records where id = ?", (record_id,))
        return None if row is None else Record.model_validate_json(str(row[0]))

    def purge(self, record_id: str, at: str) -> None:
        """Erase a record with its redaction log and its duplicates; no import brings it back."""
        self._remove(record_id)
        self._db.execute("delete from duplicates where dropped_id = ? or kept_id = ?", (record_id, record_id))
        self._db.execute("insert or replace into purged values (?, ?)", (record_id, at))
        self.commit()
        self._db.execute("commit")
        # secure_delete zeroes freed pages; the vacuum and the truncated log leave no older copy behind.
        self._db.execute("vacuum")
        self._db.execute("pragma wal_checkpoint(truncate)").fetchall()
        self._db.execute("begin")

    def is_purged(self, record_id: str) -> bool:
        """Whether the record was erased on purpose."""
        return self._row("select 1 from purged where id = ?", (record_id,)) is not None

    def _remove(self, record_id: str) -> None:
        self._db.execute("delete from records where id = ?", (record_id,))
        self._db.execute("delete from redactions where record_id = ?", (record_id,))

    # ------------------------------------------------------------ account

    def note_skip(self, source: str, uri: str, skip: Skip) -> None:
        """Something that was not read."""
        self._db.execute("insert into skips values (?, ?, ?, ?)", (source, uri, skip.position, skip.reason))

    def note_reject(self, source: str, uri: str, position: str, title: str, reason: str) -> None:
        """A document that may not come in."""
        self._db.execute("insert into rejects values (?, ?, ?, ?, ?)", (source, uri, position, title, reason))

    def note_duplicate(
        self,
        source: str,
        uri: str,
        dropped_id: str,
        kept_id: str,
        kind: str,
        similarity: float,
        draft_sha256: str,
    ) -> None:
        """A document that another one already says."""
        values = (source, uri, dropped_id, kept_id, kind, similarity, draft_sha256)
        self._db.execute("insert into duplicates values (?, ?, ?, ?, ?, ?, ?)", values)

    def pseudonyms(self, key: bytes, fingerprint: str) -> Pseudonyms:
        """The numbering so far.

        Raises: VerificationError if the corpus was made with another key: tokens would not match.
        """
        row = self._row("select value from meta where key = 'pseudonym_key'")
        if row is not None and row[0] != fingerprint:
            raise VerificationError(
                f"{self.path}: was made with another pseudonym key; use that key, or start a new corpus"
            )
        self._db.execute("insert or ignore into meta values ('pseudonym_key', ?)", (fingerprint,))
        rows = self._db.execute("select label, token, number from pseudonyms").fetchall()
        return Pseudonyms(key, {(str(label), str(token)): int(str(number)) for label, token, number in rows})

    def keep_pseudonyms(self, pseudonyms: Pseudonyms) -> None:
        """Store the numbers given since."""
        rows = [(*key, number) for key, number in pseudonyms.take_new().items()]
        self._db.executemany("insert or ignore into pseudonyms values (?, ?, ?)", rows)

    def summary(self) -> dict[str, object]:
        """Records by source and licence, files, findings, rejects, skips, duplicates."""
        fields: dict[str, object] = {"corpus": str(self.path)}
        for name in ("source", "license", "tlp"):
            column = "source" if name == "source" else f"body ->> '{name}'"
            rows = self._db.execute(
                f"select {column}, count(*) from records group by 1 order by 1"
            ).fetchall()
            fields[f"records_by_{name}"] = {str(value): int(str(count)) for value, count in rows}
        rows = self._db.execute(
            "select body ->> 'entity_type', count(*) from redactions group by 1"
        ).fetchall()
        fields["redactions"] = {str(value): int(str(count)) for value, count in sorted(rows)}
        for table in ("files", "records", "rejects", "skips", "duplicates"):
            row = self._row(f"select count(*) from {table}")
            fields[table] = int(str(row[0])) if row is not None else 0
        return fields

    def export(self, folder: Path) -> list[Path]:
        """Write redactions, rejected, skipped and duplicates as NDJSON below `folder`; the paths."""
        queries = {
            "redactions": "select body from redactions order by record_id, rowid",
            "rejected": "select json_object('source', source, 'uri', uri, 'position', position,"
            " 'title', title, 'reason', reason) from rejects order by rowid",
            "skipped": "select json_object('source', source, 'uri', uri, 'position', position,"
            " 'reason', reason) from skips order by rowid",
            "duplicates": "select json_object('dropped', dropped_id, 'kept', kept_id, 'kind', kind,"
            " 'similarity', similarity, 'source', source, 'uri', uri) from duplicates order by rowid",
        }
        paths = []
        for name, query in queries.items():
            path = folder / f"{name}.ndjson"
            _write_lines(path, (str(body) for (body,) in self._db.execute(query)))
            paths.append(path)
        return paths

    def _row(self, sql: str, values: Sequence[str] = ()) -> tuple[object, ...] | None:
        return next(iter(self._db.execute(sql, values)), None)


def open_existing(path: Path) -> Corpus:
    """Open a corpus that must be there.

    Raises: NotReadyError.
    """
    if not path.is_file():
        raise NotReadyError(f"{path}: no corpus here; make one with `whis ingest PATH --source NAME`")
    return Corpus(path)


def _write_lines(path: Path, lines: Iterator[str]) -> None:
    with written_beside(path) as beside, beside.open("w", encoding="utf-8") as stream:
        for line in lines:
            assert json.loads(line) is not None
            stream.write(line + "\n")
