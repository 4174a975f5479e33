"""What every reader takes and gives, and the limits none may exceed.

Invariant: a reader never executes, fetches or writes anything, and what it leaves out it reports as a Skip.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from pydantic import Field

from whis_box.config import Section

FENCE = "```"
_BOMS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


class Limits(Section):
    """How much of one file is read; anything above is refused by name."""

    max_file_bytes: int = Field(256_000_000, ge=1)
    """Bytes of one file, unpacked."""
    max_total_bytes: int = Field(2_000_000_000, ge=1)
    """Bytes that one archive may unpack to."""
    max_members: int = Field(100_000, ge=1)
    """Members of one archive."""
    max_nesting: int = Field(3, ge=0)
    """Archives inside archives."""
    max_ratio: int = Field(200, ge=2)
    """Unpacked bytes for each packed one, once a member is over 1 MB: more is a bomb."""
    max_drafts: int = Field(200_000, ge=1)
    """Documents that one file may hold."""
    max_depth: int = Field(64, ge=1)
    """Nesting of JSON and YAML."""
    max_text_chars: int = Field(1_000_000, ge=1)
    """Characters of one document."""
    max_line_chars: int = Field(200_000, ge=1)
    """Characters of one line."""
    max_pages: int = Field(2_000, ge=1)
    """Pages of a PDF."""


@dataclass(frozen=True)
class RawFile:
    """A file's bytes under the name people see, `bundle.zip!rules/a.yml` for an archive's member."""

    name: str
    data: bytes

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the bytes; a bundle of thousands of documents is hashed once."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class Draft:
    """One document: `key` is stable within its file over revisions, `position` says where it stands."""

    key: str
    title: str
    text: str
    labels: tuple[str, ...] = ()
    position: str = ""
    record_id: str = ""
    """The document's own id, where its format gives one that is unique over all sources."""
    license: str = ""
    """What the document itself says; the source's licence otherwise."""
    tlp: str = ""

    @cached_property
    def sha256(self) -> str:
        """Hex digest of all that decides what it becomes."""
        fields = [self.key, self.title, self.text, *self.labels, self.license, self.tlp]
        return hashlib.sha256("\x1f".join(fields).encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Skip:
    """Something that was not read: where, and why."""

    position: str
    reason: str


Item = Draft | Skip
Reader = Callable[[RawFile, Limits], Iterator[Item]]


def decode(data: bytes) -> tuple[str, str]:
    """Text and the encoding it was in: a BOM decides, then UTF-8, then the best guess.

    A guess keeps every byte readable as some character; nothing is dropped.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return data.decode(encoding, "replace"), encoding
    try:
        return data.decode("utf-8-sig"), "utf-8"
    except UnicodeDecodeError:
        from charset_normalizer import from_bytes

        # The guess reads a sample: the library's own limit makes large files slow.
        guess = from_bytes(data[:100_000]).best()
        encoding = guess.encoding if guess is not None else "latin-1"
        return data.decode(encoding, "replace"), encoding


def long_line(text: str, limits: Limits) -> Skip | None:
    """A Skip that names the first line over the limit, or None."""
    start = 0
    for number, line in enumerate(text.split("\n"), start=1):
        if len(line) > limits.max_line_chars:
            reason = f"{len(line)} characters are more than {limits.max_line_chars}; break the line"
            return Skip(f"line {number}, character {start}", reason)
        start += len(line) + 1
    return None


def first_heading(text: str, fallback: str) -> str:
    """The first Markdown heading or line of text, at most 200 characters."""
    for line in text.split("\n"):
        words = line.lstrip("#> \t").strip()
        if words and not words.startswith(FENCE):
            return words[:200]
    return fallback[:200]


def slug(name: str) -> str:
    """A name as part of a key: lower case, other characters as hyphens."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")[:120]


def fenced(code: str, language: str = "text") -> str:
    """A code block that its content cannot close."""
    return f"{FENCE}{language}\n{code.strip().replace(FENCE, '` ` `')}\n{FENCE}"


def technique_labels(ids: Iterator[str] | list[str]) -> tuple[str, ...]:
    """`technique:T1059.001` for each id, in order, once."""
    return tuple(dict.fromkeys(f"technique:{one}" for one in ids))
