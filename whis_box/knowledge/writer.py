"""The index, written: everything a search needs, from chunked records and their vectors.

Invariant: an index is written beside its place and renamed when it is complete, so a reader sees the old one
or the new one; what a killed build leaves is swept by the next.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType

import apsw
import numpy as np
from numpy.typing import NDArray

from whis_box.durable import Disk, make_folders, publish
from whis_box.errors import VerificationError, storage_error
from whis_box.knowledge import identifiers
from whis_box.knowledge.chunking import ChunkedRecord
from whis_box.knowledge.codes import EXACT_ROWS, beside, codes_path, forget_others, write_codes
from whis_box.knowledge.facets import FacetWriter
from whis_box.knowledge.store import SCHEMA_VERSION, VECTOR_TABLES, connect, index_error, vector_blocks
from whis_box.knowledge.terms import terms

_SCHEMA = """
create table meta (key text primary key, value text not null) without rowid;
create table records (rowid_in_build integer primary key, id text not null unique, body text not null);
create table chunks (
    rowid integer primary key, id text not null unique, record_id text not null, title text not null,
    body text not null
);
create table sentences (
    rowid integer primary key, chunk_rowid integer not null, kind text not null,
    start integer not null, end integer not null
);
create index sentences_by_chunk on sentences (chunk_rowid);
create table identifiers (
    kind text not null, value text not null, chunk_rowid integer not null, is_topic integer not null,
    primary key (kind, value, is_topic desc, chunk_rowid)) without rowid;
create table facets (kind text, value text, bits blob not null, primary key (kind, value)) without rowid;
create table terms (term text primary key, n_chunks integer not null) without rowid;
create virtual table prose using fts5 (
    title, heading, body, tokenize = 'porter unicode61 remove_diacritics 2'
);
create virtual table exact using fts5 (body, tokenize = "unicode61 remove_diacritics 2 tokenchars '.-_'");
"""


class IndexWriter:
    """Builds a new index; used as a context manager, it renames the file into place on success only."""

    def __init__(self, path: Path, dim: int, embedder_sha256: str, disk: Disk | None = None) -> None:
        self._path, self._beside, self._disk = path, beside(path), disk or Disk()
        self._embedder_sha256, self._dim = embedder_sha256, dim
        self._document_frequency: Counter[str] = Counter()
        self._digest = hashlib.sha256()
        self._facets = FacetWriter()
        self.n_records = self.n_chunks = self.n_sentences = 0

    def __enter__(self) -> IndexWriter:
        try:
            make_folders(self._disk, self._path.parent)
            _sweep(self._path)
        except OSError as cause:
            raise storage_error("write the index", self._path, cause) from cause
        self._connection = connect(self._beside, writable=True)
        self._digests = {table: hashlib.sha256() for table in VECTOR_TABLES}
        self._run(lambda: self._create())
        return self

    def _create(self) -> None:
        self._connection.execute("pragma journal_mode = off")
        self._connection.execute("pragma page_size = 8192")
        self._connection.execute(_SCHEMA)
        for table in VECTOR_TABLES:
            self._connection.execute(
                f"create table {table}_plain (rowid integer primary key, embedding blob not null)"
            )
        self._connection.execute("begin")

    def add(
        self,
        chunked: ChunkedRecord,
        chunk_vectors: NDArray[np.float32],
        sentence_vectors: NDArray[np.float32],
    ) -> None:
        """Store one record with its chunks; vectors are (n_chunks, dim) and (n_spans of all chunks, dim).

        Raises: VerificationError if a vector is not finite; StorageError.
        """
        if not (np.isfinite(chunk_vectors).all() and np.isfinite(sentence_vectors).all()):
            raise VerificationError(
                f"record {chunked.record.id}: the embedder gave a vector that is not finite"
            )
        self._run(lambda: self._add(chunked, chunk_vectors, sentence_vectors))

    def _add(
        self,
        chunked: ChunkedRecord,
        chunk_vectors: NDArray[np.float32],
        sentence_vectors: NDArray[np.float32],
    ) -> None:
        record, execute = chunked.record, self._connection.execute
        body = record.model_dump_json()
        execute("insert into records (id, body) values (?, ?)", (record.id, body))
        self._digest.update(body.encode())
        self.n_records += 1
        vectors_of_sentences = iter(sentence_vectors)
        for chunk, spans, vector in zip(chunked.chunks, chunked.spans, chunk_vectors, strict=True):
            self.n_chunks += 1
            rowid, heading = self.n_chunks, " > ".join(chunk.heading_path)
            execute(
                "insert into chunks values (?, ?, ?, ?, ?)",
                (rowid, chunk.id, record.id, record.title, chunk.model_dump_json()),
            )
            execute(
                "insert into prose (rowid, title, heading, body) values (?, ?, ?, ?)",
                (rowid, record.title, heading, chunk.text),
            )
            whole = f"{record.title}\n{heading}\n{chunk.text}"
            execute("insert into exact (rowid, body) values (?, ?)", (rowid, whole))
            self._add_vector("chunk_vectors", rowid, vector)
            self._facets.add(rowid, record.source.name, chunk)
            self._document_frequency.update(set(terms(whole)))
            self._add_identifiers(rowid, whole, record.title, chunk.meta.technique_ids)
            for span in spans:
                self.n_sentences += 1
                execute(
                    "insert into sentences values (?, ?, ?, ?, ?)",
                    (self.n_sentences, rowid, span.kind, span.start, span.end),
                )
                self._add_vector("sentence_vectors", self.n_sentences, next(vectors_of_sentences))

    def _add_vector(self, table: str, rowid: int, vector: NDArray[np.float32]) -> None:
        data = vector.tobytes()
        self._connection.execute(f"insert into {table}_plain values (?, ?)", (rowid, data))
        self._digests[table].update(data)

    def _settle(self, table: str, n: int) -> None:
        """A small table becomes sqlite-vec's; a large one has codes, and stays plain for fast single rows."""
        execute = self._connection.execute
        if n > EXACT_ROWS:
            execute(f"alter table {table}_plain rename to {table}")
            return
        execute(f"create virtual table {table} using vec0 (embedding float[{self._dim}])")
        execute(f"insert into {table} (rowid, embedding) select rowid, embedding from {table}_plain")
        execute(f"drop table {table}_plain")

    def _add_identifiers(self, rowid: int, text: str, title: str, technique_ids: Sequence[str]) -> None:
        topics = set(identifiers.extract(title))
        found = {
            *identifiers.extract(text),
            *(identifiers.Identifier("technique", value) for value in technique_ids),
        }
        for identifier in sorted(found | {parent for one in found for parent in identifiers.parents(one)}):
            self._connection.execute(
                "insert or ignore into identifiers values (?, ?, ?, ?)",
                (identifier.kind, identifier.value, rowid, int(identifier in topics)),
            )

    def _finish(self) -> None:
        execute = self._connection.execute
        self._connection.executemany(
            "insert into terms values (?, ?)", sorted(self._document_frequency.items())
        )
        meta = {
            "schema_version": SCHEMA_VERSION,
            "embedder_sha256": self._embedder_sha256,
            "dim": self._dim,
            "n_records": self.n_records,
            "n_chunks": self.n_chunks,
            "n_sentences": self.n_sentences,
            "records_sha256": self._digest.hexdigest(),
            **{f"{table}_sha256": digest.hexdigest() for table, digest in self._digests.items()},
        }
        counts = {"chunk_vectors": self.n_chunks, "sentence_vectors": self.n_sentences}
        self._connection.executemany(
            "insert into meta values (?, ?)", [(k, json.dumps(v)) for k, v in meta.items()]
        )
        for table in ("prose", "exact"):
            execute(f"insert into {table} ({table}) values ('optimize')")
        self._facets.write(self._connection, self.n_chunks)
        for table, n in counts.items():
            self._settle(table, n)
        execute("commit")
        for table, n in counts.items():
            if n > EXACT_ROWS:
                digest = self._digests[table].hexdigest()
                blocks = partial(vector_blocks, self._connection, table)
                place = codes_path(self._path, table, digest)
                write_codes(place, blocks, n, self._dim, digest, self._disk)
        if max(counts.values()) <= EXACT_ROWS:
            execute("vacuum")  # the plain copy of a small table leaves empty pages
        self._connection.close()
        publish(self._disk, self._beside, self._path)
        for table, running in self._digests.items():
            forget_others(self._path, table, running.hexdigest(), self._disk)

    def _run(self, step: Callable[[], object]) -> None:
        try:
            step()
        except apsw.Error as cause:
            raise index_error(self._path, cause) from cause
        except OSError as cause:
            raise storage_error("write the index", self._path, cause) from cause

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._run(self._finish)
        finally:
            self._connection.close()
            _sweep(self._path)


def _sweep(path: Path) -> None:
    """Delete what this process or a killed one left beside the index; others that run are left alone."""
    for left in path.parent.glob(f".{path.name}.*.building*"):
        pid = left.name.partition(".building")[0].rpartition(".")[2]
        if pid == str(os.getpid()) or not (pid.isdigit() and Path("/proc", pid).exists()):
            left.unlink(missing_ok=True)
