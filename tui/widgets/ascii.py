"""The last step before a terminal that is not UTF-8."""

from __future__ import annotations

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from tui.safe_text import to_ascii


class AsciiOnly(LineFilter):
    """Every segment in ASCII, as wide as it was."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """One line."""
        return [Segment(to_ascii(text), style, control) for text, style, control in segments]
