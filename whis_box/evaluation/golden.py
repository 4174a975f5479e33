"""Golden questions: reading them, and scoring answers against them.

Invariant: a line that does not validate stops the run with its number; nothing is skipped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from whis_box.config import describe_validation
from whis_box.errors import InputError
from whis_box.paths import read_text
from whis_box.schemas import Answer, Frozen, Hit, Record


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


def read_golden(path: Path) -> list[GoldenQuestion]:
    """All questions of an NDJSON file.

    Raises: NotReadyError if it is missing; InputError listing every bad line; StorageError.
    """
    lines = read_text(path, "name a file with --golden").splitlines()
    questions: list[GoldenQuestion] = []
    complaints: list[str] = []
    for number, line in enumerate(lines, start=1):
        try:
            questions.append(GoldenQuestion.model_validate(json.loads(line)))
        except ValidationError as cause:
            complaints.append(describe_validation(f"{path}: line {number}", cause))
        except ValueError as cause:
            complaints.append(f"{path}: line {number}: not JSON: {cause}")
    seen: dict[str, str] = {}
    for question in questions:
        if question.id in seen or question.question.lower() in seen.values():
            complaints.append(f"{path}: {question.id}: its id or text appears twice")
        seen[question.id] = question.question.lower()
    if complaints:
        raise InputError("\n".join(complaints))
    return questions


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
