"""B against A, question by question.

Invariant: only questions that both have count; a difference is called one only where its interval leaves 0.
With many metrics some will leave it by chance: the number of metrics stands beside the verdicts.
"""

from __future__ import annotations

from whis_box.errors import InputError
from whis_box.evaluation.metrics.intervals import paired_bootstrap
from whis_box.evaluation.results import RunResult
from whis_box.schemas import Frozen

LOWER_IS_BETTER = ("loss", "attack_success")
SHOWN_DIFFERENCES = 50


class MetricDifference(Frozen):
    """One metric over the questions that both runs have."""

    metric: str
    n: int
    a: float
    b: float
    difference: float
    low: float
    high: float
    wins: int
    """Questions where B is better."""
    ties: int
    losses: int
    p: float
    verdict: str
    """better, worse or no difference shown."""


class ItemDifference(Frozen):
    """One question whose value changed."""

    metric: str
    id: str
    a: float
    b: float


class Comparison(Frozen):
    """Everything `whis eval compare` found."""

    a: str
    b: str
    lineage_a: dict[str, str]
    lineage_b: dict[str, str]
    metrics: list[MetricDifference]
    changed: list[ItemDifference]
    """The largest changes of each metric."""


def compare_runs(a: RunResult, b: RunResult, seed: int = 0) -> Comparison:
    """Compare every metric that both runs kept for each question.

    Raises: InputError if the runs asked different questions.
    """
    if a.golden != b.golden or a.sample != b.sample or a.seed != b.seed:
        raise InputError("the runs asked different questions; run both on the same golden sets and seed")
    metrics, changed = [], []
    suites = {suite.suite: suite for suite in b.suites}
    for suite in a.suites:
        other = suites.get(suite.suite)
        for name, values in suite.per_item.items():
            theirs = other.per_item.get(name, {}) if other is not None else {}
            shared = sorted(set(values) & set(theirs))
            if shared:
                metric = f"{suite.suite}.{name}"
                pairs = [(values[one], theirs[one]) for one in shared]
                metrics.append(_compare(metric, pairs, name in LOWER_IS_BETTER, seed))
                changed += _changed(metric, shared, pairs)
    if not metrics:
        raise InputError("the runs share no suite with questions; run the same suites on both")
    return Comparison(
        a=a.subject,
        b=b.subject,
        lineage_a=a.lineage.model_dump(),
        lineage_b=b.lineage.model_dump(),
        metrics=metrics,
        changed=changed,
    )


def _compare(metric: str, pairs: list[tuple[float, float]], lower: bool, seed: int) -> MetricDifference:
    found = paired_bootstrap([one for one, _ in pairs], [one for _, one in pairs], seed)
    verdict = "no difference shown"
    if found.excludes_zero:
        verdict = "better" if (found.difference > 0) != lower else "worse"
    wins, losses = (found.losses, found.wins) if lower else (found.wins, found.losses)
    return MetricDifference(
        metric=metric,
        n=len(pairs),
        a=sum(one for one, _ in pairs) / len(pairs),
        b=sum(one for _, one in pairs) / len(pairs),
        difference=found.difference,
        low=found.interval.low,
        high=found.interval.high,
        wins=wins,
        ties=found.ties,
        losses=losses,
        p=found.p,
        verdict=verdict,
    )


def _changed(metric: str, ids: list[str], pairs: list[tuple[float, float]]) -> list[ItemDifference]:
    differing = [
        ItemDifference(metric=metric, id=one, a=a, b=b)
        for one, (a, b) in zip(ids, pairs, strict=True)
        if a != b
    ]
    return sorted(differing, key=lambda one: -abs(one.b - one.a))[:SHOWN_DIFFERENCES]
