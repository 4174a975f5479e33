"""A linear model over character n-grams, read from a plain file: the detector's and the policy's classifier.

Invariant: the file is complete or it is refused; nothing is learned at run time.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from whis_box.errors import VerificationError
from whis_box.paths import read_text

SIZES = (3, 4, 5)
HEADER = "#ngrams-v1"


def grams(text: str) -> set[str]:
    """Character n-grams of a text that `views.plain` gave."""
    return {text[at : at + size] for size in SIZES for at in range(len(text) - size + 1)}


class LinearModel:
    """One logistic score per label: bias + sum of the weights of the present n-grams / sqrt(their number)."""

    def __init__(self, path: Path) -> None:
        """Read `#ngrams-v1 <tab> rows`, a line of labels, a line of biases, then one n-gram a line.

        Raises: NotReadyError if the file is missing; VerificationError if it is damaged; StorageError.
        """
        lines = read_text(path, "the box never runs without it: copy the box again").split("\n")
        try:
            header, count = lines[0].split("\t")
            self.labels = lines[1].split("\t")[1:]
            rows = [line.split("\t") for line in lines[2 : int(count) + 3]]
            weights = np.array([[float(value) for value in row[1:]] for row in rows], dtype=np.float32)
            if header != HEADER or weights.shape != (int(count) + 1, len(self.labels)):
                raise ValueError(f"{len(rows) - 1} n-grams of {count}, header {header!r}")
            if not np.isfinite(weights).all() or rows[0][0] != "bias":
                raise ValueError("a weight is not a number, or the line of biases is missing")
        except (ValueError, IndexError) as cause:
            raise VerificationError(
                f"{path}: not a complete n-gram model ({cause}); copy the box again"
            ) from None
        self._bias: NDArray[np.float32] = weights[0]  # (labels,)
        self._weights: NDArray[np.float32] = weights[1:]  # (n-grams, labels)
        self._row = {row[0]: at for at, row in enumerate(rows[1:])}

    def best_window(self, text: str, window: int, stride: int) -> float:
        """The first label's highest score over overlapping pieces: a long text hides no short order."""
        rows = self._rows_at(text)
        starts = range(0, max(1, len(text) - stride), stride) if len(text) > window + stride else (0,)
        size = window if len(text) > window + stride else len(text)
        best = 0.0
        for start in starts:
            known = np.unique(rows[:, start : start + size])
            known = known[known >= 0]
            logit = self._bias[0] + self._weights[known, 0].sum() / math.sqrt(max(1, len(known)))
            best = max(best, 1.0 / (1.0 + math.exp(-min(30.0, max(-30.0, float(logit))))))
        return best

    def _rows_at(self, text: str) -> NDArray[np.int32]:
        """Row of the n-gram that starts at each character, -1 for none; shape (sizes, characters)."""
        row, end = self._row, len(text)
        return np.array(
            [
                [row.get(text[at : at + size], -1) if at + size <= end else -1 for at in range(end)]
                for size in SIZES
            ],
            dtype=np.int32,
        ).reshape(len(SIZES), end)

    def scores(self, text: str) -> NDArray[np.float32]:
        """Probability of each label, shape (labels,), for a text that `views.plain` gave."""
        known = [self._row[gram] for gram in grams(text) if gram in self._row]
        logits = self._bias.copy()
        if known:
            logits += self._weights[known].sum(axis=0) / math.sqrt(len(known))
        return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits, -30.0, 30.0))), dtype=np.float32)
