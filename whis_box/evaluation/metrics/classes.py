"""Accuracy, precision, recall and F1 of single and several labels.

Invariant: nothing predicted and nothing expected gives 0, never a hidden perfect score.
Source: scikit-learn's definitions with `zero_division=0`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass


@dataclass(frozen=True)
class Rates:
    """Precision, recall and F1 from counts."""

    true_positive: int
    false_positive: int
    false_negative: int

    @property
    def precision(self) -> float:
        """Share of what was said that is right."""
        return _share(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> float:
        """Share of what is right that was said."""
        return _share(self.true_positive, self.true_positive + self.false_negative)

    @property
    def f1(self) -> float:
        """Harmonic mean of both."""
        return _share(
            2 * self.true_positive, 2 * self.true_positive + self.false_positive + self.false_negative
        )


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def binary(expected: Sequence[bool], predicted: Sequence[bool]) -> Rates:
    """Rates of the positive class."""
    pairs = Counter(zip(expected, predicted, strict=True))
    return Rates(pairs[True, True], pairs[False, True], pairs[True, False])


def accuracy(expected: Sequence[Hashable], predicted: Sequence[Hashable]) -> float:
    """Share of equal pairs."""
    return _share(sum(a == b for a, b in zip(expected, predicted, strict=True)), len(expected))


def micro(expected: Sequence[AbstractSet[str]], predicted: Sequence[AbstractSet[str]]) -> Rates:
    """Rates over all (item, label) pairs together."""
    pairs = list(zip(expected, predicted, strict=True))
    return Rates(
        sum(len(a & b) for a, b in pairs),
        sum(len(b - a) for a, b in pairs),
        sum(len(a - b) for a, b in pairs),
    )


def macro_f1(expected: Sequence[AbstractSet[str]], predicted: Sequence[AbstractSet[str]]) -> float:
    """Mean F1 over every label that was expected or predicted."""
    labels = sorted(set().union(*expected, *predicted))
    each = [binary([one in a for a in expected], [one in b for b in predicted]).f1 for one in labels]
    return _share(sum(each), len(each))


def macro_f1_single(expected: Sequence[str], predicted: Sequence[str]) -> float:
    """Mean F1 over classes where each item has one."""
    return macro_f1([{one} for one in expected], [{one} for one in predicted])


def confusion(expected: Sequence[str], predicted: Sequence[str]) -> tuple[list[str], list[list[int]]]:
    """Labels in order, and counts with a row for each expected and a column for each predicted label."""
    labels = sorted({*expected, *predicted})
    counts = Counter(zip(expected, predicted, strict=True))
    return labels, [[counts[row, column] for column in labels] for row in labels]
