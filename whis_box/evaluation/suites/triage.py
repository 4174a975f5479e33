"""Does triage name the technique, keep the verdict and the severity an analyst would, and miss no attack.

Invariant: an abstention (`needs_review`) on a malicious alert counts as a miss in `recall_on_malicious`.
"""

from __future__ import annotations

import json

from whis_box.evaluation.evidence import Evidence, well_formed
from whis_box.evaluation.golden import GoldenAlert
from whis_box.evaluation.metrics import classes
from whis_box.evaluation.results import Case, SuiteResult, mean, plain, share
from whis_box.schemas import Triage

NEEDS = ("triage",)
RAISED = ("escalate", "true_positive")


def score(evidence: Evidence) -> SuiteResult:
    """Figures over the golden alerts."""
    alerts = evidence.golden.alerts
    found = {one.id: evidence.triage(one.id) for one in alerts}
    expected = [frozenset(one.technique_ids) for one in alerts]
    predicted = [_techniques(found[one.id]) for one in alerts]
    micro = classes.micro(expected, predicted)
    per_item = _per_item(alerts, found)
    malicious = [one for one in alerts if one.verdict == "true_positive"]
    benign = [one for one in alerts if one.verdict != "true_positive"]
    steps = [c for one in found.values() if one is not None for c in one.citations]
    rows = [
        plain("technique_precision", micro.precision, sum(len(one) for one in predicted)),
        plain("technique_recall", micro.recall, sum(len(one) for one in expected)),
        plain("technique_micro_f1", micro.f1, len(alerts)),
        plain("technique_macro_f1", classes.macro_f1(expected, predicted), len(alerts)),
        mean("technique_first", per_item["technique_first"]),
        share("verdict_accuracy", [bool(one) for one in per_item["verdict"].values()]),
        share("severity_accuracy", [bool(one) for one in per_item["severity"].values()]),
        share("abstained", [_abstained(one) for one in found.values()], "neither"),
        share("recall_on_malicious", [_raised(found[one.id]) for one in malicious]),
        share("raised_on_benign", [_raised(found[one.id]) for one in benign], "lower"),
        share("quote_validity", [evidence.verbatim(one) for one in steps]),
        share("schema_validity", [well_formed(one) for one in found.values()]),
    ]
    truth = [one.verdict for one in alerts]
    got = [one.verdict if (one := found[alert.id]) is not None else "error" for alert in alerts]
    labels, table = classes.confusion([str(one) for one in truth], [str(one) for one in got])
    return SuiteResult(
        suite="triage",
        rows=rows,
        per_item=per_item,
        worst=_worst(alerts, found, per_item),
        plots={"confusion": {"labels": labels, "table": table}},
    )


def _techniques(triage: Triage | None) -> frozenset[str]:
    return frozenset(one.id for one in triage.techniques) if triage is not None else frozenset()


def _raised(triage: Triage | None) -> bool:
    return triage is not None and triage.verdict in RAISED


def _abstained(triage: Triage | None) -> bool:
    return triage is None or triage.abstained


def _per_item(alerts: list[GoldenAlert], found: dict[str, Triage | None]) -> dict[str, dict[str, float]]:
    items: dict[str, dict[str, float]] = {
        "technique_f1": {}, "technique_first": {}, "verdict": {}, "severity": {}, "raised": {}
    }  # fmt: skip
    for alert in alerts:
        triage = found[alert.id]
        wanted, named = frozenset(alert.technique_ids), _techniques(triage)
        items["technique_f1"][alert.id] = classes.micro([wanted], [named]).f1 if wanted | named else 1.0
        if wanted:
            first = triage.techniques[0].id if triage is not None and triage.techniques else ""
            items["technique_first"][alert.id] = float(first in wanted)
        items["verdict"][alert.id] = float(triage is not None and triage.verdict in alert.acceptable_verdicts)
        items["severity"][alert.id] = float(
            triage is not None and triage.severity in alert.acceptable_severities
        )
        if alert.verdict == "true_positive":
            items["raised"][alert.id] = float(_raised(triage))
    return items


def _worst(
    alerts: list[GoldenAlert], found: dict[str, Triage | None], per_item: dict[str, dict[str, float]]
) -> list[Case]:
    cases = []
    for alert in alerts:
        triage = found[alert.id]
        value = per_item["technique_f1"][alert.id] + per_item["verdict"][alert.id]
        if value < 2.0:
            techniques = ", ".join(alert.technique_ids) or "no technique"
            named = ", ".join(f"{one.id} ({one.score:.2f})" for one in triage.techniques) if triage else ""
            cases.append(
                Case(
                    id=alert.id,
                    asked=json.dumps(alert.event, ensure_ascii=False)[:600],
                    expected=f"{' or '.join(alert.acceptable_verdicts)}; {techniques}. {alert.note}",
                    got=f"{triage.verdict}; {named or 'no technique'}" if triage else "the box failed",
                    evidence=[triage.summary, triage.abstain_reason] if triage else [],
                    score=value,
                )
            )
    return sorted(cases, key=lambda one: one.score)
