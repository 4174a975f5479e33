"""The event as it came: a tree that opens level by level, and a search over paths and values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Footer, Input, Static, Tree
from textual.widgets.tree import TreeNode

from tui.keymap import key
from tui.safe_text import safe_line

MAX_CHILDREN = 500
MAX_VALUE_CHARS = 400
Path = tuple[str, ...]


class RawEvent(ModalScreen[None]):
    """The page."""

    BINDINGS: ClassVar[list[BindingType]] = [
        key("raw.close", "close"),
        key("raw.search", "search"),
        key("raw.next", "next(1)"),
        key("raw.previous", "next(-1)"),
    ]

    def __init__(self, title: str, event: dict[str, Any]) -> None:
        super().__init__()
        self._title, self._event = title, event
        self._words = ""
        self._matches: list[Path] = []
        self._at = -1

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -large"):
            yield Static(safe_line(self._title, 200), classes="dialog-title", markup=False)
            yield Input(placeholder="a part of a name or a value", compact=True, classes="filter")
            tree: Tree[Any] = Tree("event", self._event)
            tree.guide_depth = 2
            yield tree
            yield Static("", classes="line", markup=False)
            yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        tree = self.query_one(Tree)
        self._grow(tree.root)
        tree.root.expand()
        tree.focus()
        self.query_one(Input).cursor_blink = False

    def on_tree_node_expanded(self, event: Tree.NodeExpanded[Any]) -> None:
        """Children are made when they are asked for."""
        self._grow(event.node)

    def _grow(self, node: TreeNode[Any]) -> None:
        if node.children:
            return
        children = list(_children(node.data))
        for name, value in children[:MAX_CHILDREN]:
            if isinstance(value, dict | list) and value:
                node.add(Text(f"{safe_line(name, 120)} ({len(value)})"), value)
            else:
                shown = safe_line(str(value), MAX_VALUE_CHARS)
                node.add_leaf(Text(f"{safe_line(name, 120)}: {shown}"), value)
        if len(children) > MAX_CHILDREN:
            node.add_leaf(Text(f"… {len(children) - MAX_CHILDREN} more; search finds them"))

    # -------------------------------------------------------------- search

    def action_search(self) -> None:
        """Open the line."""
        line = self.query_one(Input)
        line.add_class("-open")
        line.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Find every path."""
        event.stop()
        self._words = event.value.lower()
        self._matches = [path for path in _paths(self._event) if self._fits(path)] if self._words else []
        self._at = -1
        self.query_one(Input).remove_class("-open")
        self.query_one(Tree).focus()
        self.action_next(1)

    def _fits(self, path: Path) -> bool:
        value = _value_at(self._event, path)
        plain = "" if isinstance(value, dict | list) else str(value)
        return self._words in path[-1].lower() or self._words in plain.lower()

    def action_next(self, by: int) -> None:
        """Go to the next match."""
        line = self.query_one(".line", Static)
        if not self._matches:
            line.update(f"nothing holds {safe_line(self._words, 60)!r}" if self._words else "")
            return
        self._at = (self._at + by) % len(self._matches)
        path = self._matches[self._at]
        shown = safe_line(str(_value_at(self._event, path)), 200)
        line.update(f"{self._at + 1}/{len(self._matches)}  {safe_line('.'.join(path), 200)} = {shown}")
        self._reveal(path)

    def _reveal(self, path: Path) -> None:
        tree = self.query_one(Tree)
        node = tree.root
        for name in path:
            self._grow(node)
            node.expand()
            places = [one for one, _ in _children(node.data)]
            place = places.index(name) if name in places else MAX_CHILDREN
            if place >= len(node.children):
                break
            node = node.children[place]
        tree.call_after_refresh(tree.move_cursor, node)

    def action_close(self) -> None:
        """Close the line, or the page."""
        line = self.query_one(Input)
        if line.has_class("-open"):
            line.remove_class("-open")
            self.query_one(Tree).focus()
        else:
            self.dismiss()


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from ((str(name), one) for name, one in value.items())
    elif isinstance(value, list):
        yield from ((str(place), one) for place, one in enumerate(value))


def _paths(value: Any, above: Path = ()) -> Iterator[Path]:
    for name, one in _children(value):
        yield (*above, name)
        yield from _paths(one, (*above, name))


def _value_at(value: Any, path: Path) -> Any:
    for name in path:
        value = value[int(name)] if isinstance(value, list) else value[name]
    return value
