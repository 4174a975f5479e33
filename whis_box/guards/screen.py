"""What the detector's marks change: suspected text does not reach the model, and is reported and still cited.

Invariant: nothing is deleted from the evidence; a suspected passage goes behind all others and out of the
prompt, a suspected value of an alert is hidden from the model alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from whis_box.guards.detector import Detection, Detector
from whis_box.knowledge.evidence import Evidence, EvidenceSentence
from whis_box.schemas import TLP_ORDER, Finding, Tlp

HIDDEN = "[text that addresses a model; hidden here, see the findings]"
NEIGHBOURS = 3  # an order may be spread over this many passages of one document


@dataclass(frozen=True)
class ScreenedAlert:
    """An alert's fields for the model, and the names of those whose text was hidden."""

    fields: dict[str, str]
    suspected: tuple[str, ...]
    findings: list[Finding]


def screen_fields(fields: Mapping[str, str], detector: Detector) -> ScreenedAlert:
    """Hide each value that looks like an order to a model; an order spread over fields hides all of them."""
    found = {name: detector.detect(text) for name, text in fields.items() if len(text) > 8}
    suspected = {name: one for name, one in found.items() if one.suspected}
    if not suspected:
        spread = _spread(list(fields.items()), detector)
        suspected = dict.fromkeys(spread[0], spread[1]) if spread else {}
    shown = {name: HIDDEN if name in suspected else text for name, text in fields.items()}
    findings = [_finding(f"the alert's field {name}", one) for name, one in suspected.items()]
    return ScreenedAlert(shown, tuple(suspected), findings)


def _spread(fields: Sequence[tuple[str, str]], detector: Detector) -> tuple[list[str], Detection] | None:
    """Fields that follow one another and together hold an order that none of them holds alone."""
    worded = [(name, text) for name, text in fields if " " in text.strip() and len(text) < 400]
    for size in (2, NEIGHBOURS):
        for at in range(len(worded) - size + 1):
            part = worded[at : at + size]
            found = detector.detect(" ".join(text for _, text in part))
            if found.suspected:
                return [name for name, _ in part], found
    return None


@dataclass(frozen=True)
class ScreenedEvidence:
    """The evidence without suspected sentences, and those sentences."""

    evidence: Evidence
    suspected: list[EvidenceSentence]
    findings: list[Finding]


def screen_evidence(evidence: Evidence, detector: Detector, clearance: Tlp) -> ScreenedEvidence:
    """Take suspected sentences, and those above the clearance, out of what the model sees."""
    seen = [one for one in evidence.sentences if _cleared(one, clearance)]
    marked = suspected_sentences(seen, detector)
    kept = [one for one in seen if one.n not in marked]
    suspected = [one for one in seen if one.n in marked]
    findings = [_finding(f"a passage of {one.hit.chunk.record_id}", marked[one.n]) for one in suspected]
    if len(seen) < len(evidence.sentences):
        message = f"passages above TLP:{clearance.upper()} were left out, as the policy says"
        findings.append(Finding(code="tlp_withheld", severity="info", message=message))
    numbered = [replace(one, n=n) for n, one in enumerate(kept, start=1)]
    return ScreenedEvidence(replace(evidence, sentences=numbered), suspected, findings)


def suspected_sentences(sentences: Sequence[EvidenceSentence], detector: Detector) -> dict[int, Detection]:
    """Numbers of the sentences that hold an order, alone, under their headings, or with their neighbours."""
    marked: dict[int, Detection] = {}
    for one in sentences:
        headings = " ".join([one.hit.title, *one.hit.chunk.heading_path])
        found = max(detector.detect(one.text), detector.detect(headings), key=lambda each: each.score)
        if found.suspected:
            marked[one.n] = found
    ordered = sorted(sentences, key=lambda one: (one.hit.chunk.record_id, one.start))
    for size in (2, NEIGHBOURS):
        for at in range(len(ordered) - size + 1):
            part = ordered[at : at + size]
            if len({one.hit.chunk.record_id for one in part}) == 1 and not any(
                one.n in marked for one in part
            ):
                found = detector.detect(" ".join(one.text for one in part))
                if found.suspected:
                    marked |= {one.n: found for one in part}
    return marked


def unsuspected(
    sentences: Iterable[EvidenceSentence], detector: Detector, clearance: Tlp
) -> list[EvidenceSentence]:
    """The sentences that may carry a technique or a step."""
    return [one for one in sentences if _cleared(one, clearance) and not detector.detect(one.text).suspected]


def _cleared(sentence: EvidenceSentence, clearance: Tlp) -> bool:
    return TLP_ORDER.index(sentence.hit.chunk.meta.tlp) <= TLP_ORDER.index(clearance)


def _finding(where: str, found: Detection) -> Finding:
    return Finding(
        code="suspected_instruction",
        severity="warning",
        message=f"{where} holds text that looks like an order to a model ({found.reason}, {found.score:.2f}); "
        "the model did not see it",
    )
