"""How the search grows with the index: 10 thousand to a million chunks, beside FAISS flat and sqlite-vec.

    python -m tests.bench.scale [--sizes 10000 50000 200000 1000000] [--folder DIR]

Each index is built by the product's own writer: texts are sentences of the field guide put together
anew, with one vector a chunk and one for a sentence in it. Vectors are mixtures of two real passages'
vectors with noise, so that neighbourhoods are dense as in a real corpus; queries are the golden
questions, embedded for real. Times are medians and 95th percentiles; each question was asked once before.
FAISS and sqlite-vec answer the same questions in that run.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import faiss
import numpy as np
import psutil
from numpy.typing import NDArray

from whis_box.config import RagConfig, load_config
from whis_box.engine.cpu import cpu_model
from whis_box.evaluation.golden import read_golden
from whis_box.ingest.pipeline import read_folder
from whis_box.knowledge.chunking import ChunkedRecord
from whis_box.knowledge.embedder import MODEL_FILE, Embedder
from whis_box.knowledge.lists import Query
from whis_box.knowledge.retriever import Retriever
from whis_box.knowledge.sentences import Span, split_blocks
from whis_box.knowledge.store import connect, fetch
from whis_box.knowledge.writer import IndexWriter
from whis_box.paths import file_sha256, repository_root, source_commit
from whis_box.schemas import Chunk, ChunkMeta, Record, Source

ROOT = repository_root()
PER_RECORD = 50
N_QUERIES = 100
RECALL_AT = 10
SHA = "0" * 64


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 50_000, 200_000, 1_000_000])
    parser.add_argument("--folder", type=Path, help="where indexes are built and kept; temporary by default")
    parser.add_argument("--plot", type=Path, help="draw the rows of this file, one JSON a line, into it.svg")
    parser.add_argument("--build-only", action="store_true", help="measure later, on a quiet machine")
    options = parser.parse_args()
    if options.plot:
        draw(options.plot)
        return
    rag = load_config(ROOT / "configs" / "rag.yaml", RagConfig)
    folder = ROOT / "build" / "embedder"
    embedder = Embedder(folder, rag.embedder_dim, 2)
    sha256 = file_sha256(folder / MODEL_FILE)
    texts = guide_sentences()
    real = embedder.embed(texts[:4000])
    asked = [one.question for one in read_golden(ROOT / "data" / "golden" / "questions.ndjson")][:N_QUERIES]
    vectors = embedder.embed(asked)
    print(f"{cpu_model()}, 2 threads · commit {source_commit()[:12]} · {len(asked)} questions, ms p50 / p95")
    faiss.omp_set_num_threads(2)
    with tempfile.TemporaryDirectory() as scratch:
        for size in options.sizes:
            path = (options.folder or Path(scratch)) / f"{size}.sqlite"
            started = time.perf_counter()
            if not path.is_file():
                build(path, size, texts, real, sha256, rag.embedder_dim)
                print(f"{size} chunks built in {time.perf_counter() - started:.0f} s", flush=True)
            if not options.build_only:
                row = measure(path, embedder, sha256, rag, list(zip(asked, vectors, strict=True)))
                print(json.dumps({"chunks": size} | row), flush=True)


def guide_sentences() -> list[str]:
    """Every sentence of the field guide."""
    found = []
    for record in read_folder(ROOT / "data" / "raw"):
        for block in split_blocks(record.text):
            found += [record.text[span.start : span.end] for span in block.spans if span.kind == "sentence"]
    return found


def mixed_vectors(real: NDArray[np.float32], n: int, seed: int) -> Iterator[NDArray[np.float32]]:
    """`n` unit vectors between real ones, in blocks."""
    rng = np.random.default_rng(seed)
    for at in range(0, n, 10_000):
        count = min(10_000, n - at)
        share = rng.uniform(0.5, 1.0, (count, 1))
        one, other = (real[rng.integers(0, len(real), count)] for _ in range(2))
        noise = rng.normal(0, 0.02, (count, real.shape[1]))
        mixed = share * one + (1 - share) * other + noise
        yield (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)


def build(path: Path, size: int, texts: list[str], real: NDArray[np.float32], sha256: str, dim: int) -> None:
    """An index of `size` chunks through the product's writer."""
    rng = random.Random(3)
    source = Source(name="bench", uri="bench", revision="1", retrieved_at="2026-01-01T00:00:00Z")
    number = 0
    with IndexWriter(path, dim, sha256) as writer:
        pairs = zip(mixed_vectors(real, size, 5), mixed_vectors(real, size, 6), strict=True)
        for block, of_sentences in pairs:
            for at in range(0, len(block), PER_RECORD):
                part, sentences = block[at : at + PER_RECORD], of_sentences[at : at + PER_RECORD]
                number += 1
                bodies = [
                    " ".join(rng.sample(texts, 2)) + f" Case {number * PER_RECORD + i}."
                    for i in range(len(part))
                ]
                record = Record(
                    id=f"r{number}", source=source, title=f"Report {number}", text=" ".join(bodies),
                    license="CC-BY-4.0", tlp="clear", sha256_raw=SHA, sha256_text=SHA, pipeline_version="1",
                )  # fmt: skip
                chunks, spans, start = [], [], 0
                meta = ChunkMeta(license="CC-BY-4.0", tlp="clear")
                for ordinal, body in enumerate(bodies):
                    chunk = Chunk(
                        id=f"{number}-{ordinal}", record_id=record.id, ordinal=ordinal, heading_path=["Seen"],
                        text=body, start=start, end=start + len(body), meta=meta, n_tokens=1, sha256=SHA,
                    )  # fmt: skip
                    chunks.append(chunk)
                    spans.append([Span(start, start + len(body), "sentence")])
                    start += len(body) + 1
                writer.add(ChunkedRecord(record, chunks, spans), part, sentences)


def measure(
    path: Path, embedder: Embedder, sha256: str, rag: RagConfig, asked: list[tuple[str, NDArray[np.float32]]]
) -> dict[str, object]:
    """One row: times, recall against an exact scan, memory."""
    process = psutil.Process()
    before = process.memory_info().rss
    started = time.perf_counter()
    retriever = Retriever(path, embedder, sha256, rag.retriever)
    opening_ms = (time.perf_counter() - started) * 1000
    queries = [Query(text, vector, tuple(retriever.prepare(text).identifiers), ()) for text, vector in asked]
    dense = times(lambda query: retriever.chunks.nearest(query.vector, rag.retriever.candidates), queries)
    hybrid = times(lambda query: retriever.search(query), queries)
    resident = process.memory_info().rss - before
    found = [list(retriever.chunks.nearest(query.vector, RECALL_AT)) for query in queries]
    every = np.vstack(
        [
            np.frombuffer(blob, dtype=np.float32)
            for (blob,) in retriever.connection.execute("select embedding from chunk_vectors order by rowid")
        ]
    )
    flat = faiss.IndexFlatIP(every.shape[1])
    flat.add(every)
    exact = [set((flat.search(query.vector[None], RECALL_AT)[1][0] + 1).tolist()) for query in queries]
    recall = statistics.fmean(
        len(one & set(other)) / RECALL_AT for one, other in zip(exact, found, strict=True)
    )
    faiss_times = times(lambda query: flat.search(query.vector[None], RECALL_AT), queries[:40])
    sql = "select rowid from chunk_vectors where embedding match ? and k = 10 order by distance"
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        peer = scanned_whole(Path(scratch) / "peer.sqlite", every)
        vec_times = times(lambda query: fetch(peer, sql, (query.vector.tobytes(),)), queries[:20])
        peer.close()
    retriever.close()
    return {
        "open_ms": round(opening_ms, 1),
        "dense": dense,
        "hybrid": hybrid,
        "recall@10": round(recall, 4),
        "memory_mb": round(resident / 1e6, 1),
        "faiss_flat": faiss_times,
        "sqlite_vec": vec_times,
        "file_mb": round(path.stat().st_size / 1e6),
    }


def scanned_whole(path: Path, vectors: NDArray[np.float32]) -> apsw.Connection:
    """sqlite-vec's own table over the same vectors."""
    connection = connect(path, writable=True)
    connection.execute("pragma journal_mode = off")
    connection.execute(f"create virtual table chunk_vectors using vec0 (embedding float[{vectors.shape[1]}])")
    with connection:
        connection.executemany(
            "insert into chunk_vectors (rowid, embedding) values (?, ?)",
            ((rowid, vector.tobytes()) for rowid, vector in enumerate(vectors, start=1)),
        )
    return connection


def times(run: Callable[[Query], Any], queries: list[Query]) -> str:
    """Milliseconds, median / 95th percentile; each question was asked once before, so files are cached."""
    for query in queries:
        run(query)
    taken = []
    for query in queries:
        started = time.perf_counter()
        run(query)
        taken.append((time.perf_counter() - started) * 1000)
    return f"{statistics.median(taken):.2f} / {statistics.quantiles(taken, n=20)[-1]:.2f}"


def draw(rows: Path) -> None:
    """The 95th percentiles of printed rows against the number of chunks, both in powers of ten."""
    from matplotlib import pyplot

    read = [json.loads(line) for line in rows.read_text().splitlines() if line.startswith("{")]
    figure, axes = pyplot.subplots(figsize=(7, 4))
    lines = {
        "hybrid": "hybrid search",
        "dense": "our vectors",
        "faiss_flat": "FAISS flat",
        "sqlite_vec": "sqlite-vec",
    }
    for key, label in lines.items():
        milliseconds = [float(row[key].split("/")[1]) for row in read]
        axes.loglog([row["chunks"] for row in read], milliseconds, marker="o", label=label)
    axes.set_xlabel("chunks")
    axes.set_ylabel("ms, 95th percentile")
    axes.grid(which="major", alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(rows.with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())
