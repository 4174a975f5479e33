"""`whis bench serve`: how many alerts this machine answers, at several levels of concurrency.

Invariant: every figure is of one run of the same requests on a warm engine; its peer, llama-server, is
measured by `tests/bench/engine_peer.py` with the same load.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from whis_box.box.opening import engine_spec
from whis_box.config import BoxConfig, ModelConfig, load_config
from whis_box.engine.protocol import Completion, EngineSpec, GenerateRequest
from whis_box.engine.supervisor import Engine
from whis_box.errors import EXIT_OK, EngineError
from whis_box.evaluation import load
from whis_box.evaluation.bench import environment
from whis_box.show import progress

COLUMNS = (
    "concurrency",
    "alerts_per_hour",
    "completion_tokens_per_s",
    "ttft_p50_s",
    "total_p50_s",
    "total_p95_s",
    "cached_share",
    "failed",
)


def command(options: argparse.Namespace) -> int:
    """Measure and print."""
    spec = spec_for(options.box, options.gguf)
    result = measure(options.box, spec, options.shape, options.requests, options.levels)
    print(json.dumps(result) if options.json else table(result))
    return EXIT_OK


def spec_for(box: Path, gguf: Path | None) -> EngineSpec:
    """The box's engine, with as many slots as the highest level needs at most."""
    config = load_config(box / "configs" / "box.yaml", BoxConfig)
    model = load_config(box / "configs" / "model.whis.yaml", ModelConfig)
    spec = engine_spec(gguf or box / config.base_model, model)
    return replace(spec, n_ctx=1024, n_slots=8)


def measure(
    box: Path, spec: EngineSpec, shape: load.Shape, n_requests: int, levels: list[int]
) -> dict[str, Any]:
    """One row per level, all on one engine; every level has requests of its own."""
    rows = []
    with Engine(spec) as engine:
        info = engine.start()
        load.run(sender(engine), load.requests(shape, 4, seed=0), 2)  # a warm-up
        for done, level in enumerate(levels, start=1):
            rows.append(
                load.run(sender(engine), load.requests(shape, n_requests, seed=level), level).as_dict()
            )
            progress(done, len(levels), f"{level} at a time")
    settings = {"shape": shape, "n_slots": spec.n_slots, "n_ctx": spec.n_ctx, "kv_type": spec.kv_type}
    return {
        "environment": environment(box),
        "model": {"path": spec.model_path, "architecture": info.architecture, "device": info.device},
        "settings": settings,
        "rows": rows,
    }


def sender(engine: Engine, lane: str = "base") -> Any:
    """A function that runs one request and says how it went, timed as the caller sees it."""

    def send(request: GenerateRequest) -> load.Served:
        started = time.perf_counter()
        first = 0.0
        for event in engine.stream(replace(request, lane=lane)):
            first = first or time.perf_counter() - started
            if isinstance(event, Completion):
                return load.Served(
                    ttft_s=first,
                    total_s=time.perf_counter() - started,
                    prompt_tokens=event.prompt_tokens,
                    cached_tokens=event.cached_tokens,
                    completion_tokens=event.completion_tokens,
                    text=event.text,
                )
        raise EngineError("the engine ended a request without a result")

    return send


def table(result: dict[str, Any]) -> str:
    """For people."""
    where = result["environment"]
    lines = [f"{where['cpu']}, {where['date']}, commit {where['commit']}", f"{result['model']['path']}"]
    lines.append("  ".join(f"{name:>{len(name)}}" for name in COLUMNS))
    for row in result["rows"]:
        lines.append("  ".join(f"{row[name]:>{len(name)}}" for name in COLUMNS))
    return "\n".join(lines)
