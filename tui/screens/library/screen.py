"""Library: sources, documents, passages, a search that explains itself; ingest and purge."""

from __future__ import annotations

from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.widgets import Input, Static

from tui.errors import RequestFailedError
from tui.keymap import key
from tui.safe_text import safe, safe_line
from tui.screens.area import Area
from tui.screens.dialog import AskLine, Choose, Confirm
from tui.screens.library.change import ended, run_change
from tui.screens.library.pages import explained, record_page
from tui.screens.library.review import ReviewPage
from tui.widgets.hanging import Hanging
from tui.widgets.rows import Column, Rows
from tui.widgets.split import Split
from tui.words import counted
from whis_box.server.wire import Job, Library, RecordSummary, SourceCount

COLUMNS: list[Column[RecordSummary]] = [
    Column("document", 0, lambda one: safe_line(one.title, 200)),
    Column("id", 24, lambda one: safe_line(one.id, 60), from_width=110),
    Column("source", 18, lambda one: safe_line(one.source, 40), from_width=90),
    Column("licence", 12, lambda one: safe_line(one.license, 40)),
    Column("TLP", 6, lambda one: one.tlp.upper()),
    Column("redacted", 8, lambda one: str(sum(one.redactions.values()) or "")),
]
SOURCES: list[Column[SourceCount]] = [
    Column("source", 0, lambda one: safe_line(one.name or "every source", 60)),
    Column("licence", 14, lambda one: safe_line(one.license, 40)),
    Column("documents", 9, lambda one: str(one.records)),
    Column("characters", 10, lambda one: str(one.characters)),
    Column("newest", 10, lambda one: one.newest_at[:10], from_width=70),
    Column("oldest", 10, lambda one: one.oldest_at[:10], from_width=90),
]
PAGE = 200
MAX_RECORDS = 20_000


class LibraryScreen(Area):
    """The area."""

    AREA = "library"
    HELP = """What the box holds. Enter opens a document with its passages, / finds documents by title or id,
u picks a source and shows licences and age, s searches passages and says why each was found:
which lists found it and what each feature added to its score. n ingests files and D purges a
document, on hosts whose server.yaml names a corpus; x stops that, v lists what it left out, took out
or finds suspicious. An air-gapped host changes by signed packs (F5)."""
    BINDINGS: ClassVar[list[BindingType]] = [
        key("library.search", "search"),
        key("library.sources", "sources"),
        key("library.filter", "filter"),
        key("library.ingest", "ingest"),
        key("library.purge", "purge"),
        key("library.review", "review"),
        key("library.stop", "stop_change"),
        key("library.back", "back"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._library: Library | None = None
        self._source = ""
        self._part = ""
        self._shown = ""
        self._job: Job | None = None
        self._result: dict[str, Any] | None = None
        self._outcome = ""

    def compose_body(self) -> ComposeResult:
        line = Input(placeholder="a part of a title or id", compact=True, classes="filter")
        line.cursor_blink = False
        yield line
        yield Static("", id="overview", classes="line", markup=False)
        rows: Rows[RecordSummary] = Rows(COLUMNS, lambda one: one.id, empty="no documents", id="records")
        page = VerticalScroll(Hanging("Enter opens a document.", id="record"), classes="page")
        page.can_focus = True
        yield Split(rows, page, "library", 55, beside_from=110)

    def on_mount(self) -> None:
        super().on_mount()
        self.rows.focus()

    @property
    def rows(self) -> Rows[RecordSummary]:
        """The table."""
        return self.query_one(Rows)

    def link_changed(self) -> None:
        """Load once the server is there."""
        if self.whis.ready_client is not None and self._library is None:
            self.work("load", self._load)

    async def _load(self) -> None:
        client = self.client
        if client is None:
            return
        self._library = library = await client.library()
        licences = ", ".join(sorted({one.license for one in library.sources}))
        self.query_one("#overview", Static).update(
            f"{safe_line(library.index)} · {sum(one.records for one in library.sources)} documents · "
            f"{counted(len(library.sources), 'source')} · {safe_line(licences, 60)} · "
            f"{'may be changed here' if library.writable else 'read-only here'}"
        )
        await self._load_records()

    async def _load_records(self) -> None:
        client = self.client
        if client is None:
            return
        found: list[RecordSummary] = []
        after, total = "", 0
        while len(found) < MAX_RECORDS:
            page = await client.records(self._source, self._part, after, PAGE)
            found += page.records
            after, total = page.next, page.total
            self.rows.show(found, f"{len(found)}/{total}" if len(found) < total else "")
            if not after:
                break
        narrowed = f" from {safe_line(self._source, 60)}" if self._source else ""
        outcome, self._outcome = self._outcome, ""
        self.say(outcome or f"{len(found)} of {total} documents{narrowed}")

    # ---------------------------------------------------------------- reading

    def on_rows_opened(self, event: Rows.Opened) -> None:
        """A document."""
        self.work("open", self._open, event.item.id)

    async def _open(self, record_id: str) -> None:
        client = self.client
        if client is None:
            return
        held = await client.record_chunks(record_id)
        self._shown = held.record.text
        self.query_one(Hanging).show(record_page(held))
        page = self.query_one(".page", VerticalScroll)
        page.scroll_home(animate=False)
        page.focus()

    def action_back(self) -> None:
        """From a document to the table; there, drop filters."""
        line = self.query_one(Input)
        if line.has_class("-open") or self._part or self._source:
            line.remove_class("-open")
            self._part = self._source = ""
            with line.prevent(Input.Changed):
                line.value = ""
            self.work("load", self._load_records)
        self.rows.focus()

    def action_filter(self) -> None:
        """Find documents."""
        line = self.query_one(Input)
        line.add_class("-open")
        line.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Find."""
        self._part = event.value.strip()
        self.rows.focus()
        self.work("load", self._load_records)

    def action_sources(self) -> None:
        """Pick a source."""
        if self._library is None:
            return

        def use(source: SourceCount | None) -> None:
            if source is not None:
                self._source = source.name
                self.work("load", self._load_records)

        held = self._library.sources
        every = SourceCount(
            name="",
            license="",
            pipeline="",
            records=sum(one.records for one in held),
            characters=sum(one.characters for one in held),
        )
        self.app.push_screen(Choose("Sources", [every, *held], SOURCES), use)

    def action_search(self) -> None:
        """Search passages."""

        def search(text: str | None) -> None:
            if text:
                self.work("search", self._search, text)

        self.app.push_screen(
            AskLine("Search passages", "Without the model; each hit says why it was found."), search
        )

    async def _search(self, text: str) -> None:
        client = self.client
        if client is None:
            return
        content = explained(await client.explain(text))
        self.query_one(Hanging).show(content)
        self._shown = content.plain
        page = self.query_one(".page", VerticalScroll)
        page.scroll_home(animate=False)
        page.focus()
        self.say(f"searched: {text}")

    # --------------------------------------------------------------- changing

    def _may_change(self) -> bool:
        if self._library is not None and not self._library.writable:
            self.say(
                "read-only here: install a signed pack (F5, n), or set library.corpus in server.yaml",
                "warning",
            )
            return False
        return self.client is not None

    def action_ingest(self) -> None:
        """Ingest a file or folder under a source's name."""
        if not self._may_change():
            return

        def with_source(path: str | None) -> None:
            if path:
                line = AskLine("Ingest: source", "A name of data/sources.yaml; it says the licence.")
                self.app.push_screen(line, lambda name: self._start_ingest(path, name))

        self.app.push_screen(
            AskLine("Ingest: path", "A file or folder under library.allowed_folders."), with_source
        )

    def _start_ingest(self, path: str, source: str | None) -> None:
        if source:
            self.work("change", self._change, "ingest", {"paths": [path], "source": source})

    def action_purge(self) -> None:
        """Erase a document, after a question."""
        current = self.rows.current
        if current is None or not self._may_change():
            return

        def purge(yes: bool | None) -> None:
            if yes:
                self.work("change", self._change, "purge", {"record_id": current.id})

        what = "It is erased from corpus and index, and that is proved. No undo."
        words = f"{current.title}\n{current.id}\n\n{what}"
        self.app.push_screen(Confirm("Purge this document?", words), purge)

    async def _change(self, kind: str, given: dict[str, object]) -> None:
        client = self.client
        if client is None:
            return
        try:
            self._job = await client.submit(kind, given)
            job = await run_change(client, self._job, self.say)
        except RequestFailedError as error:
            self.say(str(error), "error")
            return
        finally:
            self._job = None
        if job.result is None:  # the index is as it was, and a new count would hide what went wrong
            said = job.error.message if job.error else job.status
            self.say(f"{kind}: {said}", "" if job.status == "cancelled" else "error")
            return
        self._changed(kind, job.result)
        await self._load()

    def _changed(self, kind: str, result: dict[str, Any]) -> None:
        self._result = result
        self._outcome = f"{ended(kind, result)}; v shows the review"
        self.say(self._outcome)
        if self.is_current:
            self.action_review()

    def action_review(self) -> None:
        """What the last change did, and what of it a person should look at."""
        if self._result is None:
            self.say("nothing was changed from here yet: n ingests, D purges", "warning")
        else:
            self.app.push_screen(ReviewPage("Review", self._result))

    def action_stop_change(self) -> None:
        """Cancel the ingest or purge that runs."""
        if self._job is not None:
            self.work("stop", self._stop_change, self._job.id)

    async def _stop_change(self, job_id: str) -> None:
        client = self.client
        if client is not None:
            await client.cancel_job(job_id)

    def text_to_copy(self) -> str:
        """The document or the search that is shown."""
        return safe(self._shown)
