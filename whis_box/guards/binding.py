"""From the model's draft to claims that their citations carry.

Invariant: every claim that leaves here is either verbatim evidence or passed the support check; what was
dropped, moved or added is reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from whis_box.guards.grounding import support
from whis_box.knowledge.evidence import EvidenceSentence
from whis_box.schemas import Citation, Claim, Finding


@dataclass(frozen=True)
class BoundAnswer:
    """Claims whose `citations` are numbers in `citations`."""

    claims: list[Claim]
    citations: list[Citation]
    findings: list[Finding]


@dataclass(frozen=True)
class _Draft:
    text: str
    sentence: EvidenceSentence
    support: float


def bind(
    drafted: Sequence[tuple[int, str]],
    evidence: Sequence[EvidenceSentence],
    idf: Mapping[str, float],
    min_support: float,
    companion_share: float,
    max_claims: int,
) -> BoundAnswer:
    """Keep what the evidence carries; put the best sentence first when the draft left it out.

    `drafted` holds (sentence number, text); an empty text stands for the sentence itself. Sentences that
    score at least `companion_share` of the best one follow, up to `max_claims` in all.
    """
    findings: list[Finding] = []
    kept: list[_Draft] = []
    for number, text in drafted:
        draft = _check(number, text, evidence, idf, min_support, findings)
        if draft is not None and all(draft.sentence.n != other.sentence.n for other in kept):
            kept.append(draft)
    best = evidence[0]
    if not kept:
        kept = [_Draft(best.text, best, 1.0)]
        findings.append(
            _note("extractive_fallback", "the model's text was not supported; the best passages are quoted")
        )
    elif all(draft.sentence.n != best.n for draft in kept):
        kept.insert(0, _Draft(best.text, best, 1.0))
        findings.append(
            _note("evidence_added", "the best-matching passage was added in front of the model's choice")
        )
    cited = {draft.sentence.n for draft in kept}
    kept += [
        _Draft(one.text, one, 1.0) for one in close_behind(evidence, companion_share) if one.n not in cited
    ]
    return _number(kept[:max_claims], findings)


def _check(
    number: int,
    text: str,
    evidence: Sequence[EvidenceSentence],
    idf: Mapping[str, float],
    min_support: float,
    findings: list[Finding],
) -> _Draft | None:
    sentence = next((one for one in evidence if one.n == number), None)
    if sentence is None:
        findings.append(_note("citation_unknown", f"the model cited [{number}], which was not shown to it"))
        return None
    if not text:
        return _Draft(sentence.text, sentence, 1.0)
    own = support(text, [sentence.text], idf)
    if own >= min_support:
        return _Draft(text, sentence, own)
    best = max(evidence, key=lambda one: support(text, [one.text], idf))
    score = support(text, [best.text], idf)
    if score >= min_support:
        findings.append(
            _note("citation_corrected", f"a sentence citing [{number}] is carried by another passage")
        )
        return _Draft(text, best, score)
    findings.append(
        _note("claim_unsupported", f"a sentence was removed, its support was {score:.2f}: {text[:160]}")
    )
    return None


def carried(
    number: int, text: str, evidence: Sequence[EvidenceSentence], idf: Mapping[str, float], min_support: float
) -> tuple[str, EvidenceSentence] | None:
    """One drafted sentence and the evidence that carries it, as `bind` would keep it, else None."""
    draft = _check(number, text, evidence, idf, min_support, [])
    return None if draft is None else (draft.text, draft.sentence)


def close_behind(evidence: Sequence[EvidenceSentence], share: float) -> list[EvidenceSentence]:
    """The sentences whose score is at least `share` of the best one's: often the answer needs two of them."""
    return [one for one in evidence if one.score >= share * evidence[0].score]


def _number(drafts: Sequence[_Draft], findings: list[Finding]) -> BoundAnswer:
    claims, citations = [], []
    for n, draft in enumerate(drafts, start=1):
        claims.append(Claim(text=" ".join(draft.text.split()), citations=[n], support=draft.support))
        citations.append(cite(n, draft.sentence))
    return BoundAnswer(claims, citations, findings)


def cite(n: int, sentence: EvidenceSentence) -> Citation:
    """The citation of one evidence sentence under number `n`."""
    chunk = sentence.hit.chunk
    return Citation(
        n=n,
        chunk_id=chunk.id,
        record_id=chunk.record_id,
        title=sentence.hit.title,
        heading_path=chunk.heading_path,
        quote=sentence.text,
        start=sentence.start,
        end=sentence.end,
        sha256=sentence.sha256,
        license=chunk.meta.license,
        tlp=chunk.meta.tlp,
    )


class CitationList:
    """Numbers each cited sentence once, from 1."""

    def __init__(self) -> None:
        self.citations: list[Citation] = []

    def number(self, sentence: EvidenceSentence) -> int:
        """The sentence's number; it is added if it is new."""
        for known in self.citations:
            if known.sha256 == sentence.sha256 and known.record_id == sentence.hit.chunk.record_id:
                return known.n
        self.citations.append(cite(len(self.citations) + 1, sentence))
        return len(self.citations)


def _note(code: str, message: str) -> Finding:
    severity = "warning" if code in ("claim_unsupported", "citation_unknown") else "info"
    return Finding(code=code, severity=severity, message=message)
