"""The lane beside the least that libllama needs for the same work: what do scheduling and Python cost?

    python -m tests.bench.engine_limit [--box DIR] [--runs N] [--threads 1]

N prompts without shared text, 64 tokens each. The limit is a bare loop over libllama: each prompt in full
batches, then one batch of N rows a step, greedy. The lane gets the same prompts as N requests. In one process
in turn; with one thread in CPU seconds, which other processes disturb less than the clock.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.engine_parts import open_lane, open_model
from whis_box.box.opening import engine_spec
from whis_box.config import ModelConfig
from whis_box.engine.context import Context
from whis_box.engine.generation import Generation
from whis_box.engine.lane import Lane
from whis_box.engine.model import Model
from whis_box.engine.protocol import EngineSpec, GenerateRequest, LaneSpec
from whis_box.engine.scheduler import Scheduler
from whis_box.evaluation import load
from whis_box.evaluation.bench import environment
from whis_box.paths import repository_root

LEVELS = (1, 2, 4, 8)
N_OUTPUT = load.PLAIN_TOKENS


def limit_s(context: Context, prompts: list[list[int]], clock: Any) -> float:
    """Seconds of a bare loop: all prompts, then N_OUTPUT - 1 steps of one row for each."""
    context.clear()
    started = clock()
    batch = context.batch
    following = []
    for slot, prompt in enumerate(prompts):
        for at in range(0, len(prompt), batch.capacity):
            part = prompt[at : at + batch.capacity]
            batch.reset()
            row = batch.add(slot, part, at, 1)
            context.decode()
        following.append(int(context.logits(row).argmax()))
    for step in range(N_OUTPUT - 1):
        batch.reset()
        for slot, prompt in enumerate(prompts):
            batch.add(slot, [following[slot]], len(prompt) + step, 1)
        context.decode()
        following = [int(context.logits(row).argmax()) for row in range(len(prompts))]
    return float(clock() - started)


def lane_s(lane: Lane, model: Model, requests: list[GenerateRequest], clock: Any) -> float:
    """Seconds of the same work as requests to a lane."""
    for slot in lane.slots:
        slot.n = 0  # nothing of an earlier run is reused
    scheduler = Scheduler([lane], 1000)
    started = clock()
    for number, request in enumerate(requests):
        prompt = model.tokenize(list(request.prompt))
        scheduler.submit(Generation(str(number), request, prompt, None, model, time.perf_counter()))
    ended = []
    while scheduler.busy:
        ended += scheduler.step(time.perf_counter())[1]
    seconds = clock() - started
    if any(one.error is not None or len(one.output) != N_OUTPUT for one in ended):
        raise SystemExit("a generation ended early; the work would not be equal")
    return float(seconds)


def compare(spec: EngineSpec, model: Model, level: int, runs: int) -> tuple[float, float, float]:
    """Medians of (limit, lane) seconds and of their ratio."""
    clock = time.process_time if spec.n_threads == 1 else time.perf_counter
    sized = replace(spec, n_slots=level, n_ctx=1024, n_draft=0)
    context, lane = Context(model, sized, LaneSpec("limit")), open_lane(model, sized)
    pairs = []
    for run in range(runs):
        requests = _endless(model, load.requests("plain", level, seed=run))
        prompts = [model.tokenize(list(request.prompt)) for request in requests]
        pairs.append((limit_s(context, prompts, clock), lane_s(lane, model, requests, clock)))
    context.close()
    lane.close()
    columns = np.array(pairs)
    ratio = statistics.median(columns[:, 0] / columns[:, 1])
    return statistics.median(columns[:, 0]), statistics.median(columns[:, 1]), ratio


def _endless(model: Model, requests: list[GenerateRequest]) -> list[GenerateRequest]:
    model.is_end = lambda _token: False  # type: ignore[method-assign]  # so that both sides write the same count
    return [replace(request, max_tokens=N_OUTPUT) for request in requests]


def main() -> None:
    """Print throughput of both and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--box", type=Path, default=repository_root() / "build" / "box")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="0 takes what the machine has")
    parser.add_argument("--levels", type=int, nargs="+", default=list(LEVELS))
    options = parser.parse_args()
    spec = engine_spec(options.box / "models" / "base.gguf", ModelConfig())
    spec = replace(spec, n_threads=options.threads or spec.n_threads)
    _, model = open_model(spec)
    for key, value in environment(options.box).items():
        print(f"{key}: {value}")
    for level in options.levels:
        limit, lane, ratio = compare(spec, model, level, options.runs)
        print(
            f"{level} at a time: limit {level * N_OUTPUT / limit:6.1f} tokens/s, "
            f"lane {level * N_OUTPUT / lane:6.1f} tokens/s, ratio {ratio:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
