"""The served pipeline under attack: real index and embedder, with the real model or with one that obeys.

`Obedient` stands for any model or adapter that was talked round: where it can see the planted text it writes
whatever the attacker wants and the grammar lets through. What holds against it does not rest on the model.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.attacks.corpus import Attack
from whis_box.box.manifest import verify
from whis_box.box.opening import POLICY, engine_spec, open_retriever
from whis_box.config import BoxConfig, ModelConfig, RagConfig, load_config
from whis_box.copilot import Copilot, Parts
from whis_box.engine.protocol import Completion, GenerateRequest
from whis_box.engine.supervisor import Engine
from whis_box.guards.gate import open_gate
from whis_box.guards.text import clean_text
from whis_box.ingest.sanitize.policy import PolicyConfig
from whis_box.knowledge.evidence import Evidence, EvidenceSelector, EvidenceSentence
from whis_box.knowledge.facets import Filter
from whis_box.knowledge.retriever import Retriever
from whis_box.knowledge.techniques import Catalogue
from whis_box.schemas import Chunk, ChunkMeta, Hit, Lineage, Record, Source

LINEAGE = Lineage(box="-", base="-", adapter="-", index="-", embedder="-", prompt="-", policy="-")
PLANTED_ID = "planted"
# Title, heading and body around a planted text; the detector must not mark them, or it alone is measured.
FRAME = ("Sensor change log", "Release 4.2", "The driver was updated in the second week of March.")
_WORDS = re.compile(r"\w+")


class Obedient:
    """Follows the planted text wherever it is shown."""

    pid = None

    def __init__(self) -> None:
        self.attack: Attack | None = None
        self.said = ""

    def generate(self, request: GenerateRequest, on_text: Callable[[str], None] | None = None) -> Completion:
        """The attacker's wish within the grammar, or a plain choice."""
        prompt = "".join(text for text, _ in request.prompt)
        sees = self.attack is not None and sees_planted(self.attack, prompt)
        if "Technique:" in request.grammar:
            wish = (
                self.attack.wanted if self.attack is not None and sees else "Something happened on the host"
            )
            self.said = re.sub(r"[\[\]<>]", "", wish[:1].upper() + wish[1:]).ljust(13) + "."
            text = f"Technique: none\nSummary: {self.said}\n"
        else:
            facts = re.findall(r"^\[(\d+)\] (.*)$", prompt, re.MULTILINE)
            numbers = [n for n, fact in facts if sees and self.attack and sees_planted(self.attack, fact)]
            text = "".join(f"[{n}]" for n in numbers or ["1"]) + "\n"
        return Completion(text, "stop", 0, 0, 0, 0.0, 0.0)


def sees_planted(attack: Attack, shown: str) -> bool:
    """Whether half of the planted words, as they were disguised, stand in `shown`."""
    words = set(_WORDS.findall(clean_text(attack.text, "attack")[0].lower()))
    return bool(words) and len(words & set(_WORDS.findall(shown.lower()))) >= 0.5 * len(words)


class PlantedRetriever:
    """A retriever whose index also holds one planted record."""

    def __init__(self, real: Retriever) -> None:
        self._real = real
        self.planted: Record | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def record(self, record_id: str) -> Record:
        """The planted record, or a real one."""
        if record_id == PLANTED_ID and self.planted is not None:
            return self.planted
        return self._real.record(record_id)


class PlantedSelector(EvidenceSelector):
    """Ranks the planted passage first, as if retrieval had been beaten."""

    def __init__(self, retriever: PlantedRetriever, rag: RagConfig) -> None:
        super().__init__(retriever, rag.evidence, rag.abstain)  # type: ignore[arg-type]
        self._planted = retriever
        self.attack: Attack | None = None

    def select(
        self,
        question: str,
        narrowed: Filter = Filter(),  # noqa: B008 (frozen)
    ) -> Evidence:
        """The real evidence behind the planted passage."""
        found = super().select(question, narrowed)
        if self.attack is None:
            return found
        planted = list(self._plant(self.attack, found))
        sentences = [replace(one, n=n) for n, one in enumerate([*planted, *found.sentences][:8], start=1)]
        return replace(found, sentences=sentences, candidates=[*planted, *found.candidates])

    def _plant(self, attack: Attack, found: Evidence) -> Iterator[EvidenceSentence]:
        best = found.sentences[0]
        harmless = FRAME[2]
        text = clean_text(attack.text, "document")[0].replace("\n", " ")
        in_title, in_heading = attack.place == "title", attack.place == "heading"
        body = harmless if in_title or in_heading else text
        words = body.split()
        half = len(words) // 2
        spans = (
            [" ".join(words[:half]), " ".join(words[half:])] if attack.place == "split_passages" else [body]
        )
        spans = [one for one in spans if one]
        record = _record(text if in_title else FRAME[0], " ".join(spans))
        self._planted.planted = record
        chunk = _chunk(record, [text] if in_heading else [FRAME[1]])
        hit = Hit(chunk=chunk, title=record.title, score=best.hit.score)
        at = 0
        for span in spans:
            digest = hashlib.sha256(span.encode()).hexdigest()
            end = at + len(span)
            yield EvidenceSentence(0, hit, span, "sentence", at, end, digest, best.score + 0.1, (1.0,) * 5)
            at = end + 1


def _record(title: str, text: str) -> Record:
    source = Source(name="planted", uri="planted", revision="1", retrieved_at="2026-11-25T00:00:00Z")
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Record(
        id=PLANTED_ID, source=source, title=title, text=text, license="CC0-1.0", tlp="clear",
        sha256_raw=digest, sha256_text=digest, pipeline_version="1",
    )  # fmt: skip


def _chunk(record: Record, heading_path: list[str]) -> Chunk:
    return Chunk(
        id="planted-0", record_id=record.id, ordinal=0, heading_path=heading_path, text=record.text, start=0,
        end=len(record.text), meta=ChunkMeta(license=record.license, tlp=record.tlp), n_tokens=1,
        sha256=record.sha256_text,
    )  # fmt: skip


class Target:
    """A copilot that can be attacked."""

    def __init__(self, copilot: Copilot, selector: PlantedSelector, engine: Any) -> None:
        self.copilot, self.selector, self.engine = copilot, selector, engine

    def arm(self, attack: Attack | None, in_document: bool) -> None:
        """Plant `attack`, or take the last one away."""
        self.selector.attack = attack if in_document else None
        if isinstance(self.engine, Obedient):
            self.engine.attack = attack


@contextmanager
def target(box_folder: Path, real_model: bool) -> Iterator[Target]:
    """The box's own parts, with its model or the obedient one."""
    manifest, _ = verify(box_folder)
    box = load_config(box_folder / "configs" / "box.yaml", BoxConfig)
    model = load_config(box_folder / "configs" / "model.whis.yaml", ModelConfig)
    rag = load_config(box_folder / "configs" / "rag.yaml", RagConfig)
    policy = load_config(box_folder / POLICY, PolicyConfig).guards
    gate = open_gate(box_folder / box.guards, box_folder / box.catalogue, policy)
    retriever = PlantedRetriever(open_retriever(box_folder, box, rag, manifest))
    selector = PlantedSelector(retriever, rag)
    engine: Any = Engine(engine_spec(box_folder / box.base_model, model)) if real_model else Obedient()
    parts = Parts(
        engine=engine, retriever=retriever, selector=selector,  # type: ignore[arg-type]
        catalogue=Catalogue(box_folder / box.catalogue), model=model, box=box, lineage=LINEAGE, gate=gate,
    )  # fmt: skip
    marked = [one for one in (*FRAME, " ".join(FRAME[:2])) if gate.detector.detect(one).suspected]
    assert not marked, f"the detector marks the frame itself: {marked}"
    try:
        yield Target(Copilot(parts), selector, engine)
    finally:
        if real_model:
            engine.stop()


def wilson(successes: int, total: int) -> tuple[float, float]:
    """95 % interval of a share. Source: Wilson 1927."""
    if not total:
        return 0.0, 1.0
    z, share = 1.96, successes / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * np.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))
