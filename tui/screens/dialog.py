"""Questions in the middle of the screen: yes or no, one line of text, a list, and pages of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.events import Key
from textual.screen import ModalScreen
from textual.widgets import Footer, Input, Static

from tui.keymap import key
from tui.safe_text import safe
from tui.widgets.hanging import Hanging
from tui.widgets.rows import Column, Rows

Item = TypeVar("Item")


class Confirm(ModalScreen[bool]):
    """Yes or no; says what will happen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        key("dialog.yes", "answer(True)"),
        key("dialog.no", "answer(False)"),
    ]

    def __init__(self, title: str, words: str) -> None:
        super().__init__()
        self._title, self._words = title, words

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -small"):
            yield Static(safe(self._title), classes="dialog-title", markup=False)
            yield Static(safe(self._words), markup=False)
            yield Static("y yes   n no", classes="dialog-keys", markup=False)

    def action_answer(self, answer: bool) -> None:
        self.dismiss(answer)


class AskLine(ModalScreen[str | None]):
    """One line of text; None when it was closed."""

    BINDINGS: ClassVar[list[BindingType]] = [key("dialog.close", "close")]

    def __init__(self, title: str, words: str = "", value: str = "", optional: bool = False) -> None:
        super().__init__()
        self._title, self._words, self._value, self._optional = title, words, value, optional

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -small"):
            yield Static(safe(self._title), classes="dialog-title", markup=False)
            if self._words:
                yield Static(safe(self._words), markup=False)
            yield Input(self._value, compact=True)
            yield Static("Enter take it   Esc leave", classes="dialog-keys", markup=False)

    def on_mount(self) -> None:
        line = self.query_one(Input)
        line.cursor_blink = False
        line.focus()

    def on_key(self, event: Key) -> None:
        """Keys that were faster than the line are not lost."""
        line = self.query_one(Input)
        if event.is_printable and event.character:
            line.insert_text_at_cursor(event.character)
        elif event.key == "enter":
            self._take(line.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._take(event.value)

    def _take(self, text: str) -> None:
        if text.strip() or self._optional:
            self.dismiss(text.strip())

    def action_close(self) -> None:
        self.dismiss(None)


class Choose(ModalScreen[Any], Generic[Item]):
    """One of a list; None when it was closed."""

    BINDINGS: ClassVar[list[BindingType]] = [key("dialog.close", "close")]

    def __init__(
        self, title: str, items: Sequence[Item], columns: Sequence[Column[Item]], words: str = ""
    ) -> None:
        super().__init__()
        self._title, self._items, self._columns, self._words = title, items, columns, words

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(safe(self._title), classes="dialog-title", markup=False)
            if self._words:
                yield Static(safe(self._words), markup=False)
            yield Rows(self._columns, id, id="choices")
            yield Static("Enter choose   Esc leave", classes="dialog-keys", markup=False)

    def on_mount(self) -> None:
        rows = self.query_one(Rows)
        rows.show(self._items, keep=False)
        rows.focus()

    def on_rows_opened(self, event: Rows.Opened) -> None:
        event.stop()
        self.dismiss(event.item)

    def action_close(self) -> None:
        self.dismiss(None)


class Pages(ModalScreen[None]):
    """Text to read."""

    BINDINGS: ClassVar[list[BindingType]] = [
        key("dialog.close", "close"),
        key("rows.down", "scroll(1)"),
        key("rows.up", "scroll(-1)"),
        key("rows.page_down", "scroll(10)"),
        key("rows.page_up", "scroll(-10)"),
    ]

    def __init__(self, title: str, content: Content | str) -> None:
        super().__init__()
        self._title, self._content = title, content

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -large"):
            yield Static(safe(self._title), classes="dialog-title", markup=False)
            with VerticalScroll(can_focus=False):
                yield Hanging(safe(self._content) if isinstance(self._content, str) else self._content)
            yield Footer(show_command_palette=False, compact=True)

    def action_scroll(self, by: int) -> None:
        self.query_one(VerticalScroll).scroll_relative(y=by, animate=False)

    def action_close(self) -> None:
        self.dismiss(None)
