"""The engine as everything else sees it: starts the child, hands it requests, starts it again when it dies.

Invariant: whatever happens to the child, every request ends with a completion or a typed error.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import TracebackType

from whis_box.engine import child as life
from whis_box.engine.child import Child
from whis_box.engine.protocol import Completion, EngineInfo, EngineSpec, EngineState, GenerateRequest
from whis_box.engine.quarantine import Quarantine, request_key
from whis_box.errors import EngineCrashedError, EngineError, NotReadyError

log = logging.getLogger("whis_box.engine.supervisor")

BACKOFF_S = (0.0, 0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
STABLE_AFTER_S = 60.0


class Engine:
    """A supervised model process. Thread-safe: the child decodes for several callers at once."""

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._lock = threading.RLock()
        self._child: Child | None = None
        self._crashes = 0
        self._started_at = 0.0
        self._quarantine = Quarantine()
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
                self._child = None
                self._note_crash()
            time.sleep(BACKOFF_S[min(self._crashes, len(BACKOFF_S) - 1)])
            self._started_at = time.monotonic()
            self._child = self._load()
            for note in self._child.info.notes:
                log.warning("%s", note)
            return self._child.info

    def _load(self) -> Child:
        """A new child; without the GPU when it does not load with it."""
        try:
            return Child(self._spec, self._quarantine.blame)
        except (EngineCrashedError, NotReadyError) as error:
            if not self._spec.gpu_path:
                self._crashes += isinstance(error, EngineCrashedError)
                raise
            self._spec = replace(self._spec, gpu_path="")
            child = Child(self._spec, self._quarantine.blame)
            note = f"the model does not load on the GPU, the CPU is used: {error}"
            child.info = replace(child.info, notes=[*child.info.notes, note])
            return child

    def _note_crash(self) -> None:
        lived_s = time.monotonic() - self._started_at
        self._crashes = 1 if lived_s > STABLE_AFTER_S else self._crashes + 1
        self.restarts += 1

    def stream(
        self, request: GenerateRequest, cancelled: threading.Event | None = None
    ) -> Iterator[str | Completion]:
        """Yield the text's deltas as they are decided, then the Completion.

        Closing the iterator cancels; so does setting `cancelled` from another thread, at any moment.

        Raises: InputError, BusyError, QuarantinedError, DeadlineError, RequestCancelledError,
        EngineCrashedError, EngineError.
        """
        yield from self._run(request, True, cancelled)

    def generate(self, request: GenerateRequest, on_text: Callable[[str], None] | None = None) -> Completion:
        """Run one request to its end; `on_text` receives the deltas.

        Raises: as `stream`.
        """
        for event in self._run(request, stream=on_text is not None):
            if isinstance(event, Completion):
                return event
            if on_text is not None:
                on_text(event)
        raise EngineError("the engine ended a request without a result")

    def _run(
        self, request: GenerateRequest, stream: bool, cancelled: threading.Event | None = None
    ) -> Iterator[str | Completion]:
        key = request_key(request)
        exclusive = self._quarantine.admit(key)
        self.start()
        child = self._child
        if child is None:
            raise EngineCrashedError("the engine was stopped; start it again")
        pending = child.submit(request, key, exclusive, stream)
        try:
            for event in pending.events(request.deadline_s + life.GRACE_S, cancelled):
                if isinstance(event, Completion):
                    self._quarantine.clear(key)
                yield event
        finally:
            pending.cancel()

    @property
    def pid(self) -> int | None:
        """Process id of the child, None when it does not run."""
        child = self._child
        return child.process.pid if child is not None and child.alive else None

    @property
    def state(self) -> EngineState | None:
        """What the child said a second ago at most about its queue and lanes; None when it does not run."""
        child = self._child
        return child.state if child is not None and child.alive else None

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
