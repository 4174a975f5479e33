"""From records to an index, in one pass; and the field guide's folder as records.

Invariant: every document is read and checked before the index is touched; one bad document stops the build
with all complaints listed, so an index never misses a document silently.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from whis_box.config import RagConfig
from whis_box.errors import InputError, NotReadyError
from whis_box.ingest.markdown import read_document
from whis_box.knowledge.chunking import ChunkedRecord, chunk_record, embedding_text
from whis_box.knowledge.embedder import Embedder
from whis_box.knowledge.store import IndexWriter
from whis_box.schemas import Record

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class IndexSummary:
    """What was built."""

    path: Path
    n_records: int
    n_chunks: int
    n_sentences: int


def read_folder(folder: Path) -> list[Record]:
    """All `*.md` under `folder` in path order (README.md files are notes, not documents).

    Raises: NotReadyError if there is none; InputError listing every bad document and repeated id.
    """
    paths = sorted(path for path in folder.rglob("*.md") if path.name != "README.md")
    if not paths:
        raise NotReadyError(f"{folder}: holds no documents (*.md); check the path")
    records: dict[str, Record] = {}
    complaints = []
    for path in paths:
        try:
            record = read_document(path, folder)
        except InputError as error:
            complaints.append(str(error))
            continue
        if record.id in records:
            complaints.append(
                f"{path}: id {record.id!r} is also that of {records[record.id].source.uri}; rename one"
            )
        records[record.id] = record
    if complaints:
        raise InputError("\n".join(complaints))
    return list(records.values())


def build_index(
    records: Sequence[Record],
    path: Path,
    embedder: Embedder,
    embedder_sha256: str,
    rag: RagConfig,
    progress: Progress,
) -> IndexSummary:
    """Index the records into `path`; `progress` gets (done, total, record id).

    Raises: StorageError when the disk is full or not writable.
    """
    with IndexWriter(path, embedder.dim, embedder_sha256) as writer:
        for done, record in enumerate(records, start=1):
            _add(writer, chunk_record(record, rag.chunking.max_tokens, embedder.count_tokens), embedder)
            progress(done, len(records), record.id)
    return IndexSummary(path, writer.n_records, writer.n_chunks, writer.n_sentences)


def inputs_sha256(records: Sequence[Record], embedder_sha256: str, rag: RagConfig) -> str:
    """Digest of everything an index depends on; equal digests mean that a rebuild would change nothing."""
    digest = hashlib.sha256(
        f"{embedder_sha256}\n{rag.chunking.model_dump_json()}\n{rag.embedder_dim}\n".encode()
    )
    for record in records:
        digest.update(record.model_dump_json().encode())
    for source in sorted((Path(__file__).parent.parent / "knowledge").glob("*.py")):
        digest.update(source.read_bytes())  # a change of the chunker or the schema also asks for a rebuild
    return digest.hexdigest()


def _add(writer: IndexWriter, chunked: ChunkedRecord, embedder: Embedder) -> None:
    text = chunked.record.text
    chunk_vectors = embedder.embed(embedding_text(chunked.record.title, chunk) for chunk in chunked.chunks)
    sentences = [text[span.start : span.end] for spans in chunked.spans for span in spans]
    writer.add(chunked, chunk_vectors, embedder.embed(sentences))
