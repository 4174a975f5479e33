"""Two panes with a line between them that the mouse or keys can move.

Invariant: the share is remembered by name, and both panes stay at least a few lines or columns.
"""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Container
from textual.events import MouseDown, MouseMove, MouseUp, Resize
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static

SMALLEST, LARGEST, STEP = 20, 80, 5


class Bar(Static):
    """The line; it can be dragged."""

    def on_mouse_down(self, event: MouseDown) -> None:
        self.capture_mouse()
        event.stop()

    def on_mouse_up(self, event: MouseUp) -> None:
        self.release_mouse()
        event.stop()

    def on_mouse_move(self, event: MouseMove) -> None:
        if self.app.mouse_captured is self and isinstance(self.parent, Split):
            self.parent.drag_to(event.screen_x, event.screen_y)


class Split(Container):
    """`share` is the first pane's part in percent."""

    class Moved(Message):
        """The share was changed by the analyst."""

        def __init__(self, name: str, share: int) -> None:
            super().__init__()
            self.split_name, self.share = name, share

    def __init__(
        self, first: Widget, second: Widget, name: str, share: int = 60, beside_from: int = 100
    ) -> None:
        super().__init__(id=f"split-{name}", classes="split")
        self._first, self._second = first, second
        self.pane_name, self.share, self._beside_from = name, share, beside_from
        self._beside = False

    def compose(self) -> ComposeResult:
        yield self._first
        yield Bar(" ", classes="bar")
        yield self._second

    def on_resize(self, event: Resize) -> None:
        """Beside each other when there is room."""
        self._beside = event.size.width >= self._beside_from and not self.app.has_class("-reader")
        self.set_class(self._beside, "-beside")
        self._lay_out()

    def set_share(self, share: int, tell: bool = True) -> None:
        """Another share."""
        self.share = max(SMALLEST, min(LARGEST, share))
        self._lay_out()
        if tell:
            self.post_message(self.Moved(self.pane_name, self.share))

    def grow(self, by: int) -> None:
        """The second pane larger or smaller."""
        self.set_share(self.share - by * STEP)

    def drag_to(self, x: int, y: int) -> None:
        """The bar follows the mouse."""
        region = self.region
        part = (
            (x - region.x) / max(1, region.width) if self._beside else (y - region.y) / max(1, region.height)
        )
        self.set_share(round(100 * part))

    def _lay_out(self) -> None:
        first, second = self._first.styles, self._second.styles
        if self._beside:
            first.width, second.width = f"{self.share}fr", f"{100 - self.share}fr"
            first.height = second.height = "1fr"
        else:
            first.height, second.height = f"{self.share}fr", f"{100 - self.share}fr"
            first.width = second.width = "1fr"
