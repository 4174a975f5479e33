"""Is a confidence of 0.8 right eight times in ten.

Three readings: `answer` takes the printed confidence and whether the answer (or the refusal) was right;
`relevance` takes the probability that the guide holds an answer and whether it does; `technique` takes the
first technique's score and whether it is one of the alert's.
"""

from __future__ import annotations

from whis_box.evaluation.evidence import Evidence, response
from whis_box.evaluation.golden import has_key_facts
from whis_box.evaluation.metrics import reliability
from whis_box.evaluation.results import Row, SuiteResult, not_measured, plain

NEEDS = ("ask", "triage")
Pairs = list[tuple[float, bool]]


def score(evidence: Evidence) -> SuiteResult:
    """Expected calibration error, Brier score and the bars of the diagram."""
    readings = {
        "answer": _answers(evidence),
        "relevance": _relevance(evidence),
        "technique": _techniques(evidence),
    }
    rows, plots = [], {}
    for name, pairs in readings.items():
        rows += _rows(name, pairs)
        confidences, right = [one for one, _ in pairs], [one for _, one in pairs]
        plots[name] = [vars(one) for one in reliability.bins(confidences, right)]
    return SuiteResult(suite="calibration", rows=rows, plots={"reliability": plots})


def _rows(name: str, pairs: Pairs) -> list[Row]:
    if not pairs:
        return [
            not_measured(f"{name}_{what}", "nothing had a confidence", "lower") for what in ("ece", "brier")
        ]
    confidences, right = [one for one, _ in pairs], [one for _, one in pairs]
    base_rate = sum(right) / len(right)
    return [
        plain(f"{name}_ece", reliability.expected_calibration_error(confidences, right), len(pairs), "lower"),
        plain(f"{name}_brier", reliability.brier(confidences, right), len(pairs), "lower"),
        plain(f"{name}_brier_of_the_base_rate", base_rate * (1 - base_rate), len(pairs), "neither"),
    ]


def _answers(evidence: Evidence) -> Pairs:
    pairs = []
    for question in evidence.golden.questions:
        answer = evidence.answer("ask", question.id)
        if answer is not None:
            said = response(answer)
            right = (bool(said) and has_key_facts(question, said)) if question.answerable else not said
            pairs.append((answer.confidence, right))
    return pairs


def _relevance(evidence: Evidence) -> Pairs:
    pairs = []
    for question in evidence.golden.questions:
        answer = evidence.answer("ask", question.id)
        if answer is not None and answer.status != "refused":
            holds = answer.confidence if answer.status == "answered" else 1.0 - answer.confidence
            pairs.append((holds, question.answerable))
    return pairs


def _techniques(evidence: Evidence) -> Pairs:
    pairs = []
    for alert in evidence.golden.alerts:
        triage = evidence.triage(alert.id)
        if triage is not None and triage.techniques:
            first = triage.techniques[0]
            pairs.append((first.score, first.id in alert.technique_ids))
    return pairs
