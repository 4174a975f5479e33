"""Runs the terminal without a terminal: keys in, the screen's text out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from tests.server_box import Running
from tui.app import WhisTui
from tui.settings import ServerSettings, TuiConfig

WAIT_S = 90.0
Flow = Callable[["Terminal"], Awaitable[None]]


class Terminal:
    """A running app and its pilot."""

    def __init__(self, app: WhisTui, pilot: Pilot[None]) -> None:
        self.app, self.pilot = app, pilot

    @property
    def screen(self) -> Any:
        """The screen on top."""
        return self.app.screen

    def text(self) -> str:
        """What is on the screen, line by line, after the filters a terminal would get."""
        background = self.app.screen.background_colors[1]
        lines = []
        for strip in self.app.screen._compositor.render_strips():
            for one in self.app.get_line_filters():
                strip = strip.apply_filter(one, background)
            lines.append("".join(segment.text for segment in strip).rstrip())
        return "\n".join(lines)

    async def press(self, *keys: str) -> None:
        """Press keys."""
        await self.pilot.press(*keys)

    async def type(self, text: str) -> None:
        """Type into whatever has the focus."""
        names = {
            " ": "space",
            "?": "question_mark",
            ".": "full_stop",
            "/": "slash",
            "-": "minus",
            "_": "underscore",
        }
        await self.pilot.press(*(names.get(one, one) for one in text))

    async def until(self, holds: Callable[[], Any], what: str = "") -> None:
        """Wait until something holds."""
        async with asyncio.timeout(WAIT_S):
            while not holds():
                await self.pilot.pause(0.02)
        await self.pilot.pause()

    async def sees(self, *words: str) -> str:
        """Wait until all words are on the screen; the screen."""
        try:
            await self.until(lambda: all(word in self.text() for word in words))
        except TimeoutError:
            raise AssertionError(f"{words} not on the screen:\n{self.text()}") from None
        return self.text()

    async def ready(self) -> None:
        """Wait for the server."""
        await self.until(lambda: self.app.link.state in ("ready", "trouble"))

    async def ask(self, question: str) -> None:
        """Ask a question and wait for its end."""
        self.screen.query_one("#question").value = question
        await self.press("enter")
        await self.until(lambda: self.screen._asking is None and self.screen._count)
        await self.pilot.pause()


@asynccontextmanager
async def terminal(
    url: str, folder: Path | None, size: tuple[int, int] = (100, 30), wait: bool = True,
    alerts: Sequence[str] = (), piped: bytes = b"", **settings: Any,
) -> AsyncIterator[Terminal]:  # fmt: skip
    """The terminal on a server."""
    config = TuiConfig(server=ServerSettings(url=url), **settings)
    app = WhisTui(config, Path("build/box"), folder, alerts, piped)
    async with app.run_test(size=size) as pilot:
        running = Terminal(app, pilot)
        if wait:
            await running.ready()
        yield running


def drive(server: Running, folder: Path, flow: Flow, **options: object) -> None:
    """Run one flow in a terminal of its own."""

    async def whole() -> None:
        async with terminal(server.url, folder / "terminal", **options) as running:  # type: ignore[arg-type]
            await flow(running)

    asyncio.run(whole())
