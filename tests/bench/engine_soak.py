"""Many short requests with random cancels and deadlines over three adapters: leaks, mix-ups, stuck lanes?

    python -m tests.bench.engine_soak [--box DIR] [--requests 10000] [--clients 12]

Every answered request is compared with what its adapter wrote for the same prompt when it ran alone; the
adapters are random and strong, so that an answer with another one's cache would differ.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.engine_adapters import write_adapter
from whis_box.engine.protocol import Completion, EngineSpec, GenerateRequest, LaneSpec
from whis_box.engine.supervisor import Engine
from whis_box.errors import WhisError
from whis_box.evaluation.bench import environment
from whis_box.evaluation.bench_serve import spec_for
from whis_box.paths import repository_root
from whis_box.prompts import chat
from whis_box.show import progress

LANES = ("base", "stable", "canary")
SYSTEM = "Answer with one word."
WORDS = ("logon", "macro", "beacon", "dump", "scan", "wipe", "proxy", "phish")
CLOSE = 1.5
"""Logits of runners-up that another batch's rounding may bring to the front."""
WARM_SHARE = 0.2
"""The memory after this share of the run is what the end is compared with."""


class Soak:
    """Clients, and what they saw."""

    def __init__(self, engine: Engine, n_requests: int, seed: int) -> None:
        self.engine, self.n_requests = engine, n_requests
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.memory_mb: list[float] = []
        self._rng = random.Random(seed)
        self._lock = threading.Lock()
        self._sent = 0
        self.prompts = [f"Alert {word}" for word in WORDS]
        self.expected = {
            (lane, prompt): self._alone(lane, prompt) for lane in LANES for prompt in self.prompts
        }

    def _alone(self, lane: str, prompt: str) -> set[str]:
        """What may come back: batches round differently, so the first token's close runners-up count too."""
        first = self.engine.generate(replace(_request(lane, prompt), logprobs=8)).logprobs[0]
        return {text for text, value in first.top if value > first.logprob - CLOSE}

    def apart(self) -> int:
        """Prompts whose acceptable answers differ between all three lanes."""
        sets = [[self.expected[lane, prompt] for lane in LANES] for prompt in self.prompts]
        return sum(not (one & two or one & three or two & three) for one, two, three in sets)

    def client(self) -> None:
        """Send requests until all are sent."""
        while True:
            with self._lock:
                if self._sent >= self.n_requests:
                    return
                self._sent += 1
                number = self._sent
                lane, prompt = self._rng.choice(LANES), self._rng.choice(self.prompts)
                fate = self._rng.random()
            self._note(number, self._one(lane, prompt, fate))

    def _one(self, lane: str, prompt: str, fate: float) -> str:
        request = _request(lane, prompt)
        if fate < 0.1:
            return self._cancelled(request)
        if fate < 0.2:
            request = replace(request, deadline_s=0.02 + 5 * (fate - 0.1))
        try:
            completion = self.engine.generate(request)
        except WhisError as error:
            return type(error).__name__
        if not any(completion.text.startswith(one) for one in self.expected[lane, prompt]):
            self.wrong.append(f"{lane}: {prompt}: {completion.text!r}")
        return "done"

    def _cancelled(self, request: GenerateRequest) -> str:
        stream = self.engine.stream(replace(request, max_tokens=64))
        try:
            first = next(stream)
        except WhisError as error:
            return type(error).__name__
        stream.close()  # type: ignore[attr-defined]
        return "done" if isinstance(first, Completion) else "cancelled"

    def _note(self, number: int, outcome: str) -> None:
        with self._lock:
            self.outcomes[outcome] += 1
            if number % max(1, self.n_requests // 50) == 0:
                state = self.engine.state
                self.memory_mb.append((state.resident_bytes if state else 0) / 1e6)
                progress(number, self.n_requests, f"{self.memory_mb[-1]:.0f} MB")


def _request(lane: str, prompt: str) -> GenerateRequest:
    return GenerateRequest(chat(SYSTEM, prompt), lane=lane, max_tokens=1, deadline_s=120)


def measure(spec: EngineSpec, n_requests: int, clients: int, seed: int) -> dict[str, Any]:
    """Run the soak; every number of its summary."""
    with tempfile.TemporaryDirectory() as folder, Engine(_with_adapters(spec, Path(folder))) as engine:
        soak = Soak(engine, n_requests, seed)
        started = time.perf_counter()
        threads = [threading.Thread(target=soak.client) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - started
        time.sleep(2.5)
        state = engine.state
        assert state is not None
        warm = soak.memory_mb[int(WARM_SHARE * len(soak.memory_mb))]
        return {
            "requests": n_requests,
            "clients": clients,
            "seconds": round(seconds, 1),
            "outcomes": dict(soak.outcomes),
            "wrong_answers": len(soak.wrong),
            "examples": soak.wrong[:3],
            "memory_warm_mb": round(warm, 1),
            "memory_end_mb": round(state.resident_bytes / 1e6, 1),
            "memory_growth": round(state.resident_bytes / 1e6 / warm - 1, 4),
            "left_waiting": state.waiting,
            "left_active": state.active,
            "restarts": engine.restarts,
            "prompts_where_no_two_adapters_may_agree": f"{soak.apart()} of {len(soak.prompts)}",
        }


def _with_adapters(spec: EngineSpec, folder: Path) -> EngineSpec:
    lanes = [LaneSpec("base", weight=8)]
    for number, name in enumerate(LANES[1:], start=1):
        lanes.append(LaneSpec(name, str(write_adapter(folder / f"{name}.gguf", number)), weight=8 // number))
    return replace(spec, lanes=tuple(lanes), n_slots=4, n_ctx=512)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--box", type=Path, default=repository_root() / "build" / "box")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--threads", type=int, default=0, help="0 takes what the machine has")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    spec = spec_for(options.box, None)
    spec = replace(spec, n_threads=options.threads or spec.n_threads)
    result = measure(spec, options.requests, options.clients, options.seed)
    print(json.dumps({"environment": environment(options.box), **result}, indent=1))


if __name__ == "__main__":
    main()
