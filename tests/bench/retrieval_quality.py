"""Hybrid search against BM25 alone and vectors alone, on questions and passages that are not ours.

    python -m tests.bench.retrieval_quality --corpora DIR [--embedder DIR]

DIR holds enterprise-attack.json.gz, sigma-rules.zip, atomic-red-team.zip and sigma-events-dev.zip. The index
holds ATT&CK's techniques and the procedures that are not held out; an answer is right if it names one of the
techniques that the question's author gave it, exactly. Weights were fitted on other questions of the first
three sets. Intervals: paired bootstrap over questions, 95 %.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np

from tests.bench.attack_index import arguments, opened
from tests.bench.retrieval_sets import Question
from whis_box.config import FusionWeights, RetrieverConfig
from whis_box.knowledge import fusion
from whis_box.knowledge.lists import Found
from whis_box.knowledge.retriever import Retriever
from whis_box.knowledge.store import fetch

DEPTH = 10
N_BOOTSTRAP = 2000
KS = (1, 5, 10)

Ranks = np.ndarray  # (questions,) rank of the first right technique from 1; infinite when it is not found


def main() -> None:
    """Print one table a set."""
    options = arguments(__doc__).parse_args()
    with opened(options.corpora, options.embedder) as (retriever, sets, rag):
        record_of = {
            int(rowid): str(record_id)
            for rowid, record_id in fetch(retriever.connection, "select rowid, record_id from chunks")
        }
        for name, questions in sets.items():
            reported = [one for one in questions if not one.is_dev]
            chosen = random.Random(1).sample(reported, min(options.most, len(reported)))
            table(name, found_ranks(retriever, rag.retriever, record_of, chosen))


def found_ranks(
    retriever: Retriever, config: RetrieverConfig, record_of: dict[int, str], questions: Sequence[Question]
) -> dict[str, Ranks]:
    """Ranks of each way, over the same lists."""
    ways: dict[str, Callable[[Found, list[int], fusion.Values, fusion.Kind], list[int]]] = {
        "BM25 alone": lambda found, *_: found.lists["prose"],
        "chunk vectors alone": lambda found, *_: found.lists["chunk_dense"],
        "sentence vectors alone": lambda found, *_: found.lists["sentence_dense"],
        "ranks fused, equal weights": lambda _, rowids, values, __: ordered(rowids, values, FusionWeights()),
        "hybrid": lambda _, rowids, values, kind: ordered(rowids, values, getattr(config, kind)),
    }
    ranks: dict[str, list[float]] = {way: [] for way in ways}
    for question in questions:
        query = retriever.prepare(question.text[:2000])
        found = retriever.lists.find(query, lambda: 0.0)
        rowids = sorted({rowid for listed in found.lists.values() for rowid in listed})
        values = retriever.features(query, found, rowids)
        for way, order in ways.items():
            chunks = order(found, rowids, values, fusion.kind_of(question.text))
            records = list(dict.fromkeys(record_of[rowid] for rowid in chunks))
            places = (n for n, one in enumerate(records, start=1) if one in question.techniques)
            ranks[way].append(float(next(places, np.inf)))
    return {way: np.array(found) for way, found in ranks.items()}


def ordered(rowids: list[int], values: fusion.Values, weights: FusionWeights) -> list[int]:
    """Candidates by their fused score."""
    order = np.argsort(-(values @ fusion.weights_of(weights)), kind="stable")
    return [rowids[at] for at in order]


def table(name: str, ranks: dict[str, Ranks]) -> None:
    """hit@1/5/10, MRR and nDCG@10 of each way, and what hybrid gains over the best single one."""
    print(f"\n{name}: {len(ranks['hybrid'])} questions")
    for way, found in ranks.items():
        cells = " ".join(f"{float(np.mean(found <= k)):.3f}" for k in KS)
        reciprocal, gain = np.mean(1 / found), np.mean(np.where(found <= DEPTH, 1 / np.log2(found + 1), 0))
        print(f"  {way:<28} hit@1/5/10 {cells}  MRR {reciprocal:.3f}  nDCG@10 {gain:.3f}")
    single = [way for way in ranks if way.endswith("alone")]
    best = max(single, key=lambda way: float(np.mean(ranks[way] <= DEPTH)))
    for what, one, other in (
        ("hit@10", ranks["hybrid"] <= DEPTH, ranks[best] <= DEPTH),
        ("MRR", 1 / ranks["hybrid"], 1 / ranks[best]),
    ):
        low, high = interval(one, other)
        print(f"  hybrid against {best}, {what}: {low:+.3f} to {high:+.3f}")


def interval(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """95 % of the difference of means over resampled questions."""
    rng = np.random.default_rng(0)
    difference = one.astype(float) - other.astype(float)
    means = [difference[rng.integers(0, len(difference), len(difference))].mean() for _ in range(N_BOOTSTRAP)]
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


if __name__ == "__main__":
    main()
