"""What the four areas share: the first line, what happened, the keys, and a note when it is too small.

Invariant: what an area says stands in place, on one line above the keys; nothing pops up or moves by itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.screen import Screen
from textual.widgets import Footer, Static
from textual.worker import Worker

from tui.keymap import key
from tui.safe_text import safe_line
from tui.widgets.split import Split
from tui.widgets.topbar import TopBar

if TYPE_CHECKING:
    from tui.app import WhisTui
    from tui.client import Client

LEAST_WIDTH, LEAST_HEIGHT = 40, 10


class Area(Screen[None]):
    """One of the four areas; `AREA` names it and `HELP` explains it."""

    AREA: ClassVar[str] = ""
    HELP: ClassVar[str] = ""
    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        key("pane.wider", "grow(1)"),
        key("pane.narrower", "grow(-1)"),
        key("pane.copy", "copy"),
    ]

    def compose(self) -> ComposeResult:
        yield TopBar(self.AREA)
        with Container(id="body"):
            yield from self.compose_body()
        yield Static("", id="said", markup=False)
        yield Footer(show_command_palette=False, compact=True)
        yield Static("", id="too-small", markup=False)

    def compose_body(self) -> ComposeResult:
        """The area itself."""
        yield from ()

    @property
    def whis(self) -> WhisTui:
        """The app."""
        return cast("WhisTui", self.app)

    @property
    def client(self) -> Client | None:
        """The server, once it is ready; says why not otherwise."""
        client = self.whis.ready_client
        if client is None:
            self.say(f"not yet: {self.whis.link.words}", "warning")
        return client

    def on_mount(self) -> None:
        """Restore the panes."""
        self.restore_panes()
        self.show_link()

    def state_opened(self) -> None:
        """The state file is there."""
        self.restore_panes()

    def restore_panes(self) -> None:
        """As the analyst left them."""
        for split in self.query(Split):
            share = self.whis.state.get(f"split.{split.pane_name}") if self.whis.state else None
            if isinstance(share, int):
                split.set_share(share, tell=False)

    def on_screen_resume(self) -> None:
        """The server may have changed while another area was shown."""
        self.show_link()

    def show_link(self) -> None:
        """The server's state in the first line."""
        for bar in self.query(TopBar):
            bar.show_link(self.whis.link.words, self.whis.link.state in ("ready", "connecting", "loading"))
        self.link_changed()

    def link_changed(self) -> None:
        """For areas that load something once the server is there."""

    def say(self, words: str, tone: str = "") -> None:
        """One line in place."""
        said = self.query_one("#said", Static)
        mark = {"warning": "! ", "error": "x "}.get(tone, "")
        said.update(f"{mark}{safe_line(words, 400)}")
        said.set_classes(f"-{tone}" if tone else "")

    def work(self, group: str, job: Callable[..., Awaitable[None]], *given: Any, alone: bool = True) -> None:
        """Run in the background; a failure becomes words in place."""
        self.run_worker(partial(job, *given), group=group, exclusive=alone, exit_on_error=False)

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """Say what a background job could not do."""
        self.whis.report(event)

    def on_resize(self) -> None:
        """Say so when the window is too small to work in."""
        size = self.app.size
        small = size.width < LEAST_WIDTH or size.height < LEAST_HEIGHT
        self.set_class(small, "-too-small")
        if small:
            needed = f"needs {LEAST_WIDTH}x{LEAST_HEIGHT}"
            words = f"{size.width}x{size.height} is too small\n{needed}\nnothing is lost"
            self.query_one("#too-small", Static).update(words)

    def on_split_moved(self, event: Split.Moved) -> None:
        """Remember the panes."""
        if self.whis.state:
            self.whis.state.put(f"split.{event.split_name}", event.share)

    def action_grow(self, by: int) -> None:
        """The second pane larger or smaller."""
        for split in self.query(Split):
            split.grow(by)

    def action_copy(self) -> None:
        """Copy what the area thinks of as its text."""
        text = self.text_to_copy()
        if text:
            self.app.copy_to_clipboard(text)
            self.say(f"copied {len(text.splitlines())} lines (OSC 52: the terminal must allow it)")

    def text_to_copy(self) -> str:
        """For `copy`."""
        return ""
