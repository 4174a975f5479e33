"""What the detector's marks change: suspected text does not reach the model, and is reported and still cited.

Invariant: nothing is deleted from the evidence; a suspected passage goes behind all others and out of the
prompt, a suspected value of an alert is hidden from the model alone.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from whis_box.guards.detector import Detection, Detector
from whis_box.guards.views import readings
from whis_box.knowledge.evidence import Evidence, EvidenceSentence
from whis_box.schemas import TLP_ORDER, Finding, Tlp

PROSE = "[text]"
MIN_PROSE = 5
MAX_PROSE_CHARS = 2000
# Written by the source of the alert, not by whoever caused it.
SOURCE_FIELDS = frozenset({"title", "rule.name", "rule.category", "event.action", "event.type"})
_FUNCTION_WORDS_TEXT = """
    a about after all an and any are as at be because been before but by can do does for from had
    has have hence her his how i if in into is it its just me must my no not nothing of on one only
    or our out over shall she should so such than that the their them then there these they this
    those to under until was we were what when where which while who whoever whom why will with
    without would you your yours himself der die das und ist ein eine nicht mit auf den dem als zu
    von wird le la les un une est et pas que qui de des du en pour dans el los las una es y no por
    con para il lo gli che di e per con o os as um uma não het een van en niet
    """
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS_TEXT.split())
_WORDS = re.compile(r"\w+")
HIDDEN = "[text that addresses a model; hidden here, see the findings]"


@dataclass(frozen=True)
class ScreenedAlert:
    """An alert's fields, and the names of those that hold an order to a model."""

    fields: dict[str, str]
    """For the reader: suspected values are hidden."""
    model_fields: dict[str, str]
    """For the model: sentences inside values are hidden too."""
    suspected: tuple[str, ...]
    findings: list[Finding]


def screen_fields(fields: Mapping[str, str], detector: Detector) -> ScreenedAlert:
    """Hide each value that looks like an order to a model; an order spread over fields hides all of them."""
    found = {name: detector.detect(text) for name, text in fields.items() if len(text) > 8}
    suspected = {name: one for name, one in found.items() if one.suspected}
    if not suspected:
        spread = _spread(list(fields.items()), detector)
        suspected = dict.fromkeys(spread[0], spread[1]) if spread else {}
    shown = {name: HIDDEN if _shares(text, suspected, fields) else text for name, text in fields.items()}
    findings = [_finding(f"the alert's field {name}", one) for name, one in suspected.items()]
    told = {name: text if name in SOURCE_FIELDS else without_prose(text) for name, text in shown.items()}
    return ScreenedAlert(shown, told, tuple(suspected), findings)


def without_prose(text: str) -> str:
    """`text`, or a note in its place when it holds sentences rather than names, paths and commands.

    Values of an event are written by whoever caused it. The model needs none of their prose to say what
    happened, and what it does not see it cannot be told.
    """
    return PROSE if any(_is_prose(words.split()) for _, words in readings(text[:MAX_PROSE_CHARS])) else text


def _is_prose(words: Sequence[str]) -> bool:
    spoken = {word for word in words if word in FUNCTION_WORDS or not word.isascii()}
    return len(words) >= MIN_PROSE and len(spoken) >= 2


def _shares(text: str, suspected: Iterable[str], fields: Mapping[str, str]) -> bool:
    """Whether most words of `text` are also in a suspected field: sources repeat values."""
    words = set(_WORDS.findall(text.lower()))
    return any(
        len(words & set(_WORDS.findall(fields[name].lower()))) > 0.5 * len(words) for name in suspected
    )


def _spread(fields: Sequence[tuple[str, str]], detector: Detector) -> tuple[list[str], Detection] | None:
    """Fields that follow one another and together hold an order that none of them holds alone."""
    worded = [(name, text) for name, text in fields if " " in text.strip() and len(text) < 400]
    if len(worded) < 2 or not detector.detect(" ".join(text for _, text in worded)).suspected:
        return None
    for at in range(len(worded) - 1):
        found = detector.detect(" ".join(text for _, text in worded[at : at + 2]))
        if found.suspected:
            return [name for name, _ in worded[at : at + 2]], found
    return [name for name, _ in worded], detector.detect(" ".join(text for _, text in worded))


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
    """Numbers of the sentences whose section or record holds an order, in one sentence or spread."""
    marked: dict[int, Detection] = {}
    for one in sentences:
        headings = " ".join([one.hit.title, *one.hit.chunk.heading_path])
        found = max(detector.detect(one.text), detector.detect(headings), key=lambda each: each.score)
        if found.suspected:
            marked[one.n] = found
    whole = {one.hit.chunk.id: marked[one.n] for one in sentences if one.n in marked}
    marked |= {one.n: whole[one.hit.chunk.id] for one in sentences if one.hit.chunk.id in whole}
    by_record: dict[str, list[EvidenceSentence]] = defaultdict(list)
    for one in sorted(sentences, key=lambda each: each.start):
        by_record[one.hit.chunk.record_id].append(one)
    for part in by_record.values():
        if len(part) > 1 and not any(one.n in marked for one in part):
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
        message=f"{where} holds text that looks like an order to a model "
        f"({found.reason}, {found.score:.2f}); the model did not see it",
    )
