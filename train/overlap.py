"""Whether a training text says what a question of the golden sets says.

Invariant: what the evaluation asks is never learned from; the check is by words, so punctuation and case do
not hide a copy. Source: GPT-3's contamination check (Brown et al. 2020, appendix C) with shorter n-grams,
because questions are short.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from whis_box.errors import InputError
from whis_box.paths import read_text

N_WORDS = 6
_WORD = re.compile(r"[a-z0-9]+(?:[.'-][a-z0-9]+)*")
# What of a golden line is asked; the rest is reference.
_ASKED = ("question", "event")


class GoldenTexts:
    """Everything the golden sets ask."""

    def __init__(self, folder: Path) -> None:
        """Read every NDJSON file of `folder`.

        Raises: InputError for a line that is not a JSON object; NotReadyError.
        """
        self._grams: set[tuple[str, ...]] = set()
        self.n_texts = 0
        for path in sorted(folder.glob("*.ndjson")):
            for number, line in enumerate(read_text(path).splitlines(), start=1):
                try:
                    fields = json.loads(line)
                    texts = [text for name in _ASKED if name in fields for text in _strings(fields[name])]
                except (ValueError, TypeError) as cause:
                    raise InputError(f"{path}: line {number}: {cause}") from None
                self._grams.update(gram for text in texts for gram in grams(text))
                self.n_texts += len(texts)

    def holds(self, text: str) -> bool:
        """Whether `text` shares a run of N_WORDS words with a golden text, or is one."""
        return not self._grams.isdisjoint(grams(text))


def grams(text: str) -> Iterable[tuple[str, ...]]:
    """Runs of N_WORDS words; a text of three to N_WORDS words is one run, a shorter one says too little."""
    words = _WORD.findall(text.lower())
    if 3 <= len(words) <= N_WORDS:
        return [tuple(words)]
    return {tuple(words[at : at + N_WORDS]) for at in range(len(words) - N_WORDS + 1)}


def _strings(value: object) -> Iterable[str]:
    """Command lines and the like of an event; its short values are in every event of its kind."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            if isinstance(inner, dict | list) or "command" in str(name).lower():
                yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
