"""The first line: where one is, where one can go, and the state of the server in words."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.style import Style
from textual.widgets import Static

AREAS = (("ask", "Ask", "F2"), ("triage", "Triage", "F3"), ("library", "Library", "F4"), ("box", "Box", "F5"))


class TopBar(Horizontal):
    """Tabs at the left, the server's state at the right."""

    def __init__(self, area: str) -> None:
        super().__init__(id="topbar")
        self._area = area

    def compose(self) -> ComposeResult:
        yield Static(self._tabs(), id="tabs")
        yield Static("starting", id="link", markup=False)

    def _tabs(self) -> Content:
        parts: list[tuple[str, str | Style]] = []
        for name, title, keys in AREAS:
            here = name == self._area
            shown = f"[{keys} {title}]" if here else f" {keys} {title} "
            look = Style(bold=here, underline=here)
            parts.append((shown, look + Style.from_meta({"@click": f"app.area('{name}')"})))
        return Content.assemble("Whis ", *parts, " ")

    def show_link(self, words: str, is_well: bool) -> None:
        """The server's state."""
        link = self.query_one("#link", Static)
        link.update(words)
        link.set_class(not is_well, "-unwell")
