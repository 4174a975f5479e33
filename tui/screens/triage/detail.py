"""One alert beside the queue: verdict, techniques, checklist, checks, observables, sources, findings."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.style import Style

from tui import words
from tui.keymap import key
from tui.safe_text import safe, safe_line
from tui.screens.triage.reading import Row
from tui.widgets.hanging import HANG, Hanging
from whis_box.schemas import Triage

Part = str | tuple[str, str | Style]
MAX_OBSERVABLES = 60


class Detail(VerticalScroll, can_focus=True):
    """The pane."""

    BINDINGS: ClassVar[list[BindingType]] = [
        key("rows.down", "scroll_down"),
        key("rows.up", "scroll_up"),
        key("rows.page_down", "page_down"),
        key("rows.page_up", "page_up"),
        key("triage.next_step", "next_step"),
        key("triage.step", "tick", shown=True),
    ]

    class Ticked(Message):
        """A step was ticked or unticked."""

        def __init__(self, row: Row, step: int) -> None:
            super().__init__()
            self.row, self.step = row, step

    def __init__(self) -> None:
        super().__init__(id="detail", classes="page")
        self.row: Row | None = None
        self.triage: Triage | None = None
        self._step = 0

    def compose(self) -> ComposeResult:
        yield Hanging(id="case")

    def show(self, row: Row | None, triage: Triage | None) -> None:
        """Another alert, or the same with news."""
        if row is not self.row:
            self._step = 0
            self.scroll_home(animate=False)
        self.row, self.triage = row, triage
        self.query_one(Hanging).show(Content.assemble(*self._parts()))

    def _parts(self) -> list[Part]:
        row, triage = self.row, self.triage
        if row is None:
            return [("No alert. o opens a folder, a file or an NDJSON stream.", "$muted")]
        title = "This alert cannot be read" if row.state == "bad" else row.title
        parts: list[Part] = [(f"{title}\n", "bold")]
        facts = [one for one in (row.alert_id, row.source, row.at) if one]
        parts.append((f"{' · '.join(facts)}\n", "$muted"))
        if row.problem:
            parts.append((f"\nx {safe(row.problem)}\n", "$error"))
        if triage is None:
            waits = {
                "new": "not triaged yet: t triages it",
                "queued": "waits for the model",
                "running": "is worked on",
            }
            return [*parts, f"\n{waits.get(row.state, '')}"]
        return [*parts, *self._judged(row, triage)]

    def _judged(self, row: Row, triage: Triage) -> list[Part]:
        colour = "$error" if triage.verdict == "escalate" else "$warning"
        mark = words.SEVERITY_MARKS[triage.severity]
        parts: list[Part] = [
            ("\nverdict    ", "$muted"),
            HANG,
            (f"{words.verdict(triage)}\n", f"bold {colour}"),
            ("severity   ", "$muted"),
            f"{mark} {triage.severity}\n",
            ("confidence ", "$muted"),
            HANG,
            f"{words.triage_confidence(triage)}\n",
            ("summary    ", "$muted"),
            HANG,
            f"{safe(triage.summary)}\n",
        ]
        if row.decision:
            reason = f": {safe_line(row.reason)}" if row.reason else ""
            parts += [("you said   ", "$muted"), (f"{HANG}{row.decision}{reason}\n", "bold")]
        if triage.techniques:
            parts.append(("\nTechniques\n", "bold"))
            for one in triage.techniques:
                parts += [
                    f"  {one.score:.2f}  {HANG}{one.id} {safe_line(one.name)}",
                    *marks(one.citations),
                    "\n",
                ]
        parts += self._checklist(row, triage)
        if triage.false_positive_checks:
            parts.append(("\nCheck before you call it malicious\n", "bold"))
            for check in triage.false_positive_checks:
                parts += [f"  - {HANG}{safe_line(check.text)}", *marks(check.citations), "\n"]
        parts += observables(triage)
        parts += sources(triage)
        for finding in triage.findings:
            parts.append(
                (f"\n{safe(words.finding(finding))}", "$warning" if finding.severity != "info" else "$muted")
            )
        parts.append((f"\n{words.milliseconds(triage.timings.total_ms)} · triage {triage.id}", "$muted"))
        return parts

    def _checklist(self, row: Row, triage: Triage) -> list[Part]:
        if not triage.recommended_steps:
            return []
        done = len(row.ticked & set(range(len(triage.recommended_steps))))
        parts: list[Part] = [(f"\nFirst steps ({done}/{len(triage.recommended_steps)} done)\n", "bold")]
        for number, step in enumerate(triage.recommended_steps):
            pointer = ">" if number == self._step else " "
            box = "[x]" if number in row.ticked else "[ ]"
            parts += [f"{pointer} {box} {HANG}{safe_line(step.text)}", *marks(step.citations), "\n"]
        return parts

    def action_next_step(self) -> None:
        """The pointer goes to the next step."""
        if self.triage is not None and self.triage.recommended_steps:
            self._step = (self._step + 1) % len(self.triage.recommended_steps)
            self.show(self.row, self.triage)

    def action_tick(self) -> None:
        """Tick the step at the pointer."""
        if self.row is not None and self.triage is not None and self.triage.recommended_steps:
            self.post_message(self.Ticked(self.row, self._step))


def marks(numbers: list[int]) -> list[Part]:
    """`[n]`s that a click opens."""
    parts: list[Part] = []
    for n in numbers:
        look = Style(bold=True, underline=True) + Style.from_meta({"@click": f"screen.source({n})"})
        parts += [" ", (f"[{n}]", look)]
    return parts


def observables(triage: Triage) -> list[Part]:
    """What code read from the alert."""
    if not triage.observables:
        return []
    parts: list[Part] = [("\nObservables\n", "bold")]
    for one in triage.observables[:MAX_OBSERVABLES]:
        parts += [
            (f"  {one.role:<12.12} {one.type:<14.14} ", "$muted"),
            f"{HANG}{safe_line(one.value, 300)}\n",
        ]
    left = len(triage.observables) - MAX_OBSERVABLES
    return [*parts, f"  and {left} more; r shows the event\n"] if left > 0 else parts


def sources(triage: Triage) -> list[Part]:
    """The quotes behind it."""
    parts: list[Part] = [("\nSources (press n)\n", "bold")] if triage.citations else []
    for one in triage.citations:
        place = " > ".join(safe_line(part) for part in [one.title, *one.heading_path])
        parts += [
            *marks([one.n]),
            f" {HANG}{place} ",
            (f"({one.license}, TLP:{one.tlp.upper()})\n", "$muted"),
        ]
    return parts


def as_text(row: Row, triage: Triage | None) -> str:
    """What is copied."""
    if triage is None:
        return safe(f"{row.title}\n{row.alert_id}")
    lines = [row.title, row.alert_id, words.verdict(triage), triage.summary]
    lines += [f"{one.score:.2f} {one.id} {one.name}" for one in triage.techniques]
    lines += [f"- {one.text}" for one in triage.recommended_steps]
    lines += [f"{one.role} {one.type}: {one.value}" for one in triage.observables]
    return safe("\n".join(lines))
