"""The review list: sections of a corpus that hold text which looks like an order to a model.

Invariant: nothing is left out of the index for it; a listed section ranks behind all others and never reaches
the model (whis_box/guards/screen.py does the same check when it answers). The list is for a person to judge.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from whis_box.guards.detector import Detector
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
