"""Earlier questions: full-text search over questions and answers, Enter opens, Del forgets."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from pydantic import ValidationError
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from tui.keymap import key
from tui.safe_text import safe_line
from tui.state import Asked, State
from tui.widgets.rows import Column, Rows
from whis_box.schemas import Answer

COLUMNS: list[Column[Asked]] = [
    Column("when", 16, lambda one: when(one.at)),
    Column("question", 0, lambda one: safe_line(one.question, 200)),
    Column("answer", 0, lambda one: safe_line(one.answer, 200), from_width=90),
]


def when(at: float) -> str:
    """Local time, to the minute."""
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M")


def answer_of(asked: Asked) -> Answer | None:
    """The whole answer, None if another version wrote it."""
    try:
        return Answer.model_validate_json(asked.body)
    except ValidationError:
        return None


class History(ModalScreen[Asked | None]):
    """The page."""

    BINDINGS: ClassVar[list[BindingType]] = [
        key("dialog.close", "close"),
        Binding("down", "list", "List", show=False),
        Binding("delete", "forget", "Forget", show=False),
    ]

    def __init__(self, state: State) -> None:
        super().__init__()
        self._state = state

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -large"):
            yield Static("History", classes="dialog-title", markup=False)
            yield Input(placeholder="words in a question or an answer", compact=True)
            yield Rows(COLUMNS, lambda one: one.id, empty="nothing found", id="found")
            yield Static(
                "type to search   ↓ list   Enter open   Del forget   Esc leave",
                classes="dialog-keys",
                markup=False,
            )

    def on_mount(self) -> None:
        line = self.query_one(Input)
        line.cursor_blink = False
        line.focus()
        self._search("")

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._search(event.value)

    def _search(self, text: str) -> None:
        self.query_one(Rows).show(self._state.history(text), keep=False)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.query_one(Rows).action_open()

    def on_rows_opened(self, event: Rows.Opened) -> None:
        event.stop()
        self.dismiss(event.item)

    def action_list(self) -> None:
        """Into the list."""
        self.query_one(Rows).focus()

    def action_forget(self) -> None:
        """Take the question under the cursor out of the history."""
        current = self.query_one(Rows).current
        if isinstance(current, Asked):
            self._state.forget(current.id)
            self._search(self.query_one(Input).value)

    def action_close(self) -> None:
        self.dismiss(None)
