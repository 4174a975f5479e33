"""How an alert looks in the queue: its columns and its tone."""

from __future__ import annotations

from tui import words
from tui.screens.triage.reading import Row
from tui.widgets.rows import Column

SHOWN_STATE = {
    "new": "new",
    "queued": "wait",
    "running": "work",
    "done": "done",
    "failed": "FAIL",
    "bad": "BAD",
}
TONES = {"failed": "error", "bad": "error", "queued": "muted"}
COLUMNS: list[Column[Row]] = [
    Column("state", 5, lambda row: SHOWN_STATE[row.state]),
    Column("sev", 5, lambda row: f"{words.SEVERITY_MARKS.get(row.severity, ' ')} {row.severity[:3]}"),
    Column("verdict", 8, lambda row: row.verdict.replace("needs_review", "review")[:8]),
    Column("conf", 4, lambda row: f"{row.confidence:.2f}" if row.state == "done" else ""),
    Column("you", 7, lambda row: row.decision[:7]),
    Column("alert", 0, lambda row: row.title),
    Column("techniques", 19, lambda row: row.techniques, from_width=90),
    Column("time", 20, lambda row: row.at, from_width=120),
    Column("source", 18, lambda row: row.source, from_width=120),
]


def tone(row: Row) -> str:
    """The row's colour; what it says stands in a column too."""
    if row.state == "done":
        return "warning" if row.verdict == "escalate" and not row.decision else ""
    return TONES.get(row.state, "")
