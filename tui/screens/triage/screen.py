"""Triage: the queue of alerts, and the case under the cursor."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.events import Key
from textual.widgets import Input

from tui import words
from tui.errors import RequestFailedError, ServerGoneError
from tui.keymap import key
from tui.screens.area import Area
from tui.screens.dialog import AskLine, Choose, Confirm
from tui.screens.triage.detail import Detail, as_text
from tui.screens.triage.queue import SORTS, Queue
from tui.screens.triage.reading import Row, bad, read_all
from tui.widgets.rows import Column, Rows
from tui.widgets.split import Split
from whis_box.errors import InputError, StorageError

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
EXPORTS = {"case": "md", "json": "json", "stix": "json", "navigator": "json", "cacao": "json"}
EXPORT_WORDS = {
    "case": "Markdown note for a ticket",
    "json": "the triage as JSON",
    "stix": "STIX 2.1 bundle",
    "navigator": "ATT&CK Navigator layer",
    "cacao": "CACAO 2.0 playbook proposal",
}
READ_AT_ONCE = 250
BACK_OFF_S = 2.0


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
        key("triage.accept", "judge('accepted')"),
        key("triage.correct", "correct"),
        key("triage.reject", "judge('rejected')"),
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
        self._reading = False

    def compose_body(self) -> ComposeResult:
        line = Input(
            placeholder="filter: words, a technique, a state, a verdict", compact=True, classes="filter"
        )
        line.cursor_blink = False
        yield line
        rows: Rows[Row] = Rows(
            COLUMNS, lambda row: row.key, _tone, "no alerts: o opens a folder, a file, or NDJSON", id="queue"
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
        self._reading = True
        reader = iter(read_all(paths, piped))
        before = len(queue.rows)
        try:
            while batch := await asyncio.to_thread(_take, reader):
                queue.add(batch)
                self._draw(f"reading… {len(queue.rows)}")
        finally:
            self._reading = False
        bad_count = sum(row.state == "bad" for row in queue.rows[before:])
        note = f"; {bad_count} cannot be read, they are marked BAD" if bad_count else ""
        self._draw()
        self.say(f"{len(queue.rows) - before} alerts taken in{note}", "warning" if bad_count else "")
        self._follow_jobs()

    def action_open(self) -> None:
        """Ask for a path."""

        def read(path: str | None) -> None:
            if path is not None and self.queue is not None:
                self.work("read", self._read, [path])

        self.app.push_screen(
            AskLine("Open alerts", "A folder, a JSON event, NDJSON, or a log with one line an event."), read
        )

    # --------------------------------------------------------------- drawing

    def _draw(self, note: str = "") -> None:
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
        self._draw()

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
        self._draw()
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
        elif self.queue is not None and self.queue.pending:
            self._offer_to_stop(self.queue.pending)

    # ---------------------------------------------------------------- triage

    def action_triage(self) -> None:
        """Triage the marked alerts, or the one under the cursor."""
        self._triage([row for row in self.rows.chosen if row.state in ("new", "failed", "done")])

    def action_triage_all(self) -> None:
        """Triage everything new."""
        if self.queue is not None:
            self._triage([row for row in self.queue.rows if row.state in ("new", "failed")])

    def _triage(self, rows: list[Row]) -> None:
        if self.client is None or self.queue is None:
            return
        rows = [row for row in rows if row.place is not None]
        if not rows:
            self.say(
                "nothing to triage here: rows that wait, or that cannot be read, are left out", "warning"
            )
            return
        self.rows.marked.clear()
        self.work("submit", self._submit, rows, alone=False)

    async def _submit(self, rows: list[Row]) -> None:
        client, queue = self.client, self.queue
        assert client is not None and queue is not None
        async for sent in queue.submit(rows, client):
            self._draw(f"{sent} of {len(rows)} sent")
        self._draw()
        self._follow_jobs()

    def _follow_jobs(self) -> None:
        if self.queue is not None and self.queue.pending and self.whis.ready_client is not None:
            self.work("follow", self._follow)

    async def _follow(self) -> None:
        """The head of the line is watched; the server works in order."""
        queue, client = self.queue, self.whis.ready_client
        assert queue is not None
        while client is not None and queue.pending:
            try:
                await queue.follow(queue.pending[0], client)
            except RequestFailedError as error:
                if error.status not in (429, 503):
                    raise
                self.say(f"the server is busy: {error}", "warning")
                await asyncio.sleep(error.retry_after_s or BACK_OFF_S)
            except ServerGoneError as error:
                self.say("the server is gone; its jobs go on when it is back", "warning")
                self.whis.server_gone(str(error))
                return
            self._draw()
            client = self.whis.ready_client
        self._draw()
        if queue.rows and not queue.pending:
            self.say(f"all jobs have ended: {queue.counts()}")

    def link_changed(self) -> None:
        """The server is back: go on with the jobs."""
        if self.whis.link == "ready":
            self._follow_jobs()

    def _offer_to_stop(self, pending: list[Row]) -> None:
        def stop(yes: bool | None) -> None:
            if yes:
                self.work("stop", self._stop, pending)

        words_ = f"{len(pending)} alerts wait for the model or are worked on."
        self.app.push_screen(Confirm("Stop the jobs?", words_), stop)

    async def _stop(self, pending: list[Row]) -> None:
        client, queue = self.client, self.queue
        if client is None or queue is None:
            return
        for row in reversed(pending):
            job = await client.cancel_job(row.job)
            queue.take(row, job)
            if job.status == "cancelled":
                row.state, row.problem = "new", ""
        self._draw()
        self.say(f"stopped {len(pending)} jobs; t triages them again")

    # -------------------------------------------------------------- judgement

    def action_judge(self, decision: str) -> None:
        """Accept, or reject with a reason."""
        rows = self._judgeable()
        if decision == "accepted" or not rows:
            self._judge(rows, decision, "", "")
            return
        words_ = f"{len(rows)} alerts. Why is the triage not usable?"
        self.app.push_screen(
            AskLine("Reject", words_), lambda reason: self._judge(rows, decision, "", reason)
        )

    def action_correct(self) -> None:
        """Give the right verdict, and why."""
        rows = self._judgeable()
        if not rows:
            self._judge(rows, "", "", "")
            return

        def ask_why(verdict: str | None) -> None:
            if verdict is not None:
                line = AskLine(f"Correct to {verdict}", "Why?", optional=True)
                self.app.push_screen(line, lambda why: self._judge(rows, "corrected", verdict, why))

        column: Column[str] = Column("right verdict", 0, lambda one: words.VERDICTS[one].partition(":")[0])
        self.app.push_screen(Choose("Correct the verdict", words.ANALYST_VERDICTS, [column]), ask_why)

    def _judgeable(self) -> list[Row]:
        return [row for row in self.rows.chosen if row.state == "done"]

    def _judge(self, rows: list[Row], decision: str, verdict: str, reason: str | None) -> None:
        if not rows:
            self.say("only a triaged alert can be judged: t triages it first", "warning")
        elif reason is not None and self.queue is not None:
            shown = f"{decision} as {verdict}" if verdict else decision
            for row in rows:
                self.queue.decide(row, shown, reason)
            self.rows.marked.clear()
            self._draw()
            self.work("judge", self._send, rows, decision, verdict, reason, alone=False)

    async def _send(self, rows: list[Row], decision: str, verdict: str, reason: str) -> None:
        """Judgements are kept here in any case; what the server does not take is said."""
        client, queue, config = self.whis.ready_client, self.queue, self.whis.config
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
        self.say(
            f"{decision}: {len(rows)}, kept here only ({refused})" if refused else f"{decision}: {len(rows)}",
            "warning" if refused else "",
        )

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

    def action_export(self) -> None:
        """Choose a format, then a file."""
        rows = self._judgeable()
        if not rows:
            self.say("only a triaged alert can be exported: t triages it first", "warning")
            return
        columns: list[Column[str]] = [
            Column("format", 12, lambda one: one),
            Column("what", 0, lambda one: EXPORT_WORDS[one]),
        ]

        def to_folder(form: str | None) -> None:
            if form is not None:
                line = AskLine(
                    "Export to folder", f"{len(rows)} alerts as {EXPORT_WORDS[form]}", str(Path.cwd())
                )
                self.app.push_screen(line, lambda folder: self._export_to(rows, form, folder))

        self.app.push_screen(Choose("Export", list(EXPORTS), columns), to_folder)

    def _export_to(self, rows: list[Row], form: str, folder: str | None) -> None:
        if folder is not None:
            self.work("export", self._export, rows, form, Path(folder).expanduser())

    async def _export(self, rows: list[Row], form: str, folder: Path) -> None:
        from tui.screens.triage.exporting import write_case

        queue = self.queue
        assert queue is not None
        path = folder
        for row in rows:
            triage = queue.triage_of(row)
            assert triage is not None
            client = self.client if form != "json" else None
            if client is None and form != "json":
                return
            path = await write_case(client, form, EXPORTS[form], row, triage, folder)
        self.say(f"wrote {path}" if len(rows) == 1 else f"wrote {len(rows)} files to {folder}")

    def action_jobs(self) -> None:
        """Take in the server's triage jobs."""
        if self.client is not None and self.queue is not None:
            self.work("jobs", self._take_jobs)

    async def _take_jobs(self) -> None:
        client, queue = self.client, self.queue
        assert client is not None and queue is not None
        page = await client.jobs("triage", limit=500)
        held = {row.job for row in queue.rows}
        rows = []
        for job in page.jobs:
            if job.id in held:
                continue
            row = bad(job.id, None, "")
            row.title, row.at, row.source, row.job = (
                f"job {job.request_id or job.id}",
                job.created_at,
                "server",
                job.id,
            )
            queue.take(row, await client.job(job.id) if job.status == "completed" else job)
            rows.append(row)
        queue.add(rows)
        self._draw()
        self.say(f"{len(rows)} jobs of the server taken in")
        self._follow_jobs()

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


def _tone(row: Row) -> str:
    if row.state == "done":
        return "warning" if row.verdict == "escalate" and not row.decision else ""
    return TONES.get(row.state, "")
