"""What the suites score from: golden items, what was observed, and the index that the quotes must stand in.

Invariant: nothing here asks the model; equal observations give equal scores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import apsw
import numpy as np
from numpy.typing import NDArray

from whis_box.evaluation.golden import GoldenQuestion
from whis_box.evaluation.journal import Observation
from whis_box.evaluation.observe import Golden
from whis_box.evaluation.settings import EvalConfig
from whis_box.knowledge.store import connect
from whis_box.schemas import Answer, Citation, Lineage, Record, Triage

Embed = Callable[[Iterable[str]], NDArray[np.float32]]


class Records:
    """The records of an index by id."""

    def __init__(self, index: Path) -> None:
        self._connection: apsw.Connection = connect(index)
        self._kept: dict[str, Record | None] = {}

    def get(self, record_id: str) -> Record | None:
        """The record, None if the index does not hold it."""
        if record_id not in self._kept:
            row = self._connection.execute("select body from records where id = ?", (record_id,)).fetchone()
            self._kept[record_id] = Record.model_validate_json(str(row[0])) if row else None
        return self._kept[record_id]

    def close(self) -> None:
        """Close the index."""
        self._connection.close()


@dataclass(frozen=True)
class Evidence:
    """Everything a suite may look at."""

    golden: Golden
    seen: Mapping[tuple[str, str], Observation]
    records: Records
    embed: Embed
    config: EvalConfig
    lineage: Lineage
    adapter: Path | None = None
    dataset: Path | None = None
    """Folder of the training dataset."""
    memory_mb: float | None = None
    undefended: Mapping[tuple[str, str], Observation] = field(default_factory=dict)
    """The same attacks on a box without its guards, where a run of that exists."""

    def of(self, kind: str, item_id: str) -> Observation:
        """What was observed for one item."""
        return self.seen[kind, item_id]

    def answer(self, kind: str, item_id: str) -> Answer | None:
        """The answer, None when the box failed on the item."""
        return self.of(kind, item_id).answer

    def triage(self, item_id: str) -> Triage | None:
        """The triage, None when the box failed on the alert."""
        return self.of("triage", item_id).triage

    @cached_property
    def answerable(self) -> list[GoldenQuestion]:
        """Questions whose answer the index should hold."""
        return [one for one in self.golden.questions if one.answerable]

    @cached_property
    def unanswerable(self) -> list[GoldenQuestion]:
        """Questions that nothing in the index answers."""
        return [one for one in self.golden.questions if not one.answerable]

    @cached_property
    def similarity(self) -> dict[str, float]:
        """Cosine of response and reference for each answerable question; 0 where none was given."""
        said = {one.id: response(self.answer("ask", one.id)) for one in self.answerable}
        given = [one for one in self.answerable if said[one.id]]
        if not given:
            return dict.fromkeys(said, 0.0)
        left, right = self.embed([said[one.id] for one in given]), self.embed([one.answer for one in given])
        cosines = (left * right).sum(axis=1)  # both are unit vectors
        return dict.fromkeys(said, 0.0) | {
            one.id: float(value) for one, value in zip(given, cosines, strict=True)
        }

    def verbatim(self, citation: Citation) -> bool:
        """Whether the quote stands in its record at its place, and the record is the one that was hashed."""
        record = self.records.get(citation.record_id)
        return (
            record is not None
            and record.text[citation.start : citation.end] == citation.quote
            and hashlib.sha256(citation.quote.encode()).hexdigest() == citation.sha256
            and hashlib.sha256(record.text.encode()).hexdigest() == record.sha256_text
        )


def response(answer: Answer | None) -> str:
    """What was answered, without citation marks; empty when nothing was."""
    if answer is None or answer.status != "answered":
        return ""
    return " ".join(claim.text for claim in answer.claims)


def well_formed(result: Answer | Triage | None) -> bool:
    """Whether a program can rely on a result: its citations exist, and an answer has one."""
    if result is None:
        return False
    numbers = {citation.n for citation in result.citations}
    if isinstance(result, Triage):
        used = [
            n for part in (result.techniques, result.recommended_steps) for one in part for n in one.citations
        ]
        return set(used) <= numbers and bool(result.summary.strip())
    used = [n for claim in result.claims for n in claim.citations]
    supported = all(claim.citations for claim in result.claims)
    return set(used) <= numbers and supported and (result.status != "answered" or bool(used))
