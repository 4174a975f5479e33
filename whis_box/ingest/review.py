"""The review lists: text that looks like an order to a model, and what an import left out or took out.

Invariant: nothing is left out of the index for it; a listed section ranks behind all others and never reaches
the model (whis_box/guards/screen.py does the same check when it answers). The list is for a person to judge.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Literal

from whis_box.guards.detector import Detector
from whis_box.ingest.corpus import Corpus
from whis_box.knowledge.sentences import Block, split_blocks
from whis_box.paths import written_beside
from whis_box.schemas import Frozen, Record


class ReviewEntry(Frozen):
    """One section to look at: `record.text[start:end]` is what was suspected."""

    record_id: str
    source: str
    heading_path: list[str]
    start: int
    end: int
    score: float
    reason: str


class ReviewItem(Frozen):
    """One thing of an import that a person should look at."""

    kind: Literal["rejected", "skipped", "duplicate", "redacted", "suspicious"]
    where: str
    """File and position of what did not come in, record id of what did."""
    why: str
    text: str = ""
    """The suspicious passage and what follows it, as it came in."""


class ImportReview(Frozen):
    """What an import left out, took out, and finds suspicious."""

    items: list[ReviewItem]
    counts: dict[str, int]
    """By kind; more than there are `items` when the list was cut off."""


MAX_REVIEW_ITEMS = 500
MIN_REVIEW_CHARS, MAX_REVIEW_CHARS = 400, 1000  # a sentence alone tells little


def import_review(corpus: Corpus, source: str, since: str, detector: Detector) -> ImportReview:
    """What is to be reviewed of the import that began at `since`; suspicious passages first, then refusals.

    Raises: StorageError.
    """
    suspicious: list[ReviewItem] = []
    redacted: list[ReviewItem] = []
    for record in corpus.records_since(source, since):
        suspicious += _suspicious(record, detector)
        redacted += _redacted(record)
    left_out = (
        ReviewItem.model_validate(dict(zip(("kind", "where", "why"), one, strict=True)))
        for one in corpus.left_out(source)
    )
    found = chain(suspicious, left_out, redacted)
    items: list[ReviewItem] = []
    counts: Counter[str] = Counter()
    for one in found:
        counts[one.kind] += 1
        if len(items) < MAX_REVIEW_ITEMS:
            items.append(one)
    return ImportReview(items=items, counts=dict(counts))


def _suspicious(record: Record, detector: Detector) -> Iterator[ReviewItem]:
    for entry in review([record], detector):
        heading = f", in {' > '.join(entry.heading_path)}" if entry.heading_path else ""
        why = f"looks like an order to a model: {entry.reason}, score {entry.score:.2f}{heading}"
        text = record.text[entry.start : max(entry.end, entry.start + MIN_REVIEW_CHARS)][:MAX_REVIEW_CHARS]
        yield ReviewItem(kind="suspicious", where=record.id, why=why, text=text)


def _redacted(record: Record) -> Iterator[ReviewItem]:
    if record.redactions:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(record.redactions.items()))
        yield ReviewItem(kind="redacted", where=record.id, why=counts)


def review(records: Iterable[Record], detector: Detector) -> Iterator[ReviewEntry]:
    """The suspected sections of `records`, in their order."""
    for record in records:
        for block in split_blocks(record.text):
            entry = _entry(record, block, detector)
            if entry is not None:
                yield entry


def _entry(record: Record, block: Block, detector: Detector) -> ReviewEntry | None:
    spans = [(span.start, span.end) for span in block.spans]
    whole = (spans[0][0], spans[-1][1])
    for start, end in [*spans, whole]:
        found = detector.detect(record.text[start:end])
        if not found.suspected:
            found = detector.detect(" ".join([record.title, *block.heading_path]))
        if found.suspected:
            return ReviewEntry(
                record_id=record.id,
                source=record.source.name,
                heading_path=list(block.heading_path),
                start=start,
                end=end,
                score=round(min(1.0, found.score), 3),
                reason=found.reason,
            )
    return None


def write_review(path: Path, records: Iterable[Record], detector: Detector) -> int:
    """Write the list as NDJSON; the number of sections on it.

    Raises: StorageError.
    """
    count = 0
    with written_beside(path) as beside, beside.open("w", encoding="utf-8") as lines:
        for entry in review(records, detector):
            lines.write(entry.model_dump_json() + "\n")
            count += 1
    return count
