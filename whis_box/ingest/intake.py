"""`whis ingest`: files through reading, cleaning, redaction, comparison and validation into the corpus.

Invariant: nothing reaches the corpus that the policy did not see; what does not come in is accounted for
with file, position and reason; an unchanged file is not read again.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from whis_box.config import describe_validation
from whis_box.errors import InputError
from whis_box.guards.text import clean_text
from whis_box.ingest.corpus import Corpus
from whis_box.ingest.finders import Finders
from whis_box.ingest.readers.archives import open_file, paths_of, unpack
from whis_box.ingest.readers.draft import Draft, RawFile, Skip, slug
from whis_box.ingest.sanitize.policy import PolicyConfig
from whis_box.ingest.sanitize.pseudonyms import Pseudonyms
from whis_box.ingest.sanitize.redact import redact
from whis_box.ingest.sanitize.spans import Span
from whis_box.ingest.sources import SourceConfig
from whis_box.schemas import Record, Source, written_now

if TYPE_CHECKING:  # its library takes a second to import, which an unchanged import can spare
    from whis_box.ingest.dedupe import NearDuplicates

PIPELINE_VERSION = "2"
BATCH = 64
COMMIT_EVERY = 512
TITLE_END = "\n\x1e\n"  # between title and text while both go through the finder in one pass

Progress = Callable[[str], None]


@dataclass
class Summary:
    """What one import did."""

    files: int = 0
    unchanged_files: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    """drafts, accepted, reused, rejected, skipped, duplicates, removed; bytes of files and of their text."""
    redactions: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "files": self.files,
            "unchanged_files": self.unchanged_files,
            **dict(sorted(self.counts.items())),
            "redactions": dict(sorted(self.redactions.items())),
            "findings": dict(sorted(self.findings.items())),
        }


@dataclass(frozen=True)
class Intake:
    """One source on its way into one corpus."""

    name: str
    source: SourceConfig
    policy: PolicyConfig
    corpus: Corpus
    pseudonyms: Pseudonyms
    progress: Progress

    def run(self, roots: list[Path], workers: int) -> Summary:
        """Ingest every file of `roots`.

        Raises: InputError, StorageError; a document that is refused is counted, not raised.
        """
        summary, pipeline = Summary(), pipeline_digest(self.policy, self.source)
        pending = []
        for root in roots:
            for path in paths_of(root):
                uri = path.name if path == root else f"{root.name}/{path.relative_to(root).as_posix()}"
                file = open_file(path, uri, self.policy.limits)
                if isinstance(file, Skip):
                    self._skip(uri, file, summary)
                elif self.corpus.is_done(self.name, uri, file.sha256, pipeline):
                    summary.unchanged_files += 1
                else:
                    pending.append((path, uri))
        if not pending:
            return summary
        from whis_box.ingest.dedupe import NearDuplicates

        near = NearDuplicates()
        for record_id, value in self.corpus.signatures():
            near.add(record_id, value)
        with Finders(self.policy, workers) as finders:
            for number, (path, uri) in enumerate(pending, start=1):
                file = open_file(path, uri, self.policy.limits)
                if isinstance(file, RawFile):
                    self.progress(f"[{number}/{len(pending)}] {uri}")
                    self._file(_FileRun(file, pipeline, finders, near, summary))
        self.corpus.commit()
        return summary

    def _file(self, run: _FileRun) -> None:
        file, summary = run.file, run.summary
        if self._secret_name(run):
            return
        self.corpus.begin_file(self.name, file.name)
        summary.files += 1
        summary.counts["bytes"] += len(file.data)
        drafts = self._drafts(run)
        total = 0
        for prepared in _one_ahead(iter(lambda: self._prepare(drafts, run), None)):
            spans = prepared.spans()
            for (raw, draft), text, new in zip(prepared.drafts, prepared.texts, prepared.wanted, strict=True):
                summary.counts["drafts"] += 1
                summary.counts["text_bytes"] += len(text.encode("utf-8", "replace"))
                if new:
                    self._accept(raw, draft, text, next(spans), run)
                else:
                    summary.counts["reused"] += 1
            total += len(prepared.drafts)
            if total % COMMIT_EVERY < len(prepared.drafts) and total >= COMMIT_EVERY:
                self.corpus.keep_pseudonyms(self.pseudonyms)
                self.corpus.commit()
                self.progress(f"{file.name}: {total} documents")
        self.corpus.keep_pseudonyms(self.pseudonyms)
        removed = self.corpus.finish_file(self.name, file.name, file.sha256, run.pipeline, run.ids, total)
        summary.counts["removed"] += removed

    def _prepare(self, drafts: Iterator[tuple[RawFile, Draft]], run: _FileRun) -> _Batch | None:
        """The next drafts, cleaned and handed to the finders; None at the end."""
        batch = list(islice(drafts, BATCH))
        if not batch:
            return None
        texts = []
        for _, draft in batch:
            cleaned, notes = clean_text(draft.text, "document")
            run.summary.findings.update(note.code for note in notes)
            texts.append(f"{clean_text(draft.title, 'title')[0]}{TITLE_END}{cleaned}")
        wanted = [self._is_new(one, run) for one in batch]
        spans = run.finders.start([text for text, new in zip(texts, wanted, strict=True) if new])
        return _Batch(batch, texts, wanted, spans)

    def _drafts(self, run: _FileRun) -> Iterator[tuple[RawFile, Draft]]:
        from whis_box.ingest.readers.detect import read

        uri, summary = run.file.name, run.summary
        for one in unpack(run.file, self.policy.limits):
            if isinstance(one, Skip):
                self._skip(uri, one, summary)
                continue
            try:
                for item in read(one, self.policy.limits):
                    if isinstance(item, Skip):
                        self._skip(uri, item, summary)
                    elif len(item.text) > self.policy.limits.max_text_chars:
                        reason = (
                            f"{len(item.text)} characters are more than {self.policy.limits.max_text_chars}"
                        )
                        self._reject(item, reason, run)
                    else:
                        yield one, item
            except InputError as error:  # front matter that is there and wrong
                self._skip(uri, Skip(one.name, str(error)), summary)
                summary.counts["rejected"] += 1

    def _is_new(self, one: tuple[RawFile, Draft], run: _FileRun) -> bool:
        """False when the same draft went through the same pipeline before: nothing would change."""
        record_id = self._record_id(*one)
        held = self.corpus.holder(record_id)
        if record_id in run.ids or held is None or held[2:] != (one[1].sha256, run.pipeline):
            return True
        run.ids.add(record_id)
        return False

    def _accept(self, raw: RawFile, draft: Draft, text: str, spans: list[Span], run: _FileRun) -> None:
        from whis_box.ingest.dedupe import comparable_sha256, signature

        record_id = self._record_id(raw, draft)
        held = self.corpus.holder(record_id)
        if record_id in run.ids or (held is not None and held[:2] != (self.name, run.file.name)):
            self._reject(draft, f"id {record_id!r} is also that of another document; rename one", run)
            return
        if self.corpus.is_purged(record_id):
            self._reject(draft, f"{record_id} was purged and may not come back", run)
            return
        redacted = redact(record_id, text, spans, self.policy, self.pseudonyms)
        if redacted.refused_for:
            self._reject(draft, f"holds {redacted.refused_for}, which the policy rejects", run)
            return
        title, _, body = redacted.text.partition(TITLE_END)
        offset = len(title) + len(TITLE_END)
        license_id = draft.license or self.source.license
        if license_id not in self.policy.licenses:
            self._reject(draft, f"licence {license_id!r} is not on the policy's list", run)
            return
        record = self._record(record_id, raw, draft, title, body, license_id, redacted.counts)
        if isinstance(record, str):
            self._reject(draft, record, run)
            return
        same, value = comparable_sha256(body), b"" if "kind:event" in draft.labels else signature(body)
        if self._is_duplicate(record_id, draft, same, value, run):
            return
        log = [
            one.model_copy(update={"start": one.start - offset, "end": one.end - offset})
            for one in redacted.log
        ]
        digests = (draft.sha256, run.pipeline, same)
        self.corpus.put(record, (self.name, run.file.name), digests, value, log)
        run.near.add(record_id, value)
        run.ids.add(record_id)
        run.summary.counts["accepted"] += 1
        run.summary.redactions.update(redacted.counts)

    def _record(
        self,
        record_id: str,
        raw: RawFile,
        draft: Draft,
        title: str,
        body: str,
        license_id: str,
        counts: dict[str, int],
    ) -> Record | str:
        digest = raw.sha256
        try:
            return Record.model_validate(
                {
                    "id": record_id,
                    "source": Source(
                        name=self.name,
                        uri=raw.name + (f"#{draft.position}" if draft.position else ""),
                        revision=digest[:12],
                        retrieved_at=written_now(),
                    ),
                    "title": title,
                    "text": body,
                    "labels": list(draft.labels),
                    "license": license_id,
                    "tlp": draft.tlp or self.source.tlp,
                    "sha256_raw": digest,
                    "sha256_text": _sha256(body.encode()),
                    "redactions": counts,
                    "pipeline_version": PIPELINE_VERSION,
                }
            )
        except ValidationError as cause:
            return describe_validation("record", cause)

    def _is_duplicate(self, record_id: str, draft: Draft, same: str, value: bytes, run: _FileRun) -> bool:
        kept, kind, similarity = self.corpus.same_text(same), "exact", 1.0
        if kept is None or kept == record_id:
            found = run.near.nearest(value, record_id)
            if found is None:
                return False
            kept, kind, similarity = found[0], "near", round(found[1], 3)
        self.corpus.note_duplicate(self.name, run.file.name, record_id, kept, kind, similarity, draft.sha256)
        run.summary.counts["duplicates"] += 1
        return True

    def _record_id(self, raw: RawFile, draft: Draft) -> str:
        if draft.record_id:
            return draft.record_id if self.source.own_ids else f"{self.name}:{draft.record_id}"
        place = slug(raw.name)
        short = hashlib.sha256(raw.name.encode()).hexdigest()[:8]
        return f"{self.name}:{place[:80]}-{short}:{slug(draft.key)}"

    def _secret_name(self, run: _FileRun) -> bool:
        """A file whose name holds a secret is refused: the name would go into every citation."""
        name = run.file.name
        if not any(span.entity_type == "SECRET" for span in next(run.finders.start([name])())):
            return False
        masked = f"file {_sha256(name.encode())[:12]}"
        self.corpus.note_reject(self.name, masked, "", "", "its name holds a secret; rename the file")
        run.summary.counts["rejected"] += 1
        return True

    def _skip(self, uri: str, skip: Skip, summary: Summary) -> None:
        self.corpus.note_skip(self.name, uri, skip)
        summary.counts["skipped"] += 1

    def _reject(self, draft: Draft, reason: str, run: _FileRun) -> None:
        # Without the title: it did not go through the policy to the end.
        self.corpus.note_reject(self.name, run.file.name, draft.position or draft.key, "", reason)
        run.summary.counts["rejected"] += 1


@dataclass(frozen=True)
class _FileRun:
    """One file on its way in: what all steps of it share."""

    file: RawFile
    pipeline: str
    finders: Finders
    near: NearDuplicates
    summary: Summary
    ids: set[str] = field(default_factory=set)
    """Records that the file holds, as far as it has been read."""


@dataclass(frozen=True)
class _Batch:
    """Drafts on their way through the finders; `wanted` says which of the texts were handed over."""

    drafts: list[tuple[RawFile, Draft]]
    texts: list[str]
    wanted: list[bool]
    spans: Callable[[], Iterator[list[Span]]]


def _one_ahead(batches: Iterator[_Batch | None]) -> Iterator[_Batch]:
    """Each batch after the next one has been started, so that storing and finding overlap."""
    previous: _Batch | None = None
    for batch in batches:
        if previous is not None:
            yield previous
        previous = batch
    if previous is not None:
        yield previous


def pipeline_digest(policy: PolicyConfig, source: SourceConfig) -> str:
    """Digest of what decides what a draft becomes: version, policy, source, and the code itself."""
    rules = policy.model_dump_json(exclude={"people_model"})  # a path; what counts is what lies there
    digest = hashlib.sha256(f"{PIPELINE_VERSION}\n{rules}\n{source.model_dump_json()}".encode())
    model = sorted(Path(policy.people_model).glob("*.*n*")) if policy.people_model != "none" else []
    for path in [*sorted(Path(__file__).parent.rglob("*.py")), *model]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
