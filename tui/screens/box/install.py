"""Installing a box or a pack from a medium: `whis box install` or `whis box pack apply` as a child."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static
from textual.worker import Worker

from tui.keymap import key
from tui.safe_text import safe_line
from tui.screens.box.media import Medium
from tui.words import bar, size
from whis_box.errors import EXIT_OK, EXIT_VERIFICATION
from whis_box.paths import own_program

if TYPE_CHECKING:
    from tui.app import WhisTui

KEPT_LINES = 400
MAX_LINE_BYTES = 1 << 20
COPIED = re.compile(r"^\s*(\d+\.\d) MB  ")
TRYING = "copied and verified; now the new release has to answer its own questions (some minutes)"


def command_for(medium: Medium) -> list[str]:
    """What is run for a medium."""
    what = ["box", "pack", "apply"] if medium.kind == "pack" else ["box", "install"]
    return [*own_program(), *what, str(medium.path)]


class InstallPage(ModalScreen[None]):
    """The page; it cannot be closed while the child works, which can be ended at any instruction."""

    BINDINGS: ClassVar[list[BindingType]] = [key("dialog.close", "close")]

    def __init__(self, medium: Medium) -> None:
        super().__init__()
        self._medium = medium
        self._lines: list[str] = []
        self._copied_bytes = 0.0
        self.exit_code: int | None = None

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            title = f"Install the {self._medium.kind} in {safe_line(str(self._medium.path), 200)}"
            yield Static(title, classes="dialog-title", markup=False)
            yield Static("checking the signature…", id="install-progress", markup=False)
            with VerticalScroll():
                yield Static("", id="log", markup=False)
            yield Static("working… the release in use stays in use", classes="dialog-keys", markup=False)

    def on_mount(self) -> None:
        self.run_worker(self._run(), exit_on_error=False)

    async def _run(self) -> None:
        process = await asyncio.create_subprocess_exec(
            *command_for(self._medium),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=MAX_LINE_BYTES,
        )
        assert process.stdout is not None
        async for line in process.stdout:
            self._add(line.decode("utf-8", "replace"))
        self.exit_code = await process.wait()
        self._show(_outcome(self.exit_code))
        self.query_one(".dialog-keys", Static).update("Esc close")

    def _add(self, line: str) -> None:
        self._lines = [*self._lines[1 - KEPT_LINES :], safe_line(line, 500)]
        self.query_one("#log", Static).update("\n".join(self._lines))
        self.query_one(VerticalScroll).scroll_end(animate=False)
        if found := COPIED.match(line):
            self._copied_bytes += float(found[1]) * 1e6
            self._show(self._progress())

    def _progress(self) -> str:
        """How much is copied; the medium's own sizes are enough for a bar."""
        total = self._medium.size_bytes
        if self._medium.kind == "pack" or not total:  # a release may be larger than the pack it is made from
            return f"{size(self._copied_bytes)} written and verified"
        done = min(self._copied_bytes, total)
        words = f"{bar(done, total)} {size(done)} of {size(total)} copied"
        return f"{words}\n{TRYING}" if done > 0.98 * total else words

    def _show(self, words: str) -> None:
        self.query_one("#install-progress", Static).update(words)

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """Say what could not be done."""
        cast("WhisTui", self.app).report(event)

    def action_close(self) -> None:
        """Close when it has ended."""
        if self.exit_code is not None:
            self.dismiss()


def _outcome(code: int) -> str:
    if code == EXIT_OK:
        return "✓ installed; leave and start again to use it"
    why = "it did not pass verification" if code == EXIT_VERIFICATION else f"exit {code}"
    return f"✗ not installed ({why}); the release in use is unchanged. What was said stands below."
