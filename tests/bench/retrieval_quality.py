"""Hybrid search against BM25 alone and vectors alone, on questions and passages that are not ours.

    python -m tests.bench.retrieval_quality --corpora DIR [--embedder DIR]

DIR holds enterprise-attack.json.gz, sigma-rules.zip, atomic-red-team.zip and sigma-events-dev.zip. The index
holds ATT&CK's techniques and the procedures that are not held out; an answer is right if it names one of the
techniques that the question's author gave it, exactly. Intervals: paired bootstrap over questions, 95 %.
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.bench.retrieval_sets import Question, atomic, attack, events, sigma
from whis_box.config import RagConfig, RetrieverConfig, load_config
from whis_box.engine.cpu import cpu_model
from whis_box.ingest.pipeline import build_index
from whis_box.ingest.vectors import KeptVectors
from whis_box.knowledge.embedder import MODEL_FILE, Embedder
from whis_box.knowledge.retriever import Query, Retriever
from whis_box.knowledge.store import fetch
from whis_box.paths import file_sha256, repository_root, source_commit
from whis_box.show import progress

ROOT = repository_root()
DEPTH = 10
N_BOOTSTRAP = 2000
WEIGHTS = ("identifier", "prose", "exact", "chunk_dense", "sentence_dense")


def main() -> None:
    """Print one table a set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpora", type=Path, required=True)
    parser.add_argument("--embedder", type=Path, default=ROOT / "build" / "embedder")
    parser.add_argument("--most", type=int, default=1000, help="questions of one set")
    options = parser.parse_args()
    rag = load_config(ROOT / "configs" / "rag.yaml", RagConfig)
    known = attack(options.corpora / "enterprise-attack.json.gz")
    ids = {record.id for record in known.records}
    rules = options.corpora / "sigma-rules.zip"
    sets = {
        "ATT&CK procedures, sources held out": known.held_out,
        "Sigma title and description": sigma(rules, ids),
        "Atomic Red Team test names": atomic(options.corpora / "atomic-red-team.zip", ids),
        "real events": events(options.corpora / "sigma-events-dev.zip", rules, ids),
    }
    embedder = Embedder(options.embedder, rag.embedder_dim, 2)
    sha256 = file_sha256(options.embedder / MODEL_FILE)
    kept = KeptVectors(ROOT / "build" / "bench" / "attack.vectors", options.embedder, embedder, sha256, 2)
    with tempfile.TemporaryDirectory() as scratch, kept as vectors:
        path = Path(scratch) / "attack.sqlite"
        summary = build_index(known.records, path, vectors, sha256, rag, progress, len(known.records))
        print(
            f"{cpu_model()} · commit {source_commit()[:12]} · embedder {sha256[:12]} · "
            f"{summary.n_records} techniques, {summary.n_chunks} chunks, {summary.n_sentences} sentences"
        )
        retriever = Retriever(path, embedder, sha256, rag.retriever)
        for name, questions in sets.items():
            chosen = random.Random(1).sample(questions, min(options.most, len(questions)))
            table(name, retriever, rag.retriever, chosen)
        retriever.close()


def table(name: str, retriever: Retriever, config: RetrieverConfig, questions: Sequence[Question]) -> None:
    """hit@1/5/10, MRR and nDCG@10 of each way, and what hybrid gains over the better single one."""
    queries = [retriever.prepare(one.text[:2000]) for one in questions]
    ways = {
        "BM25 alone": only(config, "prose"),
        "chunk vectors alone": only(config, "chunk_dense"),
        "sentence vectors alone": only(config, "sentence_dense"),
        "hybrid": config,
    }
    ranks = {way: ranks_of(retriever, weights, queries, questions) for way, weights in ways.items()}
    print(f"\n{name}: {len(questions)} questions")
    for way, found in ranks.items():
        cells = " ".join(f"{float(np.mean(found <= k)):.3f}" for k in (1, 5, 10))
        reciprocal, gain = np.mean(1 / found), np.mean(np.where(found <= DEPTH, 1 / np.log2(found + 1), 0))
        print(f"  {way:<24} hit@1/5/10 {cells}  MRR {reciprocal:.3f}  nDCG@10 {gain:.3f}")
    best = max((way for way in ranks if way != "hybrid"), key=lambda way: float(np.mean(ranks[way] <= DEPTH)))
    low, high = interval(ranks["hybrid"] <= DEPTH, ranks[best] <= DEPTH)
    print(f"  hybrid against {best}: hit@10 {low:+.3f} to {high:+.3f}")


def only(config: RetrieverConfig, name: str) -> RetrieverConfig:
    """One list and no other."""
    return config.model_copy(update={f"weight_{one}": float(one == name) for one in WEIGHTS})


def ranks_of(
    retriever: Retriever, config: RetrieverConfig, queries: Sequence[Query], questions: Sequence[Question]
) -> np.ndarray:  # (questions,)
    """Rank of the first right technique of each question, from 1; infinite when it is not found."""
    retriever._config = config.model_copy(update={"candidates": 80})
    record_of = dict(fetch(retriever.connection, "select rowid, record_id from chunks"))
    found = []
    for query, question in zip(queries, questions, strict=True):
        scored = [one for one in retriever.rank(query) if one.score > 0]
        order = list(dict.fromkeys(record_of[one.rowid] for one in scored))
        place = next((at for at, one in enumerate(order, start=1) if one in question.techniques), math.inf)
        found.append(float(place))
    return np.array(found)


def interval(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """95 % of the difference of means over resampled questions."""
    rng = np.random.default_rng(0)
    difference = one.astype(float) - other.astype(float)
    means = [difference[rng.integers(0, len(difference), len(difference))].mean() for _ in range(N_BOOTSTRAP)]
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


if __name__ == "__main__":
    main()
