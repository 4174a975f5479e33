"""Installing a box or a pack from a medium: `whis box install` or `pack apply` as a child."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static
from textual.worker import Worker

from tui.keymap import key
from tui.safe_text import safe_line
from whis_box.errors import EXIT_OK

if TYPE_CHECKING:
    from tui.app import WhisTui

KEPT_LINES = 400
PACK_NAME = "pack.json"


def command_for(medium: Path) -> list[str]:
    """What is run for a medium."""
    program = [sys.executable] if getattr(sys, "frozen", False) else [sys.executable, "-m", "whis_box.cli"]
    if (medium / PACK_NAME).is_file():
        return [*program, "box", "pack", "apply", str(medium)]
    return [*program, "box", "install", str(medium)]


class InstallPage(ModalScreen[None]):
    """The page; it cannot be closed while the child works, which can be ended at any instruction."""

    BINDINGS: ClassVar[list[BindingType]] = [key("dialog.close", "close")]

    def __init__(self, medium: Path) -> None:
        super().__init__()
        self._medium = medium
        self._lines: list[str] = []
        self.exit_code: int | None = None

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(f"Install {safe_line(str(self._medium), 200)}", classes="dialog-title", markup=False)
            with VerticalScroll():
                yield Static("", id="log", markup=False)
            yield Static("working…", classes="dialog-keys", markup=False)

    def on_mount(self) -> None:
        self.run_worker(self._run(), exit_on_error=False)

    async def _run(self) -> None:
        process = await asyncio.create_subprocess_exec(
            *command_for(self._medium),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert process.stdout is not None
        async for line in process.stdout:
            self._add(line.decode("utf-8", "replace"))
        self.exit_code = await process.wait()
        well = self.exit_code == EXIT_OK
        self._add(
            "✓ installed; leave and start again to use it"
            if well
            else f"✗ not installed (exit {self.exit_code}); the box in use is unchanged"
        )
        self.query_one(".dialog-keys", Static).update("Esc close")

    def _add(self, line: str) -> None:
        self._lines = [*self._lines[1 - KEPT_LINES :], safe_line(line, 500)]
        self.query_one("#log", Static).update("\n".join(self._lines))
        self.query_one(VerticalScroll).scroll_end(animate=False)

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """Say what could not be done."""
        cast("WhisTui", self.app).report(event)

    def action_close(self) -> None:
        """Close when it has ended."""
        if self.exit_code is not None:
            self.dismiss()
