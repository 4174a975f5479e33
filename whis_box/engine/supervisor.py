"""The parent's side of the engine: starts the child, speaks to it, and starts it again when it dies.

Invariant: whatever happens to the child, every pending request ends with a completion or a typed error.
"""

from __future__ import annotations

import collections
import contextlib
import queue
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict
from types import TracebackType
from typing import Any

from whis_box import errors
from whis_box.engine.cpu import child_environment, worker_command
from whis_box.engine.protocol import (
    Completion,
    EngineInfo,
    EngineSpec,
    GenerateRequest,
    read_frame,
    write_frame,
)
from whis_box.errors import (
    DeadlineError,
    EngineCrashedError,
    EngineError,
    RequestCancelledError,
    WhisError,
)

LOAD_TIMEOUT_S = 120.0
GRACE_S = 5.0  # beyond a request's deadline, before a silent child counts as hung
CANCEL_POLL_S = 0.02  # how soon a wait notices that its request was cancelled from another thread
BACKOFF_S = (0.0, 0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
STABLE_AFTER_S = 60.0
STDERR_LINES = 40


class Engine:
    """A supervised model process. Thread-safe: the child serves several callers in turn."""

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._lock = threading.RLock()
        self._child: _Child | None = None
        self._crashes = 0
        self._started_at = 0.0
        self.restarts = 0

    def start(self) -> EngineInfo:
        """Start the child if it does not run, and wait until the model is loaded.

        Raises: NotReadyError, VerificationError or EngineError from the child; EngineCrashedError if it died.
        """
        with self._lock:
            if self._child is not None and self._child.alive:
                return self._child.info
            if self._child is not None:
                self._child.stop()
                self._note_crash()
            time.sleep(BACKOFF_S[min(self._crashes, len(BACKOFF_S) - 1)])
            self._child = _Child(self._spec)
            self._started_at = time.monotonic()
            return self._child.info

    def _note_crash(self) -> None:
        lived_s = time.monotonic() - self._started_at
        self._crashes = 1 if lived_s > STABLE_AFTER_S else self._crashes + 1
        self.restarts += 1

    def stream(
        self, request: GenerateRequest, cancelled: threading.Event | None = None
    ) -> Iterator[str | Completion]:
        """Yield the text's deltas as they are decided, then the Completion.

        Closing the iterator cancels; so does setting `cancelled` from another thread, at any moment.

        Raises: InputError, DeadlineError, RequestCancelledError, EngineCrashedError, EngineError.
        """
        self.start()
        child = self._child
        assert child is not None
        pending = child.submit(request)
        try:
            yield from pending.events(request.deadline_s + GRACE_S, cancelled)
        finally:
            pending.cancel()

    def generate(self, request: GenerateRequest, on_text: Callable[[str], None] | None = None) -> Completion:
        """Run one request to its end; `on_text` receives the deltas.

        Raises: as `stream`.
        """
        for event in self.stream(request):
            if isinstance(event, Completion):
                return event
            if on_text is not None:
                on_text(event)
        raise EngineError("the engine ended a request without a result")

    @property
    def pid(self) -> int | None:
        """Process id of the child, None when it does not run."""
        child = self._child
        return child.process.pid if child is not None and child.alive else None

    def stop(self) -> None:
        """End the child; the next request would start a new one."""
        with self._lock:
            if self._child is not None:
                self._child.stop()
                self._child = None

    def __enter__(self) -> Engine:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Pending:
    """One request under way."""

    def __init__(self, child: _Child, request_id: str) -> None:
        self._child, self._id = child, request_id
        self.inbox: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._ended = False

    def events(
        self, timeout_s: float, cancelled: threading.Event | None = None
    ) -> Iterator[str | Completion]:
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
                self._ended = True
                self._child.kill("it was silent past the request's deadline")
                raise DeadlineError(
                    f"the engine was silent for {timeout_s:.0f} s and was stopped; it starts again by itself"
                ) from None
            if frame["event"] == "text":
                yield frame["delta"]
                continue
            self._ended = True
            if frame["event"] == "done":
                yield Completion(**frame["completion"])
                return
            raise _typed_error(frame)

    def cancel(self) -> None:
        """Tell the child to stop this request, unless it has ended."""
        if not self._ended:
            self._ended = True
            self._child.send({"op": "cancel", "id": self._id})
        self._child.forget(self._id)


class _Child:
    """One life of the engine process."""

    def __init__(self, spec: EngineSpec) -> None:
        self.process = subprocess.Popen(
            worker_command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=child_environment(),
        )
        self._write_lock = threading.Lock()
        self._pending: dict[str, _Pending] = {}
        self._pending_lock = threading.Lock()
        self._death_note = ""
        self._stderr: collections.deque[str] = collections.deque(maxlen=STDERR_LINES)
        self._stderr_reader = threading.Thread(
            target=self._drain_stderr, name="whis-engine-stderr", daemon=True
        )
        self._stderr_reader.start()
        self.send({"op": "load", "spec": asdict(spec)})
        self._dispatcher = threading.Thread(target=self._dispatch, name="whis-engine-frames", daemon=True)
        self.info = self._await_ready()
        self._dispatcher.start()

    @property
    def alive(self) -> bool:
        return not self._death_note and self.process.poll() is None

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
            raise _typed_error(frame)
        return EngineInfo(**frame["info"])

    def submit(self, request: GenerateRequest) -> _Pending:
        request_id = uuid.uuid4().hex
        pending = _Pending(self, request_id)
        with self._pending_lock:
            self._pending[request_id] = pending
        if not self.send({"op": "generate", "id": request_id, **asdict(request)}) or not self.alive:
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
        with self._pending_lock:
            self._pending.pop(request_id, None)

    def _read(self) -> dict[str, Any] | None:
        assert self.process.stdout is not None
        try:
            return read_frame(self.process.stdout)  # type: ignore[arg-type]
        except (OSError, EOFError, ValueError):
            return None

    def _dispatch(self) -> None:
        while (frame := self._read()) is not None:
            with self._pending_lock:
                pending = self._pending.get(frame["id"])
            if pending is not None:  # else: cancelled, nobody waits for it
                pending.inbox.put(frame)
        self._fail_all()

    def _fail_all(self) -> None:
        message = str(self._crash_error("while it worked on a request"))
        self._death_note = self._death_note or message
        with self._pending_lock:
            waiting = list(self._pending.values())
            self._pending.clear()
        for pending in waiting:
            pending.inbox.put({"event": "error", "error": "EngineCrashedError", "message": message})

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

    def kill(self, why: str) -> None:
        self._death_note = self._death_note or f"It was stopped because {why}"
        self.process.kill()

    def stop(self) -> None:
        """Close the pipe, which ends the child; kill it if it does not listen."""
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


def _typed_error(frame: dict[str, Any]) -> WhisError:
    """The WhisError that the child named; an unknown name becomes EngineError."""
    kind = getattr(errors, frame["error"], EngineError)
    if not (isinstance(kind, type) and issubclass(kind, WhisError)):
        kind = EngineError
    return kind(frame["message"])
