"""Text whose long lines go on below where they began, not below their label.

Invariant: HANG is a control character, so no text from outside holds one (safe_text takes them out).
"""

from __future__ import annotations

from rich.cells import cell_len, get_character_cell_size
from textual.content import Content
from textual.events import Resize
from textual.widgets import Static

HANG = "\x1f"
"""Stands where a line's continuation begins: `licence   HANG CC-BY-4.0`."""
LEAST_ROOM = 16  # cells; narrower than that, lines go on at the left edge


class Hanging(Static):
    """A Static that wraps by itself, again at each width."""

    def __init__(self, content: Content | str = "", **kwargs: str) -> None:
        super().__init__("", markup=False, **kwargs)  # type: ignore[arg-type]
        self._given = content if isinstance(content, Content) else Content(content)

    def show(self, content: Content | str) -> None:
        """Other text."""
        self._given = content if isinstance(content, Content) else Content(content)
        self.update(hung(self._given, self.size.width))

    def on_resize(self, event: Resize) -> None:
        """Wrap for the new width."""
        self.update(hung(self._given, event.size.width))

    @property
    def text(self) -> str:
        """What is shown, unwrapped."""
        return self._given.plain.replace(HANG, "")


def hung(content: Content, width: int) -> Content:
    """The content in lines of at most `width` cells."""
    lines: list[Content] = []
    for line in content.split("\n", allow_blank=True):
        place = line.plain.find(HANG)
        if place < 0:
            lines += wrapped(line, width)
            continue
        label, text = line[:place], line[place + 1 :]
        indent = cell_len(label.plain)
        if width - indent < LEAST_ROOM:
            lines += wrapped(label + text, width)
            continue
        first, *others = wrapped(text, width - indent)
        lines += [label + first, *(Content(" " * indent) + one for one in others)]
    return Content("\n").join(lines)


def wrapped(line: Content, room: int) -> list[Content]:
    """One line as several, cut between words where there are some."""
    parts: list[Content] = []
    while room > 0 and line.cell_length > room:
        cut = _characters(line.plain, room)
        space = line.plain.rfind(" ", 1, cut + 1)
        if space > 0 and line.plain[:space].strip():
            parts.append(line[:space])
            line = line[space + 1 :]
        else:
            parts.append(line[:cut])
            line = line[cut:]
    return [*parts, line]


def _characters(text: str, cells: int) -> int:
    """How many characters fit into `cells`; one at least."""
    for number, character in enumerate(text):
        cells -= get_character_cell_size(character)
        if cells < 0:
            return max(1, number)
    return len(text)
