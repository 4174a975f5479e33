"""Hybrid search over one index file: five lists (lists.py), one order (fusion.py).

Invariant: a list that is empty adds nothing; the order of equal scores is the order of the index, so a
query always gives the same hits.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import apsw
import numpy as np

from whis_box.config import RetrieverConfig
from whis_box.errors import VerificationError
from whis_box.knowledge import fusion, identifiers
from whis_box.knowledge.dense import DenseTable
from whis_box.knowledge.embedder import Embedder
from whis_box.knowledge.facets import Filter, allowed_chunks
from whis_box.knowledge.identifiers import Identifier
from whis_box.knowledge.lists import Found, Lists, Query, words_of
from whis_box.knowledge.store import connect, fetch, index_error, open_codes, placeholders, read_meta
from whis_box.knowledge.terms import terms
from whis_box.schemas import Chunk, Hit, Record

SPREAD_STEP = 32  # candidates whose documents are looked up at once


@dataclass(frozen=True)
class ScoredChunk:
    """A candidate with its share of the score, 0..1, and its place in each list that holds it."""

    rowid: int
    score: float
    found_by: dict[str, int]


@dataclass(frozen=True)
class Ranking:
    """All candidates of one query, best first, with what their order came from."""

    scored: list[ScoredChunk]
    found: Found
    kind: fusion.Kind
    rowids: list[int]
    """The candidates in the order of `weighted`."""
    weighted: fusion.Values
    """(len(rowids), len(fusion.FEATURES)): each feature times its weight."""


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
        self.chunks, self.sentences = (
            DenseTable(self.connection, table, open_codes(path, table, self.meta, int(self.meta[rows])))
            for table, rows in (("chunk_vectors", "n_chunks"), ("sentence_vectors", "n_sentences"))
        )
        self.lists = Lists(self.connection, self.chunks, self.sentences, config)

    def close(self) -> None:
        """Close the index and its codes."""
        self.connection.close()
        self.chunks.close()
        self.sentences.close()

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
        spread: bool = True,
    ) -> list[Hit]:
        """The best chunks, best first, at most `max_per_record` of one document where `spread`; `narrowed`
        counts for a query that is still a text.

        Raises: VerificationError or StorageError if the index cannot be read.
        """
        prepared = self.prepare(query, narrowed) if isinstance(query, str) else query
        ranking = self.rank(prepared)
        best = self._spread(ranking, top_k) if spread else ranking.scored[: top_k or self._config.top_k]
        return [self.hit(scored) for scored in best]

    def _spread(self, ranking: Ranking, top_k: int | None) -> list[ScoredChunk]:
        """The best chunks, at most `max_per_record` of one document."""
        wanted = top_k or self._config.top_k
        taken: Counter[str] = Counter()
        chosen: list[ScoredChunk] = []
        for at in range(0, len(ranking.scored), SPREAD_STEP):
            part = ranking.scored[at : at + SPREAD_STEP]
            record_of, _ = self._told_of({scored.rowid for scored in part})
            for scored in part:
                record_id = record_of[scored.rowid]
                taken[record_id] += 1
                if taken[record_id] <= self._config.max_per_record:
                    chosen.append(scored)
                if len(chosen) == wanted:
                    return chosen
        return chosen

    def rank(self, query: Query) -> Ranking:
        """Every candidate with its score, best first.

        Raises: as `search`.
        """
        try:
            found = self.lists.find(query, time.perf_counter)
            return self._fused(query, found)
        except apsw.Error as cause:
            raise index_error(self.path, cause) from cause

    def _fused(self, query: Query, found: Found) -> Ranking:
        kind = fusion.kind_of(query.text)
        rowids = sorted({rowid for listed in found.lists.values() for rowid in listed})
        weights = fusion.weights_of(getattr(self._config, kind))
        values = self.features(query, found, rowids, weights)
        shares = fusion.shares(values, weights)
        places: dict[int, dict[str, int]] = {rowid: {} for rowid in rowids}
        for name, listed in found.lists.items():
            for rank, rowid in enumerate(listed, start=1):
                places[rowid][name] = rank
        order = np.argsort(-shares, kind="stable").tolist()
        scored = [ScoredChunk(rowids[at], float(shares[at]), places[rowids[at]]) for at in order]
        return Ranking(scored, found, kind, rowids, values * weights)

    def features(
        self, query: Query, found: Found, rowids: list[int], weights: fusion.Values | None = None
    ) -> fusion.Values:
        """(len(rowids), len(fusion.FEATURES)) of the candidates.

        What `weights` gives nothing is not looked up and counts 0: each look-up is hundreds of rows.
        """
        wanted = {
            name for at, name in enumerate(fusion.FEATURES) if weights is None or weights[at]
        }  # fmt: skip
        cosines = found.chunk_cosines
        if "chunk_cosine" in wanted:
            unknown = [rowid for rowid in rowids if rowid not in cosines]
            cosines = cosines | self.chunks.similarity(query.vector, unknown)
        of_sentences = {rowid for rowid, _ in found.sentence_cosines}
        record_of: dict[int, str] = {}
        titles: dict[int, str] = {}
        if wanted & {"record_cosine", "title"}:
            record_of, titles = self._told_of({*rowids, *of_sentences})
        shares = self._title_shares(query.text, set(titles.values()) if "title" in wanted else set())
        by_chunk = {rowid: shares.get(title, 0.0) for rowid, title in titles.items()}
        return fusion.features(found, rowids, cosines, record_of, by_chunk, self._config.rrf_k)

    def _told_of(self, rowids: set[int]) -> tuple[dict[int, str], dict[int, str]]:
        """Record id and title of each chunk."""
        rows = fetch(
            self.connection,
            f"select rowid, record_id, title from chunks where rowid in ({placeholders(rowids)})",
            tuple(rowids),
        )
        return {int(row[0]): str(row[1]) for row in rows}, {int(row[0]): str(row[2]) for row in rows}

    def _title_shares(self, question: str, titles: set[str]) -> dict[str, float]:
        """Share, by idf, of each title's words that the question uses."""
        asked = set(terms(question))
        words = {title: _words_of_title(title) for title in titles}
        idf = self.idf({word for one in words.values() for word in one})
        return {
            title: sum(idf[word] for word in one & asked) / max(sum(idf[word] for word in one), 1e-9)
            for title, one in words.items()
        }

    def idf(self, wanted: set[str]) -> dict[str, float]:
        """Smoothed inverse document frequency of each term; unknown terms weigh most."""
        counts = self.counts(wanted)
        return {term: math.log(1.0 + (self.n_chunks + 0.5) / (counts.get(term, 0) + 0.5)) for term in wanted}

    def counts(self, wanted: set[str]) -> dict[str, int]:
        """Chunks that hold each of the terms; a term that none holds is left out."""
        rows = fetch(
            self.connection,
            f"select term, n_chunks from terms where term in ({placeholders(wanted)})",
            tuple(wanted),
        )
        return {str(term): int(count) for term, count in rows}

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
        prepared = time.perf_counter()
        ranking = self.rank(query)
        ranked_ms = (time.perf_counter() - prepared) * 1000
        words = words_of(text)
        looked_up = self.lists.affordable(words)
        best = self._spread(ranking, top_k)
        return {
            "query": text,
            "kind": ranking.kind,
            "identifiers": [f"{one.kind} {one.value}" for one in query.identifiers],
            "not_in_the_index": [f"{one.kind} {one.value}" for one in query.missing_identifiers],
            "words": looked_up,
            "words_left_out": [word for word in words if word not in looked_up],
            "prepare_ms": round((prepared - started) * 1000, 2),
            "lists": {
                name: {"found": len(rowids), "ms": round(ranking.found.times_ms[name], 2)}
                for name, rowids in ranking.found.lists.items()
            },
            "fusion_ms": round(ranked_ms - sum(ranking.found.times_ms.values()), 2),
            "candidates": len(ranking.scored),
            "hits": [
                self._explained(rank, scored, ranking.weighted[ranking.rowids.index(scored.rowid)])
                for rank, scored in enumerate(best, start=1)
            ],
        }

    def _explained(self, rank: int, scored: ScoredChunk, weighted: fusion.Values) -> dict[str, object]:
        hit = self.hit(scored)
        return {
            "rank": rank,
            "record_id": hit.chunk.record_id,
            "heading_path": [hit.title, *hit.chunk.heading_path],
            "score": round(hit.score, 4),
            "places": hit.found_by,
            "adds": {
                name: round(value, 3)
                for name, value in zip(fusion.FEATURES, weighted.tolist(), strict=True)
                if value
            },
            "text": hit.chunk.text,
        }

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


@lru_cache(maxsize=8192)
def _words_of_title(title: str) -> frozenset[str]:
    return frozenset(terms(title))
