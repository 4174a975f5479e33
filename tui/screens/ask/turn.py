"""One question and what came of it: draft, checked answer, verdict of the guards, or why there is none."""

from __future__ import annotations

from textual.content import Content
from textual.style import Style
from textual.widgets import Static

from tui import words
from tui.safe_text import safe, safe_line
from whis_box.schemas import Answer

Part = str | tuple[str, str | Style]


class Turn(Static):
    """A block of the conversation."""

    def __init__(self, number: int, question: str, sent: str = "") -> None:
        super().__init__("", markup=False, classes="turn")
        self.number, self.question, self.sent = number, question, sent
        self.answer: Answer | None = None
        self.draft = ""
        self.note = "asking… Esc stops"
        self.rating = ""
        self.draw()

    def finish(self, answer: Answer) -> None:
        """The checked answer replaces the draft."""
        self.answer, self.note = answer, ""
        self.draw()

    def end(self, note: str) -> None:
        """Nothing more comes, and why."""
        self.note = note
        self.draw()

    def draw(self) -> None:
        """All of it."""
        parts: list[Part] = [("❯ ", "bold $accent"), (safe(self.question), "bold"), "\n"]
        if self.sent:
            parts.append((f"  asked as: {safe_line(self.sent, 300)}\n", "$muted"))
        if self.answer is None:
            if self.draft:
                parts.append(("draft, not checked yet: ", "$muted"))
                parts.append((safe(self.draft), "italic $muted"))
                parts.append("\n")
            if self.note:
                parts.append((safe_line(self.note, 600), "$warning"))
        else:
            parts += answer_parts(self.answer, self.number)
            if self.note:
                parts.append((f"\n{safe_line(self.note, 600)}", "$warning"))
            if self.rating:
                parts.append((f"\nyou said: {self.rating}", "$muted"))
        self.update(Content.assemble(*parts))


def answer_parts(answer: Answer, turn: int) -> list[Part]:
    """The answer with its citations, then what the guards say, then the figures."""
    parts: list[Part] = []
    if answer.claims:
        for claim in answer.claims:
            parts.append(safe(claim.text))
            for n in claim.citations:
                parts += [" ", cite(turn, n)]
            if claim.support < 1:
                parts.append((f" (support {claim.support:.2f})", "$warning"))
            parts.append("\n")
    else:
        parts += [safe(answer.answer), " "]
        for citation in answer.citations:
            parts += [cite(turn, citation.n), " "]
        parts.append("\n")
    colour = {"answered": "$success", "refused": "$error"}.get(answer.status, "$warning")
    parts.append((words.status(answer), colour))
    sure = words.confidence(answer)
    if sure:
        parts.append((f"\nconfidence {sure}", "$muted"))
    for one in answer.findings:
        look = {"info": "$muted", "warning": "$warning", "error": "$error"}[one.severity]
        parts.append((f"\n{safe(words.finding(one))}", look))
    took = answer.timings
    parts.append((f"\nTLP:{answer.tlp.upper()} · {words.milliseconds(took.total_ms)}", "$muted"))
    if took.prompt_tokens:
        parts.append((f" · {took.prompt_tokens} prompt tokens, {took.completion_tokens} written", "$muted"))
    return parts


def cite(turn: int, n: int) -> tuple[str, Style]:
    """`[n]`, which a click or the key n opens."""
    return f"[{n}]", Style(bold=True, underline=True) + Style.from_meta(
        {"@click": f"screen.cite({turn},{n})"}
    )


def as_text(question: str, answer: Answer) -> str:
    """What is copied: plain text with its sources."""
    lines = [question, "", answer.answer, ""]
    for one in answer.citations:
        place = " > ".join([one.title, *one.heading_path])
        lines += [
            f"[{one.n}] {place} ({one.record_id}, {one.license}, TLP:{one.tlp.upper()})",
            f"    “{one.quote}”",
        ]
    lines.append(f"{answer.status}, confidence {answer.confidence:.2f}, answer {answer.id}")
    return safe("\n".join(lines))
