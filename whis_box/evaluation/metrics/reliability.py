"""Whether a stated confidence is the share of times it is right.

Invariant: `confidences` are 0..1; bins are equal in width and closed on the right, as in Guo et al. 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Bin:
    """One bar of a reliability diagram."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


def bins(confidences: Sequence[float], right: Sequence[bool], n_bins: int = 10) -> list[Bin]:
    """The bins that hold something, in order."""
    values, truth = np.asarray(confidences, dtype=np.float64), np.asarray(right, dtype=np.float64)
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    places = np.searchsorted(edges[1:-1], values)
    found = []
    for place in range(n_bins):
        inside = places == place
        if inside.any():
            found.append(
                Bin(
                    float(edges[place]),
                    float(edges[place + 1]),
                    int(inside.sum()),
                    float(values[inside].mean()),
                    float(truth[inside].mean()),
                )
            )
    return found


def expected_calibration_error(
    confidences: Sequence[float], right: Sequence[bool], n_bins: int = 10
) -> float:
    """Mean distance of confidence and accuracy over the bins, weighted by their size."""
    found = bins(confidences, right, n_bins)
    return sum(one.n * abs(one.confidence - one.accuracy) for one in found) / max(1, len(confidences))


def brier(confidences: Sequence[float], right: Sequence[bool]) -> float:
    """Mean squared distance of confidence and outcome; 0.25 is what a constant 0.5 gets."""
    values, truth = np.asarray(confidences, dtype=np.float64), np.asarray(right, dtype=np.float64)
    return float(np.mean((values - truth) ** 2)) if len(values) else 0.0
