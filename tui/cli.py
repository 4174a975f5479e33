"""`whis tui`: parse, read the settings, start the terminal."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from whis_box.errors import EXIT_OK, InputError
from whis_box.paths import default_box, state_dir

THEMES = ("dark", "light", "contrast", "mono")


def add_commands(commands: Any) -> None:
    """Register the command."""
    tui = commands.add_parser("tui", help="the analyst's terminal", description="The analyst's terminal.")
    tui.set_defaults(run=_run)
    tui.add_argument(
        "alerts", nargs="*", metavar="ALERTS", help="folder, NDJSON or event files, or - for stdin"
    )
    tui.add_argument("--box", type=Path, default=default_box(), metavar="DIR", help="the box to use")
    tui.add_argument("--server", metavar="URL", help="http://127.0.0.1:8088 or unix:PATH of a running server")
    tui.add_argument("--config", type=Path, metavar="FILE", help="tui.yaml")
    tui.add_argument("--theme", choices=THEMES, help="dark, light, contrast, or mono (no colour)")
    tui.add_argument("--screen-reader", action="store_true", default=None, help="plain order, no frames")
    tui.add_argument(
        "--no-mouse", dest="mouse", action="store_false", default=None, help="leave the mouse alone"
    )


def _run(options: argparse.Namespace) -> int:
    from tui.settings import read_settings, with_flags

    config = read_settings(options.config)
    if options.server:
        config = with_flags(config, server={**config.server.model_dump(), "url": options.server})
    theme = options.theme or ("mono" if os.environ.get("NO_COLOR") else None)
    config = with_flags(config, theme=theme, screen_reader=options.screen_reader, mouse=options.mouse)
    piped = _take_stdin(options.alerts)
    if not sys.stdin.isatty() or not sys.__stderr__ or not sys.__stderr__.isatty():
        raise InputError(
            "whis tui needs a terminal; use `whis ask`, `whis triage` or `whis serve` in scripts"
        )
    from tui.app import run

    return (
        run(config, options.box, state_dir(), [one for one in options.alerts if one != "-"], piped) or EXIT_OK
    )


def _take_stdin(alerts: list[str]) -> bytes:
    """What was piped in; then the keyboard becomes stdin."""
    if "-" not in alerts:
        return b""
    data = sys.stdin.buffer.read()
    try:
        keyboard = os.open("/dev/tty", os.O_RDWR)
    except OSError as cause:
        raise InputError(f"alerts came on stdin, and there is no terminal for the keys ({cause})") from None
    os.dup2(keyboard, 0)
    os.close(keyboard)
    sys.stdin = open(0, encoding="utf-8", errors="replace")  # noqa: SIM115 (lives as long as the program)
    return data
