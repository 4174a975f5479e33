"""What to do when there is no server, no model, no index, or a file is held: one page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from tui.keymap import key
from tui.safe_text import safe

# The first whose words stand in the problem is shown; the last fits everything.
CASES: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        ("no document is in the index",),
        "The index is empty",
        "Nothing can be answered from an empty index.\n"
        "  On the build host:  whis ingest FOLDER --source NAME, then whis index build and whis box build\n"
        "  On this host:       whis box install MEDIUM, or a content pack (F5, then n)",
    ),
    (
        ("another server answers", "locked", "held by", "in use"),
        "A file is held by another program",
        "Another server or terminal of yours works with the same files.\n"
        "  Use it:   whis tui --server unix:PATH   (its first line says where it listens)\n"
        "  End it:   stop that program, then F8\n"
        "  Apart:    WHIS_STATE=/another/folder whis tui",
    ),
    (
        ("engine", "gguf", "model process", "libllama"),
        "The model does not run",
        "The model process ended or could not start; answers need it, the library and the history do not.\n"
        "  whis doctor           says what this machine lacks (memory, CPU variant, a damaged file)\n"
        "  whis box verify       compares every file with the manifest\n"
        "  whis box rollback     goes back to the box before",
    ),
    (
        ("manifest", "missing", "no such file", "not a box"),
        "The box is not complete",
        "A file that the box needs is not there.\n"
        "  From a medium:         whis box install /media/usb/BOX\n"
        "  From the repository:   make box\n"
        "  Elsewhere:             whis tui --box DIR, or WHIS_BOX=DIR",
    ),
    (
        ("digest", "sha256", "signature", "verification", "altered"),
        "The box was changed",
        "A file is not what the signed manifest says. Do not work with it.\n"
        "  whis box verify       names the files\n"
        "  whis box rollback     goes back to the box before",
    ),
    (
        ("read-only", "permission", "disk is full", "not permitted"),
        "The state folder cannot be written",
        "The server keeps its jobs and its audit log there.\n"
        "  df -h and ls -ld on the folder below; then free some space or mend its owner\n"
        "  WHIS_STATE=/another/folder whis tui",
    ),
    (
        ("key", "401"),
        "The server asks for a key",
        "Set WHIS_API_KEY to a key of that server (whis keys new NAME), then F8.",
    ),
    (
        ("",),
        "No server answers",
        "  F8 tries again. whis tui --server URL names another one.\n"
        "  Without one, this program starts a private server; its last lines are below.",
    ),
)


def case_of(problem: str) -> tuple[str, str]:
    """Title and remedy."""
    lowered = problem.lower()
    return next((title, words) for marks, title, words in CASES if any(mark in lowered for mark in marks))


class Trouble(ModalScreen[None]):
    """The page."""

    BINDINGS: ClassVar[list[BindingType]] = [
        key("dialog.close", "dismiss"),
        key("app.reconnect", "again"),
    ]

    def __init__(self, problem: str, lines: Sequence[str]) -> None:
        super().__init__()
        self._problem, self._lines = problem, lines

    def compose(self) -> ComposeResult:
        title, words = case_of(self._problem)
        with Vertical(classes="dialog"):
            yield Static(title, classes="dialog-title", markup=False)
            with VerticalScroll():
                yield Static(f"{words}\n", markup=False)
                yield Static(f"What was said:\n{safe(self._problem)}", markup=False)
                told = "\n".join(filter(None, map(_spoken, self._lines[-8:])))
                if told:
                    yield Static(f"\nThe private server's last lines:\n{safe(told)}", markup=False)
            yield Static(
                "F8 try again   Esc go on without   Ctrl+Q quit", classes="dialog-keys", markup=False
            )

    def action_again(self) -> None:
        """Close, and find or start a server."""
        self.dismiss()
        self.app.run_worker(self.app.run_action("app.reconnect"))


def _spoken(line: str) -> str:
    """The words of a log line."""
    try:
        fields = json.loads(line)
    except ValueError:
        return line
    problem = fields.get("problem", "")
    return f"{fields.get('message', '')} {problem}".strip()
