"""The terminal: four areas, the link to a server, themes, keys, help and commands.

Invariant: the first picture is drawn before anything is connected, loaded or read; a failure becomes words on
the screen, and an unexpected one a line in tui.log.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import App, SystemCommand
from textual.binding import BindingType
from textual.filter import LineFilter, NoColor
from textual.screen import Screen
from textual.worker import Worker, WorkerState

from tui.keymap import key
from tui.link import Link
from tui.quiet import QuietDriver
from tui.screens.area import Area
from tui.screens.ask.screen import AskScreen
from tui.theme import ALL
from tui.widgets.ascii import AsciiOnly
from whis_box.errors import EXIT_ERROR, WhisError

if TYPE_CHECKING:
    from tui.client import Client
    from tui.settings import TuiConfig
    from tui.state import State

AREAS = ("ask", "triage", "library", "box")
FAULT_EXIT = EXIT_ERROR


def _triage() -> Screen[Any]:
    from tui.screens.triage.screen import TriageScreen

    return TriageScreen()


def _library() -> Screen[Any]:
    from tui.screens.library.screen import LibraryScreen

    return LibraryScreen()


def _box() -> Screen[Any]:
    from tui.screens.box.screen import BoxScreen

    return BoxScreen()


class WhisTui(App[None]):
    """The analyst's terminal."""

    TITLE = "Whis Box"
    CSS_PATH = "whis.tcss"
    MODES: ClassVar[dict[str, Any]] = {"ask": AskScreen, "triage": _triage, "library": _library, "box": _box}
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-short"), (16, "-tall")]
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = [
        key("app.help", "help"),
        key("app.ask", "area('ask')"),
        key("app.triage", "area('triage')"),
        key("app.library", "area('library')"),
        key("app.box", "area('box')"),
        key("app.next_area", "next_area"),
        key("app.theme", "next_theme"),
        key("app.reconnect", "reconnect"),
        key("app.palette", "command_palette", priority=True),
        key("app.quit", "quit", priority=True),
    ]

    def __init__(
        self,
        config: TuiConfig,
        box: Path,
        state_folder: Path | None,
        alerts: Sequence[str] = (),
        piped: bytes = b"",
    ) -> None:
        super().__init__()
        self.config, self.box, self._state_folder = config, box, state_folder
        self.alerts, self.piped = list(alerts), piped
        self.link = Link(self)
        self.state: State | None = None
        self._look = config.theme
        self._ascii = AsciiOnly(config.ascii == "yes" or (config.ascii == "auto" and not _is_utf8()))
        self._no_color = NoColor()
        self.fault: str = ""
        self.animation_level = "none"
        for theme in ALL.values():
            self.register_theme(theme)
        self.theme = ALL[self._look].name

    # ------------------------------------------------------------- the look

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Textual's, and ours for terminals without colour or without UTF-8."""
        own = [self._no_color] if self._look == "mono" else []
        return [*super().get_line_filters(), *own, *([self._ascii] if self._ascii.enabled else [])]

    def set_look(self, name: str) -> None:
        """Another theme, remembered."""
        self._look = name  # type: ignore[assignment]
        self.theme = ALL[name].name
        self.set_class(name == "mono", "-mono")
        if self.state:
            self.state.put("theme", name)
        self.refresh_css(animate=False)

    def action_next_theme(self) -> None:
        """The next of the four looks."""
        names = list(ALL)
        self.set_look(names[(names.index(self._look) + 1) % len(names)])
        self.say(f"theme: {self._look}")

    # -------------------------------------------------------------- the start

    def on_mount(self) -> None:
        """Draw, then connect."""
        self.set_class(self.config.screen_reader, "-reader")
        self.set_look(self._look)
        if self.config.keymap:
            self.set_keymap(self.config.keymap)
        if threading_is_main():
            for number in (signal.SIGHUP, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, self.exit)
        self.switch_mode("triage" if self.alerts or self.piped else "ask")
        self.call_after_refresh(self._begin)

    def _begin(self) -> None:
        self.work("start", self._start)

    def work(self, group: str, job: Callable[[], Awaitable[None]]) -> None:
        """Run in the background, one of a group at a time; a failure becomes words in place."""
        self.run_worker(job, group=group, exclusive=True, exit_on_error=False)

    async def _start(self) -> None:
        await asyncio.to_thread(_import_slow_parts)
        from tui.state import State

        self.state = State(self._state_folder, self.config.history_days)
        look = self.state.get("theme")
        if look in ALL and self.config.theme == "dark" and look != self._look:
            self.set_look(look)
        if self.state.problem:
            self.say(self.state.problem, "warning")
        self._tell_areas("state_opened")
        self.action_reconnect()

    def action_reconnect(self) -> None:
        """Find or start a server."""
        self.work("link", self.link.connect)

    # ---------------------------------------------------------------- the link

    @property
    def ready_client(self) -> Client | None:
        """The server, once the model is loaded."""
        return self.link.client

    def link_changed(self) -> None:
        """Show the link's new state."""
        self._tell_areas("show_link")
        if self.has_class("-reader"):
            self.say(self.link.words)

    def open_trouble(self) -> None:
        """The page that says what is wrong and what to do."""
        from tui.screens.trouble import Trouble

        if not isinstance(self.screen, Trouble):
            self.push_screen(Trouble(self.link.problem, self.link.server_lines))

    def _tell_areas(self, method: str) -> None:
        screen = next((one for one in self.screen_stack if isinstance(one, Area)), None)
        told: Callable[[], None] | None = getattr(screen, method, None)
        if screen is not None and screen.is_mounted and told is not None:
            told()

    def say(self, words: str, tone: str = "") -> None:
        """One line in the area that is shown, whatever lies over it."""
        screen = next((one for one in self.screen_stack if isinstance(one, Area)), None)
        if screen is not None and screen.is_mounted:
            screen.say(words, tone)

    # --------------------------------------------------------------- failures

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """Say what a background job of the app could not do."""
        self.report(event)

    def report(self, event: Worker.StateChanged) -> None:
        """What a background job could not do, in words."""
        if event.state is not WorkerState.ERROR or event.worker.error is None:
            return
        error = event.worker.error
        if isinstance(error, WhisError):
            self.say(str(error), "error")
            if error.code == "server_gone":
                self.link.lost(str(error))
        else:
            self.say(self._log_fault(error), "error")

    def _log_fault(self, error: BaseException) -> str:
        """The traceback goes to a file, never to the screen."""
        words = f"unexpected fault ({type(error).__name__})"
        if self._state_folder is None:
            return words
        path = self._state_folder / "tui.log"
        try:
            with path.open("a", encoding="utf-8") as log:
                log.write(f"{datetime.now(UTC).isoformat(timespec='seconds')}\n")
                log.write("".join(traceback.format_exception(error)))
        except OSError:
            return words
        return f"{words}; {path} has the details"

    def _handle_exception(self, error: Exception) -> None:
        """A fault in a handler ends the program with one line; the history is in its file already."""
        self.fault = self._log_fault(error)
        if self.is_headless:
            super()._handle_exception(error)
        else:
            self.exit(return_code=FAULT_EXIT)

    # ----------------------------------------------------------------- actions

    def action_area(self, name: str) -> None:
        """Go to an area."""
        while len(self.screen_stack) > 1:
            self.pop_screen()
        if self.current_mode != name:
            self.switch_mode(name)

    def action_next_area(self) -> None:
        """The next area."""
        here = AREAS.index(self.current_mode) if self.current_mode in AREAS else 0
        self.action_area(AREAS[(here + 1) % len(AREAS)])

    def action_help(self) -> None:
        """What this screen is, and its keys; or what is wrong with the server."""
        from tui.screens.help import help_page

        if self.link.state == "trouble" and isinstance(self.screen, Area):
            self.open_trouble()
        elif isinstance(self.screen, Area):
            self.push_screen(help_page(self.screen, self.config.keymap))

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """What Ctrl+P finds."""
        for name in AREAS:
            yield SystemCommand(f"Go to {name.title()}", f"the {name} area", partial(self.action_area, name))
        for name in ALL:
            yield SystemCommand(f"Theme: {name}", "change the colours", partial(self.set_look, name))
        yield SystemCommand("Help", "keys and words of this screen", self.action_help)
        yield SystemCommand("Connect again", "find or start a server", self.action_reconnect)
        yield SystemCommand("Quit", "leave; a private server ends too", self.action_quit)
        for active in screen.active_bindings.values():
            binding = active.binding
            if binding.id and not binding.id.startswith(("app.", "rows.", "pane.")) and active.enabled:
                run = partial(self.run_action, binding.action, active.node)
                yield SystemCommand(binding.description, f"key {binding.key}", run)

    async def action_quit(self) -> None:
        """Leave."""
        self.exit()

    async def on_unmount(self) -> None:
        """End what was started."""
        await self.link.close()
        if self.state is not None:
            self.state.close()


def run(config: TuiConfig, box: Path, state_folder: Path, alerts: Sequence[str], piped: bytes) -> int:
    """Show the terminal until it is left; the exit code."""
    logging.disable(logging.CRITICAL)  # a log line would tear the picture
    if sys.__stderr__ is not None and not _is_utf8():
        sys.__stderr__.reconfigure(errors="replace")
    app = WhisTui(config, box, state_folder, alerts, piped)
    app.driver_class = QuietDriver
    app.run(mouse=config.mouse)
    if app.fault:
        print(f"whis tui: {app.fault}", file=sys.stderr)
    return app.return_code or 0


def threading_is_main() -> bool:
    """Whether signals can be handled here."""
    import threading

    return threading.current_thread() is threading.main_thread()


def _is_utf8() -> bool:
    encoding = getattr(sys.__stderr__, "encoding", None) or "utf-8"
    return encoding.lower().replace("-", "") == "utf8"


def _import_slow_parts() -> None:
    import tui.client
    import tui.local_server
    import tui.state  # noqa: F401
