"""The program in a real terminal: types a question, reads the screen, detaches, resizes, quits."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.server_box import QUESTION, Running
from whis_box.paths import repository_root

WAIT_S = 120.0
pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")


class Tmux:
    """One tmux server of its own, with one window."""

    def __init__(self, folder: Path) -> None:
        self._socket = str(folder / "tmux.sock")

    def run(self, *command: str) -> str:
        """A tmux command's output."""
        done = subprocess.run(
            ["tmux", "-S", self._socket, *command], capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, command: str, width: int, height: int) -> None:
        """Run a program in a window that stays when it ends."""
        self.run(
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            str(width),
            "-y",
            str(height),
            command + "; sleep 600",
        )

    def screen(self) -> str:
        """What a person would read."""
        return self.run("capture-pane", "-p")

    def sees(self, holds: Callable[[str], bool]) -> str:
        """The screen, once it holds."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            seen = self.screen()
            if holds(seen):
                return seen
            time.sleep(0.1)
        raise AssertionError(self.screen())


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    """A tmux that ends with the test."""
    one = Tmux(tmp_path)
    yield one
    subprocess.run(["tmux", "-S", one._socket, "kill-server"], capture_output=True)


def connected(seen: str) -> bool:
    """Whether the header says that the server is there; the help of Ask says "ready questions"."""
    return re.search(r"ready \S \d+ documents", seen) is not None


def command(state: Path, *options: str) -> str:
    """`whis tui` with a state folder of its own."""
    words = [f"PYTHONPATH={repository_root()}", f"WHIS_STATE={state}", f"XDG_CONFIG_HOME={state}"]
    return " ".join(["env", *words, sys.executable, "-m", "whis_box.cli", "tui", *options])


@pytest.mark.parametrize("size", [(80, 24), (200, 60)])
def test_a_question_is_typed_and_the_answer_read(
    tmux: Tmux, server: Running, tmp_path: Path, size: tuple[int, int]
) -> None:
    tmux.start(command(tmp_path / "ui", "--server", server.url), *size)
    tmux.sees(connected)
    tmux.run("send-keys", "-l", QUESTION)
    tmux.run("send-keys", "Enter")
    seen = tmux.sees(lambda seen: "Answered from 2 passages" in seen and "[1] of 2" in seen)
    assert "Event 1102 is written to the Security log" in seen and "Traceback" not in seen
    tmux.run("resize-window", "-x", "100", "-y", "30")
    tmux.sees(lambda seen: "Answered from 2 passages" in seen)
    tmux.run("send-keys", "C-q")
    tmux.sees(lambda seen: "Answered" not in seen)


def test_a_terminal_in_latin_1_and_16_colours_works(tmux: Tmux, server: Running, tmp_path: Path) -> None:
    python = "PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 PYTHONIOENCODING=latin-1"
    latin = f"env LC_ALL=C LANG=C {python} TERM=screen COLORTERM="
    tmux.start(f"{latin} {command(tmp_path / 'ui', '--server', server.url)}", 80, 24)
    tmux.sees(connected)
    tmux.run("send-keys", "-l", QUESTION)
    tmux.run("send-keys", "Enter")
    seen = tmux.sees(lambda seen: "Answered from 2 passages" in seen)
    assert seen.isascii()


def test_alerts_are_piped_in_and_the_keys_still_work(tmux: Tmux, server: Running, tmp_path: Path) -> None:
    alert = repository_root() / "examples" / "alert.json"
    flat = tmp_path / "one.ndjson"
    flat.write_text(" ".join(alert.read_text().split()) + "\n")
    tmux.start(f"cat {flat} | {command(tmp_path / 'ui', '--server', server.url, '-')}", 80, 24)
    tmux.sees(lambda seen: "1 alert taken in" in seen and connected(seen))
    tmux.run("send-keys", "t")
    tmux.sees(lambda seen: "all jobs have ended: 1 done" in seen)


@pytest.mark.parametrize("leave", [False, True])
def test_the_program_ends_when_its_terminal_is_gone(
    tmux: Tmux, server: Running, tmp_path: Path, leave: bool
) -> None:
    tmux.start(f"exec {command(tmp_path / 'ui', '--server', server.url)}", 80, 24)
    tmux.sees(connected)
    program = psutil.Process(int(tmux.run("display-message", "-p", "#{pane_pid}")))
    if leave:
        tmux.run("send-keys", "C-q")
    tmux.run("kill-server")
    psutil.wait_procs([program], timeout=WAIT_S)
    assert not psutil.pid_exists(program.pid), "it outlived its terminal"


@pytest.mark.e2e
def test_a_private_server_on_the_real_model_answers_and_ends_with_the_terminal(
    tmux: Tmux, tmp_path: Path, box: Path
) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    start = f"env XDG_RUNTIME_DIR={runtime} {command(tmp_path / 'ui', '--box', str(box))}"
    tmux.start(start, 100, 30)
    tmux.sees(connected)
    assert (runtime / "whis-tui.sock").is_socket()
    tmux.run("send-keys", "-l", "What does T1003.001 look like in the log?")
    tmux.run("send-keys", "Enter")
    seen = tmux.sees(lambda seen: "✓ Answered" in seen and re.search(r"\[1\] of \d", seen) is not None)
    assert "[1]" in seen
    tmux.run("send-keys", "C-q")
    deadline = time.monotonic() + WAIT_S
    while (runtime / "whis-tui.sock").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not (runtime / "whis-tui.sock").exists(), "the private server outlived the terminal"
    assert os.listdir(runtime) == []
