"""Finds text that gives orders to a model: signatures, and a linear model over character n-grams.

Invariant: it only marks; what is marked stays readable and can be cited. It is the first of several
barriers, never the only one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from whis_box.errors import VerificationError
from whis_box.guards.linear import LinearModel
from whis_box.guards.views import readings
from whis_box.paths import read_text

MODEL_FILE = "detector.tsv"
SIGNATURE_FILE = "signatures.tsv"
WINDOW = 160
STRIDE = 80
MIN_WORDS = 3  # fewer words give no order, and numbers are none; a signature may still know them
# Rare disguises must be surer: any text has a reading backwards.
STRICTER = {"rot13": 0.2, "reversed": 0.2, "leetspeak": 0.1}


@dataclass(frozen=True)
class Detection:
    """How much a text looks like an order to a model, 0..1, and what says so."""

    score: float
    reason: str = ""
    suspected: bool = False


class Detector:
    """Scores texts; the threshold comes from the policy."""

    def __init__(self, folder: Path, threshold: float) -> None:
        """Read the model and the signatures of `folder`.

        Raises: NotReadyError if a file is missing; VerificationError if one is damaged; StorageError.
        """
        self._model = LinearModel(folder / MODEL_FILE)
        self._signatures = list(_signatures(folder / SIGNATURE_FILE))
        self.threshold = threshold
        self.detect = lru_cache(maxsize=4096)(self._detect)

    def _detect(self, text: str) -> Detection:
        best = Detection(0.0)
        for reading, score, signature in self.scored(text):
            if signature:
                return Detection(1.0, f"{signature} ({reading})", True)
            surer = score - (1.0 - self.threshold) * STRICTER.get(reading, 0.0)
            if surer > best.score:
                best = Detection(surer, f"wording ({reading})", surer >= self.threshold)
        return best

    def scored(self, text: str) -> Iterator[tuple[str, float, str]]:
        """(reading, the model's score, "") of each reading; (reading, 1.0, name) at a signature."""
        for reading, words in readings(text):
            for name, pattern in self._signatures:
                if pattern.search(words):
                    yield reading, 1.0, name
                    return
            spoken = sum(len(word) > 1 and word.isalpha() for word in words.split())
            if spoken >= MIN_WORDS or not words.isascii():
                yield reading, self._model.best_window(words, WINDOW, STRIDE), ""


def _signatures(path: Path) -> Iterator[tuple[str, re.Pattern[str]]]:
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        name, _, pattern = line.partition("\t")
        try:
            if not pattern:
                raise ValueError("no tab between name and pattern")
            yield name, re.compile(pattern)
        except (re.error, ValueError) as cause:
            raise VerificationError(f"{path}: line {number}: {cause}; copy the box again") from None
