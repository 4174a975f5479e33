"""What a run found: one row for each figure, with its interval, and what the report draws.

Invariant: a figure that was not measured has no value and says why; nothing is filled in for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from whis_box.evaluation.metrics.intervals import mean_interval, wilson
from whis_box.schemas import Frozen, Lineage

Better = Literal["higher", "lower", "neither"]


class Row(Frozen):
    """One figure; `value` is None when it was not measured, and `reason` says why."""

    name: str
    value: float | None
    n: int = 0
    """Questions, alerts or attacks behind it."""
    low: float | None = None
    """95 % interval."""
    high: float | None = None
    better: Better = "higher"
    unit: str = ""
    reason: str = ""


class Case(Frozen):
    """One question or alert that went wrong, with its evidence."""

    id: str
    asked: str
    expected: str
    got: str
    evidence: list[str] = Field(default_factory=list)
    score: float
    """Lower is worse."""


class SuiteResult(Frozen):
    """One suite's rows, what each question gave, and the data of its plots."""

    suite: str
    rows: list[Row]
    per_item: dict[str, dict[str, float]] = Field(default_factory=dict)
    """For each metric its value at each question; what `compare` pairs."""
    worst: list[Case] = Field(default_factory=list)
    plots: dict[str, Any] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)

    def row(self, name: str) -> Row | None:
        """The row of that name."""
        return next((one for one in self.rows if one.name == name), None)


class RunResult(Frozen):
    """A whole run; equal digests and seed give equal suites, but for times."""

    subject: str
    lineage: Lineage
    golden: dict[str, str]
    """sha256 of each file that questions came from."""
    code: str
    """Digest of the program's own source."""
    seed: int
    sample: int
    """Items of each golden set; 0 is all of them."""
    environment: dict[str, str]
    suites: list[SuiteResult]
    missing_records: list[str] = Field(default_factory=list)

    def rows(self) -> dict[str, Row]:
        """Every row by `suite.name`."""
        return {f"{suite.suite}.{row.name}": row for suite in self.suites for row in suite.rows}


def share(name: str, outcomes: Iterable[bool], better: Better = "higher") -> Row:
    """A share with Wilson's interval; nothing to count is "not measured"."""
    seen = list(outcomes)
    if not seen:
        return not_measured(name, "there is nothing to count")
    interval = wilson(sum(seen), len(seen))
    return Row(
        name=name,
        value=sum(seen) / len(seen),
        n=len(seen),
        low=interval.low,
        high=interval.high,
        better=better,
    )


def mean(name: str, values: Sequence[float] | Mapping[str, float], better: Better = "higher") -> Row:
    """A mean with a bootstrap interval over the items."""
    numbers = list(values.values()) if isinstance(values, Mapping) else list(values)
    if not numbers:
        return not_measured(name, "there is nothing to average")
    interval = mean_interval(numbers)
    average = sum(numbers) / len(numbers)
    return Row(name=name, value=average, n=len(numbers), low=interval.low, high=interval.high, better=better)


def plain(name: str, value: float, n: int, better: Better = "higher", unit: str = "") -> Row:
    """A figure without an interval."""
    return Row(name=name, value=value, n=n, better=better, unit=unit)


def not_measured(name: str, reason: str, better: Better = "higher") -> Row:
    """A figure that there is not."""
    return Row(name=name, value=None, reason=f"not measured: {reason}", better=better)
