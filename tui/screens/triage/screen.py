"""Triage: the queue of alerts, and the case under the cursor."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.events import Key
from textual.widgets import Input

from tui.keymap import key
from tui.screens.area import Area
from tui.screens.dialog import AskLine
from tui.screens.triage.columns import COLUMNS, tone
from tui.screens.triage.detail import Detail, as_text
from tui.screens.triage.exporting import Exporter
from tui.screens.triage.jobs import Jobs
from tui.screens.triage.judging import Judge
from tui.screens.triage.queue import SORTS, Queue
from tui.screens.triage.reading import Row, read_all
from tui.widgets.rows import Rows
from tui.widgets.split import Split
from tui.words import counted
from whis_box.errors import InputError, StorageError

READ_AT_ONCE = 250


class TriageScreen(Area):
    """The area."""

    AREA = "triage"
    HELP = """The queue of alerts. o opens a folder, a file or NDJSON; t triages the alert under the cursor or
the marked ones (Space marks, * marks all shown), T all new ones. Enter goes to the case: n and
Space tick its steps, 1 to 9 show a source, r the raw event. a accepts the verdict, c corrects it,
x rejects it with a reason; all three go to the server as feedback, and to the marked alerts at once.
/ filters by any word, s changes the order, e exports. Nothing here closes an alert anywhere."""
    BINDINGS: ClassVar[list[BindingType]] = [
        key("triage.run", "triage"),
        key("triage.run_all", "triage_all"),
        key("triage.accept", "judge('accept')"),
        key("triage.correct", "judge('correct')"),
        key("triage.reject", "judge('reject')"),
        key("triage.export", "export"),
        key("triage.open", "open"),
        key("rows.filter", "filter"),
        key("rows.sort", "sort"),
        key("rows.mark", "mark", shown=False),
        key("rows.mark_all", "mark_all"),
        key("triage.raw", "raw"),
        key("triage.jobs", "jobs"),
        key("triage.stop", "stop"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.queue: Queue | None = None
        self._order = "as it came"
        self._words = ""
        self.jobs, self.judge, self.exporter = Jobs(self), Judge(self), Exporter(self)

    def compose_body(self) -> ComposeResult:
        line = Input(
            placeholder="filter: words, a technique, a state, a verdict", compact=True, classes="filter"
        )
        line.cursor_blink = False
        yield line
        rows: Rows[Row] = Rows(
            COLUMNS, lambda row: row.key, tone, "no alerts: o opens a folder, a file, or NDJSON", id="queue"
        )
        yield Split(rows, Detail(), "triage", 55, beside_from=110)

    def on_mount(self) -> None:
        super().on_mount()
        self.rows.focus()
        self.query_one(Detail).show(None, None)
        self.state_opened()

    @property
    def rows(self) -> Rows[Row]:
        """The table."""
        return self.query_one(Rows)

    def state_opened(self) -> None:
        """The state file is there: take in what was given on the command line."""
        super().state_opened()
        if self.whis.state is not None and self.queue is None:
            self.queue = Queue(self.whis.state)
            if self.whis.alerts or self.whis.piped:
                self.work("read", self._read, self.whis.alerts, self.whis.piped)

    # --------------------------------------------------------------- reading

    async def _read(self, paths: list[str], piped: bytes = b"") -> None:
        queue = self.queue
        assert queue is not None
        reader = iter(read_all(paths, piped))
        before = len(queue.rows)
        while batch := await asyncio.to_thread(_take, reader):
            queue.add(batch)
            self.draw(f"reading… {len(queue.rows)}")
        bad_count = sum(row.state == "bad" for row in queue.rows[before:])
        note = f"; {bad_count} cannot be read, they are marked BAD" if bad_count else ""
        self.draw()
        taken = counted(len(queue.rows) - before, "alert")
        self.say(f"{taken} taken in{note}", "warning" if bad_count else "")
        self.jobs.follow()

    def action_open(self) -> None:
        """Ask for a path."""

        def read(path: str | None) -> None:
            if path is not None and self.queue is not None:
                self.work("read", self._read, [path])

        self.app.push_screen(
            AskLine("Open alerts", "A folder, a JSON event, NDJSON, or a log with one line an event."), read
        )

    # --------------------------------------------------------------- drawing

    def draw(self, note: str = "") -> None:
        """Table, counts and case as they are now."""
        if self.queue is None:
            return
        seen = self.queue.seen(self._words, self._order)
        parts = [f"{len(seen)}/{len(self.queue.rows)}" if self._words else "", self.queue.counts(), note]
        self.rows.show(seen, f"by {self._order}" if self._order != "as it came" else "")
        if note or self._words or self.queue.pending:
            self.say(" · ".join(part for part in parts if part))
        self._draw_case()

    def _draw_case(self) -> None:
        row = self.rows.current
        triage = self.queue.triage_of(row) if row is not None and self.queue is not None else None
        self.query_one(Detail).show(row, triage)

    def on_rows_highlighted(self, event: Rows.Highlighted) -> None:
        """Another case."""
        self._draw_case()

    def on_rows_opened(self, event: Rows.Opened) -> None:
        """To the case."""
        self.query_one(Detail).focus()

    def on_detail_ticked(self, event: Detail.Ticked) -> None:
        """A step of the checklist is done, or not."""
        if self.queue is not None:
            self.queue.tick(event.row, event.step)
            self._draw_case()

    def action_filter(self) -> None:
        """Open the filter line."""
        line = self.query_one(Input)
        line.add_class("-open")
        line.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while typing."""
        self._words = event.value
        self.draw()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Keep the filter and go to the table."""
        self._close_filter()

    def _close_filter(self) -> None:
        line = self.query_one(Input)
        line.set_class(bool(line.value), "-open")
        self.rows.focus()

    def action_sort(self) -> None:
        """The next order."""
        names = list(SORTS)
        self._order = names[(names.index(self._order) + 1) % len(names)]
        self.draw()
        self.say(f"ordered by {self._order}" if self._order != "as it came" else "in the order they came")

    def action_mark(self) -> None:
        """Mark a row."""
        self.rows.toggle_mark()

    def action_mark_all(self) -> None:
        """Mark everything that is shown."""
        self.rows.toggle_all()
        self.say(f"{len(self.rows.marked)} marked" if self.rows.marked else "no marks")

    def action_stop(self) -> None:
        """Close the filter, leave the case, drop marks, or stop the jobs that wait."""
        line = self.query_one(Input)
        if line.has_class("-open"):
            line.value = ""
            self._close_filter()
        elif self.query_one(Detail).has_focus:
            self.rows.focus()
        elif self.rows.marked:
            self.action_mark_all()
        elif self.queue is not None:
            self.jobs.offer_to_stop()

    # ------------------------------------------------- triage and judgement

    def action_triage(self) -> None:
        """Triage the marked alerts, or the one under the cursor."""
        self.jobs.triage([row for row in self.rows.chosen if row.state in ("new", "failed", "done")])

    def action_triage_all(self) -> None:
        """Triage everything new."""
        if self.queue is not None:
            self.jobs.triage([row for row in self.queue.rows if row.state in ("new", "failed")])

    def action_jobs(self) -> None:
        """Take in the server's triage jobs."""
        self.jobs.take_in()

    def link_changed(self) -> None:
        """The server is back: go on with the jobs."""
        if self.whis.link.state == "ready" and self.queue is not None:
            self.jobs.follow()

    def action_judge(self, decision: str) -> None:
        """Accept, correct or reject."""
        if rows := self._judged("judged"):
            ways = {"accept": self.judge.accept, "correct": self.judge.correct, "reject": self.judge.reject}
            ways[decision](rows)

    def action_export(self) -> None:
        """Write a case, or one for each marked alert."""
        if rows := self._judged("exported"):
            self.exporter.choose(rows)

    def _judged(self, what: str) -> list[Row]:
        rows = [row for row in self.rows.chosen if row.state == "done"]
        if not rows:
            self.say(f"only a triaged alert can be {what}: t triages it first", "warning")
        return rows

    # ------------------------------------------------------------------ more

    def on_key(self, event: Key) -> None:
        """1 to 9: that source of the case."""
        if event.key.isdigit() and event.key != "0" and not self.query_one(Input).has_focus:
            event.stop()
            self.action_source(int(event.key))

    def action_source(self, n: int) -> None:
        """A source of the case."""
        from tui.screens.triage.source import SourcePage

        detail = self.query_one(Detail)
        citations = detail.triage.citations if detail.triage else []
        found = next((one for one in citations if one.n == n), None)
        if found is None:
            self.say(f"there is no source [{n}]", "warning")
        else:
            self.app.push_screen(SourcePage(found, len(citations), self.whis.ready_client))

    def action_raw(self) -> None:
        """The event as it came."""
        from tui.screens.triage.raw import RawEvent

        row = self.rows.current
        if row is None:
            return
        try:
            self.app.push_screen(RawEvent(row.title, row.event()))
        except (InputError, StorageError) as error:
            self.say(str(error), "error")

    def text_to_copy(self) -> str:
        """The case."""
        detail = self.query_one(Detail)
        return as_text(detail.row, detail.triage) if detail.row is not None else ""


def _take(reader: Any) -> list[Row]:
    """The next rows; read on a thread."""
    batch = []
    for row in reader:
        batch.append(row)
        if len(batch) == READ_AT_ONCE:
            break
    return batch
