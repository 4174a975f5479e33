"""One lane in this process, for benchmarks that look inside it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from whis_box.engine import cpu, native
from whis_box.engine.context import Context
from whis_box.engine.generation import Generation
from whis_box.engine.lane import Lane
from whis_box.engine.model import Model
from whis_box.engine.prefix_tree import CacheKey, PrefixTree
from whis_box.engine.protocol import EngineSpec, GenerateRequest, LaneSpec


def open_model(spec: EngineSpec) -> tuple[Any, Model]:
    """The binding and the loaded weights."""
    binding = native.load()
    cpu.load_backend(binding, spec.backend_path)
    binding.llama_backend_init()
    return binding, Model(binding, Path(spec.model_path))


def open_lane(model: Model, spec: EngineSpec) -> Lane:
    """A lane without an adapter and without a store of shared prefixes."""
    prefixes = PrefixTree(CacheKey("bench", "", 1.0), 100_000, 0)
    return Lane("base", 8, Context(model, spec, LaneSpec("base")), prefixes, spec.n_draft)


def generate(
    lane: Lane, model: Model, request: GenerateRequest, constraint: Any, n_threads: int
) -> tuple[Generation, float]:
    """Run one request alone; the finished generation and its tokens per second after the first.

    With one thread the seconds are CPU seconds, which other processes disturb less than the clock.
    """
    clock = time.process_time if n_threads == 1 else time.perf_counter
    prompt = model.tokenize(list(request.prompt))
    one = Generation("bench", request, prompt, constraint, model, time.perf_counter())
    lane.waiting.append(one)
    lane.admit(time.perf_counter())
    while not one.output and not one.ended:
        lane.step()
    first, started = len(one.output), clock()
    while not one.ended:
        lane.step()
    seconds = clock() - started
    lane.sweep(time.perf_counter())
    if one.error is not None:
        raise one.error
    return one, (len(one.output) - first) / seconds
