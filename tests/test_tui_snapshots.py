"""What each screen looks like: every character, and the styles of every line, as in tests/tui_snapshots.

`WHIS_UPDATE_SNAPSHOTS=1 pytest tests/test_tui_snapshots.py` writes them again; read the difference then.
"""

from __future__ import annotations

import asyncio
import difflib
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from rich.style import Style

from tests.server_box import QUESTION, Running
from tests.test_tui_triage import alerts_in, rows_of
from tests.tui_pilot import Terminal, terminal

FOLDER = Path(__file__).parent / "tui_snapshots"
Flow = Callable[[Terminal], Awaitable[None]]
# Ids and times differ from run to run; what a time is shorter by goes into the gap behind its sentence.
MADE_ID = re.compile(r"\b[0-9a-f]{32}\b")
TOOK = re.compile(r"(?:(?<=[·.│|] )|^ ?)(?P<time>\d+ ms|[\d.]+ s)(?P<rest> [·.] .*?)(?P<gap> {2,}|$)")


def picture(running: Terminal) -> str:
    """Text, then the styles of each line in order of appearance."""
    screen = running.app.screen
    background = screen.background_colors[1]
    text, styles = [], []
    for number, strip in enumerate(screen._compositor.render_strips()):
        for one in running.app.get_line_filters():
            strip = strip.apply_filter(one, background)
        text.append(masked("".join(segment.text for segment in strip)))
        seen = dict.fromkeys(
            named(segment.style) for segment in strip if segment.text.strip() and segment.style
        )
        styles.append(f"{number:>2} {' | '.join(seen)}".rstrip())
    return "\n".join([*text, "-" * 20, *styles]) + "\n"


def masked(line: str) -> str:
    """A line without what differs from run to run, its columns where they were."""

    def without_time(found: re.Match[str]) -> str:
        lead = found[0][: found.start("time") - found.start()]
        return f"{lead}#{found['rest']}{found['gap']}{' ' * (len(found['time']) - 1)}"

    return TOOK.sub(without_time, MADE_ID.sub("#" * 32, line)).rstrip()


def named(style: Style | None) -> str:
    """Colours and attributes, without what a click does."""
    assert style is not None
    return str(style.without_color + Style(color=style.color, bgcolor=style.bgcolor)) if style else ""


async def asked(running: Terminal) -> None:
    await running.ask(QUESTION)
    await running.sees("[1] of 2")
    await running.until(lambda: all(one.is_finished for one in running.screen.workers))  # the reasons


async def triaged(running: Terminal) -> None:
    await running.until(lambda: len(rows_of(running)) == 3)
    await running.press("T")
    await running.until(lambda: all(row.state == "done" for row in rows_of(running)))
    await running.sees("all jobs have ended: 3 done")


async def promptbooks(running: Terminal) -> None:
    await running.press("ctrl+o")
    await running.sees("False positives")


async def library(running: Terminal) -> None:
    await running.press("f4")
    await running.sees("3 of 3 documents")
    await running.press("down", "enter")
    await running.sees("First five minutes")


async def rollout(running: Terminal) -> None:
    await running.press("f5", "j", "j", "j")
    await running.sees("Figures of the last")


async def helped(running: Terminal) -> None:
    await running.press("f1")
    await running.sees("Help: Ask")


async def too_small(running: Terminal) -> None:
    await running.sees("too small")


CASES: dict[str, tuple[Flow, tuple[int, int], dict[str, Any]]] = {
    "ask-80x24": (asked, (80, 24), {}),
    "ask-200x60": (asked, (200, 60), {}),
    "ask-contrast": (asked, (80, 24), {"theme": "contrast"}),
    "ask-mono": (asked, (80, 24), {"theme": "mono"}),
    "ask-light": (asked, (100, 30), {"theme": "light"}),
    "ask-screen-reader": (asked, (120, 30), {"screen_reader": True}),
    "ask-ascii": (asked, (80, 24), {"ascii": "yes"}),
    "promptbooks": (promptbooks, (80, 24), {}),
    "help": (helped, (80, 24), {}),
    "too-small": (too_small, (20, 5), {}),
    "triage-80x24": (triaged, (80, 24), {}),
    "triage-200x60": (triaged, (200, 60), {}),
    "triage-mono": (triaged, (80, 24), {"theme": "mono"}),
    "library": (library, (120, 40), {}),
    "box-rollout": (rollout, (80, 24), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_screen_is_what_it_was(server: Running, tmp_path: Path, name: str) -> None:
    flow, size, settings = CASES[name]
    alerts = [str(alerts_in(tmp_path))] if flow is triaged else []

    async def whole() -> str:
        async with terminal(server.url, tmp_path / "ui", size, alerts=alerts, **settings) as running:
            await flow(running)
            await running.pilot.pause(0.1)
            return picture(running)

    seen = asyncio.run(whole())
    path = FOLDER / f"{name}.txt"
    if os.environ.get("WHIS_UPDATE_SNAPSHOTS"):
        path.write_text(seen, encoding="utf-8")
    held = path.read_text(encoding="utf-8") if path.is_file() else ""
    changed = "\n".join(
        difflib.unified_diff(held.splitlines(), seen.splitlines(), "held", "seen", lineterm="")
    )
    assert not changed, f"{path.name}:\n{changed}"


@pytest.mark.parametrize("name", ["ask-mono", "triage-mono"])
def test_no_colour_means_no_colour(name: str) -> None:
    styles = (FOLDER / f"{name}.txt").read_text(encoding="utf-8").partition("-" * 20)[2]
    assert not re.search(r"#[0-9a-f]{6}|color|red|green|yellow|blue", styles)
    assert "reverse" in styles, "the cursor cannot be seen"
