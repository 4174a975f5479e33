"""One life of the engine process, as its parent sees it: pipes, pending requests, heartbeat, death.

Invariant: however the process ends, every pending request gets a final event.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import queue
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from whis_box import errors
from whis_box.engine.cpu import child_environment, worker_command
from whis_box.engine.protocol import (
    Completion,
    EngineInfo,
    EngineSpec,
    EngineState,
    GenerateRequest,
    completion_from,
    read_frame,
    write_frame,
)
from whis_box.errors import (
    BusyError,
    DeadlineError,
    EngineCrashedError,
    EngineError,
    RequestCancelledError,
    WhisError,
)

log = logging.getLogger("whis_box.engine.child")

LOAD_TIMEOUT_S = 120.0
HEARTBEAT_TIMEOUT_S = 60.0
"""The child says every second that it lives, but one decode of a large model may take long."""
GRACE_S = 5.0
"""How long past its deadline a request waits for the child's own word on it."""
HUNG_S = 20.0
"""Silence of the child after which a request that waits past its deadline stops it; a machine so busy that
one step takes seconds is no reason."""
CANCEL_POLL_S = 0.02
"""How soon a wait notices that its request was cancelled from another thread."""
STDERR_LINES = 40


class Pending:
    """One request under way."""

    def __init__(self, child: Child, request_id: str, key: str, exclusive: bool) -> None:
        self._child, self.id, self.key, self.exclusive = child, request_id, key, exclusive
        self.inbox: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.started = False
        self._ended = False

    def events(
        self, timeout_s: float, cancelled: threading.Event | None = None
    ) -> Iterator[str | Completion]:
        """Text deltas, then the Completion; setting `cancelled` ends the wait.

        Raises: what the child reported; DeadlineError when it says nothing for `timeout_s`;
        RequestCancelledError.
        """
        give_up_at = time.monotonic() + timeout_s
        while True:
            if cancelled is not None and cancelled.is_set():
                raise RequestCancelledError("the request was cancelled")
            left_s = max(0.0, give_up_at - time.monotonic())
            try:
                frame = self.inbox.get(timeout=left_s if cancelled is None else min(left_s, CANCEL_POLL_S))
            except queue.Empty:
                if time.monotonic() < give_up_at:
                    continue
                raise self._give_up(timeout_s) from None
            if frame["event"] == "text":
                yield frame["delta"]
                continue
            self._ended = True
            if frame["event"] == "done":
                yield completion_from(frame["completion"])
                return
            raise typed_error(frame)

    def _give_up(self, timeout_s: float) -> DeadlineError:
        if self._child.silent_s < HUNG_S:
            return DeadlineError(f"the request got no answer within {timeout_s:.0f} s; try again")
        self._ended = True
        self._child.kill("it was silent past a request's deadline")
        return DeadlineError(
            f"the engine was silent for {self._child.silent_s:.0f} s and was stopped; "
            "it starts again by itself"
        )

    def cancel(self) -> None:
        """Tell the child to stop this request, unless it has ended."""
        if not self._ended:
            self._ended = True
            self._child.send({"op": "cancel", "id": self.id})
        self._child.forget(self.id)


class Child:
    """A running engine process. `on_death` gets the keys of the requests that were running."""

    def __init__(self, spec: EngineSpec, on_death: Callable[[list[str]], None]) -> None:
        self.process = _spawn([*worker_command(), str(spec.memory_limit_bytes)])
        self.state = EngineState()
        self._on_death = on_death
        self._write_lock = threading.Lock()
        self._pending: dict[str, Pending] = {}
        self._pending_lock = threading.Lock()
        self._death_note = ""
        self._stopping = threading.Event()
        self._heard_at = time.monotonic()
        self._stderr: collections.deque[str] = collections.deque(maxlen=STDERR_LINES)
        self._stderr_reader = _thread("stderr", self._drain_stderr)
        self._stderr_reader.start()
        self.send({"op": "load", "spec": asdict(spec)})
        self._dispatcher = _thread("frames", self._dispatch)
        self.info = self._await_ready()
        self._dispatcher.start()
        self._watchdog = _thread("watchdog", self._watch)
        self._watchdog.start()

    @property
    def alive(self) -> bool:
        """Whether it runs and answers."""
        return not self._death_note and self.process.poll() is None

    @property
    def silent_s(self) -> float:
        """Seconds since its last frame."""
        return time.monotonic() - self._heard_at

    def _await_ready(self) -> EngineInfo:
        watchdog = threading.Timer(
            LOAD_TIMEOUT_S, self.kill, [f"it did not load within {LOAD_TIMEOUT_S:.0f} s"]
        )
        watchdog.daemon = True
        watchdog.start()
        try:
            frame = self._read()
        finally:
            watchdog.cancel()
        if frame is None:
            error = self._crash_error("while it loaded the model")
            self.stop()
            raise error
        if frame["event"] != "ready":
            self.stop()
            raise typed_error(frame)
        return EngineInfo(**frame["info"])

    def submit(
        self, request: GenerateRequest, key: str = "", exclusive: bool = False, stream: bool = True
    ) -> Pending:
        """Hand a request over; its events arrive in the returned Pending."""
        pending = Pending(self, uuid.uuid4().hex, key, exclusive)
        with self._pending_lock:
            self._pending[pending.id] = pending
        frame = {
            "op": "generate",
            "id": pending.id,
            "exclusive": exclusive,
            "stream": stream,
            "request": asdict(request),
        }
        if not self.send(frame) or not self.alive:
            self._fail_all()
        return pending

    def send(self, message: dict[str, Any]) -> bool:
        """Write a frame; False when the child is gone."""
        assert self.process.stdin is not None
        try:
            with self._write_lock:
                write_frame(self.process.stdin, message)  # type: ignore[arg-type]
        except (OSError, ValueError):  # a closed or broken pipe; the reader reports the death
            return False
        return True

    def forget(self, request_id: str) -> None:
        """Nobody waits for this request any more."""
        with self._pending_lock:
            self._pending.pop(request_id, None)

    def _read(self) -> dict[str, Any] | None:
        assert self.process.stdout is not None
        try:
            frame = read_frame(self.process.stdout)  # type: ignore[arg-type]
        except (OSError, EOFError, ValueError):
            return None
        self._heard_at = time.monotonic()
        return frame

    def _dispatch(self) -> None:
        while (frame := self._read()) is not None:
            if frame["event"] == "heartbeat":
                self.state = EngineState(**frame["state"])
                continue
            with self._pending_lock:
                if frame["event"] == "started":
                    for request_id in frame["ids"]:
                        if request_id in self._pending:
                            self._pending[request_id].started = True
                    continue
                pending = self._pending.get(frame["id"])
            if pending is not None:  # else: cancelled, nobody waits for it
                pending.inbox.put(frame)
                if frame["event"] != "text":
                    self.forget(pending.id)
        self._fail_all()

    def _fail_all(self) -> None:
        message = str(self._crash_error("while it worked on a request"))
        self._death_note = self._death_note or message
        with self._pending_lock:
            waiting = list(self._pending.values())
            self._pending.clear()
        running = [pending.key for pending in waiting if pending.started] or [one.key for one in waiting]
        if not self._stopping.is_set():
            self._on_death([key for key in running if key])
        for pending in waiting:
            pending.inbox.put({"event": "error", "error": "EngineCrashedError", "message": message})

    def _watch(self) -> None:
        while not self._stopping.wait(min(1.0, HEARTBEAT_TIMEOUT_S / 4)) and self.alive:
            if self.silent_s > HEARTBEAT_TIMEOUT_S:
                self.kill(f"it gave no sign of life for {HEARTBEAT_TIMEOUT_S:.0f} s")

    def _crash_error(self, when: str) -> EngineCrashedError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=2)
        status = self.process.returncode
        how = signal.Signals(-status).name if status is not None and status < 0 else f"status {status}"
        self._stderr_reader.join(timeout=1)
        said = "; ".join(list(self._stderr)[-3:])
        return EngineCrashedError(
            f"the engine process died ({how}) {when}; it starts again with the next request"
            + (f". {self._death_note}" if self._death_note else "")
            + (f". Its last words: {said}" if said else "")
        )

    def _drain_stderr(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._stderr.append(line.decode("utf-8", "replace").rstrip())
            log.debug("%s", self._stderr[-1])

    def kill(self, why: str) -> None:
        """End it at once."""
        self._death_note = self._death_note or f"It was stopped because {why}"
        log.warning("the engine process %d is stopped: %s", self.process.pid, why)
        self.process.kill()

    def stop(self) -> None:
        """Close the pipe, which ends the child; kill it if it does not listen."""
        self._stopping.set()
        assert (
            self.process.stdin is not None
            and self.process.stdout is not None
            and self.process.stderr is not None
        )
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for reader, stream in (
            (self._stderr_reader, self.process.stderr),
            (self._dispatcher, self.process.stdout),
        ):
            if reader.is_alive():
                reader.join(timeout=1)
            stream.close()


def _spawn(command: list[str]) -> subprocess.Popen[bytes]:
    """Start the process from a thread that lives as long as it does.

    The kernel's parent-death signal is tied to the thread that forked; a caller's thread may end long before
    the engine should (Source: prctl(2), PR_SET_PDEATHSIG).
    """
    result: queue.SimpleQueue[subprocess.Popen[bytes] | OSError] = queue.SimpleQueue()

    def run() -> None:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=child_environment(),
            )
        except OSError as cause:
            result.put(cause)
            return
        result.put(process)
        process.wait()

    _thread("parent", run).start()
    started = result.get()
    if isinstance(started, OSError):
        raise EngineError(f"{command[0]}: the engine process cannot be started: {started.strerror}")
    return started


def typed_error(frame: dict[str, Any]) -> WhisError:
    """The WhisError that the child named; an unknown name becomes EngineError."""
    kind = getattr(errors, frame["error"], EngineError)
    if not (isinstance(kind, type) and issubclass(kind, WhisError)):
        kind = EngineError
    if issubclass(kind, BusyError):
        return kind(frame["message"], frame.get("retry_after_s", 1.0))
    return kind(frame["message"])


def _thread(name: str, run: Callable[[], None]) -> threading.Thread:
    return threading.Thread(target=run, name=f"whis-engine-{name}", daemon=True)
