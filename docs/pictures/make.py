"""Pictures of the terminal on the real box: `python docs/pictures/make.py` writes the SVG files beside it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import tempfile
from pathlib import Path

from textual.pilot import Pilot

from tui.app import WhisTui
from tui.settings import ServerSettings, TuiConfig
from whis_box.paths import default_box, repository_root

HERE = Path(__file__).parent
QUESTION = "How do I tell password spraying from a brute force attack on one account?"
WAIT_S = 180.0
SHOWN_OF_GOLDEN = 4  # every fourth: attacks and benign ones


async def until(app: WhisTui, pilot: Pilot[None], words: str) -> None:
    """Wait until the words are on the screen."""
    async with asyncio.timeout(WAIT_S):
        while words not in app.export_screenshot().replace("&#160;", " "):
            await pilot.pause(0.1)


def save(app: WhisTui, name: str, title: str) -> None:
    """The screen as SVG, with the same ids each time and without the font that it would fetch."""
    svg = app.export_screenshot(title=title)
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"terminal-\d+", f"terminal-{name}", svg)
    (HERE / f"{name}.svg").write_text(svg + "\n", encoding="utf-8")


async def ask(app: WhisTui, pilot: Pilot[None]) -> None:
    """A question with its evidence."""
    await until(app, pilot, " documents")
    app.screen.query_one("#question").value = QUESTION  # type: ignore[attr-defined]
    await pilot.press("enter")
    await until(app, pilot, "[1] of ")
    async with asyncio.timeout(WAIT_S):
        while not all(one.is_finished for one in app.screen.workers):  # the reasons come last
            await pilot.pause(0.1)
    await pilot.pause()


async def triage(app: WhisTui, pilot: Pilot[None]) -> None:
    """A triaged queue."""
    await until(app, pilot, "taken in")
    await until(app, pilot, " documents")
    await pilot.press("T")
    await until(app, pilot, "all jobs have ended")


async def picture(name: str, theme: str, size: tuple[int, int], url: str, folder: Path) -> None:
    """One picture."""
    alerts = [str(queue(folder))] if name.startswith("triage") else []
    config = TuiConfig.model_validate({"theme": theme, "server": ServerSettings(url=url)})
    app = WhisTui(config, default_box(), folder / name, alerts)
    async with app.run_test(size=size) as pilot:
        await (triage if alerts else ask)(app, pilot)
        save(app, name, "whis tui")


def queue(folder: Path) -> Path:
    """Events of data/golden/alerts.ndjson, without the labels that stand beside them there."""
    golden = (repository_root() / "data" / "golden" / "alerts.ndjson").read_text(encoding="utf-8")
    held = [json.loads(line) for line in golden.splitlines()][::SHOWN_OF_GOLDEN]
    path = folder / "alerts.ndjson"
    path.write_text("".join(json.dumps({"id": one["id"], "event": one["event"]}) + "\n" for one in held))
    return path


async def main() -> None:
    """All of them, on one private server."""
    from tui.local_server import PrivateServer

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ |= {"WHIS_STATE": str(folder / "state"), "XDG_RUNTIME_DIR": name}
        server = PrivateServer(default_box())
        client = await server.start("")
        url = client.target.url
        try:
            await picture("ask", "dark", (120, 34), url, folder)
            await picture("triage", "dark", (120, 34), url, folder)
            await picture("ask-80x24-contrast", "contrast", (80, 24), url, folder)
        finally:
            await client.close()
            await server.stop()


if __name__ == "__main__":
    asyncio.run(main())
