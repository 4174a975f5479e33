"""Hybrid search: exact identifiers, two full-text lists and two dense lists, fused by rank.

Invariant: a list that is empty adds nothing; the order of equal scores is the order of the index, so a
query always gives the same hits.
"""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import apsw
import numpy as np
from numpy.typing import NDArray

from whis_box.config import RetrieverConfig
from whis_box.errors import VerificationError
from whis_box.knowledge import identifiers
from whis_box.knowledge.embedder import Embedder
from whis_box.knowledge.facets import Filter, Mask, allowed_chunks
from whis_box.knowledge.identifiers import Identifier
from whis_box.knowledge.store import connect, fetch, index_error, open_codes, placeholders, read_meta
from whis_box.knowledge.terms import STOP_WORDS, stem, tokens
from whis_box.schemas import Chunk, Hit, Record

_WORD = re.compile(r"[a-z0-9]+")
_CODE = re.compile(r"[\d._\\-]")
MAX_QUERY_TERMS = 64
MAX_PINNED = 500  # chunks that hold a named identifier; what is about it comes first
CODES_MARGIN = 24  # exact scores beyond k, for what the eight-bit copies rank a little too low


@dataclass(frozen=True)
class Query:
    """A question made ready for the index; `vector` has shape (dim,)."""

    text: str
    vector: NDArray[np.float32]
    identifiers: tuple[Identifier, ...]
    missing_identifiers: tuple[Identifier, ...]
    allowed: Mask | None = None
    """Chunks by row id that may be found, shape (n_chunks + 1,); None for all."""


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
        self._codes = {
            table: open_codes(path, table, self.meta, int(self.meta[rows]))
            for table, rows in (("chunk_vectors", "n_chunks"), ("sentence_vectors", "n_sentences"))
        }

    def close(self) -> None:
        """Close the index and its codes."""
        self.connection.close()
        for codes in self._codes.values():
            if codes is not None:
                codes.close()

    def prepare(self, text: str, narrowed: Filter = Filter()) -> Query:  # noqa: B008 (frozen)
        """Embed a question, look its identifiers up, and find what it may see."""
        named = list(identifiers.extract(text))
        for number in identifiers.bare_numbers(text):
            bare = Identifier("event", number)
            if bare not in named and self._holds(bare):
                named.append(bare)
        missing = tuple(one for one in named if not self._holds(one))
        allowed = allowed_chunks(self.connection, narrowed, self.n_chunks)
        return Query(text, self._embedder.embed([text])[0], tuple(named), missing, allowed)

    def search(
        self,
        query: Query | str,
        top_k: int | None = None,
        narrowed: Filter = Filter(),  # noqa: B008 (frozen)
    ) -> list[Hit]:
        """The best chunks, best first; `narrowed` counts for a query that is still a text.

        Raises: VerificationError or StorageError if the index cannot be read.
        """
        prepared = self.prepare(query, narrowed) if isinstance(query, str) else query
        ranked = self.rank(prepared)[: top_k or self._config.top_k]
        return [self.hit(scored) for scored in ranked]

    def rank(self, query: Query) -> list[ScoredChunk]:
        """Every candidate with its fused score, best first."""
        return self._fused({name: found for name, (found, _) in self._found(query).items()})

    def _found(self, query: Query) -> dict[str, tuple[list[int], float]]:
        """What each list finds, best first, and the milliseconds it took."""
        found: dict[str, tuple[list[int], float]] = {}
        for name, find in self._lists(query).items():
            started = time.perf_counter()
            try:
                rowids = find()
            except apsw.Error as cause:
                raise index_error(self.path, cause) from cause
            found[name] = (rowids, (time.perf_counter() - started) * 1000)
        return found

    def _fused(self, lists: dict[str, list[int]]) -> list[ScoredChunk]:
        scores: dict[int, float] = defaultdict(float)
        found_by: dict[int, dict[str, int]] = defaultdict(dict)
        for name, rowids in lists.items():
            for rank, rowid in enumerate(rowids, start=1):
                scores[rowid] += self._share(name, rank)
                found_by[rowid][name] = rank
        order = sorted(scores, key=lambda rowid: (-scores[rowid], rowid))
        return [ScoredChunk(rowid, scores[rowid], found_by[rowid]) for rowid in order]

    def explain(
        self,
        text: str,
        top_k: int | None = None,
        narrowed: Filter = Filter(),  # noqa: B008 (frozen)
    ) -> dict[str, object]:
        """A search with its reasons: what was asked of each list, how long it took, and what each gave a hit.

        Raises: as `search`.
        """
        started = time.perf_counter()
        query = self.prepare(text, narrowed)
        prepare_ms = (time.perf_counter() - started) * 1000
        found = self._found(query)
        ranked = self._fused({name: rowids for name, (rowids, _) in found.items()})
        words = _words(text)
        looked_up = self._affordable(words)
        return {
            "query": text,
            "identifiers": [f"{one.kind} {one.value}" for one in query.identifiers],
            "not_in_the_index": [f"{one.kind} {one.value}" for one in query.missing_identifiers],
            "words": looked_up,
            "words_left_out": [word for word in words if word not in looked_up],
            "prepare_ms": round(prepare_ms, 2),
            "lists": {
                name: {
                    "found": len(rowids),
                    "weight": getattr(self._config, f"weight_{name}"),
                    "ms": round(milliseconds, 2),
                }
                for name, (rowids, milliseconds) in found.items()
            },
            "rrf_k": self._config.rrf_k,
            "hits": [
                {
                    "rank": rank,
                    "record_id": hit.chunk.record_id,
                    "heading_path": [hit.title, *hit.chunk.heading_path],
                    "score": round(hit.score, 4),
                    "from": {
                        name: {"rank": place, "adds": round(self._share(name, place), 4)}
                        for name, place in hit.found_by.items()
                    },
                    "text": hit.chunk.text,
                }
                for rank, hit in enumerate(map(self.hit, ranked[: top_k or self._config.top_k]), start=1)
            ],
        }

    def _lists(self, query: Query) -> dict[str, Callable[[], list[int]]]:
        """The retrievers; each gives chunk row ids, best first."""
        return {
            "identifier": lambda: self._by_identifier(query),
            "prose": lambda: self._by_prose(query),
            "exact": lambda: self._by_exact(query),
            "chunk_dense": lambda: self._nearest("chunk_vectors", query.vector, query.allowed),
            "sentence_dense": lambda: self._by_sentence_vector(query),
        }

    def _share(self, name: str, rank: int) -> float:
        """What a place in one list adds to a chunk's score. Source: RRF, Cormack et al. 2009, weighted."""
        return float(getattr(self._config, f"weight_{name}")) / (self._config.rrf_k + rank)

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
        rows = self.connection.execute(
            "select chunk_rowid, sum(1 + 2 * is_topic) from identifiers "
            f"where (kind, value) in (values {pairs}) group by chunk_rowid order by 2 desc, 1",
            [part for one in wanted for part in (one.kind, one.value)],
        )
        seen = (row for row in rows if query.allowed is None or query.allowed[row[0]])
        weights = {int(rowid): int(weight) for rowid, weight in islice(seen, MAX_PINNED)}
        return self._order_by_words(query, weights)

    def _order_by_words(self, query: Query, weights: dict[int, int]) -> list[int]:
        """Best weight first; within one weight by dense similarity to the question."""
        similarity = self._exact("chunk_vectors", query.vector, list(weights))
        order = sorted(weights, key=lambda rowid: (-weights[rowid], -similarity[rowid], rowid))
        return order[: self._config.candidates]

    def _by_prose(self, query: Query) -> list[int]:
        return self._match("prose", _words(query.text), query.allowed)

    def _by_exact(self, query: Query) -> list[int]:
        codes = [token for token in tokens(query.text) if _CODE.search(token)]
        return self._match("exact", codes, query.allowed)

    def _match(self, table: str, words: list[str], allowed: Mask | None) -> list[int]:
        """BM25 order of the chunks that hold any of `words`; each is quoted, so no operator survives."""
        unique = self._affordable(list(dict.fromkeys(words))[:MAX_QUERY_TERMS])
        if not unique:
            return []
        expression = " OR ".join('"' + word.replace('"', '""') + '"' for word in unique)
        config = self._config
        weights = (
            f", {config.bm25_title}, {config.bm25_heading}, {config.bm25_body}" if table == "prose" else ""
        )
        rows = self.connection.execute(
            f"select rowid from {table} where {table} match ? order by bm25({table}{weights}), rowid",
            (expression,),
        )
        seen = (int(rowid) for (rowid,) in rows if allowed is None or allowed[rowid])
        return list(islice(seen, config.candidates))

    def _affordable(self, words: list[str]) -> list[str]:
        """The rarest words whose chunks together stay within `max_postings`: what ranks is what is rare, and
        each chunk that holds a word costs about a third of a microsecond."""
        counts = {word: 0 for word in words}
        stems = {word: stem(word) for word in words}
        rows = fetch(
            self.connection,
            f"select term, n_chunks from terms where term in ({placeholders(stems)})",
            tuple(stems.values()),
        )
        held = {str(term): int(count) for term, count in rows}
        counts = {word: held.get(stems[word], 0) for word in words}
        chosen: list[str] = []
        spent = 0
        for word in sorted(words, key=lambda one: counts[one]):
            spent += counts[word]
            if chosen and spent > self._config.max_postings:
                break
            chosen.append(word)
        return [word for word in words if word in chosen]

    def _by_sentence_vector(self, query: Query) -> list[int]:
        """Chunks in the order of their best sentence."""
        allowed = None if query.allowed is None else query.allowed[self._chunk_of_sentence]
        nearest = self._nearest("sentence_vectors", query.vector, allowed)
        rows = fetch(
            self.connection,
            f"select rowid, chunk_rowid from sentences where rowid in ({placeholders(nearest)})",
            nearest,
        )
        chunk_of = {int(rowid): int(chunk) for rowid, chunk in rows}
        return list(dict.fromkeys(chunk_of[rowid] for rowid in nearest))

    @cached_property
    def _chunk_of_sentence(self) -> NDArray[np.int64]:
        """Chunk row id by sentence row id, shape (n_sentences + 1,)."""
        rows = fetch(self.connection, "select chunk_rowid from sentences order by rowid")
        return np.array([0, *(int(chunk) for (chunk,) in rows)], dtype=np.int64)

    def _nearest(self, table: str, vector: NDArray[np.float32], allowed: Mask | None = None) -> list[int]:
        """Row ids by similarity: sqlite-vec's full scan, or codes and then the exact vectors."""
        codes, k = self._codes[table], self._config.candidates
        if codes is None:
            narrowed, values = "", [vector.tobytes(), k]
            if allowed is not None:
                narrowed = "and rowid in (select value from json_each(?)) "
                values.append(json.dumps(np.flatnonzero(allowed).tolist()))
            rows = fetch(
                self.connection,
                f"select rowid from {table} where embedding match ? and k = ? {narrowed}order by distance",
                values,
            )
            return [int(rowid) for (rowid,) in rows]
        similarity = self._exact(table, vector, codes.nearest(vector, k + CODES_MARGIN, allowed))
        return sorted(similarity, key=lambda rowid: (-similarity[rowid], rowid))[:k]

    def _exact(self, table: str, vector: NDArray[np.float32], rowids: list[int]) -> dict[int, float]:
        rows = fetch(
            self.connection,
            f"select rowid, embedding from {table} where rowid in ({placeholders(rowids)})",
            rowids,
        )
        return {int(rowid): float(np.frombuffer(blob, dtype=np.float32) @ vector) for rowid, blob in rows}


def _words(text: str) -> list[str]:
    """What of a text the prose list looks up, without repeats."""
    return [word for word in dict.fromkeys(_WORD.findall(text.lower())) if word not in STOP_WORDS]
