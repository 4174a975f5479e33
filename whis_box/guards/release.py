"""The last step of an answer and of a triage: closed vocabulary, harmless text, leaks.

Invariant: what cannot be released is replaced by a refusal or by needs_review, never returned as it was.
"""

from __future__ import annotations

from collections.abc import Sequence

from whis_box.guards.gate import Gate
from whis_box.guards.output import harmless
from whis_box.guards.vocabulary import foreign
from whis_box.knowledge.techniques import Catalogue
from whis_box.schemas import Answer, Claim, Finding, Identifiers, Step, Triage

BLOCKED = "The answer was stopped by the output filter; see the findings."


def release_answer(answer: Answer, question: str, gate: Gate, catalogue: Catalogue, mark: str) -> Answer:
    """The answer as it may leave; a claim that names something from nowhere is taken out, a leak stops it."""
    quotes = {citation.n: citation.quote for citation in answer.citations}
    findings = list(answer.findings)
    claims = []
    for claim in answer.claims:
        strange = foreign(claim.text, [quotes[n] for n in claim.citations], catalogue)
        if strange:
            findings.append(
                _finding("identifier_unknown", f"a sentence was removed, it named {strange[0][:80]}")
            )
        else:
            claims.append(claim.model_copy(update={"text": harmless(claim.text)}))
    said = " ".join(claim.text for claim in claims)
    leak = _leak(said, question, list(quotes.values()), gate, mark) if claims else ""
    if leak or (answer.claims and not claims):
        return _blocked(answer, findings, leak or "nothing that its passages carry")
    text = " ".join(_numbered(claim) for claim in claims) if claims else answer.answer
    return answer.model_copy(update={"answer": text, "claims": claims, "findings": findings})


def may_leave(
    sentences: Sequence[str],
    quotes: Sequence[str],
    question: str,
    gate: Gate,
    catalogue: Catalogue,
    mark: str,
) -> bool:
    """Whether sentences of a draft, each with the quote that carries it, would pass `release_answer`."""
    pairs = zip(sentences, quotes, strict=True)
    if any(foreign(sentence, [quote], catalogue) for sentence, quote in pairs):
        return False
    return not _leak(" ".join(sentences), question, quotes, gate, mark)


def _leak(text: str, question: str, quotes: Sequence[str], gate: Gate, mark: str) -> str:
    """Quotes are evidence, but a secret or personal data in one is no more welcome for that."""
    leak = gate.output.leak(text, [question], mark)
    if leak in ("a piece of the prompt", "text the model was trained on"):
        leak = gate.output.leak(text, [question, *quotes], mark)
    return leak


def _numbered(claim: Claim) -> str:
    return claim.text + "".join(f" [{n}]" for n in claim.citations)


def _blocked(answer: Answer, findings: list[Finding], what: str) -> Answer:
    findings.append(_finding("output_blocked", f"the answer was stopped, it held {what}", "error"))
    return answer.model_copy(
        update={
            "status": "refused",
            "answer": BLOCKED,
            "claims": [],
            "citations": [],
            "identifiers": Identifiers(),
            "findings": findings,
        }
    )


def release_triage(
    triage: Triage, alert_text: str, fallback: str, gate: Gate, catalogue: Catalogue, mark: str
) -> Triage:
    """The triage as it may leave; a summary that leaks or invents gives way to the alert's own facts."""
    findings = list(triage.findings)
    summary = triage.summary
    strange = foreign(summary, [alert_text], catalogue)
    leak = gate.output.leak(summary, [alert_text], mark)
    if strange or leak:
        why = leak or f"{strange[0][:80]}, which the alert does not hold"
        findings.append(_finding("summary_replaced", f"the summary was not used, it held {why}"))
        summary = fallback
    steps = [_released(step) for step in triage.recommended_steps]
    checks = [_released(step) for step in triage.false_positive_checks]
    return triage.model_copy(
        update={
            "summary": harmless(summary),
            "recommended_steps": steps,
            "false_positive_checks": checks,
            "findings": findings,
        }
    )


def _released(step: Step) -> Step:
    return step.model_copy(update={"text": harmless(step.text)})


def _finding(code: str, message: str, severity: str = "warning") -> Finding:
    return Finding.model_validate({"code": code, "severity": severity, "message": message})
