"""Splitting a Markdown body into headed blocks and quotable sentences, by offset.

Invariant: every span is verbatim text of the input; markers (`- `, `1. `, `## `) lie outside the spans.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

SpanKind = Literal["sentence", "code"]

_HEADING = re.compile(r"^(#{1,6})[ \t]+(.+?)[ \t]*#*[ \t]*$")
_LIST_MARKER = re.compile(r"^[ \t]*(?:[-*+]|\d{1,3}[.)])[ \t]+")
_FENCE = re.compile(r"^[ \t]*(```|~~~)")
# A full stop ends a sentence before white space and a possible start; in file names it does not.
_SENTENCE_END = re.compile(r"[.!?][\"')\]`]*(?=\s+[\"'(\[`]*[A-Z0-9%$\\<])")
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|vs|cf|approx|no|fig|inc|ltd|mr|mrs|dr|st)|\b[A-Z])\.$", re.IGNORECASE
)


@dataclass(frozen=True)
class Span:
    """`text[start:end]` of the record; a code span holds the lines inside a fence."""

    start: int
    end: int
    kind: SpanKind


@dataclass(frozen=True)
class Block:
    """A heading path and the spans under it, in order."""

    heading_path: tuple[str, ...]
    spans: tuple[Span, ...]


def split_blocks(text: str) -> list[Block]:
    """Blocks of a Markdown text, one per heading with content; text before any heading has an empty path."""
    blocks: list[Block] = []
    path: list[tuple[int, str]] = []
    spans: list[Span] = []
    lines = _Lines(text)
    while (line := lines.next()) is not None:
        start, end = line
        heading = _HEADING.match(text[start:end])
        if heading:
            _close(blocks, path, spans)
            level = len(heading.group(1))
            path = [entry for entry in path if entry[0] < level] + [(level, heading.group(2))]
        elif _FENCE.match(text[start:end]):
            spans.extend(_fenced(text, lines, _FENCE.match(text[start:end])))
        else:
            spans.extend(_sentences_of_line(text, start, end))
    _close(blocks, path, spans)
    return blocks


def _close(blocks: list[Block], path: list[tuple[int, str]], spans: list[Span]) -> None:
    if spans:
        blocks.append(Block(tuple(title for _, title in path), tuple(spans)))
        spans.clear()


class _Lines:
    """Walks a text line by line, giving offsets without the line end."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0

    def next(self) -> tuple[int, int] | None:
        if self._at >= len(self._text):
            return None
        start = self._at
        newline = self._text.find("\n", start)
        end = len(self._text) if newline < 0 else newline
        self._at = end + 1
        return start, end


def _fenced(text: str, lines: _Lines, opening: re.Match[str] | None) -> list[Span]:
    assert opening is not None
    first = last = None
    while (line := lines.next()) is not None:
        start, end = line
        if text[start:end].strip().startswith(opening.group(1)):
            break
        first = start if first is None else first
        last = end
    if first is None or last is None or not text[first:last].strip():
        return []
    return [Span(first, last, "code")]


def _sentences_of_line(text: str, start: int, end: int) -> list[Span]:
    marker = _LIST_MARKER.match(text[start:end])
    at = start + (marker.end() if marker else 0)
    spans = []
    for boundary in _SENTENCE_END.finditer(text, at, end):
        if _ABBREVIATION.search(text[at : boundary.start() + 1]):
            continue
        spans.append((at, boundary.end()))
        at = boundary.end()
    spans.append((at, end))
    return [Span(*trimmed, "sentence") for span in spans if (trimmed := _trim(text, *span))]


def _trim(text: str, start: int, end: int) -> tuple[int, int] | None:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return (start, end) if end > start else None
