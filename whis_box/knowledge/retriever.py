"""Hybrid search: exact identifiers, two full-text lists and two dense lists, fused by rank.

Invariant: a list that is empty adds nothing; the order of equal scores is the order of the index, so a
query always gives the same hits.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import apsw
import numpy as np
from numpy.typing import NDArray

from whis_box.config import RetrieverConfig
from whis_box.errors import VerificationError
from whis_box.knowledge import identifiers
from whis_box.knowledge.embedder import Embedder
from whis_box.knowledge.identifiers import Identifier
from whis_box.knowledge.store import connect, fetch, index_error, placeholders, read_meta
from whis_box.knowledge.terms import STOP_WORDS, tokens
from whis_box.schemas import Chunk, Hit, Record

_WORD = re.compile(r"[a-z0-9]+")
_CODE = re.compile(r"[\d._\\-]")
MAX_QUERY_TERMS = 64


@dataclass(frozen=True)
class Query:
    """A question made ready for the index; `vector` has shape (dim,)."""

    text: str
    vector: NDArray[np.float32]
    identifiers: tuple[Identifier, ...]
    missing_identifiers: tuple[Identifier, ...]


@dataclass(frozen=True)
class ScoredChunk:
    """A fused candidate."""

    rowid: int
    score: float
    found_by: dict[str, int]


class Retriever:
    """Searches one index file. Not thread-safe: one connection, one thread at a time."""

    def __init__(self, path: Path, embedder: Embedder, embedder_sha256: str, config: RetrieverConfig) -> None:
        """Open the index.

        Raises: NotReadyError, VerificationError if it is damaged or was made by another embedder;
        StorageError.
        """
        self.path, self._embedder, self._config = path, embedder, config
        self.connection = connect(path)
        self.meta = read_meta(self.connection, path)
        if self.meta["embedder_sha256"] != embedder_sha256:
            raise VerificationError(
                f"{path}: made by embedder {str(self.meta['embedder_sha256'])[:12]}, but the box holds "
                f"{embedder_sha256[:12]}; run `whis index build` with this embedder"
            )
        self.n_chunks = int(self.meta["n_chunks"])

    def prepare(self, text: str) -> Query:
        """Embed a question and look its identifiers up."""
        named = list(identifiers.extract(text))
        for number in identifiers.bare_numbers(text):
            bare = Identifier("event", number)
            if bare not in named and self._holds(bare):
                named.append(bare)
        missing = tuple(one for one in named if not self._holds(one))
        return Query(text, self._embedder.embed([text])[0], tuple(named), missing)

    def search(self, query: Query | str, top_k: int | None = None) -> list[Hit]:
        """The best chunks, best first.

        Raises: VerificationError or StorageError if the index cannot be read.
        """
        prepared = self.prepare(query) if isinstance(query, str) else query
        ranked = self.rank(prepared)[: top_k or self._config.top_k]
        return [self.hit(scored) for scored in ranked]

    def rank(self, query: Query) -> list[ScoredChunk]:
        """Every candidate with its fused score, best first."""
        config = self._config
        try:
            lists = {
                "identifier": (config.weight_identifier, self._by_identifier(query)),
                "prose": (config.weight_prose, self._by_prose(query.text)),
                "exact": (config.weight_exact, self._by_exact(query)),
                "chunk_dense": (config.weight_chunk_dense, self._by_chunk_vector(query.vector)),
                "sentence_dense": (config.weight_sentence_dense, self._by_sentence_vector(query.vector)),
            }
        except apsw.Error as cause:
            raise index_error(self.path, cause) from cause
        scores: dict[int, float] = defaultdict(float)
        found_by: dict[int, dict[str, int]] = defaultdict(dict)
        for name, (weight, rowids) in lists.items():
            for rank, rowid in enumerate(rowids, start=1):
                scores[rowid] += weight / (config.rrf_k + rank)
                found_by[rowid][name] = rank
        order = sorted(scores, key=lambda rowid: (-scores[rowid], rowid))
        return [ScoredChunk(rowid, scores[rowid], found_by[rowid]) for rowid in order]

    def hit(self, scored: ScoredChunk) -> Hit:
        """Load one candidate."""
        [row] = fetch(self.connection, "select title, body from chunks where rowid = ?", (scored.rowid,))
        chunk = Chunk.model_validate_json(row[1])
        return Hit(chunk=chunk, title=row[0], score=scored.score, found_by=scored.found_by)

    def record(self, record_id: str) -> Record:
        """One record with its text.

        Raises: VerificationError if the index does not hold it.
        """
        rows = fetch(self.connection, "select body from records where id = ?", (record_id,))
        if not rows:
            raise VerificationError(
                f"{self.path}: record {record_id} is cited but not stored; build the index again"
            )
        return Record.model_validate_json(rows[0][0])

    def _holds(self, identifier: Identifier) -> bool:
        sql = "select 1 from identifiers where kind = ? and value = ? limit 1"
        return bool(fetch(self.connection, sql, (identifier.kind, identifier.value)))

    def _by_identifier(self, query: Query) -> list[int]:
        """Chunks that hold the question's identifiers: documents about them first, then the rest by words."""
        wanted = [one for one in query.identifiers if one not in query.missing_identifiers]
        wanted += [parent for one in query.missing_identifiers for parent in identifiers.parents(one)]
        if not wanted:
            return []
        pairs = placeholders(wanted).replace("?", "(?, ?)")
        rows = fetch(
            self.connection,
            "select chunk_rowid, sum(1 + 2 * is_topic) from identifiers "
            f"where (kind, value) in (values {pairs}) group by chunk_rowid",
            [part for one in wanted for part in (one.kind, one.value)],
        )
        return self._order_by_words(query, {int(rowid): int(weight) for rowid, weight in rows})

    def _order_by_words(self, query: Query, weights: dict[int, int]) -> list[int]:
        """Best weight first; within one weight by dense similarity to the question."""
        rows = fetch(
            self.connection,
            f"select rowid, vec_distance_cosine(embedding, ?) from chunk_vectors "
            f"where rowid in ({placeholders(weights)})",
            (query.vector.tobytes(), *weights),
        )
        distance = {int(rowid): float(value) for rowid, value in rows}
        order = sorted(weights, key=lambda rowid: (-weights[rowid], distance[rowid], rowid))
        return order[: self._config.candidates]

    def _by_prose(self, text: str) -> list[int]:
        words = [word for word in _WORD.findall(text.lower()) if word not in STOP_WORDS]
        return self._match("prose", words)

    def _by_exact(self, query: Query) -> list[int]:
        codes = [token for token in tokens(query.text) if _CODE.search(token)]
        return self._match("exact", codes)

    def _match(self, table: str, words: list[str]) -> list[int]:
        """BM25 order of the chunks that hold any of `words`; each is quoted, so no operator survives."""
        unique = list(dict.fromkeys(words))[:MAX_QUERY_TERMS]
        if not unique:
            return []
        expression = " OR ".join('"' + word.replace('"', '""') + '"' for word in unique)
        config = self._config
        weights = (
            f", {config.bm25_title}, {config.bm25_heading}, {config.bm25_body}" if table == "prose" else ""
        )
        rows = fetch(
            self.connection,
            f"select rowid from {table} where {table} match ? order by bm25({table}{weights}), rowid limit ?",
            (expression, config.candidates),
        )
        return [int(rowid) for (rowid,) in rows]

    def _by_chunk_vector(self, vector: NDArray[np.float32]) -> list[int]:
        rows = fetch(
            self.connection,
            "select rowid from chunk_vectors where embedding match ? and k = ? order by distance",
            (vector.tobytes(), self._config.candidates),
        )
        return [int(rowid) for (rowid,) in rows]

    def _by_sentence_vector(self, vector: NDArray[np.float32]) -> list[int]:
        """Chunks in the order of their best sentence."""
        rows = fetch(
            self.connection,
            "select s.chunk_rowid from sentence_vectors v join sentences s on s.rowid = v.rowid "
            "where v.embedding match ? and v.k = ? order by v.distance",
            (vector.tobytes(), self._config.candidates),
        )
        return list(dict.fromkeys(int(rowid) for (rowid,) in rows))
