"""Comparing releases honestly: abstentions count in neither half of agreement, and as misses of recall."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from whis_box.rollout.releases import Release
from whis_box.rollout.state import Agreement, Arm, ArmFigures, Rate
from whis_box.schemas import Answer, Triage

ABSTAINED = frozenset({"needs_review", "insufficient_evidence", "refused"})
MALICIOUS = frozenset({"true_positive", "escalate"})
TRAILING = 50


def outcome_of(result: Answer | Triage) -> str:
    """The word that is compared."""
    return result.status if isinstance(result, Answer) else result.verdict


def same(stable: Answer | Triage, other: Answer | Triage) -> bool | None:
    """Whether two results say the same; None when either abstained.

    Triages agree on the verdict; answers when they share a cited record.
    """
    if outcome_of(stable) in ABSTAINED or outcome_of(other) in ABSTAINED:
        return None
    if isinstance(stable, Answer):
        cited = {one.record_id for one in stable.citations}
        return bool(cited & {one.record_id for one in other.citations})
    return outcome_of(stable) == outcome_of(other)


def flagged(result: Answer | Triage) -> bool:
    """Whether a guard found something worth a warning."""
    return any(one.severity != "info" for one in result.findings)


def agreement(pairs: Sequence[dict[str, Any]]) -> Agreement:
    """The figures of `RolloutStore.pairs`."""
    decided = [one for one in pairs if one["same"] is not None]
    trailing = decided[-TRAILING:]
    malicious = [one for one in pairs if _is_malicious(one)]
    judged = [one for one in pairs if one["analyst"] not in (None, "unlabeled")]
    return Agreement(
        pairs=len(pairs),
        agreement=Rate.of(sum(bool(one["same"]) for one in decided), len(decided)),
        agreement_trailing_50=Rate.of(sum(bool(one["same"]) for one in trailing), len(trailing)),
        abstained=Rate.of(sum(one["other"] in ABSTAINED for one in pairs), len(pairs)),
        recall_on_malicious=Rate.of(sum(one["other"] in MALICIOUS for one in malicious), len(malicious)),
        analyst_agreement=Rate.of(
            sum((one["other"] in MALICIOUS) == (one["analyst"] in MALICIOUS) for one in judged), len(judged)
        ),
    )


def arm_figures(arm: Arm, release: Release, seen: Sequence[tuple[str, str, bool, float, bool]]) -> ArmFigures:
    """The figures of one release on one arm."""
    own = [one for one in seen if one[0] == arm and one[1] == str(release)]
    good = [one for one in own if one[2]]
    times = sorted(one[3] for one in good)
    return ArmFigures(
        arm=arm,
        release=release,
        errors=Rate.of(len(own) - len(good), len(own)),
        findings=Rate.of(sum(one[4] for one in good), len(good)),
        p50_ms=_rank(times, 0.5),
        p95_ms=_rank(times, 0.95),
    )


def _is_malicious(pair: dict[str, Any]) -> bool:
    """What an analyst said counts; otherwise what stable said."""
    said = pair["analyst"] if pair["analyst"] not in (None, "unlabeled") else pair["stable"]
    return said in MALICIOUS


def _rank(ordered: list[float], share: float) -> float | None:
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) if ordered else None
