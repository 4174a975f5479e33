"""A table of any length: only what is seen is drawn. Keys move the cursor, Space marks.

Invariant: a cell is one line of safe text; what a colour says stands in a cell too.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from textual.binding import BindingType
from textual.events import Click, Resize
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui.keymap import key

Item = TypeVar("Item")
GAP = "  "


@dataclass(frozen=True)
class Column(Generic[Item]):
    """A column: its heading, its width, and an item's text; width 0 takes what is left, the last one wins."""

    heading: str
    width: int
    text: Callable[[Item], str]
    from_width: int = 0
    """Shown only when the table is at least this wide."""


class RowMessage(Message):
    """Something about one item of a table."""

    def __init__(self, rows: Rows[Any], item: Any) -> None:
        super().__init__()
        self.rows, self.item = rows, item

    @property
    def control(self) -> Rows[Any]:
        """The table."""
        return self.rows


class Rows(ScrollView, Generic[Item], can_focus=True):
    """The table. `identity` names an item across updates; `tone` is "", muted, warning, error or success."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "rows--head",
        "rows--cursor",
        "rows--mark",
        "rows--muted",
        "rows--warning",
        "rows--error",
        "rows--success",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        key("rows.down", "move(1)"),
        key("rows.up", "move(-1)"),
        key("rows.page_down", "page(1)"),
        key("rows.page_up", "page(-1)"),
        key("rows.first", "move(-1000000000)"),
        key("rows.last", "move(1000000000)"),
        key("rows.open", "open", shown=False),
    ]
    cursor: reactive[int] = reactive(0)

    class Highlighted(RowMessage):
        """The cursor stands on another item (None when there are none)."""

    class Opened(RowMessage):
        """Enter, or a click on the cursor's item."""

    def __init__(
        self,
        columns: Sequence[Column[Item]],
        identity: Callable[[Item], Hashable],
        tone: Callable[[Item], str] = lambda _: "",
        empty: str = "nothing here",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._columns, self._identity, self._tone = columns, identity, tone
        self.empty = empty
        self.items: Sequence[Item] = ()
        self.marked: set[Hashable] = set()
        self.note = ""

    # ------------------------------------------------------------- content

    def show(self, items: Sequence[Item], note: str = "", keep: bool = True) -> None:
        """Other items, or the same in another order; the cursor stays on its item when `keep`."""
        held = self._identity(self.items[self.cursor]) if keep and self.current is not None else None
        self.items, self.note = items, note
        place = next((n for n, one in enumerate(items) if self._identity(one) == held), None)
        if place is None:
            place = min(self.cursor, max(0, len(items) - 1)) if keep else 0
        self.virtual_size = Size(self.size.width, len(items) + 1)
        moved = place != self.cursor or held is None
        self.cursor = place
        if moved:
            self.post_message(self.Highlighted(self, self.current))
        self.refresh()

    @property
    def current(self) -> Item | None:
        """The item under the cursor."""
        return self.items[self.cursor] if 0 <= self.cursor < len(self.items) else None

    @property
    def chosen(self) -> list[Item]:
        """The marked items, else the one under the cursor."""
        if self.marked:
            return [one for one in self.items if self._identity(one) in self.marked]
        return [] if self.current is None else [self.current]

    def toggle_mark(self) -> None:
        """Mark or unmark the cursor's item and go on."""
        if self.current is not None:
            self.marked ^= {self._identity(self.current)}
            self.action_move(1)
            self.refresh()

    def toggle_all(self) -> None:
        """Mark everything shown, or nothing."""
        self.marked = set() if self.marked else {self._identity(one) for one in self.items}
        self.refresh()

    # ---------------------------------------------------------------- keys

    def action_move(self, by: int) -> None:
        """Move the cursor."""
        self.move_to(self.cursor + by)

    def move_to(self, place: int) -> None:
        """Put the cursor on a row."""
        place = max(0, min(len(self.items) - 1, place))
        if place != self.cursor and self.items:
            self.cursor = place
            self.post_message(self.Highlighted(self, self.current))
        self._reveal()

    def action_page(self, by: int) -> None:
        """Move by what is seen."""
        self.action_move(by * max(1, self.size.height - 2))

    def action_open(self) -> None:
        """Open the cursor's item."""
        if self.current is not None:
            self.post_message(self.Opened(self, self.current))

    def on_click(self, event: Click) -> None:
        """Put the cursor there; a second click opens."""
        if event.y == 0:
            return
        place = int(self.scroll_offset.y) + event.y - 1
        if place < len(self.items):
            if place == self.cursor:
                self.action_open()
            self.move_to(place)

    def on_resize(self, event: Resize) -> None:
        """Follow the width."""
        self.virtual_size = Size(event.size.width, len(self.items) + 1)
        self._reveal()

    def _reveal(self) -> None:
        region = Region(0, self.cursor, max(1, self.size.width), 2 if self.cursor else 1)
        self.scroll_to_region(region, animate=False, force=True, immediate=True)

    def watch_cursor(self) -> None:
        """Draw the rows again."""
        self.refresh()

    # ------------------------------------------------------------- drawing

    def render_line(self, y: int) -> Strip:
        """One line of the screen."""
        width = self.size.width
        if y == 0:
            return self._strip(self._heads(width), "rows--head", width)
        place = int(self.scroll_offset.y) + y - 1
        if place >= len(self.items):
            text = f"  {self.empty}" if not self.items and y == 1 else ""
            return self._strip(text, "rows--muted", width)
        item = self.items[place]
        mark = "*" if self._identity(item) in self.marked else " "
        pointer = ">" if place == self.cursor else " "
        tone = self._tone(item)
        if place == self.cursor:
            name = "rows--cursor"
        else:
            name = "rows--mark" if mark == "*" else f"rows--{tone}" if tone else ""
        return self._strip(f"{pointer}{mark}{self._cells(item, width)}", name, width)

    def _strip(self, text: str, name: str, width: int) -> Strip:
        style = self.get_component_rich_style(name) if name else self.rich_style
        return Strip([Segment(set_cell_size(text, width), style)], width)

    def _heads(self, width: int) -> str:
        note = f" {self.note}" if self.note else ""
        heads = self._joined([(column, column.heading) for column in self._seen(width)], width - len(note))
        return f"  {heads}{note}"

    def _cells(self, item: Item, width: int) -> str:
        return self._joined([(column, column.text(item)) for column in self._seen(width)], width)

    def _seen(self, width: int) -> list[Column[Item]]:
        return [column for column in self._columns if width >= column.from_width]

    def _joined(self, cells: list[tuple[Column[Item], str]], width: int) -> str:
        fixed = sum(column.width + len(GAP) for column, _ in cells if column.width)
        flexible = [column for column, _ in cells if not column.width]
        left = max(6, (width - 2 - fixed) // max(1, len(flexible)) - len(GAP))
        parts = []
        for column, text in cells:
            room = column.width or left
            if cell_len(text) > room:
                text = set_cell_size(text, room - 1) + "…"
            parts.append(set_cell_size(text, room))
        return GAP.join(parts)
