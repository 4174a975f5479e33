"""The facts that the box would show for a question, from the records of one split alone.

Invariant: nothing but the split's own records is found, by the retriever and the selector that serve, so that
an adapter learns from the prompts it will get.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from whis_box.config import RagConfig
from whis_box.ingest.pipeline import build_index
from whis_box.knowledge.embedder import Embedder
from whis_box.knowledge.evidence import EvidenceSelector, EvidenceSentence, coverage
from whis_box.knowledge.retriever import Retriever
from whis_box.knowledge.sentences import split_blocks
from whis_box.knowledge.terms import terms
from whis_box.schemas import Record

MIN_SENTENCE_CHARS = 25
MAX_SENTENCE_CHARS = 400
DEEP_TOP_K = 20
"""Hits looked at for facts beside a known answer, so that enough are left without its document."""
SAME = 0.5
"""Share of an answer's words, by rarity, from which another sentence counts as saying the same."""


@dataclass(frozen=True)
class Sentence:
    """A quotable sentence of a record."""

    record_id: str
    text: str


class ServedFacts:
    """All sentences of one split's records, and those that retrieval finds for a question."""

    def __init__(
        self, records: Sequence[Record], served: EvidenceSelector, deep: EvidenceSelector, most: int
    ) -> None:
        self._served, self._deep, self.most = served, deep, most
        self._candidates: dict[str, list[EvidenceSentence]] = {}
        self.of_record = {record.id: _sentences(record) for record in records}

    def shown(self, question: str) -> list[Sentence]:
        """What a prompt of serving would hold, in its order."""
        return self._distinct(self._served.select(question).sentences)

    def like(self, question: str, without: frozenset[str]) -> list[Sentence]:
        """What retrieval finds beyond the records `without`, best first."""
        found = self._distinct(self.candidates(question))
        return [one for one in found if one.record_id not in without]

    def candidates(self, question: str) -> list[EvidenceSentence]:
        """Every sentence of the hits, best first."""
        if question not in self._candidates:
            self._candidates[question] = self._deep.select(question).candidates
        return self._candidates[question]

    def rarity(self, sentences: Sequence[EvidenceSentence]) -> dict[str, float]:
        """As EvidenceSelector.rarity."""
        return self._deep.rarity(sentences)

    def say_the_same(self, answers: Sequence[str], other: str) -> bool:
        """Whether `other` answers whatever one of `answers` answers, as far as words tell."""
        held = set(terms(other))
        return any(coverage(self._deep.idf(set(terms(one))), held) >= SAME for one in answers)

    def _distinct(self, found: Sequence[EvidenceSentence]) -> list[Sentence]:
        kept = {
            text: Sentence(one.hit.chunk.record_id, text)
            for one in reversed(found)
            if one.kind == "sentence" and len(text := _plain(one.text)) >= MIN_SENTENCE_CHARS
        }
        return [kept[text] for text in dict.fromkeys(_plain(one.text) for one in found) if text in kept]


@contextmanager
def served_facts(
    records: Sequence[Record], embedder: Embedder, embedder_sha256: str, rag: RagConfig
) -> Iterator[ServedFacts]:
    """Index `records` in a temporary folder and open what serves."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "index.sqlite"
        build_index(records, path, embedder, embedder_sha256, rag, lambda *_: None, len(records))
        deep = rag.retriever.model_copy(update={"top_k": DEEP_TOP_K})
        opened = [Retriever(path, embedder, embedder_sha256, one) for one in (rag.retriever, deep)]
        try:
            served, deeper = (EvidenceSelector(one, rag.evidence, rag.abstain) for one in opened)
            yield ServedFacts(records, served, deeper, rag.evidence.max_sentences)
        finally:
            for one in opened:
                one.close()


def _sentences(record: Record) -> list[Sentence]:
    return [
        Sentence(record.id, text)
        for block in split_blocks(record.text)
        for span in block.spans
        if span.kind == "sentence"
        and len(text := _plain(record.text[span.start : span.end])) >= MIN_SENTENCE_CHARS
        and len(text) <= MAX_SENTENCE_CHARS
    ]


def _plain(text: str) -> str:
    return " ".join(text.split())
