"""Which ATT&CK techniques an alert and a passage share evidence for.

Invariant: a technique is proposed only if the alert's source claims it or a cited passage names both it and
something distinctive that stands in the alert.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from whis_box.errors import VerificationError
from whis_box.knowledge import identifiers
from whis_box.knowledge.evidence import EvidenceSentence
from whis_box.knowledge.terms import terms, tokens
from whis_box.paths import read_text

SATURATION = 3.0  # about four rare shared terms
MIN_SHARED = 2
# Sections that say what to do, not what a technique looks like: their words match every alert.
ADVICE_HEADINGS = {
    "First five minutes",
    "Containment",
    "What to collect",
    "Queries",
    "False positives",
    "Related techniques",
}
FULL_SHARE = 0.6  # no alert holds every word of a sentence about it
MIN_RARITY = 0.4  # a term in more than about a tenth of the chunks says nothing about a technique
CLAIMED_SCORE = 0.9
FULL_RELEVANCE = 2.5  # score of a sentence that fits the alert well; chosen on half of the development events


@dataclass(frozen=True)
class TechniqueEvidence:
    """A technique, how strong its evidence is (0..1), and the sentence that carries it, if one does.

    `score` orders and is shown; `overlap` is its part that retrieval has no say in, and alone escalates.
    """

    id: str
    name: str
    score: float
    sentence: EvidenceSentence | None
    shared_terms: tuple[str, ...]
    overlap: float


class Catalogue:
    """Ids, names and tactics of all current ATT&CK Enterprise techniques."""

    def __init__(self, path: Path) -> None:
        """Read the tab-separated catalogue.

        Raises: NotReadyError, VerificationError, StorageError.
        """
        self._names: dict[str, str] = {}
        self._tactics: dict[str, list[str]] = {}
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            if line.startswith("#") or line.startswith("id\t"):
                continue
            fields = line.split("\t")
            if len(fields) != 4:
                raise VerificationError(
                    f"{path}: line {number}: {len(fields)} fields, not 4; copy the box again"
                )
            self._names[fields[0]] = fields[1]
            self._tactics[fields[0]] = [one for one in fields[2].split(",") if one]

    def __contains__(self, technique_id: str) -> bool:
        return technique_id in self._names

    def ids(self) -> list[str]:
        """Every technique, in the order of the file."""
        return list(self._names)

    def name(self, technique_id: str) -> str:
        """The technique's name, with its parent's in front for a sub-technique."""
        return self._names[technique_id]

    def tactics(self, technique_id: str) -> list[str]:
        """Tactic short names, such as `credential-access`."""
        return self._tactics[technique_id]


def match_techniques(
    alert_text: str,
    claimed: Iterable[str],
    sentences: Iterable[EvidenceSentence],
    rarity: Mapping[str, float],
    catalogue: Catalogue,
) -> list[TechniqueEvidence]:
    """Techniques with evidence, strongest first; `rarity` (0..1) must hold the sentences' terms."""
    in_alert = set(terms(alert_text))
    best: dict[str, TechniqueEvidence] = {}
    for technique_id in dict.fromkeys(claimed):
        if technique_id in catalogue:
            best[technique_id] = TechniqueEvidence(
                technique_id,
                catalogue.name(technique_id),
                CLAIMED_SCORE,
                None,
                ("claimed by the source",),
                CLAIMED_SCORE,
            )
    for sentence in sentences:
        shared, score = _overlap(sentence, in_alert, rarity)
        for technique_id in _techniques_of(sentence):
            if not shared or technique_id not in catalogue:
                continue
            known = best.get(technique_id)
            if known is None or known.overlap < score or known.sentence is None:
                overlap = max(score, known.overlap if known else 0.0)
                best[technique_id] = TechniqueEvidence(
                    technique_id, catalogue.name(technique_id), overlap, sentence, tuple(shared), overlap
                )
    return sorted(map(_with_relevance, best.values()), key=lambda one: (-one.score, one.id))


def _with_relevance(one: TechniqueEvidence) -> TechniqueEvidence:
    """Raised half way to how well its sentence fits the alert; never lowered, so no text dilutes it."""
    relevance = min(1.0, one.sentence.score / FULL_RELEVANCE) if one.sentence is not None else 0.0
    return replace(one, score=max(one.overlap, 0.5 * (one.overlap + relevance)))


def _overlap(
    sentence: EvidenceSentence, in_alert: set[str], rarity: Mapping[str, float]
) -> tuple[list[str], float]:
    """Distinctive tokens of a sentence that stand in the alert, and how well the two fit, 0..1.

    Half the score is how much is shared, half is which part of the sentence that is: a sentence about
    `w3wp.exe` that starts `cmd.exe` says nothing about every `cmd.exe`. One shared token alone is a
    coincidence.
    """
    weights: dict[str, float] = {}
    shared: list[str] = []
    for token in dict.fromkeys(tokens(sentence.text)):
        parts = [term for term in terms(token) if rarity.get(term, 0.0) >= MIN_RARITY and len(term) > 2]
        if parts:
            weights[token] = max(rarity[term] for term in parts)
            if in_alert.issuperset(parts):
                shared.append(token)
    # `lsass` beside `lsass.exe` is one coincidence, not two.
    shared = [token for token in shared if not any(token != other and token in other for other in shared)]
    mass = sum(weights[token] for token in shared)
    section = sentence.hit.chunk.heading_path[-1:]
    if sentence.kind != "sentence" or len(shared) < MIN_SHARED or set(section) & ADVICE_HEADINGS:
        return [], 0.0
    return shared, 0.5 * min(1.0, mass / SATURATION) + 0.5 * min(
        1.0, mass / sum(weights.values()) / FULL_SHARE
    )


def _techniques_of(sentence: EvidenceSentence) -> list[str]:
    """Techniques the sentence names; else the first one its document is about."""
    named = identifiers.values(sentence.text, "technique")
    return named or identifiers.values(sentence.hit.title, "technique")[:1]
