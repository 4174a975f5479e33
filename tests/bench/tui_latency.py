"""How fast the terminal is: first paint, key to screen while the model works, 10,000 rows, memory, idle CPU.

`python -m tests.bench.tui_latency --box build/box`: the program runs in a pseudo-terminal of its own, and the
time from a key to the changed screen is taken. The same keys into `cat` are the limit beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import os
import platform
import pty
import select
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil

from tests.server_box import ALERT
from tui.client import Client
from tui.connection import Target
from tui.errors import RequestFailedError, ServerGoneError
from tui.screens.triage.queue import Queue
from tui.screens.triage.reading import Row
from tui.state import State
from whis_box.paths import repository_root, source_commit

WIDTH, HEIGHT = 120, 40
LOOKS = "sk the box"  # the first letter is the cursor, in a style of its own
KEYS = 60


class Terminal:
    """A program in a pseudo-terminal."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self.started = time.perf_counter()
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.execve(command[0], command, os.environ | env)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
        self.process = psutil.Process(self.pid)

    def read(self, timeout_s: float) -> bytes:
        """What the program wrote, once it wrote something."""
        ready, _, _ = select.select([self._fd], [], [], timeout_s)
        try:
            return os.read(self._fd, 1 << 20) if ready else b""
        except OSError:
            return b""

    def until(self, words: str, timeout_s: float = 120.0) -> float:
        """Seconds since the start until the words were written."""
        held, deadline = b"", time.perf_counter() + timeout_s
        while time.perf_counter() < deadline:
            held += self.read(0.05)
            if words.encode() in held:
                return time.perf_counter() - self.started
        raise SystemExit(f"{words!r} never came; the last output: {held[-400:]!r}")

    def drain(self, quiet_s: float = 0.3) -> None:
        """Wait until nothing is written."""
        while self.read(quiet_s):
            pass

    def key(self, data: bytes) -> float:
        """Milliseconds from a key to the first output after it."""
        started = time.perf_counter()
        os.write(self._fd, data)
        while not self.read(5.0):
            pass
        return (time.perf_counter() - started) * 1000

    def close(self) -> None:
        """End it."""
        os.write(self._fd, b"\x11")
        self.drain(1.0)
        if psutil.pid_exists(self.pid):
            self.process.kill()
        os.waitpid(self.pid, 0)
        os.close(self._fd)


def spread(values: list[float]) -> str:
    """Median and 95th percentile."""
    ordered = sorted(values)
    return f"p50 {statistics.median(ordered):.1f}, p95 {ordered[int(len(ordered) * 0.95) - 1]:.1f}"


def program(folder: Path, server: str, *more: str) -> Terminal:
    """`whis tui` with a state folder of its own."""
    command = [sys.executable, "-m", "whis_box.cli", "tui", "--server", server, *more]
    return Terminal(
        command, {"WHIS_STATE": str(folder / "ui"), "XDG_CONFIG_HOME": str(folder), "TERM": "xterm-256color"}
    )


def first_paint(folder: Path, server: str, runs: int) -> list[float]:
    """Seconds from exec to the words of the question line, one warm-up left out."""
    seconds = []
    for _ in range(runs + 1):
        one = program(folder, server)
        seconds.append(one.until(LOOKS))
        one.close()
    return seconds[1:]


async def keep_busy(server: str, stop: asyncio.Event) -> int:
    """Ask without a pause; how many answers came."""
    client, count = Client(Target(server)), 0
    while not stop.is_set():
        try:
            async for _ in client.ask(f"What does logon type {count % 12} mean?"):
                pass
            count += 1
        except RequestFailedError as error:  # the queue is full, as it should be here
            if error.status != 503:
                raise
            await asyncio.sleep(0.2)
    await client.close()
    return count


async def while_busy(one: Terminal, server: str, keys: list[bytes]) -> tuple[list[float], int]:
    """Key to screen while the model answers questions without a pause."""
    stop = asyncio.Event()
    asking = [asyncio.create_task(keep_busy(server, stop)) for _ in range(2)]
    await asyncio.sleep(1.0)
    measured = []
    for data in keys:
        measured.append(await asyncio.to_thread(one.key, data))
        await asyncio.sleep(0.05)
    stop.set()
    return measured, sum(await asyncio.gather(*asking))


def echo_limit() -> list[float]:
    """The same keys into `cat`, which is what a terminal costs without a program."""
    one = Terminal(["/bin/cat"], {})
    measured = [one.key(b"x") for _ in range(KEYS)]
    one.process.kill()
    os.waitpid(one.pid, 0)
    return measured


def many(folder: Path, count: int) -> Path:
    """NDJSON of `count` alerts."""
    path = folder / "many.ndjson"
    with path.open("w") as stream:
        for n in range(count):
            stream.write(json.dumps(ALERT | {"_id": f"a{n}", "host": {"name": f"host{n}"}}) + "\n")
    return path


def filter_and_sort(count: int) -> float:
    """Milliseconds to filter a queue by a word and to sort all of it."""
    state = State(None)
    queue = Queue(state)
    queue.add([Row(f"{n:032}", None, f"alert {n}", severity=("low", "high")[n % 2]) for n in range(count)])
    started = time.perf_counter()
    queue.seen("9999", "title")
    queue.seen("", "severity")
    elapsed = time.perf_counter() - started
    state.close()
    return elapsed * 1000


def measure(folder: Path, server: str, runs: int) -> list[tuple[str, str, str]]:
    """Every figure with its limit."""
    paints = first_paint(folder, server, runs)
    one = program(folder, server)
    one.until(" documents")
    one.drain()
    typed, answered = asyncio.run(while_busy(one, server, [b"a", b"\x7f"] * (KEYS // 2)))
    one.drain(1.0)
    before, waited = one.process.cpu_times(), 20.0
    time.sleep(waited)
    after = one.process.cpu_times()
    idle = 100 * (after.user + after.system - before.user - before.system) / waited
    small = one.process.memory_info().rss / 1e6
    one.close()
    queue = program(folder, server, str(many(folder, 10_000)))
    taken_s = queue.until("10000 alerts taken in")
    queue.drain()
    moved = [queue.key(data) for data in [b"j", b"\x1b[6~", b"G", b"g"] * (KEYS // 4)]
    large = queue.process.memory_info().rss / 1e6
    queue.close()
    return [
        (
            "first paint, exec to question line",
            f"median {statistics.median(paints):.2f} s of {runs}",
            "< 1 s",
        ),
        (f"key to screen, model busy ({answered} answers)", f"{spread(typed)} ms", "p95 < 50 ms"),
        ("the same into `cat`", f"{spread(echo_limit())} ms", "the terminal's own"),
        ("10,000 alerts read and listed", f"{taken_s:.1f} s after exec", "-"),
        ("key to screen in 10,000 rows", f"{spread(moved)} ms", "p95 < 50 ms"),
        ("10,000 rows filtered by a word, then sorted", f"{filter_and_sort(10_000):.0f} ms", "< 100 ms"),
        ("resident memory, Ask / with 10,000 rows", f"{small:.0f} / {large:.0f} MB", "<= 150 MB"),
        ("CPU while nothing happens, 20 s", f"{idle:.2f} %", "0 %"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--box", type=Path, default=repository_root() / "build" / "box")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        socket = folder / "s.sock"
        command = [
            sys.executable,
            "-m",
            "whis_box.cli",
            "serve",
            "--box",
            str(options.box),
            "--uds",
            str(socket),
        ]
        server = subprocess.Popen(
            command, env=os.environ | {"WHIS_STATE": str(folder / "state")}, stderr=subprocess.DEVNULL
        )
        try:
            asyncio.run(ready(f"unix:{socket}"))
            figures = measure(folder, f"unix:{socket}", options.runs)
        finally:
            server.terminate()
            server.wait(60)
    load = os.getloadavg()[0]
    machine = f"{os.cpu_count()} CPUs {platform.machine()}, load {load:.1f}"
    print(f"{datetime.now(UTC):%Y-%m-%d}, commit {source_commit()[:12]}, {machine}, {WIDTH}x{HEIGHT}")
    for name, value, limit in figures:
        print(f"| {name} | {value} | {limit} |")


async def ready(url: str) -> None:
    """Wait until the model is loaded."""
    client = Client(Target(url))
    for _ in range(1200):
        with suppress(ServerGoneError):  # not listening yet
            if await client.ready():
                break
        await asyncio.sleep(0.1)
    await client.close()


if __name__ == "__main__":
    main()
