"""What a triage says, decided in code from the evidence; the model's draft is checked against the alert.

Invariant: no verdict here closes an alert, and the severity is never below the one its source gave.
"""

from __future__ import annotations

from collections.abc import Sequence

from whis_box.guards.binding import CitationList
from whis_box.guards.grounding import unknown_codes
from whis_box.knowledge.evidence import EvidenceSentence
from whis_box.knowledge.techniques import TechniqueEvidence
from whis_box.knowledge.terms import terms
from whis_box.schemas import SEVERITY_ORDER, AlertSeverity, Finding, Step, TechniqueMatch, Verdict

STEP_HEADINGS = ("First five minutes", "Containment")
CHECK_HEADINGS = ("False positives", "Malicious or benign")
ESCALATE_SCORE = 0.60
CLOSING: tuple[Verdict, ...] = ("benign", "false_positive", "benign_true_positive")
# A summary says what happened; what to think of it is decided elsewhere (stemmed).
JUDGEMENTS = frozenset(
    {
        "benign", "harmless", "legitim", "innoc", "safe", "approv", "authoris", "author", "trust", "expect",
        "routin", "ignor", "dismiss", "close", "resolv", "whitelist", "allowlist", "fals", "posit", "clean",
        "normal", "refus", "none", "verdict", "sever", "escal", "assist", "ai", "llm", "model",
    }
)  # fmt: skip
# Words that tell what happened without naming a new thing (stemmed).
NARRATIVE_VERBS = {"run", "ran", "start", "launch", "creat", "open", "write", "wrote", "access", "connect"}
NARRATIVE_NOUNS = {"process", "user", "host", "file", "command"}
# Lines of an alert's description that add nothing to a one-line summary.
UNTOLD_LABELS = ("time:", "original file name:")


def verdict(
    ranked: Sequence[TechniqueEvidence], source: AlertSeverity | None, suspected: Sequence[str] = ()
) -> tuple[Verdict, str]:
    """(`escalate` on strong evidence, else `needs_review`; why it was not decided, or "").

    `suspected` are the alert's fields that hold an order to a model: they never lower a verdict.
    """
    if suspected and not _is_strong(ranked) and source not in ("high", "critical"):
        named = ", ".join(suspected[:3])
        return (
            "needs_review",
            f"the alert tries to give orders to a model ({named}): a person must look at it",
        )
    if _is_strong(ranked) or source in ("high", "critical"):  # weak evidence never lowers what a source says
        return "escalate", ""
    if ranked:
        best = max(ranked, key=lambda one: one.overlap)
        return "needs_review", (
            f"evidence for {best.id} is weak: the alert shares {best.overlap:.2f} with its passage, "
            f"{ESCALATE_SCORE:.2f} would escalate"
        )
    return "needs_review", "no passage of the box matches this alert"


def _is_strong(ranked: Sequence[TechniqueEvidence]) -> bool:
    return any(one.overlap >= ESCALATE_SCORE for one in ranked)


def held(
    proposed: Verdict,
    reason: str,
    outside: Sequence[EvidenceSentence],
    suspected: Sequence[str],
    conflict: str,
) -> tuple[Verdict, str]:
    """`proposed`, unless it closes an alert without evidence, or something speaks against it.

    `outside` are the record's sentences that carry the verdict; text of the alert itself is written by
    whoever caused it and carries nothing. `conflict` is what `report_conflict` says.
    """
    if proposed not in CLOSING:
        return proposed, reason
    if suspected:
        return "needs_review", f"{proposed} was not given: the alert tries to give orders to a model"
    if conflict:
        return "needs_review", f"{proposed} was not given: {conflict}"
    if not outside:
        return "needs_review", f"{proposed} was not given: nothing outside the alert carries it"
    return proposed, reason


def severity(
    ranked: Sequence[TechniqueEvidence], source: AlertSeverity | None, suspected: bool = False
) -> AlertSeverity:
    """Never below the source's; `high` on strong evidence, `medium` on some, or when an order is `suspected`.

    No ordinary program writes orders to a model into its fields.
    """
    own: AlertSeverity = "medium" if suspected else "informational"
    if ranked:
        own = "high" if _is_strong(ranked) else "medium"
    return max(own, source or "informational", key=SEVERITY_ORDER.index)


def summary(seen: str, drafted: str, alert_text: str, findings: list[Finding]) -> str:
    """The model's sentence if what it has `seen` holds its words and codes, else the alert's own facts."""
    known = set(terms(seen)) | NARRATIVE_VERBS | NARRATIVE_NOUNS
    said = terms(drafted)
    strange = sorted({term for term in said if term not in known})
    judged = sorted(JUDGEMENTS.intersection(said))
    if drafted and not unknown_codes(drafted, [seen]) and not strange and not judged:
        return drafted
    if not drafted:
        why = "it was not finished, or not to be used"
    elif strange:
        why = f"it used words the alert does not hold: {', '.join(strange[:5])}"
    else:
        why = f"it judged instead of telling what happened: {', '.join(judged[:5])}"
    message = f"the model's summary was not used, {why}"
    findings.append(Finding(code="summary_replaced", severity="info", message=message))
    return facts(alert_text)


def facts(alert_text: str) -> str:
    """The alert's first telling lines."""
    lines = [line for line in alert_text.splitlines() if not line.startswith(UNTOLD_LABELS)]
    return " | ".join(lines[:4])


def report_conflict(
    ranked: Sequence[TechniqueEvidence], claimed: Sequence[str], chosen: str, findings: list[Finding]
) -> str:
    """What speaks against the strongest evidence, as findings and in words; "" when all agree.

    The order of the evidence stands. The alert's source disagrees when it names techniques and none has the
    parent of the one that the strongest passage carries; the model does when it chose another one.
    """
    against = []
    carried = [one.id for one in ranked if one.sentence is not None]
    if carried and claimed and _parent(carried[0]) not in map(_parent, claimed):
        named = ", ".join(claimed[:3])
        against.append(f"the source names {named}, the strongest passage carries {carried[0]}")
        findings.append(Finding(code="source_disagreement", severity="info", message=against[-1]))
    if ranked and chosen != ranked[0].id:
        against.append(f"the model chose {chosen}, the evidence is stronger for {ranked[0].id}")
        findings.append(Finding(code="technique_disagreement", severity="info", message=against[-1]))
    return "; ".join(against)


def _parent(technique_id: str) -> str:
    return technique_id.partition(".")[0]


def technique_match(one: TechniqueEvidence, cited: CitationList) -> TechniqueMatch:
    """The technique with the number of the sentence that carries it."""
    numbers = [cited.number(one.sentence)] if one.sentence is not None else []
    return TechniqueMatch(id=one.id, name=one.name, score=round(one.score, 3), citations=numbers)


def step(sentence: EvidenceSentence, cited: CitationList) -> Step:
    """One sentence of advice with its citation."""
    return Step(text=" ".join(sentence.text.split()), citations=[cited.number(sentence)])


def first_steps(advice: Sequence[EvidenceSentence]) -> list[EvidenceSentence]:
    """What to do first, in the documents' order."""
    return _under(advice, STEP_HEADINGS)


def benign_checks(advice: Sequence[EvidenceSentence]) -> list[EvidenceSentence]:
    """What to check before calling it malicious."""
    return _under(advice, CHECK_HEADINGS)


def _under(sentences: Sequence[EvidenceSentence], headings: Sequence[str]) -> list[EvidenceSentence]:
    return [
        one
        for heading in headings
        for one in sentences
        if one.kind == "sentence" and one.hit.chunk.heading_path and one.hit.chunk.heading_path[-1] == heading
    ]
