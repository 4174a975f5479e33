"""The five lists of a search: exact identifiers, two full-text lists, two dense lists.

Invariant: a list holds chunk row ids, best first, none outside of what the query may see; equal ranks are in
the order of the index, so a query always gives the same lists.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice

import apsw
import numpy as np
from numpy.typing import NDArray

from whis_box.config import RetrieverConfig
from whis_box.knowledge import identifiers
from whis_box.knowledge.dense import DenseTable, Vector
from whis_box.knowledge.facets import Mask
from whis_box.knowledge.identifiers import Identifier
from whis_box.knowledge.store import fetch, placeholders
from whis_box.knowledge.terms import STOP_WORDS, stem, tokens

NAMES = ("identifier", "prose", "exact", "chunk_dense", "sentence_dense")
_WORD = re.compile(r"[a-z0-9]+")
_CODE = re.compile(r"[\d._\\-]")
MAX_QUERY_TERMS = 64
MAX_HOLDING = 1000  # chunks looked at for one identifier; in a million chunks some are in tens of thousands
MAX_PINNED = 100  # of those, how many are compared with the question


@dataclass(frozen=True)
class Query:
    """A question made ready for the index; `vector` has shape (dim,)."""

    text: str
    vector: Vector
    identifiers: tuple[Identifier, ...]
    missing_identifiers: tuple[Identifier, ...]
    allowed: Mask | None = None
    """Chunks by row id that may be found, shape (n_chunks + 1,); None for all."""


@dataclass(frozen=True)
class Found:
    """What the lists hold, and the cosines that were computed on the way."""

    lists: dict[str, list[int]]
    """Chunk row ids by list, best first."""
    chunk_cosines: dict[int, float]
    """By chunk row id."""
    sentence_cosines: list[tuple[int, float]]
    """(chunk row id, cosine) of the nearest sentences, best first."""
    times_ms: dict[str, float] = field(default_factory=dict)


class Lists:
    """The retrievers over one open index."""

    def __init__(
        self, connection: apsw.Connection, chunks: DenseTable, sentences: DenseTable, config: RetrieverConfig
    ) -> None:
        self._connection, self._chunks, self._sentences = connection, chunks, sentences
        self._config = config

    def find(self, query: Query, clock: Callable[[], float]) -> Found:
        """All lists for one query; `clock` gives seconds."""
        times = [clock()]
        by_identifier = self._by_identifier(query)
        times.append(clock())
        prose = self._match("prose", words_of(query.text), query.allowed)
        times.append(clock())
        exact = self._match("exact", codes_of(query.text), query.allowed)
        times.append(clock())
        chunks = self._chunks.nearest(query.vector, self._config.candidates, query.allowed)
        times.append(clock())
        sentences = self._nearest_sentences(query)
        times.append(clock())
        best_sentences = list(dict.fromkeys(rowid for rowid, _ in sentences))[: self._config.candidates]
        lists = (by_identifier, prose, exact, list(chunks), best_sentences)
        spent = [(after - before) * 1000 for before, after in zip(times, times[1:], strict=False)]
        return Found(
            dict(zip(NAMES, lists, strict=True)), chunks, sentences, dict(zip(NAMES, spent, strict=True))
        )

    def affordable(self, words: list[str]) -> list[str]:
        """Of the first MAX_QUERY_TERMS, the rarest words whose chunks together stay within `max_postings`.

        What ranks is what is rare, and each chunk that holds a word costs about half a microsecond.
        """
        words = list(dict.fromkeys(words))[:MAX_QUERY_TERMS]
        stems = {word: stem(word) for word in words}
        rows = fetch(
            self._connection,
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

    def _by_identifier(self, query: Query) -> list[int]:
        """Chunks that hold the question's identifiers: documents about them first, then by similarity."""
        wanted = [one for one in query.identifiers if one not in query.missing_identifiers]
        wanted += [parent for one in query.missing_identifiers for parent in identifiers.parents(one)]
        if not wanted:
            return []
        weights: Counter[int] = Counter()
        for one in wanted:
            for rowid, is_topic in self._holding(one, query.allowed):
                weights[rowid] += 1 + 2 * is_topic
        heaviest = sorted(weights, key=lambda rowid: (-weights[rowid], rowid))[:MAX_PINNED]
        similarity = self._chunks.similarity(query.vector, heaviest)
        order = sorted(heaviest, key=lambda rowid: (-weights[rowid], -similarity[rowid], rowid))
        return order[: self._config.candidates]

    def _holding(self, identifier: Identifier, allowed: Mask | None) -> list[tuple[int, int]]:
        """(chunk row id, is_topic) of the first chunks that hold an identifier, those about it before all."""
        rows = self._connection.execute(
            "select chunk_rowid, is_topic from identifiers where kind = ? and value = ? "
            "order by is_topic desc, chunk_rowid",
            (identifier.kind, identifier.value),
        )
        seen = ((int(row[0]), int(row[1])) for row in rows if allowed is None or allowed[row[0]])
        return list(islice(seen, MAX_HOLDING))

    def _match(self, table: str, words: list[str], allowed: Mask | None) -> list[int]:
        """BM25 order of the chunks that hold any of `words`; each is quoted, so no operator survives."""
        unique = self.affordable(words)
        if not unique:
            return []
        expression = " OR ".join('"' + word.replace('"', '""') + '"' for word in unique)
        config = self._config
        weights = (
            f", {config.bm25_title}, {config.bm25_heading}, {config.bm25_body}" if table == "prose" else ""
        )
        rows = self._connection.execute(
            f"select rowid from {table} where {table} match ? order by bm25({table}{weights}), rowid",
            (expression,),
        )
        seen = (int(rowid) for (rowid,) in rows if allowed is None or allowed[rowid])
        return list(islice(seen, config.candidates))

    def _nearest_sentences(self, query: Query) -> list[tuple[int, float]]:
        allowed = None if query.allowed is None else query.allowed[self._chunk_of_sentence]
        nearest = self._sentences.nearest(query.vector, self._config.sentences, allowed)
        rows = fetch(
            self._connection,
            f"select rowid, chunk_rowid from sentences where rowid in ({placeholders(nearest)})",
            tuple(nearest),
        )
        chunk_of = {int(rowid): int(chunk) for rowid, chunk in rows}
        return [(chunk_of[rowid], cosine) for rowid, cosine in nearest.items()]

    @cached_property
    def _chunk_of_sentence(self) -> NDArray[np.int64]:
        """Chunk row id by sentence row id, shape (n_sentences + 1,)."""
        rows = fetch(self._connection, "select chunk_rowid from sentences order by rowid")
        return np.array([0, *(int(chunk) for (chunk,) in rows)], dtype=np.int64)


def words_of(text: str) -> list[str]:
    """What of a text the prose list looks up, without repeats."""
    return [word for word in dict.fromkeys(_WORD.findall(text.lower())) if word not in STOP_WORDS]


def codes_of(text: str) -> list[str]:
    """What of a text the exact list looks up: tokens with digits, dots, dashes or backslashes."""
    return [token for token in tokens(text) if _CODE.search(token)]
