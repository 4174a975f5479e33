"""Finds a running server, or starts a private one as a child that ends with the terminal.

Invariant: only a socket that belongs to this user is talked to unasked; a TCP address has to be named.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from pathlib import Path

from tui.client import Client
from tui.connection import Target
from tui.errors import ServerGoneError
from whis_box.errors import NotReadyError, StorageError, WhisError
from whis_box.paths import own_program

SHARED, PRIVATE = "whis.sock", "whis-tui.sock"
POLL_S = 0.1
STOP_S = 5.0
KEPT_LINES = 40


def runtime_dir() -> Path:
    """A folder for sockets that only this user may enter.

    Raises: StorageError.
    """
    named = os.environ.get("XDG_RUNTIME_DIR")
    if named and Path(named).is_dir() and os.access(named, os.W_OK):
        return Path(named)
    folder = Path(tempfile.gettempdir()) / f"whis-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise StorageError(f"{folder}: not yours alone; remove it or set XDG_RUNTIME_DIR")
    return folder


async def find(key: str) -> Client | None:
    """A client of a server that already runs for this user."""
    for name in (SHARED, PRIVATE):
        path = runtime_dir() / name
        if not path.is_socket() or path.lstat().st_uid != os.getuid():
            continue
        client = Client(Target(f"unix:{path}"), key)
        try:
            if await client.is_whis():
                return client
        except WhisError:
            pass  # left behind by a server that was killed
        await client.close()
    return None


class PrivateServer:
    """`whis serve --uds PATH` as a child."""

    def __init__(self, box: Path) -> None:
        self._box = box
        self.path = runtime_dir() / PRIVATE
        self.lines: list[str] = []
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def start(self, key: str) -> Client:
        """Start it and wait until it answers; the model may still be loading then.

        Raises: NotReadyError with the child's own words.
        """
        command = [*own_program(), "serve", "--box", str(self._box), "--uds", str(self.path)]
        try:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                env={name: value for name, value in os.environ.items() if name != "WHIS_API_KEY"},
            )
        except OSError as cause:
            raise NotReadyError(
                f"cannot start {command[0]}: {cause.strerror}; may this user run it?"
            ) from cause
        self._reader = asyncio.create_task(self._read())
        client = Client(Target(f"unix:{self.path}"), key)
        while self._process.returncode is None:
            try:
                if await client.is_whis():
                    return client
            except ServerGoneError:
                await asyncio.sleep(POLL_S)
        await self._reader
        await client.close()
        raise NotReadyError("\n".join(self.lines[-6:]) or f"whis serve ended with {self._process.returncode}")

    async def _read(self) -> None:
        assert self._process is not None and self._process.stderr is not None
        async for line in self._process.stderr:
            self.lines = [*self.lines[1 - KEPT_LINES :], line.decode("utf-8", "replace").rstrip()]

    @property
    def running(self) -> bool:
        """Whether the child lives."""
        return self._process is not None and self._process.returncode is None

    async def stop(self) -> None:
        """End the child, at once if it does not end by itself."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), STOP_S)
        except TimeoutError:
            os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
        if self._reader is not None:
            await self._reader
