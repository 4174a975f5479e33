"""The engine's child process: loads the weights, decodes for several requests at once, and may die alone.

    python -m whis_box.engine.worker                    frames on stdin and stdout
    python -m whis_box.engine.worker --probe LIB GGUF   decode a little with one backend, then exit

Invariant: stdout carries frames only (fd 1 is moved away before any library can print); every accepted
request gets exactly one `done` or `error` frame.
"""

from __future__ import annotations

import hashlib
import logging
import os
import queue
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from whis_box.engine import cpu, native, sandbox
from whis_box.engine.context import Context
from whis_box.engine.generation import Generation
from whis_box.engine.grammar import GrammarCompiler
from whis_box.engine.held import held
from whis_box.engine.lane import Lane
from whis_box.engine.model import Model
from whis_box.engine.prefix_tree import CacheKey, PrefixTree
from whis_box.engine.probe import probe
from whis_box.engine.protocol import (
    EngineInfo,
    EngineSpec,
    EngineState,
    LaneSpec,
    read_frame,
    request_from,
    spec_from,
    write_frame,
)
from whis_box.engine.scheduler import Scheduler
from whis_box.errors import BusyError, EngineError, WhisError

HEARTBEAT_S = 1.0
# Deltas are gathered this long: a frame per token would wake the parent 200 times a second.
STREAM_INTERVAL_S = 0.04
KNOWN_PROMPT_TOKENS = 200_000
"""Tokens of earlier prompts that each lane remembers, to see which beginnings are shared."""


class Worker:
    """Owns every llama object; all of them are used from the thread that calls `serve`."""

    def __init__(self, inbox: BinaryIO, outbox: BinaryIO) -> None:
        self._inbox, self._outbox = inbox, outbox
        self._frames: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._streaming: dict[str, Generation] = {}
        self._sent_at = self._beat_at = 0.0

    def serve(self) -> None:
        """Load what the first frame names, then answer requests until the parent closes the pipe."""
        first = read_frame(self._inbox)
        if first is None:
            return
        try:
            self._load(spec_from(first["spec"]))
        except (WhisError, MemoryError) as error:
            kind = "NotReadyError" if isinstance(error, MemoryError) else type(error).__name__
            message = str(error) or "memory is exhausted; lower engine.n_ctx or engine.n_slots"
            self._send({"event": "failed", "error": kind, "message": message})
            return
        threading.Thread(target=self._receive, name="whis-engine-inbox", daemon=True).start()
        while self._take_frames():
            self._step()
        for generation in self._scheduler.end_all():
            self._send_end(generation)

    # ------------------------------------------------------------------ load

    def _load(self, spec: EngineSpec) -> None:
        started = time.perf_counter()
        binding = native.load()
        cpu.load_backend(binding, spec.backend_path)
        device, notes = _load_gpu(binding, spec)
        binding.llama_backend_init()
        path = Path(spec.model_path)
        with held(path, spec.base_sha256) as opened:
            self._model = Model(binding, path, device != "cpu", opened)
        self._grammars = GrammarCompiler(binding, self._model.vocab)
        self._prefixes: list[PrefixTree] = []
        lanes = [self._lane(spec, lane) for lane in spec.lanes]
        self._scheduler = Scheduler(lanes, spec.max_waiting)
        info = EngineInfo(
            architecture=self._model.header.architecture,
            n_ctx=spec.n_ctx,
            n_ctx_train=self._model.n_ctx_train,
            n_vocab=self._model.n_vocab,
            n_threads=spec.n_threads,
            backend=Path(spec.backend_path).stem.removeprefix("libggml-cpu-"),
            load_ms=(time.perf_counter() - started) * 1000,
            lanes=list(self._scheduler.lanes),
            n_slots=spec.n_slots,
            kv_type=spec.kv_type,
            device=device,
            notes=notes,
        )
        self._send({"event": "ready", "info": asdict(info)})

    def _lane(self, spec: EngineSpec, lane: LaneSpec) -> Lane:
        key = CacheKey(spec.base_sha256, _adapter_sha256(lane), lane.adapter_scale, spec.kv_type)
        prefixes = PrefixTree(key, KNOWN_PROMPT_TOKENS, spec.prefix_bytes // len(spec.lanes))
        for segments in spec.pinned:
            prefixes.insert(np.array(self._model.tokenize(list(segments)), dtype=np.int32), pinned=True)
        self._prefixes.append(prefixes)
        return Lane(lane.name, lane.weight, Context(self._model, spec, lane), prefixes, spec.n_draft)

    # ----------------------------------------------------------------- serve

    def _receive(self) -> None:
        """Read frames while the engine thread decodes, so that a cancel arrives between two decodes."""
        try:
            while (frame := read_frame(self._inbox)) is not None:
                self._frames.put(frame)
        finally:
            self._frames.put(None)

    def _take_frames(self) -> bool:
        """Handle what has arrived; wait for it when there is nothing to do. False at the end."""
        wait = not self._scheduler.busy
        while True:
            try:
                frame = self._frames.get(block=wait, timeout=HEARTBEAT_S if wait else None)
            except queue.Empty:
                self._heartbeat()
                return True
            if frame is None:
                return False
            wait = False
            if frame["op"] == "cancel":
                self._scheduler.cancel(frame["id"])
            else:
                self._accept(frame)

    def _accept(self, frame: dict[str, Any]) -> None:
        request_id, exclusive, stream = frame["id"], frame["exclusive"], frame["stream"]
        try:
            request = request_from(frame["request"])
            self._scheduler.lane(request.lane)
            constraint = self._grammars.compile(request.grammar) if request.grammar else None
            prompt = self._model.tokenize(list(request.prompt))
            generation = Generation(request_id, request, prompt, constraint, self._model, time.perf_counter())
            generation.exclusive = exclusive
            self._scheduler.submit(generation)
        except WhisError as error:
            self._send_error(request_id, error)
            return
        if stream:
            self._streaming[request_id] = generation

    def _step(self) -> None:
        admitted, ended = self._scheduler.step(time.perf_counter())
        if admitted:
            self._send({"event": "started", "ids": [one.id for one in admitted]})
        self._stream()
        for generation in ended:
            self._send_end(generation)
        self._heartbeat()

    def _stream(self) -> None:
        now = time.perf_counter()
        if now - self._sent_at >= STREAM_INTERVAL_S:
            self._sent_at = now
            for request_id, generation in self._streaming.items():
                if delta := generation.take_delta():
                    self._send({"event": "text", "id": request_id, "delta": delta})

    def _send_end(self, generation: Generation) -> None:
        if generation.error is not None:
            self._streaming.pop(generation.id, None)
            self._send_error(generation.id, generation.error)
            return
        if self._streaming.pop(generation.id, None) and (delta := generation.take_delta()):
            self._send({"event": "text", "id": generation.id, "delta": delta})
        self._send({"event": "done", "id": generation.id, "completion": asdict(generation.completion())})

    def _send_error(self, request_id: str, error: WhisError) -> None:
        frame: dict[str, Any] = {
            "event": "error",
            "id": request_id,
            "error": type(error).__name__,
            "message": str(error),
        }
        if isinstance(error, BusyError):
            frame["retry_after_s"] = error.retry_after_s
        self._send(frame)

    def _heartbeat(self) -> None:
        """Say that this thread is alive, and what it holds."""
        now = time.perf_counter()
        if now - self._beat_at >= HEARTBEAT_S:
            self._beat_at = now
            self._send({"event": "heartbeat", "state": asdict(self._state())})

    def _state(self) -> EngineState:
        lanes = self._scheduler.lanes.values()
        rates = self._scheduler.rates
        return EngineState(
            waiting=sum(len(lane.waiting) for lane in lanes),
            active=sum(len(lane.active) for lane in lanes),
            queue_s=round(self._scheduler.queue_s(), 3),
            prompt_tokens_per_s=round(1 / rates.prompt_token_s, 1) if rates.prompt_token_s else 0.0,
            completion_tokens_per_s=round(1 / rates.row_s, 1) if rates.row_s else 0.0,
            prefix_bytes=sum(tree.n_bytes for tree in self._prefixes),
            resident_bytes=_resident_bytes(),
            lanes={
                lane.name: {"waiting": len(lane.waiting), "active": len(lane.active), **lane.counters}
                for lane in lanes
            },
        )

    def _send(self, message: dict[str, Any]) -> None:
        write_frame(self._outbox, message)


def _load_gpu(binding: Any, spec: EngineSpec) -> tuple[str, list[str]]:
    """Register the GPU backend, or say why the CPU is used instead."""
    if not spec.gpu_path:
        return "cpu", []
    try:
        cpu.load_backend(binding, spec.gpu_path)
    except EngineError as error:
        return "cpu", [f"the GPU backend could not be loaded, the CPU is used: {error}"]
    return Path(spec.gpu_path).stem.removeprefix("libggml-"), []


def _adapter_sha256(lane: LaneSpec) -> str:
    if not lane.adapter_path or lane.adapter_sha256:
        return lane.adapter_sha256
    try:
        with open(lane.adapter_path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:  # the loader reports it with its remedy
        return ""


def _resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def main(arguments: list[str]) -> int:
    """Entry point of the child."""
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s"
    )
    if arguments[:1] == ["--probe"]:
        sandbox.enter()
        try:
            probe(arguments[1], arguments[2])
        except WhisError as error:
            print(error, file=sys.stderr)
            return error.exit_code
        return 0
    frames_fd = os.dup(1)
    os.dup2(2, 1)
    limit = int(arguments[0]) if arguments else 0
    sandbox.enter(limit)
    with open(frames_fd, "wb", buffering=0) as outbox:
        Worker(sys.stdin.buffer, outbox).serve()
    # The reader thread may sit in a blocking read; nothing is left to flush or save.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
