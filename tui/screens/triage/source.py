"""One source of a case: the evidence pane as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static
from textual.worker import Worker

from tui.keymap import key
from tui.widgets.evidence import EvidencePane
from whis_box.schemas import Citation

if TYPE_CHECKING:
    from tui.app import WhisTui
    from tui.client import Client


class SourcePage(ModalScreen[None]):
    """The page."""

    BINDINGS: ClassVar[list[BindingType]] = [key("dialog.close", "close")]

    def __init__(self, citation: Citation, of: int, client: Client | None) -> None:
        super().__init__()
        self._citation, self._of, self._client = citation, of, client

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static("Source", classes="dialog-title", markup=False)
            yield EvidencePane("")
            yield Static("Esc close", classes="dialog-keys", markup=False)

    def on_mount(self) -> None:
        pane = self.query_one(EvidencePane)
        pane.focus()
        self.run_worker(pane.show(self._citation, self._of, "", self._client), exit_on_error=False)

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """Say what could not be done."""
        cast("WhisTui", self.app).report(event)

    def action_close(self) -> None:
        self.dismiss()
