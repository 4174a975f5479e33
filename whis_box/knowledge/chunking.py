"""Records to chunks: one section of a document each, cut at sentence ends when it is too long.

Invariant: `record.text[chunk.start:chunk.end] == chunk.text`, and no sentence is split over two chunks
unless it is longer than the limit itself.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from whis_box.knowledge import identifiers
from whis_box.knowledge.sentences import Span, split_blocks
from whis_box.schemas import Chunk, ChunkMeta, Record


@dataclass(frozen=True)
class ChunkedRecord:
    """A record's chunks and, for each chunk, its quotable spans."""

    record: Record
    chunks: list[Chunk]
    spans: list[list[Span]]


def chunk_record(record: Record, max_tokens: int, count_tokens: Callable[[str], int]) -> ChunkedRecord:
    """Split `record` along its headings into chunks of at most `max_tokens` tokens."""
    chunks: list[Chunk] = []
    spans_of_chunks: list[list[Span]] = []
    seen: Counter[str] = Counter()  # a log repeats itself: equal passages still need ids of their own
    for block in split_blocks(record.text):
        for spans in _pack(record.text, list(block.spans), max_tokens, count_tokens):
            text = record.text[spans[0].start : spans[-1].end]
            heading_path = list(block.heading_path)
            identity = "\x1f".join([record.id, *heading_path, text])
            seen[identity] += 1
            if seen[identity] > 1:
                identity += f"\x1f{seen[identity]}"
            chunks.append(_chunk(record, identity, len(chunks), heading_path, spans, count_tokens(text)))
            spans_of_chunks.append(spans)
    return ChunkedRecord(record, chunks, spans_of_chunks)


def embedding_text(title: str, chunk: Chunk) -> str:
    """What is embedded for a chunk: the title and heading say what a section's pronouns do not."""
    return f"{' > '.join([title, *chunk.heading_path])}\n{chunk.text}"


def _pack(
    text: str, spans: list[Span], max_tokens: int, count_tokens: Callable[[str], int]
) -> list[list[Span]]:
    packs: list[list[Span]] = []
    used = 0
    for span in spans:
        cost = count_tokens(text[span.start : span.end])
        if not packs or used + cost > max_tokens:
            packs.append([])
            used = 0
        packs[-1].append(span)
        used += cost
    return packs


def _chunk(
    record: Record, identity: str, ordinal: int, heading_path: list[str], spans: list[Span], n_tokens: int
) -> Chunk:
    text = record.text[spans[0].start : spans[-1].end]
    found = identifiers.extract(" ".join([record.title, *heading_path, text]))
    claimed = [label.removeprefix("technique:") for label in record.labels if label.startswith("technique:")]
    techniques = [identifier.value for identifier in found if identifier.kind == "technique"]
    return Chunk(
        id=hashlib.sha256(identity.encode()).hexdigest()[:32],
        record_id=record.id,
        ordinal=ordinal,
        heading_path=heading_path,
        text=text,
        start=spans[0].start,
        end=spans[-1].end,
        meta=ChunkMeta(
            technique_ids=list(dict.fromkeys([*techniques, *claimed])),
            cve_ids=[identifier.value for identifier in found if identifier.kind == "cve"],
            event_ids=[identifier.value for identifier in found if identifier.kind == "event"],
            platforms=[
                label.removeprefix("platform:") for label in record.labels if label.startswith("platform:")
            ],
            license=record.license,
            tlp=record.tlp,
        ),
        n_tokens=n_tokens,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
    )
