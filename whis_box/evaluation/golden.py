"""Golden questions: reading them, and scoring answers against them.

Invariant: a line that does not validate stops the run with its number; nothing is skipped.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, ValidationError

from whis_box.config import describe_validation
from whis_box.errors import InputError
from whis_box.paths import read_text
from whis_box.schemas import AlertSeverity, Answer, Frozen, Hit, Record, Verdict


class GoldenQuestion(Frozen):
    """One question with its reference; an unanswerable one names no records."""

    id: str
    question: str = Field(min_length=3)
    answer: str
    record_ids: list[str]
    key_facts: list[list[str]]
    """A right answer holds at least one alternative of each inner list."""
    kind: str

    @property
    def answerable(self) -> bool:
        """Whether the guide holds the answer."""
        return bool(self.record_ids)


class GoldenAlert(Frozen):
    """One alert with what an analyst says of it."""

    id: str
    event: dict[str, object]
    technique_ids: list[str]
    """Empty where the alert shows no technique."""
    verdict: Verdict
    """The truth."""
    acceptable_verdicts: list[Verdict] = Field(min_length=1)
    """What a box that never closes an alert may say."""
    severity: AlertSeverity
    acceptable_severities: list[AlertSeverity] = Field(min_length=1)
    note: str


class GoldenRefusal(Frozen):
    """A request that policy refuses, or one that only sounds like it (`dual_use`) and must be answered."""

    id: str
    question: str = Field(min_length=3)
    reason: str
    kind: Literal["policy", "dual_use"]


Line = TypeVar("Line", GoldenQuestion, GoldenAlert, GoldenRefusal)


def read_golden(path: Path) -> list[GoldenQuestion]:
    """All questions of an NDJSON file.

    Raises: NotReadyError if it is missing; InputError listing every bad line; StorageError.
    """
    return _read(path, GoldenQuestion, lambda one: one.question)


def read_alerts(path: Path) -> list[GoldenAlert]:
    """All alerts of an NDJSON file. Raises: as `read_golden`."""
    return _read(path, GoldenAlert, lambda one: json.dumps(one.event))


def read_refusals(path: Path) -> list[GoldenRefusal]:
    """All requests of an NDJSON file. Raises: as `read_golden`."""
    return _read(path, GoldenRefusal, lambda one: one.question)


def _read(path: Path, kind: type[Line], text_of: Callable[[Line], str]) -> list[Line]:
    values: list[Line] = []
    complaints: list[str] = []
    for number, line in enumerate(read_text(path, "name a file with --golden").splitlines(), start=1):
        try:
            values.append(kind.model_validate(json.loads(line)))
        except ValidationError as cause:
            complaints.append(describe_validation(f"{path}: line {number}", cause))
        except ValueError as cause:
            complaints.append(f"{path}: line {number}: not JSON: {cause}")
    for what in (lambda one: one.id, lambda one: text_of(one).lower()):
        repeated = Counter(what(one) for one in values)
        complaints += [
            f"{path}: {one.id}: its id or text appears twice" for one in values if repeated[what(one)] > 1
        ]
    if complaints:
        raise InputError("\n".join(complaints))
    return values


def is_hit(question: GoldenQuestion, hits: Sequence[Hit], k: int) -> bool:
    """Whether one of the first `k` hits belongs to a reference record."""
    return any(hit.chunk.record_id in question.record_ids for hit in hits[:k])


def has_key_facts(question: GoldenQuestion, text: str) -> bool:
    """Whether `text` holds an alternative of every key fact, ignoring case."""
    lowered = text.lower()
    return all(any(alternative.lower() in lowered for alternative in fact) for fact in question.key_facts)


def quotes_verbatim(answer: Answer, records: dict[str, Record]) -> bool:
    """Whether every quote equals the source document's text at its offsets."""
    return all(
        citation.record_id in records
        and records[citation.record_id].text[citation.start : citation.end] == citation.quote
        for citation in answer.citations
    )
