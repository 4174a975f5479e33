"""The index of ATT&CK's techniques and known procedures, and the question sets, for the retrieval benches."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.retrieval_sets import Question, atomic, attack, events, sigma
from whis_box.config import RagConfig, load_config
from whis_box.engine.cpu import cpu_model
from whis_box.ingest.build import build_if_needed
from whis_box.ingest.pipeline import build_index
from whis_box.ingest.vectors import KeptVectors
from whis_box.knowledge.embedder import MODEL_FILE, Embedder
from whis_box.knowledge.retriever import Retriever
from whis_box.paths import file_sha256, repository_root, source_commit
from whis_box.show import progress

ROOT = repository_root()
WORK = ROOT / "build" / "bench"

Sets = dict[str, list[Question]]


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The options that these benches share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--corpora", type=Path, required=True)
    parser.add_argument("--embedder", type=Path, default=ROOT / "build" / "embedder")
    parser.add_argument("--most", type=int, default=1000, help="questions of one set")
    return parser


def open_guide(folder: Path, rag: RagConfig) -> Retriever:
    """The field guide's index by the embedder in `folder`, built from the corpus if it is not there yet."""
    sha256 = file_sha256(folder / MODEL_FILE)
    path = WORK / f"guide-{sha256[:12]}.sqlite"
    build_if_needed(ROOT / "build" / "corpus" / "corpus.sqlite", path, folder, ROOT / "configs", progress, 2)
    return Retriever(path, Embedder(folder, rag.embedder_dim, 2), sha256, rag.retriever)


@contextmanager
def opened(corpora: Path, folder: Path) -> Iterator[tuple[Retriever, Sets, RagConfig]]:
    """The index by the embedder in `folder`, with the question sets; vectors are kept for the next run."""
    rag = load_config(ROOT / "configs" / "rag.yaml", RagConfig)
    known = attack(corpora / "enterprise-attack.json.gz")
    ids = {record.id for record in known.records}
    rules = corpora / "sigma-rules.zip"
    sets = {
        "ATT&CK procedures, sources held out": known.held_out,
        "Sigma title and description": sigma(rules, ids),
        "Atomic Red Team test names": atomic(corpora / "atomic-red-team.zip", ids),
        "real events": events(corpora / "sigma-events-dev.zip", rules, ids),
    }
    embedder, sha256 = Embedder(folder, rag.embedder_dim, 2), file_sha256(folder / MODEL_FILE)
    WORK.mkdir(parents=True, exist_ok=True)
    path = WORK / f"attack-{sha256[:12]}.sqlite"
    with KeptVectors(path.with_suffix(".vectors"), folder, embedder, sha256, 2) as vectors:
        made = build_index(known.records, path, vectors, sha256, rag, progress, len(known.records))
    print(
        f"{cpu_model()} · commit {source_commit()[:12]} · embedder {sha256[:12]} · "
        f"{made.n_records} techniques, {made.n_chunks} chunks, {made.n_sentences} sentences"
    )
    retriever = Retriever(path, embedder, sha256, rag.retriever)
    try:
        yield retriever, sets, rag
    finally:
        retriever.close()
