"""How sure a figure is: Wilson's interval for shares, bootstrap for means and paired differences.

Invariant: a seed gives the same interval each time; resampling is over questions, never over answers.
Sources: Wilson 1927; Efron and Tibshirani 1993 (percentile bootstrap); Koehn 2004 (paired bootstrap).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.959963984540054
RESAMPLES = 10_000
_CHUNK = 1000  # resamples drawn at a time, which bounds memory


@dataclass(frozen=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float


def wilson(successes: int, n: int) -> Interval:
    """Interval of a share of `n` independent tries; the whole range when nothing was tried."""
    if n == 0:
        return Interval(0.0, 1.0)
    share, z2 = successes / n, Z_95 * Z_95
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


def mean_interval(values: Sequence[float], seed: int = 0) -> Interval:
    """Percentile bootstrap of the mean."""
    low, high = np.percentile(_resampled_means(np.asarray(values, dtype=np.float64), seed), [2.5, 97.5])
    return Interval(float(low), float(high))


@dataclass(frozen=True)
class PairedDifference:
    """B minus A over the same questions; `p` is two-sided, from the signs of resampled differences."""

    difference: float
    interval: Interval
    wins: int
    ties: int
    losses: int
    p: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.interval.low > 0.0 or self.interval.high < 0.0


def paired_bootstrap(a: Sequence[float], b: Sequence[float], seed: int = 0) -> PairedDifference:
    """Compare two systems question by question; `a[i]` and `b[i]` belong to one question."""
    differences = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)
    if not len(differences):
        return PairedDifference(0.0, Interval(0.0, 0.0), 0, 0, 0, 1.0)
    means = _resampled_means(differences, seed)
    low, high = np.percentile(means, [2.5, 97.5])
    against = min(float(np.mean(means <= 0)), float(np.mean(means >= 0)))
    return PairedDifference(
        float(differences.mean()),
        Interval(float(low), float(high)),
        int((differences > 0).sum()),
        int((differences == 0).sum()),
        int((differences < 0).sum()),
        min(1.0, 2 * against),
    )


def _resampled_means(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Means of RESAMPLES draws with replacement, shape (RESAMPLES,)."""
    random = np.random.default_rng(seed)
    parts = [
        values[random.integers(0, len(values), (_CHUNK, len(values)))].mean(axis=1)
        for _ in range(RESAMPLES // _CHUNK)
    ]
    return np.concatenate(parts)
