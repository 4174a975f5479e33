"""The help of a screen: what it is for, then every key that works there."""

from __future__ import annotations

from collections.abc import Mapping

from textual.content import Content
from textual.keys import format_key

from tui.keymap import KEYS
from tui.screens.area import Area
from tui.screens.dialog import Pages
from tui.widgets.hanging import HANG

GROUPS: dict[str, tuple[tuple[str, str], ...]] = {
    "ask": (("ask", "Ask"),),
    "triage": (("triage", "Triage"), ("rows", "Tables"), ("raw", "Raw event")),
    "library": (("library", "Library"), ("rows", "Tables")),
    "box": (("box", "Box"), ("rows", "Tables")),
}
EVERYWHERE = (("pane", "Panes"), ("app", "Everywhere"))


def help_page(area: Area, keymap: Mapping[str, str]) -> Pages:
    """The page for one area; `keymap` holds the analyst's own keys by action."""
    parts: list[str | tuple[str, str]] = [" ".join(area.HELP.split()), "\n"]
    for place, title in (*GROUPS[area.AREA], *EVERYWHERE):
        parts.append((f"\n{title}\n", "bold"))
        for name, held in KEYS.items():
            if name.startswith(f"{place}."):
                keys = keymap.get(name, held.keys).split(",")
                shown = " ".join(format_key(one.strip()) for one in keys)
                parts.append(f"  {shown:<22} {HANG}{held.says}\n")
    return Pages(f"Help: {area.AREA.title()}", Content.assemble(*parts))
