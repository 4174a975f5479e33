"""The help of a screen: what it is for, then every key that works there."""

from __future__ import annotations

from textual.content import Content
from textual.keys import format_key

from tui.screens.area import Area
from tui.screens.dialog import Pages

GROUPS = (
    ("ask", "Ask"),
    ("triage", "Triage"),
    ("raw", "Raw event"),
    ("library", "Library"),
    ("box", "Box"),
    ("rows", "Tables"),
    ("pane", "Panes"),
    ("app", "Everywhere"),
)


def help_page(area: Area) -> Pages:
    """The page for one area."""
    keys: dict[str, list[tuple[str, str]]] = {}
    for _, binding, _, _ in area.active_bindings.values():
        if binding.id:
            place = binding.id.partition(".")[0]
            keys.setdefault(place, []).append((format_key(binding.key), binding.description))
    parts: list[str | tuple[str, str]] = [" ".join(area.HELP.split()), "\n"]
    for place, title in GROUPS:
        if place in keys:
            parts.append((f"\n{title}\n", "bold"))
            for shown, words in _merged(keys[place]):
                parts.append(f"  {shown:<22} {words}\n")
    return Pages(f"Help: {area.AREA.title()}", Content.assemble(*parts))


def _merged(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """One line for an action, with all of its keys."""
    merged: dict[str, list[str]] = {}
    for shown, words in pairs:
        merged.setdefault(words, []).append(shown)
    return [(" ".join(dict.fromkeys(keys)), words) for words, keys in merged.items()]
