"""Does search find the document that holds the answer, and how high."""

from __future__ import annotations

from whis_box.evaluation.evidence import Evidence
from whis_box.evaluation.metrics import ranking
from whis_box.evaluation.results import Case, SuiteResult, mean, plain, share

NEEDS = ("search",)
CONTEXTS = 5  # what the box hands on by default


def score(evidence: Evidence) -> SuiteResult:
    """Ranking figures over the answerable questions."""
    items: dict[str, dict[str, float]] = {}
    worst = []
    for question in evidence.answerable:
        seen = evidence.of("search", question.id)
        ranked = [hit.record_id for hit in seen.hits or []]
        items[question.id] = _of_one(ranked, set(question.record_ids))
        if not items[question.id]["hit@5"]:
            titles = [f"{place}. {record}" for place, record in enumerate(ranking.distinct(ranked)[:5], 1)]
            expected = ", ".join(question.record_ids)
            rank = items[question.id]["mrr@10"]
            worst.append(
                Case(
                    id=question.id,
                    asked=question.question,
                    expected=expected,
                    got=ranked[0] if ranked else "nothing",
                    evidence=titles,
                    score=rank,
                )
            )
    names = list(next(iter(items.values()), {}))
    per_item = {name: {key: values[name] for key, values in items.items()} for name in names}
    rows = [
        share(name, [bool(one) for one in per_item[name].values()])
        if name.startswith("hit@")
        else mean(name, per_item[name])
        for name in names
    ]
    curve = {k: sum(hit_at(evidence, k)) / max(1, len(items)) for k in range(1, 11)}
    rows.append(plain("questions_n", float(len(items)), len(items), "neither"))
    return SuiteResult(
        suite="retrieval", rows=rows, per_item=per_item, worst=worst, plots={"hit_curve": curve}
    )


def _of_one(ranked: list[str], relevant: set[str]) -> dict[str, float]:
    contexts = ranked[:CONTEXTS]
    return {
        "hit@1": ranking.hit_at_k(ranked, relevant, 1),
        "hit@5": float(any(one in relevant for one in contexts)),
        "hit@10": ranking.hit_at_k(ranked, relevant, 10),
        "mrr@10": ranking.reciprocal_rank(ranked[:10], relevant),
        "ndcg@10": ranking.ndcg_at_k(ranked, dict.fromkeys(relevant, 1.0), 10),
        "context_precision": ranking.context_precision([one in relevant for one in contexts]),
        "context_recall": ranking.id_context_recall(contexts, relevant),
        "id_context_precision": ranking.id_context_precision(contexts, relevant),
    }


def hit_at(evidence: Evidence, k: int) -> list[bool]:
    """For each answerable question whether one of the first `k` chunks is of a reference record."""
    return [
        any(hit.record_id in one.record_ids for hit in (evidence.of("search", one.id).hits or [])[:k])
        for one in evidence.answerable
    ]
