"""The recorded experiment behind the weights of configs/rag.yaml, on the development questions only.

    python -m tests.bench.calibrate [--box DIR] [--dev FILE]

1. Evidence: a logistic model of "this sentence holds the key facts" over the five sentence features.
2. Abstention: a logistic model of "the guide answers this question" over the seven relevance features.
Both by Newton's method with an L2 penalty, checked by leave-one-question-out; prints the values to use.
"""

from __future__ import annotations

import argparse
from dataclasses import astuple
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from whis_box.box.manifest import verify
from whis_box.box.opening import open_retriever
from whis_box.config import BoxConfig, RagConfig, load_config
from whis_box.evaluation.bench import environment
from whis_box.evaluation.golden import GoldenQuestion, has_key_facts, is_hit, read_golden
from whis_box.knowledge.evidence import Evidence, EvidenceSelector
from whis_box.paths import repository_root

EVIDENCE_NAMES = ("cosine", "coverage", "context", "rank", "identifier")
ABSTAIN_NAMES = (
    "sentence_cosine",
    "chunk_cosine",
    "coverage",
    "sentence_coverage",
    "unknown",
    "missing_identifier",
    "concentration",
)
PENALTY = 0.3


def main() -> None:
    """Fit, check, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--box", type=Path, default=repository_root() / "build" / "box")
    parser.add_argument("--dev", type=Path, default=repository_root() / "data" / "golden" / "dev.ndjson")
    options = parser.parse_args()
    questions = read_golden(options.dev)
    manifest, _ = verify(options.box)
    rag = load_config(options.box / "configs" / "rag.yaml", RagConfig)
    retriever = open_retriever(options.box, BoxConfig(), rag, manifest)
    selector = EvidenceSelector(retriever, rag.evidence, rag.abstain)
    found = [selector.select(question.question) for question in questions]
    for key, value in environment(options.box).items():
        print(f"{key}: {value}")
    _retrieval(questions, found)
    _evidence(questions, found)
    _abstention(questions, found, rag.abstain.threshold)


def _retrieval(questions: list[GoldenQuestion], found: list[Evidence]) -> None:
    pairs = [
        (question, evidence)
        for question, evidence in zip(questions, found, strict=True)
        if question.answerable
    ]
    print(f"\n{len(questions)} development questions, {len(pairs)} answerable")
    for k in (1, 3, 5):
        print(f"hit@{k}: {np.mean([is_hit(question, evidence.hits, k) for question, evidence in pairs]):.3f}")
    for question, evidence in pairs:
        if not is_hit(question, evidence.hits, 5):
            print(f"  missed: {question.question}")


def _evidence(questions: list[GoldenQuestion], found: list[Evidence]) -> None:
    rows: list[tuple[float, ...]] = []
    labels: list[float] = []
    groups: list[int] = []
    for number, (question, evidence) in enumerate(zip(questions, found, strict=True)):
        if not question.answerable:
            continue
        for sentence in evidence.candidates:
            rows.append(sentence.features)
            right = sentence.hit.chunk.record_id in question.record_ids and has_key_facts(
                question, sentence.text
            )
            labels.append(float(right))
            groups.append(number)
    x, y, group = np.array(rows), np.array(labels), np.array(groups)
    weights = fit(x, y)
    held_out = np.concatenate(
        [_linear(x[group == one], fit(x[group != one], y[group != one])) for one in np.unique(group)]
    )
    print(f"\nevidence: {len(y)} candidate sentences, {int(y.sum())} hold the key facts")
    for name, score in (
        ("equal weights", x.sum(axis=1)),
        ("cosine alone", x[:, 0]),
        ("fitted, left out", held_out),
    ):
        shares = ", ".join(f"{_right_at(score, y, group, k):.3f} among {k}" for k in (1, 2, 3, 8))
        print(f"  {name:<18} right sentence: {shares}")
    for name, weight in zip(EVIDENCE_NAMES, weights[1:], strict=True):
        print(f"  weight_{name}: {weight:.2f}")


def _right_at(score: NDArray[np.float64], y: NDArray[np.float64], group: NDArray[np.int64], k: int) -> float:
    return float(
        np.mean([y[group == one][np.argsort(-score[group == one])[:k]].max() for one in np.unique(group)])
    )


def _abstention(questions: list[GoldenQuestion], found: list[Evidence], threshold: float) -> None:
    x = np.array([astuple(evidence.relevance)[: len(ABSTAIN_NAMES)] for evidence in found])
    y = np.array([float(question.answerable) for question in questions])
    held_out = np.array(
        [_probability(x[i : i + 1], fit(np.delete(x, i, 0), np.delete(y, i)))[0] for i in range(len(y))]
    )
    print(f"\nabstention: {int(y.sum())} answerable, {int((1 - y).sum())} not; left-one-out")
    for at in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8):
        answered, refused = (held_out[y == 1] >= at).mean(), (held_out[y == 0] < at).mean()
        print(f"  threshold {at:.1f}: answerable answered {answered:.3f}, the rest refused {refused:.3f}")
    for question, probability in zip(questions, held_out, strict=True):
        if (probability >= threshold) != question.answerable:
            print(f"  {'lost' if question.answerable else 'kept'} {probability:.2f}: {question.question}")
    weights = fit(x, y)
    print(f"  bias: {weights[0]:.2f}")
    for name, weight in zip(ABSTAIN_NAMES, weights[1:], strict=True):
        print(f"  weight_{name}: {weight:.2f}")


def fit(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intercept and weights of an L2-penalised logistic regression, classes weighted equally."""
    design = np.hstack([np.ones((len(x), 1)), x])
    balance = np.where(y == 1, 0.5 / max(y.mean(), 1e-9), 0.5 / max(1 - y.mean(), 1e-9))
    penalty = PENALTY * np.eye(design.shape[1])
    penalty[0, 0] = 1e-6
    weights = np.zeros(design.shape[1])
    for _ in range(50):
        probability = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        gradient = design.T @ (balance * (probability - y)) + penalty @ weights
        curvature = (design * (balance * probability * (1 - probability))[:, None]).T @ design + penalty
        weights = weights - np.linalg.solve(curvature, gradient)
    return weights


def _linear(x: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return x @ weights[1:] + weights[0]


def _probability(x: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-_linear(x, weights)))


if __name__ == "__main__":
    main()
