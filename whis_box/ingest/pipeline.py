"""From records to an index, in one pass; and the field guide's folder as records.

Invariant: every document is read and checked before the index is touched; one bad document stops the build
with all complaints listed, so an index never misses a document silently.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from whis_box.config import RagConfig
from whis_box.errors import InputError, NotReadyError
from whis_box.ingest.markdown import read_document
from whis_box.ingest.vectors import TextEmbedder
from whis_box.knowledge.chunking import ChunkedRecord, chunk_record, embedding_text
from whis_box.knowledge.writer import IndexWriter
from whis_box.schemas import Record

BATCH_CHARACTERS = 200_000

Progress = Callable[[int, int, str], None]
T = TypeVar("T")


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
    records: Iterable[Record],
    path: Path,
    embedder: TextEmbedder,
    embedder_sha256: str,
    rag: RagConfig,
    progress: Progress,
    total: int,
) -> IndexSummary:
    """Index the records into `path`; `progress` gets (done, total, record id).

    Raises: StorageError when the disk is full or not writable.
    """
    done = 0
    with IndexWriter(path, embedder.dim, embedder_sha256) as writer:
        for batch in _batches(records, lambda one: len(one.text), BATCH_CHARACTERS):
            chunked = [chunk_record(one, rag.chunking.max_tokens, embedder.count_tokens) for one in batch]
            vectors = embedder.embed([text for one in chunked for text in _texts(one)])  # all in one call
            for one in chunked:
                n_chunks, n_all = len(one.chunks), len(one.chunks) + sum(map(len, one.spans))
                writer.add(one, vectors[:n_chunks], vectors[n_chunks:n_all])
                vectors = vectors[n_all:]
                done += 1
                progress(done, total, one.record.id)
    return IndexSummary(path, writer.n_records, writer.n_chunks, writer.n_sentences)


def inputs_sha256(records: Iterable[Record], embedder_sha256: str, rag: RagConfig) -> str:
    """Digest of everything an index depends on; equal digests mean that a rebuild would change nothing."""
    digest = hashlib.sha256(
        f"{embedder_sha256}\n{rag.chunking.model_dump_json()}\n{rag.embedder_dim}\n".encode()
    )
    for record in records:
        digest.update(record.model_dump_json().encode())
    for source in sorted((Path(__file__).parent.parent / "knowledge").glob("*.py")):
        digest.update(source.read_bytes())  # a change of the chunker or the schema also asks for a rebuild
    return digest.hexdigest()


def _texts(chunked: ChunkedRecord) -> Iterator[str]:
    """What is embedded for a record: its chunks, then its sentences."""
    text = chunked.record.text
    yield from (embedding_text(chunked.record.title, chunk) for chunk in chunked.chunks)
    yield from (text[span.start : span.end] for spans in chunked.spans for span in spans)


def _batches(values: Iterable[T], size_of: Callable[[T], int], limit: int) -> Iterator[list[T]]:
    """Runs of values up to `limit` in size together, so that memory does not grow with the corpus."""
    batch: list[T] = []
    size = 0
    for value in values:
        batch.append(value)
        size += size_of(value)
        if size >= limit:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
