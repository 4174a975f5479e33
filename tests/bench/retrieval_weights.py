"""The recorded experiment behind the weights of fusion in configs/rag.yaml.

    python -m tests.bench.retrieval_weights --corpora DIR [--embedder DIR]

Listwise softmax loss over the candidates of each development question (Source: ListNet, Cao et al.
2007, with the right passages as the target), weights not below zero, and that of named identifiers not
below 30. One set is fitted for texts that ask, on the guide's development questions, and one for texts
that tell, on the development parts of ATT&CK procedures, Sigma rules and Atomic tests, each set
counting the same. Both are printed with what they give left out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from tests.bench.attack_index import ROOT, arguments, open_guide, opened
from tests.bench.retrieval_sets import Question
from whis_box.config import FusionWeights
from whis_box.evaluation.golden import read_golden
from whis_box.knowledge import fusion
from whis_box.knowledge.retriever import Retriever
from whis_box.knowledge.store import fetch, placeholders

PENALTY = 1e-3
PINNED = 30.0  # least weight of the identifier list: who names an id wants what is about it
FOLDS = 5
KS = (1, 5, 10)


@dataclass(frozen=True)
class Example:
    """One question's candidates: features (n, F), whether each is right (n,), and whose they are (n,)."""

    features: fusion.Values
    right: np.ndarray
    records: np.ndarray
    kind: str


def main() -> None:
    """Collect, fit, print."""
    options = arguments(__doc__).parse_args()
    with opened(options.corpora, options.embedder) as (retriever, sets, rag):
        told = {
            name: [
                example(retriever, one.text[:2000], one.techniques) for one in sample(questions, options.most)
            ]
            for name, questions in sets.items()
        }
    guide = open_guide(options.embedder, rag)
    golden = read_golden(ROOT / "data" / "golden" / "dev.ndjson")
    asked = [example(guide, one.question, frozenset(one.record_ids)) for one in golden if one.answerable]
    report(
        "question", {"development questions of the guide": [one for one in asked if one.kind == "question"]}
    )
    report("statement", {name: examples for name, examples in told.items() if examples})


def example(retriever: Retriever, text: str, right: frozenset[str]) -> Example:
    """What one question finds."""
    query = retriever.prepare(text)
    found = retriever.lists.find(query, lambda: 0.0)
    rowids = sorted({rowid for listed in found.lists.values() for rowid in listed})
    rows = fetch(
        retriever.connection,
        f"select record_id from chunks where rowid in ({placeholders(rowids)}) order by rowid",
        rowids,
    )
    records = np.array([str(record_id) for (record_id,) in rows])
    return Example(
        retriever.features(query, found, rowids), np.isin(records, list(right)), records, fusion.kind_of(text)
    )


def sample(questions: list[Question], most: int) -> list[Question]:
    """Up to `most` of those on which weights may be fitted."""
    allowed = [one for one in questions if one.is_dev]
    return random.Random(1).sample(allowed, min(most, len(allowed)))


def report(kind: str, sets: dict[str, list[Example]]) -> None:
    """Fit one kind and print its weights and, fold by fold left out, what they give."""
    print(f"\n{kind}")
    plain = fusion.weights_of(FusionWeights())
    fitted = fit(sets)
    for name, examples in sets.items():
        left_out: list[float] = []
        for fold in range(FOLDS):
            weights = fit({one: fold_of(all_, fold, kept=True) for one, all_ in sets.items()})
            left_out += ranks(fold_of(examples, fold, kept=False), weights)
        reachable = np.mean([one.right.any() for one in examples])
        print(f"  {name}: {len(examples)} questions, right among the candidates {reachable:.3f}")
        print(f"    ranks alone, equal weights  {at(ranks(examples, plain))}")
        print(f"    fitted, {FOLDS} folds left out     {at(left_out)}")
    for name, weight in zip(fusion.FEATURES, fitted, strict=True):
        print(f"    {name}: {weight:.2f}")


def fold_of(examples: list[Example], fold: int, kept: bool) -> list[Example]:
    """The examples outside (`kept`) or inside of one fold."""
    return [one for number, one in enumerate(examples) if (number % FOLDS == fold) != kept]


def ranks(examples: Iterable[Example], weights: fusion.Values) -> list[float]:
    """Rank of the first right record of each, from 1; infinite when no candidate is right."""
    found = []
    for one in examples:
        order = np.argsort(-(one.features @ weights), kind="stable")
        distinct = list(dict.fromkeys(one.records[order].tolist()))
        right = set(one.records[one.right].tolist())
        found.append(
            next((float(n) for n, record in enumerate(distinct, start=1) if record in right), np.inf)
        )
    return found


def at(found: list[float]) -> str:
    """hit@1/5/10."""
    return "hit@1/5/10 " + " ".join(f"{np.mean(np.array(found) <= k):.3f}" for k in KS)


def fit(sets: dict[str, list[Example]]) -> fusion.Values:
    """Weights not below zero that make the right candidates likely, each set counting the same."""
    usable = {name: [one for one in examples if one.right.any()] for name, examples in sets.items()}
    everything = np.vstack([one.features for examples in usable.values() for one in examples])
    scale = everything.std(axis=0) + 1e-9
    rows = [
        (one.features / scale, one.right, 1.0 / len(examples) / len(usable))
        for examples in usable.values()
        for one in examples
    ]
    solved = minimize(
        _loss(rows),
        np.ones(len(scale)),
        jac=True,
        method="L-BFGS-B",
        bounds=[(PINNED * scale[0], None)] + [(0.0, None)] * (len(scale) - 1),
    )
    weights: fusion.Values = solved.x / scale
    return weights


def _loss(
    rows: list[tuple[fusion.Values, np.ndarray, float]],
) -> Callable[[fusion.Values], tuple[float, fusion.Values]]:
    def loss(weights: fusion.Values) -> tuple[float, fusion.Values]:
        value = PENALTY * float(weights @ weights)
        slope = 2 * PENALTY * weights
        for features, right, share in rows:
            chance = fusion.shares(features, weights)
            among = chance * right
            total = max(float(among.sum()), 1e-12)
            value -= share * float(np.log(total))
            slope -= share * ((among / total - chance) @ features)
        return value, slope

    return loss


if __name__ == "__main__":
    main()
