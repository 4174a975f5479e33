"""`whis index build`: build the index only when something it depends on has changed.

Invariant: the decision rests on hashes: of the inputs, and of the finished file.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from whis_box.config import RagConfig, load_config
from whis_box.engine.cpu import thread_count
from whis_box.errors import NotReadyError, WhisError
from whis_box.ingest.corpus import open_existing
from whis_box.ingest.pipeline import IndexSummary, build_index, inputs_sha256
from whis_box.ingest.vectors import KeptVectors
from whis_box.knowledge.embedder import MODEL_FILE, Embedder
from whis_box.paths import file_sha256, written_beside


def build_if_needed(
    corpus: Path,
    out: Path,
    embedder_dir: Path,
    configs: Path,
    progress: Callable[[int, int, str], None],
    workers: int = 1,
) -> tuple[IndexSummary, bool]:
    """Index every record of `corpus` into `out`; the summary, and whether it was really built.

    Vectors are kept beside the index as they are made: after a kill the build goes on where it was.
    Raises: as `build_index`; NotReadyError or VerificationError for the embedder; ConfigError.
    """
    rag = load_config(configs / "rag.yaml", RagConfig)
    embedder = Embedder(embedder_dir, rag.embedder_dim, thread_count())
    embedder_sha256 = file_sha256(embedder_dir / MODEL_FILE)
    note = out.with_name(out.name + ".json")
    with open_existing(corpus) as opened:
        if not (total := opened.count()):
            raise NotReadyError(f"{corpus}: holds no records; run `whis ingest PATH --source NAME`")
        inputs = inputs_sha256(opened.records(), embedder_sha256, rag)
        known = _known_summary(note, inputs, out)
        if known is not None:
            return known, False
        kept = out.with_name(out.name + ".vectors")
        with KeptVectors(kept, embedder_dir, embedder, embedder_sha256, workers) as vectors:
            summary = build_index(opened.records(), out, vectors, embedder_sha256, rag, progress, total)
            vectors.forget_unused()
    fields = {
        "inputs": inputs,
        "sha256": file_sha256(out),
        "counts": [summary.n_records, summary.n_chunks, summary.n_sentences],
    }
    with written_beside(note) as beside:
        beside.write_text(json.dumps(fields))
    return summary, True


def _known_summary(note: Path, inputs: str, out: Path) -> IndexSummary | None:
    try:
        fields = json.loads(note.read_text())
        if fields["inputs"] != inputs or fields["sha256"] != file_sha256(out):
            return None
        return IndexSummary(out, *fields["counts"])
    except (OSError, ValueError, KeyError, TypeError, WhisError):
        return None  # anything unclear about the old index means a new one
