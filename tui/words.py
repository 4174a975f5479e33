"""What verdicts, findings, statuses and failures mean, in plain words for an analyst.

Invariant: a number is never shown without what it is a measure of, and nothing is made to sound surer.
"""

from __future__ import annotations

from whis_box.schemas import Answer, Finding, Triage

FINDINGS: dict[str, str] = {
    "insufficient_evidence": "No passage of the box is close enough to the question; no model was asked.",
    "identifier_unknown": "A sentence was taken out: it named something that its source does not hold.",
    "output_blocked": "The answer was stopped: it held what must not leave the box.",
    "summary_replaced": "The model's summary was not used; the alert's own facts are shown instead.",
    "technique_disagreement": "Model and evidence disagree about the technique; the evidence is shown.",
    "suspected_instruction": "The text holds what looks like an order to an AI. It was not followed.",
    "tlp_withheld": "Passages above the allowed TLP were left out.",
    "ansi_escape": "Terminal escape sequences were taken out of the text.",
    "invisible_characters": "Invisible characters were taken out of the text; they can hide an order.",
    "control_characters": "Control characters were taken out of the text.",
    "special_tokens": "The text holds what looks like a model's control token; it was read as plain text.",
    "refused_secrets": "The question asks for secrets; the box gives none.",
    "refused_system_prompt": "The question asks for the program's own instructions.",
    "refused_training_data": "The question asks for the texts the model was trained on.",
}
VERDICTS: dict[str, str] = {
    "escalate": "escalate: evidence in the box says that this looks like an attack",
    "needs_review": "needs review: the box cannot decide; a person must",
    "true_positive": "true positive",
    "benign_true_positive": "benign true positive",
    "false_positive": "false positive",
    "benign": "benign",
}
SEVERITY_MARKS = {"informational": "·", "low": "-", "medium": "=", "high": "!", "critical": "‼"}
ANALYST_VERDICTS = (
    "true_positive",
    "benign_true_positive",
    "false_positive",
    "benign",
    "needs_review",
    "escalate",
)


def finding(value: Finding) -> str:
    """One line: a mark for its severity, plain words, and the guard's own message where it says more."""
    mark = {"info": "i", "warning": "!", "error": "x"}[value.severity]
    plain = FINDINGS.get(value.code)
    if plain is None:
        return f"{mark} {value.message}"
    return f"{mark} {plain}" if value.code.startswith("refused_") else f"{mark} {plain} ({value.message})"


def status(answer: Answer) -> str:
    """What the answer is."""
    if answer.status == "answered":
        count = len(answer.citations)
        what = "1 passage" if count == 1 else f"{count} passages"
        return f"✓ Answered from {what}; every quote was compared with its record."
    if answer.status == "refused":
        return "✗ Refused. Nothing was looked up and no model was asked."
    if answer.citations:
        return "○ Not answered. The closest passages are shown; they may not answer it."
    return "○ Not answered. Nothing in the box comes close."


def outcome(answer: Answer) -> str:
    """The same in few words, and what can be done next."""
    if answer.status == "refused":
        return "refused"
    said = "answered" if answer.status == "answered" else "not answered"
    return f"{said}; Esc, then + or - rates it, 1 to 9 show a source" if answer.citations else said


def confidence(answer: Answer) -> str:
    """The number with what it measures."""
    value = answer.confidence
    if answer.status == "refused":
        return ""
    if answer.status == "insufficient_evidence":
        return f"{value:.2f} that the box holds no answer; a calibrated guess"
    return f"{value:.2f} ({_level(value)}) that these passages answer it; a calibrated guess, no proof"


def triage_confidence(triage: Triage) -> str:
    """The number with what it measures."""
    if not triage.techniques:
        return "no technique has evidence in the box"
    return f"{triage.confidence:.2f} match of the strongest technique with its evidence (not a probability)"


def _level(value: float) -> str:
    if value >= 0.9:
        return "high"
    return "fair" if value >= 0.7 else "low: read the passages yourself"


def verdict(triage: Triage) -> str:
    """The verdict, and why it was held back."""
    words = VERDICTS[triage.verdict]
    return f"{words} ({triage.abstain_reason})" if triage.abstain_reason else words


def found_by(places: dict[str, int]) -> str:
    """Which lists found a passage, best first."""
    names = {
        "identifier": "an identifier of the question",
        "exact": "the exact words",
        "chunk_dense": "meaning",
        "sentence_dense": "meaning of a sentence",
        "prose": "shared words",
        "title": "the title",
    }
    ranked = sorted(places.items(), key=lambda one: one[1])
    return ", ".join(f"{names.get(name, name)} (#{place})" for name, place in ranked)


def milliseconds(value: float) -> str:
    """A duration people read."""
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.1f} s"


def duration(seconds: float) -> str:
    """A span in the unit that fits it."""
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def size(value: float) -> str:
    """Bytes people read."""
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def bar(done: float, total: float, cells: int = 20) -> str:
    """A progress bar; the numbers stand beside it."""
    full = int(cells * min(done, total) / total) if total > 0 else 0
    return f"{'█' * full}{'░' * (cells - full)}"


def counted(count: int, what: str) -> str:
    """`1 source`, `2 sources`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def short(text: str, limit: int) -> str:
    """At most `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
