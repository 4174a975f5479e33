"""Ranking metrics over ids: what stood where in a list of hits.

Invariant: `ranked` is best first; an id that comes twice counts at its first place; nothing relevant gives 0.
Source: definitions and discount of trec_eval; context_precision and the id-based pair as in ragas 0.4.3.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence


def distinct(ranked: Sequence[str]) -> list[str]:
    """The ids in order, each once."""
    return list(dict.fromkeys(ranked))


def hit_at_k(ranked: Sequence[str], relevant: Collection[str], k: int) -> float:
    """1.0 if one of the first `k` is relevant (trec_eval: success_k)."""
    return float(any(one in relevant for one in distinct(ranked)[:k]))


def precision_at_k(ranked: Sequence[str], relevant: Collection[str], k: int) -> float:
    """Share of `k` places that hold something relevant; a shorter list leaves places empty (P_k)."""
    return sum(one in relevant for one in distinct(ranked)[:k]) / k


def recall_at_k(ranked: Sequence[str], relevant: Collection[str], k: int) -> float:
    """Share of the relevant that stands in the first `k` (recall_k)."""
    if not relevant:
        return 0.0
    return sum(one in relevant for one in distinct(ranked)[:k]) / len(set(relevant))


def reciprocal_rank(ranked: Sequence[str], relevant: Collection[str]) -> float:
    """One over the place of the first relevant id (recip_rank)."""
    return next((1.0 / rank for rank, one in enumerate(distinct(ranked), 1) if one in relevant), 0.0)


def average_precision(ranked: Sequence[str], relevant: Collection[str]) -> float:
    """Mean over the relevant of the precision at their places; one that is missing gives 0 (map)."""
    if not relevant:
        return 0.0
    found, total = 0, 0.0
    for rank, one in enumerate(distinct(ranked), 1):
        if one in relevant:
            found += 1
            total += found / rank
    return total / len(set(relevant))


def ndcg_at_k(ranked: Sequence[str], gains: Mapping[str, float], k: int) -> float:
    """Discounted gain of the first `k` as a share of the best possible order (ndcg_cut_k: linear gain)."""
    best = _dcg(sorted(gains.values(), reverse=True)[:k])
    return _dcg([gains.get(one, 0.0) for one in distinct(ranked)[:k]]) / best if best > 0 else 0.0


def _dcg(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))


def context_precision(verdicts: Sequence[bool]) -> float:
    """ragas' context precision: mean precision at the places of useful contexts.

    Here a context is useful if it comes from a reference record, where ragas asks a judge.
    """
    useful = sum(verdicts)
    if not useful:
        return 0.0
    total = sum(sum(verdicts[: place + 1]) / (place + 1) for place, one in enumerate(verdicts) if one)
    return total / (useful + 1e-10)  # ragas guards against 0 this way


def id_context_precision(retrieved: Collection[str], reference: Collection[str]) -> float:
    """Share of the retrieved ids that are in the reference (ragas IDBasedContextPrecision)."""
    return len(set(retrieved) & set(reference)) / len(set(retrieved)) if retrieved else 0.0


def id_context_recall(retrieved: Collection[str], reference: Collection[str]) -> float:
    """Share of the reference ids that were retrieved (ragas IDBasedContextRecall)."""
    return len(set(retrieved) & set(reference)) / len(set(reference)) if reference else 0.0
