"""From hits to the few sentences that go into a prompt, and whether they can hold an answer at all.

Invariant: a sentence is a verbatim span of its record, numbered from 1 in the order it is shown to the model.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from whis_box.config import AbstainConfig, EvidenceConfig
from whis_box.knowledge import identifiers
from whis_box.knowledge.facets import Filter
from whis_box.knowledge.lists import Query
from whis_box.knowledge.retriever import Retriever, ScoredChunk
from whis_box.knowledge.store import fetch
from whis_box.knowledge.terms import terms, tokens
from whis_box.schemas import Hit

Features = tuple[float, float, float, float, float]


@dataclass(frozen=True)
class EvidenceSentence:
    """One quotable span: `record.text[start:end] == text`."""

    n: int
    hit: Hit
    text: str
    kind: str
    start: int
    end: int
    sha256: str
    score: float
    features: Features
    """Cosine, coverage, coverage with title and heading, chunk rank, identifier match; each 0..1."""


@dataclass(frozen=True)
class Relevance:
    """Features of the "nothing relevant here" decision, each 0..1, and their probability."""

    sentence_cosine: float
    chunk_cosine: float
    coverage: float
    sentence_coverage: float
    unknown: float
    missing_identifier: float
    concentration: float
    probability: float = 0.0


@dataclass(frozen=True)
class Evidence:
    """What was found for one question."""

    query: Query
    hits: list[Hit]
    candidates: list[EvidenceSentence]
    """Every sentence of the hits, best first, not numbered."""
    sentences: list[EvidenceSentence]
    """The ones that fit the budget, numbered."""
    relevance: Relevance


class EvidenceSelector:
    """Chooses sentences and judges relevance for one index."""

    def __init__(self, retriever: Retriever, evidence: EvidenceConfig, abstain: AbstainConfig) -> None:
        self._retriever, self._config, self._abstain = retriever, evidence, abstain

    def select(
        self,
        question: str,
        narrowed: Filter = Filter(),  # noqa: B008 (frozen)
    ) -> Evidence:
        """Retrieve within `narrowed`, and choose.

        Raises: as `Retriever.search`.
        """
        query = self._retriever.prepare(question, narrowed)
        hits = self._retriever.search(query, spread=False)  # one document may hold the whole answer
        weights = self.idf(self._wanted(question))
        candidates = self._score(query, hits, weights)
        relevance = self._relevance(query, hits, candidates, weights)
        return Evidence(query, hits, candidates, self._within_budget(candidates), relevance)

    def _wanted(self, question: str) -> set[str]:
        """The question's terms; a compound that the index does not know counts by its known parts."""
        wanted: set[str] = set()
        for token in tokens(question):
            whole = set(terms(token))
            known = self.known(whole)
            wanted |= known if known and token not in known else whole
        return wanted

    @property
    def threshold(self) -> float:
        """Probability below which the evidence counts as holding no answer."""
        return self._abstain.threshold

    def sentences_of(self, record_id: str) -> list[EvidenceSentence]:
        """Every sentence of one record in reading order, without scores."""
        rows = fetch(
            self._retriever.connection,
            "select rowid from chunks where record_id = ? order by rowid",
            (record_id,),
        )
        text = self._retriever.record(record_id).text
        found = []
        for (rowid,) in rows:
            hit = self._retriever.hit(ScoredChunk(int(rowid), 0.0, {}))
            for start, end, kind, _vector in self._spans(hit):
                found.append(_sentence(hit, text, start, end, kind, 0.0, (0.0, 0.0, 0.0, 0.0, 0.0)))
        return found

    def idf(self, wanted: set[str]) -> dict[str, float]:
        """Smoothed inverse document frequency of each term; unknown terms weigh most."""
        return self._retriever.idf(wanted)

    def rarity(self, sentences: Iterable[EvidenceSentence]) -> dict[str, float]:
        """`idf` of each term of `sentences` as a share of an unknown term's, so that it means the same in a
        small and a large index."""
        highest = math.log(1.0 + (self._retriever.n_chunks + 0.5) / 0.5)
        held = {term for one in sentences for term in terms(one.text)}
        return {term: weight / highest for term, weight in self.idf(held).items()}

    def known(self, wanted: set[str]) -> set[str]:
        """Those of `wanted` that occur in the index."""
        return set(self._retriever.counts(wanted))

    def _score(self, query: Query, hits: list[Hit], weights: dict[str, float]) -> list[EvidenceSentence]:
        best_hit = max((hit.score for hit in hits), default=1.0)
        scored = []
        for hit in hits:
            text = self._retriever.record(hit.chunk.record_id).text
            context = set(terms(" ".join([hit.title, *hit.chunk.heading_path])))
            for start, end, kind, vector in self._spans(hit):
                sentence = text[start:end]
                own = set(terms(sentence))
                features = (
                    max(0.0, float(vector @ query.vector)),
                    coverage(weights, own),
                    coverage(weights, own | context),
                    hit.score / best_hit,
                    float(any(one in query.identifiers for one in identifiers.extract(sentence))),
                )
                scored.append(_sentence(hit, text, start, end, kind, self._linear(features), features))
        return sorted(scored, key=lambda one: -one.score)

    def _linear(self, features: Features) -> float:
        config = self._config
        weights = (
            config.weight_cosine,
            config.weight_coverage,
            config.weight_context,
            config.weight_rank,
            config.weight_identifier,
        )
        return sum(weight * value for weight, value in zip(weights, features, strict=True))

    def _spans(self, hit: Hit) -> list[tuple[int, int, str, NDArray[np.float32]]]:
        rows = fetch(
            self._retriever.connection,
            "select s.start, s.end, s.kind, v.embedding "
            "from sentences s join chunks c on c.rowid = s.chunk_rowid "
            "join sentence_vectors v on v.rowid = s.rowid where c.id = ? order by s.rowid",
            (hit.chunk.id,),
        )
        return [
            (int(start), int(end), str(kind), np.frombuffer(blob, dtype=np.float32))
            for start, end, kind, blob in rows
        ]

    def _within_budget(self, candidates: list[EvidenceSentence]) -> list[EvidenceSentence]:
        chosen: list[EvidenceSentence] = []
        used = 0
        for candidate in candidates:
            cost = max(1, len(candidate.text) // 4)  # about four characters a token in English
            if len(chosen) == self._config.max_sentences:
                break
            if used + cost <= self._config.max_tokens and all(
                candidate.sha256 != one.sha256 for one in chosen
            ):
                chosen.append(replace(candidate, n=len(chosen) + 1))
                used += cost
        return chosen

    def _relevance(
        self, query: Query, hits: list[Hit], candidates: list[EvidenceSentence], weights: dict[str, float]
    ) -> Relevance:
        known = self.known(set(weights))
        vectors = [self._chunk_vector(hit) @ query.vector for hit in hits]
        sections = [coverage(weights, set(terms(_section(hit)))) for hit in hits]
        relevance = Relevance(
            sentence_cosine=max((one.features[0] for one in candidates), default=0.0),
            chunk_cosine=max(0.0, *(float(value) for value in vectors), 0.0),
            coverage=max(sections, default=0.0),
            sentence_coverage=max((one.features[2] for one in candidates), default=0.0),
            unknown=1.0 - coverage(weights, known),
            missing_identifier=float(bool(query.missing_identifiers)),
            concentration=_concentration(hits),
        )
        return replace(relevance, probability=_probability(relevance, self._abstain))

    def _chunk_vector(self, hit: Hit) -> NDArray[np.float32]:
        [row] = fetch(
            self._retriever.connection,
            "select v.embedding from chunk_vectors v join chunks c on c.rowid = v.rowid where c.id = ?",
            (hit.chunk.id,),
        )
        return np.frombuffer(row[0], dtype=np.float32)


def _sentence(
    hit: Hit, record_text: str, start: int, end: int, kind: str, score: float, features: Features
) -> EvidenceSentence:
    text = record_text[start:end]
    return EvidenceSentence(
        0, hit, text, kind, start, end, hashlib.sha256(text.encode()).hexdigest(), score, features
    )


def coverage(weights: dict[str, float], present: set[str]) -> float:
    """Share of the total weight whose terms are in `present`; 0 when there is nothing to cover."""
    total = sum(weights.values())
    return sum(weight for term, weight in weights.items() if term in present) / total if total else 0.0


def _concentration(hits: list[Hit]) -> float:
    """Largest share of the hits that belong to one record; scattered hits mean that nothing really fits."""
    counts = Counter(hit.chunk.record_id for hit in hits)
    return max(counts.values(), default=0) / max(1, len(hits))


def _section(hit: Hit) -> str:
    return " ".join([hit.title, *hit.chunk.heading_path, hit.chunk.text])


def _probability(relevance: Relevance, config: AbstainConfig) -> float:
    """Logistic model; its weights come from a recorded experiment on the development questions."""
    logit = (
        config.bias
        + config.weight_sentence_cosine * relevance.sentence_cosine
        + config.weight_chunk_cosine * relevance.chunk_cosine
        + config.weight_coverage * relevance.coverage
        + config.weight_sentence_coverage * relevance.sentence_coverage
        + config.weight_unknown * relevance.unknown
        + config.weight_missing_identifier * relevance.missing_identifier
        + config.weight_concentration * relevance.concentration
    )
    return 1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, logit))))
