"""The engine's child process: loads the weights, serves requests one by one, and may die alone.

    python -m whis_box.engine.worker                    frames on stdin and stdout
    python -m whis_box.engine.worker --probe LIB GGUF   decode a little with one CPU backend, then exit

Invariant: stdout carries frames only (fd 1 is moved away before any library can print).
"""

from __future__ import annotations

import codecs
import ctypes
import logging
import os
import queue
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from whis_box.engine import cpu, native
from whis_box.engine.grammar import GrammarCompiler
from whis_box.engine.lane import GenerationStats, Lane
from whis_box.engine.model import Model
from whis_box.engine.protocol import EngineSpec, LaneSpec, read_frame, write_frame
from whis_box.engine.sampler import make_sampler
from whis_box.errors import DeadlineError, EngineError, RequestCancelledError, WhisError

PROBE_TOKENS = 64
# Deltas are gathered this long: a frame per token would wake the parent 200 times a second.
STREAM_INTERVAL_S = 0.04
PR_SET_PDEATHSIG = 1  # Source: linux/prctl.h


class Worker:
    """Owns every llama object; all of them are used from the thread that calls `serve`."""

    def __init__(self, inbox: BinaryIO, outbox: BinaryIO) -> None:
        self._inbox, self._outbox = inbox, outbox
        self._write_lock = threading.Lock()
        self._requests: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._cancelled: set[str] = set()

    def serve(self) -> None:
        """Load what the first frame names, then answer requests until the parent closes the pipe."""
        first = read_frame(self._inbox)
        if first is None:
            return
        try:
            self._load(_engine_spec(first["spec"]))
        except WhisError as error:
            self._send({"event": "failed", "error": type(error).__name__, "message": str(error)})
            return
        threading.Thread(target=self._receive, name="whis-engine-inbox", daemon=True).start()
        while (request := self._requests.get()) is not None:
            self._answer(request)

    def _load(self, spec: EngineSpec) -> None:
        started = time.perf_counter()
        binding = native.load()
        cpu.load_backend(binding, spec.backend_path)
        binding.llama_backend_init()
        self._model = Model(binding, Path(spec.model_path))
        self._grammars = GrammarCompiler(binding, self._model.vocab)
        self._lanes = {lane.name: Lane(self._model, spec, lane) for lane in spec.lanes}
        self._send(
            {
                "event": "ready",
                "info": {
                    "architecture": self._model.header.architecture,
                    "n_ctx": spec.n_ctx,
                    "n_ctx_train": self._model.n_ctx_train,
                    "n_vocab": self._model.n_vocab,
                    "n_threads": spec.n_threads,
                    "backend": Path(spec.backend_path).stem.removeprefix("libggml-cpu-"),
                    "load_ms": (time.perf_counter() - started) * 1000,
                    "lanes": list(self._lanes),
                },
            }
        )

    def _receive(self) -> None:
        """Read frames while the engine thread decodes, so that a cancel arrives between two decodes."""
        try:
            while (frame := read_frame(self._inbox)) is not None:
                if frame["op"] == "cancel":
                    self._cancelled.add(frame["id"])
                else:
                    self._requests.put(frame)
        finally:
            self._requests.put(None)

    def _answer(self, request: dict[str, Any]) -> None:
        request_id = request["id"]
        try:
            done = self._generate(request_id, request)
            self._send({"event": "done", "id": request_id, "completion": done})
        except WhisError as error:
            self._send(
                {"event": "error", "id": request_id, "error": type(error).__name__, "message": str(error)}
            )
        finally:
            self._cancelled.discard(request_id)

    def _generate(self, request_id: str, request: dict[str, Any]) -> dict[str, Any]:
        started = time.perf_counter()
        deadline = started + request["deadline_s"]

        def checkpoint() -> None:
            if request_id in self._cancelled:
                raise RequestCancelledError("the request was cancelled")
            if time.perf_counter() > deadline:
                raise DeadlineError(f"the request did not finish within {request['deadline_s']:.1f} s")

        lane = self._lanes.get(request["lane"])
        if lane is None:
            raise EngineError(f"lane {request['lane']!r} is not loaded; loaded are {sorted(self._lanes)}")
        constraint = self._grammars.compile(request["grammar"]) if request["grammar"] else None
        prompt = self._model.tokenize([(text, trusted) for text, trusted in request["prompt"]])
        stats = GenerationStats()
        pick = make_sampler(request["temperature"], request["seed"])
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text, sent, sent_at = "", 0, started
        for token in lane.generate(prompt, constraint, request["max_tokens"], pick, checkpoint, stats):
            text += decoder.decode(self._model.piece(token))
            now = time.perf_counter()
            if len(text) > sent and now - sent_at >= STREAM_INTERVAL_S:
                self._send({"event": "text", "id": request_id, "delta": text[sent:]})
                sent, sent_at = len(text), now
        text += decoder.decode(b"", final=True)
        if len(text) > sent:
            self._send({"event": "text", "id": request_id, "delta": text[sent:]})
        return {
            "text": text,
            "finish_reason": stats.finish_reason,
            "prompt_tokens": stats.prompt_tokens,
            "cached_tokens": stats.cached_tokens,
            "completion_tokens": stats.completion_tokens,
            "ttft_ms": stats.ttft_ms,
            "total_ms": (time.perf_counter() - started) * 1000,
        }

    def _send(self, message: dict[str, Any]) -> None:
        with self._write_lock:
            write_frame(self._outbox, message)


def _engine_spec(fields: dict[str, Any]) -> EngineSpec:
    lanes = tuple(LaneSpec(**lane) for lane in fields.pop("lanes"))
    return EngineSpec(**fields, lanes=lanes)


def probe(backend_path: str, model_path: str) -> None:
    """Load one CPU backend and really decode with it: a batch, then a single token.

    Raises: EngineError when the logits are not finite. A bad backend may also simply crash; that is the
    point.
    """
    binding = native.load()
    cpu.load_backend(binding, backend_path)
    binding.llama_backend_init()
    model = Model(binding, Path(model_path))
    spec = EngineSpec(model_path, backend_path, n_threads=cpu.thread_count(), n_ctx=256, n_batch=PROBE_TOKENS)
    lane = Lane(model, spec, LaneSpec("probe"))
    for tokens in ([1 + i for i in range(PROBE_TOKENS)], [1]):
        if not np.isfinite(lane._decode(tokens)).all():
            raise EngineError(f"{backend_path}: logits are not finite")
    lane.close()
    model.close()


def _prepare_process() -> None:
    """No core dumps (they would hold prompts), no orphans, no interrupts meant for the parent."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def main(arguments: list[str]) -> int:
    """Entry point of the child."""
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s"
    )
    _prepare_process()
    if arguments[:1] == ["--probe"]:
        try:
            probe(arguments[1], arguments[2])
        except WhisError as error:
            print(error, file=sys.stderr)
            return error.exit_code
        return 0
    frames_fd = os.dup(1)
    os.dup2(2, 1)
    with open(frames_fd, "wb", buffering=0) as outbox:
        Worker(sys.stdin.buffer, outbox).serve()
    # The reader thread may sit in a blocking read; nothing is left to flush or save.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
