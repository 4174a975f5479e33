"""The last look at what leaves: markup is made harmless, leaks stop the answer.

Invariant: fails closed; a text that holds a secret, a canary, a piece of the prompt or personal data from
nowhere is never returned.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from whis_box import prompts
from whis_box.errors import VerificationError
from whis_box.guards.text import clean_text
from whis_box.paths import read_text

LEAK_FILE = "leaks.txt"
MAKE_LEAKS = "make it with `python -m train.leaks RUN`"
PROMPT_WORDS = 7
_WORD = re.compile(r"\w+")
_LINK = re.compile(r"!?\[([^\]\n]*)\]\((?:[^()\n]|\([^()\n]*\))*\)")
_TAG = re.compile(
    r"</?(?:a|img|script|iframe|svg|style|link|object|embed|form|input|video|audio|base|meta|body|html|div|"
    r"span|table|button|p|br|b|i|u|h\d|marquee|details|math)\b[^>\n]*>?", re.IGNORECASE,
)  # fmt: skip
_SCHEME = re.compile(r"\b(http|ftp)(s?)(?=://)|\b(javascript|data|vbscript)(?=:[^\s:])", re.IGNORECASE)
SECRETS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("a private key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY")),
    ("a cloud key", re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bAIza[\w-]{35}\b")),
    ("a token", re.compile(r"\bgh[pousr]_\w{36,}|\bglpat-[\w-]{20}|\bxox[abprs]-[\w-]{10,}|\bnpm_\w{36}\b")),
    ("a signed token", re.compile(r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}")),
    (
        "a password",
        re.compile(r"(?i)\b(?:password|passwd|pwd|secret|api[_-]?key)\s*[=:]\s*[\"']?[^\s\"'<\[$%{,;]{6,}"),
    ),
)  # fmt: skip
PERSONAL = re.compile(
    r"[\w.+-]+@[\w-]+\.[\w.-]*\w|\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}\b|\b(?:\d[ -]?){13,16}\b|"
    r"\+\d{1,3}[ \d()-]{8,}\d"
)


def harmless(text: str) -> str:
    """Plain text: no links, images, tags, live addresses or control characters."""
    text = clean_text(text, "answer")[0]
    text = _TAG.sub("", _LINK.sub(r"\1", text))
    return _SCHEME.sub(lambda found: _defanged(found), text)


def _defanged(found: re.Match[str]) -> str:
    if found[3]:
        return f"{found[3]}[]"
    return ("hxxp" if found[1].lower() == "http" else "fxp") + found[2]


class OutputFilter:
    """Knows what must never leave: prompts, and hashes of canaries and of training text."""

    def __init__(self, leak_files: Iterable[Path] = ()) -> None:
        """Read the lists of what each adapter must not say.

        Raises: NotReadyError if one is missing; VerificationError if one is damaged; StorageError.
        """
        self._fragments = set(shingles(prompts.system_prompts(), PROMPT_WORDS))
        self._leaks = _read_leaks(leak_files)

    def leak(self, text: str, sources: Iterable[str], mark: str = "") -> str:
        """What `text` leaks that `sources` (question, alert, cited passages) do not hold; "" for nothing."""
        known = "\n".join(sources)
        if mark and mark in text:
            return "the mark of this request"
        for name, pattern in SECRETS:
            if any(found[0] not in known for found in pattern.finditer(text)):
                return name
        if any(found[0] not in known for found in PERSONAL.finditer(text)):
            return "personal data that nobody asked about"
        if self._fragments & (set(shingles([text], PROMPT_WORDS)) - set(shingles([known], PROMPT_WORDS))):
            return "a piece of the prompt"
        for n_words, hashes in self._leaks.items():
            own = set(shingles([text], n_words)) - set(shingles([known], n_words))
            if own and bool(np.isin(np.fromiter(own, np.uint64), hashes, assume_unique=True).any()):
                return "text the model was trained on"
        return ""


def shingles(texts: Iterable[str], n_words: int) -> Iterator[int]:
    """64-bit hashes of every run of `n_words` lower-case words, in order."""
    for text in texts:
        words = _WORD.findall(text.lower())
        for at in range(len(words) - n_words + 1):
            yield shingle(words[at : at + n_words])


def shingle(words: Iterable[str]) -> int:
    """The hash under which a run of words is listed."""
    return int.from_bytes(hashlib.blake2b(" ".join(words).encode(), digest_size=8).digest())


def leak_file(adapter: Path) -> Path:
    """Where an adapter's list stands."""
    return adapter.with_name(LEAK_FILE)


def _read_leaks(paths: Iterable[Path]) -> dict[int, NDArray[np.uint64]]:
    """Hashes by length, from lines of `number of words <tab> hash in hex`."""
    remedy = f"an adapter never runs without the list of what it must not say: {MAKE_LEAKS}"
    by_length: dict[int, set[int]] = {}
    for path in paths:
        lines = read_text(path, remedy).splitlines()
        for number, line in enumerate(lines, start=1):
            try:
                n_words, digest = line.split("\t")
                by_length.setdefault(int(n_words), set()).add(int(digest, 16))
            except ValueError:
                problem = "not a number of words, a tab and a hash; copy the box again"
                raise VerificationError(f"{path}: line {number}: {problem}") from None
        if not lines:
            raise VerificationError(f"{path}: is empty, but every adapter was trained on something; {remedy}")
    return {n_words: np.array(sorted(hashes), dtype=np.uint64) for n_words, hashes in by_length.items()}
