"""Text as the people-finder reads it: word pieces, where they stand, and the shape of the word they are of.

The word pieces are lower-case; what case and layout say goes in beside them, as one shape per piece. Training
and serving both encode through this module, so they cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tokenizers import Encoding, Tokenizer

MAX_PIECES = 126  # of one window, without the two special pieces
N_SHAPES = 21
SPECIAL_SHAPE = 0
_PLACES = 3  # after white space, glued to the word before, first on its line


@dataclass(frozen=True)
class Pieces:
    """Word pieces of one text, in order; all lists have one entry per piece."""

    ids: list[int]
    shapes: list[int]
    """0 to N_SHAPES - 1."""
    words: list[int]
    """Number of the word the piece is of."""
    spans: list[tuple[int, int]]
    """Where the piece's whole word stands in the text."""

    def slice(self, start: int, end: int) -> Pieces:
        """The pieces from `start` up to `end`."""
        return Pieces(
            self.ids[start:end], self.shapes[start:end], self.words[start:end], self.spans[start:end]
        )


def encode(tokenizer: Tokenizer, text: str) -> Pieces:
    """All pieces of `text`; `tokenizer` must neither truncate nor pad."""
    encoding = tokenizer.encode(text, add_special_tokens=False)
    return _pieces(encoding, text)


def encode_batch(tokenizer: Tokenizer, texts: list[str]) -> Iterator[Pieces]:
    """`encode` of many texts, in order."""
    for encoding, text in zip(tokenizer.encode_batch(texts, add_special_tokens=False), texts, strict=True):
        yield _pieces(encoding, text)


def windows(pieces: Pieces, text: str) -> Iterator[Pieces]:
    """Parts of at most MAX_PIECES that begin with a word, if possible after a line or sentence."""
    start, n_pieces = 0, len(pieces.ids)
    while start < n_pieces:
        end = min(start + MAX_PIECES, n_pieces)
        if end < n_pieces:
            end = _cut(pieces, text, start, end)
        yield pieces.slice(start, end)
        start = end


def _cut(pieces: Pieces, text: str, start: int, end: int) -> int:
    word_start = end
    for at in range(end, start + MAX_PIECES // 2, -1):
        if pieces.words[at] == pieces.words[at - 1]:
            continue
        word_start = at if word_start == end else word_start
        between = text[pieces.spans[at - 1][0] : pieces.spans[at][0]]
        if "\n" in between or (between[:1] in ".!?" and between[-1:].isspace()):
            return at
    return word_start


def _pieces(encoding: Encoding, text: str) -> Pieces:
    words = [word if word is not None else -1 for word in encoding.word_ids]
    extent: dict[int, tuple[int, int]] = {}
    for word, (start, end) in zip(words, encoding.offsets, strict=True):
        first, last = extent.get(word, (start, end))
        extent[word] = (min(first, start), max(last, end))
    shape_of: dict[int, int] = {}
    before = 0
    for word, (start, end) in extent.items():
        place = 1 if start == before and start > 0 else 2 if "\n" in text[before:start] else 0
        shape_of[word] = _shape(text[start:end]) * _PLACES + place
        before = end
    return Pieces(encoding.ids, [shape_of[word] for word in words], words, [extent[word] for word in words])


def _shape(word: str) -> int:
    """0 sign, 1 lower, 2 Capital, 3 UPPER, 4 miXed, 5 digits, 6 letters and digits."""
    has_digit = any(one.isdigit() for one in word)
    letters = [one for one in word if one.isalpha()]
    if not letters:
        return 5 if has_digit else 0
    if has_digit:
        return 6
    if word.islower():
        return 1
    if len(letters) > 1 and word.isupper():
        return 3
    return 2 if letters[0].isupper() and not any(one.isupper() for one in letters[1:]) else 4
