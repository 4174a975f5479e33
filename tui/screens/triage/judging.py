"""Accept, correct and reject: asked for, kept in the state file, and sent to the server as feedback."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tui import words
from tui.errors import RequestFailedError
from tui.screens.dialog import AskLine, Choose
from tui.screens.triage.reading import Row
from tui.widgets.rows import Column

if TYPE_CHECKING:
    from tui.screens.triage.screen import TriageScreen

VERDICTS: list[Column[str]] = [Column("right verdict", 0, lambda one: words.VERDICTS[one].partition(":")[0])]


class Judge:
    """The judgements of one area."""

    def __init__(self, area: TriageScreen) -> None:
        self._area = area

    def accept(self, rows: list[Row]) -> None:
        """The triage is right."""
        self._judge(rows, "accepted", "", "")

    def reject(self, rows: list[Row]) -> None:
        """The triage is not usable; why."""
        if rows:
            line = AskLine("Reject", f"{words.counted(len(rows), 'alert')}. Why is the triage not usable?")
            self._area.app.push_screen(line, lambda reason: self._judge(rows, "rejected", "", reason))

    def correct(self, rows: list[Row]) -> None:
        """Another verdict is right; which, and why."""

        def ask_why(verdict: str | None) -> None:
            if verdict is not None:
                line = AskLine(f"Correct to {verdict}", "Why?", optional=True)
                self._area.app.push_screen(line, lambda why: self._judge(rows, "corrected", verdict, why))

        if rows:
            choice = Choose("Correct the verdict", words.ANALYST_VERDICTS, VERDICTS)
            self._area.app.push_screen(choice, ask_why)

    def _judge(self, rows: list[Row], decision: str, verdict: str, reason: str | None) -> None:
        if reason is not None and rows and self._area.queue is not None:
            shown = f"{decision} as {verdict}" if verdict else decision
            for row in rows:
                self._area.queue.decide(row, shown, reason)
            self._area.rows.marked.clear()
            self._area.draw()
            self._area.work("judge", self._send, rows, decision, verdict, reason, alone=False)

    async def _send(self, rows: list[Row], decision: str, verdict: str, reason: str) -> None:
        """Judgements are kept here in any case; what the server does not take is said."""
        client, queue, config = self._area.whis.ready_client, self._area.queue, self._area.whis.config
        assert queue is not None
        refused = ""
        for row in rows:
            triage = queue.triage_of(row)
            if client is None or triage is None:
                refused = "no server"
                continue
            fields = {
                "answer_id": triage.id,
                "rating": "up" if decision == "accepted" else "down",
                "comment": reason,
                "analyst": config.analyst,
                "training": "yes" if config.consent_training else "no",
                "verdict": triage.verdict if decision == "accepted" else verdict or "unlabeled",
            }
            try:
                await client.feedback(**fields)
            except RequestFailedError as error:
                refused = str(error)
        told = f"{decision}: {words.counted(len(rows), 'alert')}"
        self._area.say(
            f"{told}, kept here only ({refused})" if refused else told, "warning" if refused else ""
        )
