"""Box: what runs here, whether it is whole, and what may be changed about it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content

from tui.errors import RequestFailedError
from tui.keymap import key
from tui.screens.area import Area
from tui.screens.box import facts
from tui.screens.box.install import InstallPage
from tui.screens.box.media import COLUMNS as MEDIA
from tui.screens.box.media import Medium, describe, find_media
from tui.screens.dialog import AskLine, Choose, Confirm
from tui.widgets.hanging import Hanging
from tui.widgets.rows import Column, Rows

if TYPE_CHECKING:
    from tui.client import Client
    from whis_box.rollout.state import AdapterState

REFRESH_S = 5.0
LIVE = {"Engine", "Metrics"}
Show = Callable[["Client"], Awaitable[Content]]
SECTIONS: dict[str, Show] = {
    "Manifest": facts.manifest,
    "Engine": facts.engine,
    "Index": facts.index,
    "Rollout": facts.rollout,
    "Adapters": facts.adapters,
    "Gates": facts.gates,
    "Metrics": facts.metrics,
    "Audit": facts.audit,
    "Jobs": facts.jobs,
}
TITLES = {"canary": "Canary: 10 percent of the requests", "shadow": "Shadow: answers unseen, beside stable"}
EFFECTS = {
    "promote": "The canary, else the shadow, answers everything; its gate must have passed.",
    "rollback": "A canary is stopped; without one, the release before answers everything, at once.",
    "canary": "A tenth of the requests goes to the adapter; only a passed gate lets it be promoted.",
    "shadow": "The adapter answers copies of the requests in free moments; nobody sees its answers.",
}
COLUMNS: list[Column[str]] = [Column("section", 0, lambda one: one)]


class BoxScreen(Area):
    """The area."""

    AREA = "box"
    HELP = """The state of the box, section by section. Engine and Metrics are read again every five seconds
while they are shown; r reads any section again. v compares every file with the manifest, now.
p promotes the canary and b goes back to the release before; both ask first and stand in the audit
log with your reason. c starts a canary, s a shadow. n installs a box or a pack from a mounted medium:
it is verified first, and the running box stays in use until the new one has passed its self-test."""
    BINDINGS: ClassVar[list[BindingType]] = [
        key("box.refresh", "refresh_section"),
        key("box.verify", "verify"),
        key("box.promote", "change('promote')"),
        key("box.rollback", "change('rollback')"),
        key("box.canary", "try('canary')"),
        key("box.shadow", "try('shadow')"),
        key("box.install", "install"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._section = "Manifest"

    def compose_body(self) -> ComposeResult:
        with Horizontal(id="columns"):
            yield Rows(COLUMNS, lambda one: one, id="sections")
            page = VerticalScroll(Hanging(id="facts"), classes="page")
            page.can_focus = True
            yield page

    def on_mount(self) -> None:
        super().on_mount()
        rows = self.query_one(Rows)
        rows.show(list(SECTIONS), keep=False)
        rows.focus()
        self._clock = self.set_interval(REFRESH_S, self._tick)

    def on_screen_suspend(self) -> None:
        """Nothing is read while another area is shown."""
        self._clock.pause()

    def on_screen_resume(self) -> None:
        """Read again."""
        super().on_screen_resume()
        self._clock.resume()

    def _tick(self) -> None:
        if self._section in LIVE and self.whis.ready_client is not None:
            self.action_refresh_section()

    def link_changed(self) -> None:
        """Read the section once the server is there."""
        if self.whis.ready_client is not None:
            self.action_refresh_section()

    def on_rows_highlighted(self, event: Rows.Highlighted) -> None:
        """Another section."""
        if event.item and event.item != self._section:
            self._section = event.item
            self.query_one(".page", VerticalScroll).scroll_home(animate=False)
            self.action_refresh_section()

    def on_rows_opened(self, event: Rows.Opened) -> None:
        """To the page, to scroll it."""
        self.query_one(".page").focus()

    def action_refresh_section(self) -> None:
        """Read it again."""
        if self.client is not None:
            self.work("read", self._read, self._section)

    async def _read(self, section: str) -> None:
        client = self.client
        if client is None:
            return
        try:
            content = await SECTIONS[section](client)
        except RequestFailedError as error:
            content = Content.assemble((f"{section}: {error}", "$warning"))
        self._show(content)

    def _show(self, content: Content) -> None:
        self.query_one(Hanging).show(content)

    # -------------------------------------------------------------- changing

    def action_verify(self) -> None:
        """Compare every file with the manifest."""
        if self.client is not None:
            self.say("comparing every file with the manifest…")
            self.work("verify", self._verify)

    async def _verify(self) -> None:
        client = self.client
        if client is None:
            return
        check = await client.verify_box()
        self._show(facts.check(check))
        well = f"intact: {check.files} files are what the manifest says"
        self.say(well if check.intact else "the box was changed: see above", "" if check.intact else "error")

    def action_try(self, action: str) -> None:
        """Choose an adapter for a canary or a shadow."""
        if self.client is not None:
            self.work("adapters", self._choose_adapter, action)

    async def _choose_adapter(self, action: str) -> None:
        client = self.client
        if client is None:
            return
        held = [one for one in (await client.adapters()).adapters if "stable" not in one.roles]
        if not held:
            self.say("no other adapter is on this host", "warning")
            return

        def start(chosen: AdapterState | None) -> None:
            if chosen is not None:
                self._ask_reason(action, {"adapter": chosen.reference})

        self.app.push_screen(Choose(TITLES[action], held, facts.ADAPTER_COLUMNS), start)

    def action_change(self, action: str) -> None:
        """Promote or roll back, after a question and with a reason."""
        self._ask_reason(action, {})

    def _ask_reason(self, action: str, given: dict[str, object]) -> None:
        if self.client is None:
            return

        def with_reason(reason: str | None) -> None:
            if reason:
                question = Confirm(f"{action.title()}?", f"{EFFECTS[action]}\n\nReason: {reason}")
                self.app.push_screen(
                    question, lambda yes: self._change(action, given, reason) if yes else None
                )

        self.app.push_screen(AskLine(f"{action.title()}: why?", "It stands in the audit log."), with_reason)

    def _change(self, action: str, given: dict[str, object], reason: str) -> None:
        self.work("change", self._send_change, action, given, reason)

    async def _send_change(self, action: str, given: dict[str, object], reason: str) -> None:
        client = self.client
        if client is None:
            return
        self.say(f"{action}…")
        state = await client.change_rollout(action, **given, reason=reason)
        self.say(f"{action} done: {state.stable} answers, revision {state.revision}")
        self._go_to("Rollout")

    def _go_to(self, section: str) -> None:
        rows = self.query_one(Rows)
        rows.move_to(list(SECTIONS).index(section))
        self._section = section
        self.action_refresh_section()

    def action_install(self) -> None:
        """Install from a mounted medium."""
        self.work("media", self._choose_medium)

    async def _choose_medium(self) -> None:
        found = await asyncio.to_thread(find_media)
        if not found:
            self._ask_folder()
            return

        def chosen(medium: Medium | None) -> None:
            if medium is not None and medium.path is None:
                self._ask_folder()
            elif medium is not None:
                self.app.push_screen(InstallPage(medium))

        words = "Found on mounted media; each is verified before anything of it is used."
        self.app.push_screen(Choose("Install", [*found, Medium(None, "")], MEDIA, words), chosen)

    def _ask_folder(self) -> None:
        def begin(path: str | None) -> None:
            if path:
                folder = Path(path).expanduser()
                self.app.push_screen(InstallPage(describe(folder) or Medium(folder, "box")))

        words = "The folder of a signed box or pack, for example /media/usb/8."
        self.app.push_screen(AskLine("Install", words), begin)

    def text_to_copy(self) -> str:
        """The section."""
        return self.query_one(Hanging).text
