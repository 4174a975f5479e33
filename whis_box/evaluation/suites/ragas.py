"""ragas' measures: the ones that need no judge always, the judged ones where a judge has passed calibration.

ragas 0.4.3 defines no overall score. Ours is the harmonic mean of the parts that were measured, named in the
note, and 0 if a part is below its floor. Without a judge the parts are context precision and recall by
reference records, semantic similarity to the reference, and faithfulness by quotes: the share of claims that
are carried by a quote which stands verbatim in the index.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence

from whis_box.evaluation.evidence import Evidence, response
from whis_box.evaluation.judge import PairVerdict, balanced_accuracy
from whis_box.evaluation.metrics import overlap, ranking
from whis_box.evaluation.results import Row, SuiteResult, mean, not_measured, plain, share

NEEDS = ("search", "ask", "ragas", "judge")
CONTEXTS = 5
WITHOUT_JUDGE = ("context_precision", "context_recall", "semantic_similarity", "quote_faithfulness")
JUDGED = ("faithfulness", "answer_relevancy", "judged_context_precision", "judged_context_recall")
TOO_SMALL = "judge too small"
MAX_FAILED = 0.1


def score(evidence: Evidence) -> SuiteResult:
    """Unjudged rows, the cross-check with ragas itself, judged rows, the composite."""
    per_item = _unjudged(evidence)
    rows = [mean(name, values) for name, values in per_item.items()]
    judged, judged_items = _judged(evidence)
    rows += [*_cross_check(evidence), *judged]
    measured = {one.name: one.value for one in rows if one.value is not None}
    parts = JUDGED if all(name in measured for name in JUDGED) else WITHOUT_JUDGE
    rows.append(_composite(parts, measured, evidence.config.composite.floor, len(evidence.answerable)))
    note = f"composite: harmonic mean of {', '.join(parts)}; floor {evidence.config.composite.floor}"
    return SuiteResult(suite="ragas", rows=rows, per_item=per_item | judged_items, notes=[note])


def _unjudged(evidence: Evidence) -> dict[str, dict[str, float]]:
    values: dict[str, dict[str, float]] = {
        name: {} for name in (*WITHOUT_JUDGE, "id_context_precision", "string_similarity")
    }
    values["semantic_similarity"] = {key: max(0.0, one) for key, one in evidence.similarity.items()}
    for question in evidence.answerable:
        records = [hit.record_id for hit in (evidence.of("search", question.id).hits or [])[:CONTEXTS]]
        relevant = set(question.record_ids)
        answer = evidence.answer("ask", question.id)
        said = response(answer)
        values["context_precision"][question.id] = ranking.context_precision([r in relevant for r in records])
        values["context_recall"][question.id] = ranking.id_context_recall(records, relevant)
        values["id_context_precision"][question.id] = ranking.id_context_precision(records, relevant)
        values["string_similarity"][question.id] = (
            overlap.string_similarity(said, question.answer) if said else 0.0
        )
        if answer is not None and said:  # who makes no claim makes no false one
            sound = {one.n for one in answer.citations if evidence.verbatim(one)}
            carried = [one.support >= 0.95 and bool(set(one.citations) & sound) for one in answer.claims]
            values["quote_faithfulness"][question.id] = sum(carried) / len(carried)
    return values


def _cross_check(evidence: Evidence) -> list[Row]:
    """The largest difference between our values and ragas' own on the checked samples."""
    found = [one for (kind, _), one in evidence.seen.items() if kind == "ragas"]
    checked = [json.loads(one.text) for one in found if one.text]
    if not checked:
        reason = found[0].error if found else "ragas is not installed; run `make ragas`"
        return [not_measured("largest_difference_to_ragas", reason, "lower")]
    differences = [abs(one["ours"] - one["ragas"]) for one in checked if one["ragas"] is not None]
    failed = [one["ragas"] is None for one in checked]
    return [
        plain("largest_difference_to_ragas", max(differences, default=0.0), len(differences), "lower"),
        share("ragas_failures", failed, "lower"),
    ]


def _judged(evidence: Evidence) -> tuple[list[Row], dict[str, dict[str, float]]]:
    pairs = [
        PairVerdict(**json.loads(one.text))
        for (kind, _), one in evidence.seen.items()
        if kind == "judge_pair" and one.text
    ]
    if not pairs:
        said = next((one.error for (kind, _), one in evidence.seen.items() if kind == "judge_pair"), "")
        reason = said or "no judge is configured"
        return [not_measured(name, reason) for name in ("judge_balanced_accuracy", *JUDGED)], {}
    reached = balanced_accuracy(pairs)
    rows = [
        plain("judge_balanced_accuracy", reached, len(pairs)),
        share("judge_failures", [one.verdict is None for one in pairs], "lower"),
    ]
    needed = evidence.config.judge.min_balanced_accuracy
    if reached < needed:
        reason = f"{TOO_SMALL} (balanced accuracy {reached:.2f} on {len(pairs)} pairs, needs {needed:.2f})"
        return [*rows, *(not_measured(name, reason) for name in JUDGED)], {}
    found = [
        json.loads(one.text) for (kind, _), one in evidence.seen.items() if kind == "judged" and one.text
    ]
    per_item: dict[str, dict[str, float]] = {name: {} for name in JUDGED}
    for one in found:
        if one["value"] is not None:  # a failed judgement is no score; it is counted below
            per_item[one["metric"]][one["id"]] = one["value"]
    failed = share("judgements_failed", [one["value"] is None for one in found], "lower")
    if failed.value is not None and failed.value > MAX_FAILED:
        reason = f"{failed.value:.0%} of the judgements failed, more than {MAX_FAILED:.0%}"
        return [*rows, failed, *(not_measured(name, reason) for name in JUDGED)], {}
    return [*rows, failed, *(mean(name, per_item[name]) for name in JUDGED)], per_item


def _composite(parts: Sequence[str], measured: dict[str, float], floor: float, n: int) -> Row:
    missing = [name for name in parts if name not in measured]
    if missing:
        return not_measured("composite", f"{', '.join(missing)} not measured")
    values = [measured[name] for name in parts]
    return plain("composite", 0.0 if min(values) < floor else statistics.harmonic_mean(values), n)
