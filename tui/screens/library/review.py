"""The review of an import: suspicious passages, rejects, skips, duplicates and redactions, one a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Footer, Static

from tui.keymap import key
from tui.safe_text import safe, safe_line
from tui.widgets.rows import Column, Rows

MARKS = {"suspicious": "!", "rejected": "x", "skipped": "○", "duplicate": "=", "redacted": "·"}
TONES = {"suspicious": "warning", "rejected": "error"}
NEXT = "The corpus holds what came in; answers use it after `whis index build` and a new box or pack."


@dataclass(frozen=True)
class Item:
    """One thing to look at."""

    kind: str
    where: str
    why: str
    text: str


COLUMNS: list[Column[Item]] = [
    Column("what", 13, lambda one: f"{MARKS.get(one.kind, ' ')} {safe_line(one.kind, 20)}"),
    Column("where", 0, lambda one: safe_line(one.where, 200)),
    Column("why", 0, lambda one: safe_line(one.why, 200), from_width=70),
]


def items_of(result: Mapping[str, Any]) -> list[Item]:
    """The review in an import's result; empty for one without."""
    held = result.get("review") or {}
    return [
        Item(*(str(one.get(name, "")) for name in ("kind", "where", "why", "text")))
        for one in held.get("items", [])
    ]


def facts_of(result: Mapping[str, Any]) -> str:
    """Every figure of a result, one a line; nested ones in one line."""
    lines = []
    for name, value in result.items():
        if name == "review":
            continue
        if isinstance(value, Mapping):
            value = ", ".join(f"{one} {count}" for one, count in value.items()) or "none"
        elif isinstance(value, list):
            value = ", ".join(map(str, value)) or "none"
        lines.append(f"{name.replace('_', ' '):<22} {value}")
    return "\n".join(lines)


class ReviewPage(ModalScreen[None]):
    """The page: what the change did, the list, and the item under the cursor in full."""

    BINDINGS: ClassVar[list[BindingType]] = [
        key("dialog.close", "close"),
        key("library.kind", "next_kind"),
        key("pane.copy", "copy"),
    ]

    def __init__(self, title: str, result: Mapping[str, Any]) -> None:
        super().__init__()
        self._title, self._result = title, result
        self._items = items_of(result)
        self._kind = ""

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -large"):
            yield Static(safe(self._title), classes="dialog-title", markup=False)
            if self._items:
                rows: Rows[Item] = Rows(COLUMNS, id, lambda one: TONES.get(one.kind, ""), id="review")
                yield Static(self._summary(), id="review-summary", markup=False)
                yield rows
            with VerticalScroll(id="review-detail", classes="page"):
                yield Static(safe(facts_of(self._result)), id="review-text", markup=False)
            yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        if self._items:
            self._draw()
            self.query_one(Rows).focus()
        else:
            self.query_one("#review-detail").focus()

    def _summary(self) -> str:
        counts = (self._result.get("review") or {}).get("counts", {})
        words = ", ".join(f"{count} {name}" for name, count in counts.items())
        left = sum(counts.values()) - len(self._items)
        return f"{words}{f'; {left} are not listed' if left > 0 else ''}. {NEXT}"

    def _draw(self) -> None:
        seen: Sequence[Item] = [one for one in self._items if self._kind in ("", one.kind)]
        self.query_one(Rows).show(seen, self._kind, keep=False)

    def on_rows_highlighted(self, event: Rows.Highlighted) -> None:
        """The item in full."""
        event.stop()
        one = event.item
        if isinstance(one, Item):
            parts: list[str | tuple[str, str]] = [
                (f"{MARKS.get(one.kind, ' ')} {safe_line(one.kind)}\n", "bold"),
                f"{safe_line(one.where, 400)}\n{safe(one.why)}\n",
            ]
            if one.text:
                parts += ["\n", (f"» {safe(one.text)} «", "$warning")]
            self.query_one("#review-text", Static).update(Content.assemble(*parts))

    def on_rows_opened(self, event: Rows.Opened) -> None:
        """To the text, to scroll it."""
        event.stop()
        self.query_one("#review-detail").focus()

    def action_next_kind(self) -> None:
        """Only the next kind; after the last one, all."""
        if self._items:
            kinds = ["", *dict.fromkeys(one.kind for one in self._items)]
            self._kind = kinds[(kinds.index(self._kind) + 1) % len(kinds)]
            self._draw()

    def action_copy(self) -> None:
        """The whole list."""
        lines = [f"{one.kind}\t{one.where}\t{one.why}\t{one.text}" for one in self._items]
        self.app.copy_to_clipboard(safe("\n".join([facts_of(self._result), *lines])))

    def action_close(self) -> None:
        """Leave."""
        self.dismiss()
