"""Spans of text: which of them win, and what the text is without them.

Invariant: kept spans do not overlap, every character outside of them survives, and a character that any
finder marked is inside one of them or was protected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Span:
    """`text[start:end]` is of `entity_type`; `score` in 0..1; `recognizer` names who says so."""

    entity_type: str
    start: int
    end: int
    score: float
    recognizer: str


def resolve(spans: Iterable[Span]) -> list[Span]:
    """Non-overlapping spans in text order: the surer wins, then the longer; the loser keeps what is left."""
    ranked = sorted(spans, key=lambda one: (-one.score, one.start - one.end, one.start, one.entity_type))
    kept: list[Span] = []
    for span in ranked:
        kept += _remainders(span, kept)
    return sorted(kept, key=lambda one: one.start)


def without(spans: Iterable[Span], protected: Sequence[tuple[int, int]]) -> list[Span]:
    """The spans that touch none of the `protected` ranges."""
    return [one for one in spans if not any(one.start < end and start < one.end for start, end in protected)]


def replaced(
    text: str, spans: Sequence[Span], replacement: Callable[[Span, str], str]
) -> tuple[str, list[Span]]:
    """The text with each of the resolved `spans` replaced, and where the replacements stand in it."""
    parts: list[str] = []
    placed: list[Span] = []
    at = length = 0
    for span in spans:
        assert at <= span.start <= span.end <= len(text), "spans must be resolved and inside the text"
        new = replacement(span, text[span.start : span.end])
        parts += [text[at : span.start], new]
        start = length + span.start - at
        length = start + len(new)
        placed.append(replace(span, start=start, end=length))
        at = span.end
    return "".join([*parts, text[at:]]), placed


def _remainders(span: Span, kept: Sequence[Span]) -> list[Span]:
    """What of `span` no kept span covers."""
    pieces = [(span.start, span.end)]
    for other in kept:
        pieces = [
            (start, end)
            for left, right in pieces
            for start, end in ((left, min(right, other.start)), (max(left, other.end), right))
            if start < end
        ]
        if not pieces:
            return []
    # A piece left of one kept span and right of another can come out twice.
    return [replace(span, start=start, end=end) for start, end in sorted(set(pieces)) if start < end]
