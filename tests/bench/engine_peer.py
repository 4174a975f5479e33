"""The engine beside llama-server and llama-bench: same GGUF, threads, requests and CPU backend, in one run.

    python -m tests.bench.engine_peer --peer DIR [--box DIR] [--levels 1 2 4 8] [--requests 24] [--only PART…]

DIR holds `llama-server`, `llama-bench` and their libraries, built from the source tree that the pinned
llama-cpp-python carries, with GGML_BACKEND_DL=ON. The peer is given this machine's chosen CPU backend, so
both run the same kernels. Each level runs on both sides in turn, with requests of its own. llama-server gets
its own best settings: as many slots as the level, continuous batching, prompt cache, flash attention.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.engine_adapters import write_adapter
from whis_box.engine.protocol import EngineSpec, GenerateRequest, LaneSpec
from whis_box.engine.supervisor import Engine
from whis_box.errors import EngineError
from whis_box.evaluation import load
from whis_box.evaluation.bench import environment
from whis_box.evaluation.bench_serve import sender, spec_for
from whis_box.paths import repository_root
from whis_box.prompts import chat

N_CTX = 1024
START_TIMEOUT_S = 60
PARTS = ("rag", "plain", "single", "grammar", "memory")
STORY = "Write a long story about a lighthouse keeper, a storm, a lost ship and the years that followed."


def peer_folder(built: Path, backend: Path, into: Path) -> Path:
    """A copy of the peer with one CPU backend only, the one that the engine uses."""
    shutil.copytree(built, into, symlinks=True)
    for other in into.glob("libggml-cpu*.so"):
        other.unlink()
    shutil.copy(backend, into / backend.name)
    return into


@contextmanager
def server(folder: Path, spec: EngineSpec, slots: int) -> Iterator[int]:
    """A running llama-server; its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [
        str(folder / "llama-server"),
        "-m",
        spec.model_path,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    command += ["-t", str(spec.n_threads), "-tb", str(spec.n_threads), "-np", str(slots)]
    command += ["-c", str(N_CTX * slots), "-fa", "on", "--no-webui", "-ngl", "0"]
    variables = os.environ | {"LD_LIBRARY_PATH": str(folder), "GOMP_SPINCOUNT": "20000"}
    process = subprocess.Popen(
        command, env=variables, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _await_health(port, process)
        yield port
    finally:
        process.terminate()
        process.wait()


def _await_health(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(START_TIMEOUT_S * 10):
        if process.poll() is not None:
            raise EngineError(f"llama-server ended with status {process.returncode} while it loaded")
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise EngineError(f"llama-server was not ready after {START_TIMEOUT_S} s")


def peer_sender(port: int) -> Any:
    """A function that sends one request to llama-server, streaming, and says how it went."""

    def send(request: GenerateRequest) -> load.Served:
        body: dict[str, Any] = {
            "prompt": "".join(text for text, _ in request.prompt),
            "n_predict": request.max_tokens,
            "temperature": request.temperature,
            "top_k": 1,
            "samplers": ["top_k"],
            "stream": True,
            "cache_prompt": True,
        }
        if request.grammar:
            body["json_schema"] = load.SCHEMA
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        started = time.perf_counter()
        connection.request("POST", "/completion", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise EngineError(f"llama-server said {response.status}: {response.read()[:200]!r}")
        first, text, last = 0.0, "", {}
        for line in response:
            if line.startswith(b"data: "):
                event = json.loads(line[6:])
                text += event.get("content", "")
                if event.get("content"):
                    first = first or time.perf_counter() - started
                last = event
        total = time.perf_counter() - started
        timings = last["timings"]
        cached = int(timings.get("cache_n", 0))
        return load.Served(
            first or total,
            total,
            int(timings["prompt_n"]) + cached,
            cached,
            int(timings["predicted_n"]),
            text,
        )

    return send


def compare(shape: load.Shape, spec: EngineSpec, folder: Path, levels: list[int], count: int) -> list[Any]:
    """Rows of (level, ours, theirs, ratios)."""
    rows = []
    for level in levels:
        asked = load.requests(shape, count, seed=level)
        warm = load.requests(shape, 2, seed=1000 + level)
        with Engine(replace(spec, n_slots=max(2, level))) as engine:
            load.run(sender(engine), warm, 2)
            ours = load.run(sender(engine), asked, level)
        with server(folder, spec, level) as port:
            load.run(peer_sender(port), warm, 2)
            theirs = load.run(peer_sender(port), asked, level)
        rows.append(
            {
                "shape": shape,
                "concurrency": level,
                "throughput_ratio": round(ours.requests_per_s / theirs.requests_per_s, 3),
                "tokens_ratio": round(ours.tokens_per_s() / theirs.tokens_per_s(), 3),
                "ttft_ratio": round(ours.ttft_p50_s / theirs.ttft_p50_s, 3),
                "engine": ours.as_dict(),
                "llama_server": theirs.as_dict(),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def single(spec: EngineSpec, folder: Path, runs: int) -> dict[str, Any]:
    """One stream beside llama-bench tg128, in turn."""
    ours, theirs = [], []
    request = GenerateRequest(chat("You are a writer.", STORY), max_tokens=128, deadline_s=600)
    command = [str(folder / "llama-bench"), "-m", spec.model_path, "-t", str(spec.n_threads), "-fa", "1"]
    command += ["-p", "0", "-n", "128", "-r", "1", "-o", "json", "-ngl", "0"]
    variables = os.environ | {"LD_LIBRARY_PATH": str(folder), "GOMP_SPINCOUNT": "20000"}
    with Engine(spec) as engine:
        for run in range(runs + 1):
            done = engine.generate(request)
            rate = (done.completion_tokens - 1) / (done.total_ms - done.ttft_ms) * 1000
            printed = subprocess.run(
                command, env=variables, cwd=folder, capture_output=True, check=True
            ).stdout
            if run:
                ours.append(rate)
                theirs.append(float(json.loads(printed)[0]["avg_ts"]))
    ratio = statistics.median(one / other for one, other in zip(ours, theirs, strict=True))
    return {
        "engine_tokens_per_s": round(statistics.median(ours), 1),
        "llama_bench_tg128": round(statistics.median(theirs), 1),
        "ratio": round(ratio, 3),
    }


def grammar_cost(spec: EngineSpec, runs: int) -> dict[str, Any]:
    """The same prompt free and under the JSON grammar."""
    constrained = load.requests("rag", 1, seed=5)[0]
    free = replace(constrained, grammar="", max_tokens=64)
    rates: dict[str, list[float]] = {"free": [], "grammar": []}
    with Engine(spec) as engine:
        for _ in range(runs + 1):
            for name, request in (("free", free), ("grammar", constrained)):
                done = engine.generate(request)
                rates[name].append((done.completion_tokens - 1) / (done.total_ms - done.ttft_ms) * 1000)
    medians = {name: statistics.median(values[1:]) for name, values in rates.items()}
    return {
        **{name: round(value, 1) for name, value in medians.items()},
        "cost": round(1 - medians["grammar"] / medians["free"], 4),
    }


def memory(spec: EngineSpec, folder: Path) -> dict[str, Any]:
    """Resident memory of one lane and of three."""
    paths = [
        write_adapter(folder / f"{name}.gguf", seed) for seed, name in enumerate(("stable", "canary"), 1)
    ]
    lanes = (LaneSpec("base"), *(LaneSpec(path.stem, str(path)) for path in paths))
    resident = {}
    for name, chosen in (("one", lanes[:1]), ("three", lanes)):
        with Engine(replace(spec, lanes=chosen, n_slots=4)) as engine:
            for lane in chosen:
                # A long prompt in every lane, so that all buffers are really touched.
                engine.generate(replace(load.requests("plain", 1, seed=1)[0], lane=lane.name))
            time.sleep(2.5)
            state = engine.state
            assert state is not None
            resident[name] = state.resident_bytes
    kv = 4 * N_CTX * 23_040 if spec.kv_type == "f16" else 4 * N_CTX * 12_240
    beyond = resident["three"] - resident["one"] - 2 * kv
    return {
        **{f"{name}_lane_mb": round(value / 1e6, 1) for name, value in resident.items()},
        "kv_of_a_lane_mb": round(kv / 1e6, 1),
        "beyond_kv_mb": round(beyond / 1e6, 1),
        "beyond_kv_share": round(beyond / resident["one"], 4),
    }


def main() -> None:
    """Measure the parts and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--box", type=Path, default=repository_root() / "build" / "box")
    parser.add_argument("--peer", type=Path, help="folder of llama-server and llama-bench")
    parser.add_argument("--levels", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--requests", type=int, default=24)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    spec = replace(spec_for(options.box, None), n_ctx=N_CTX)
    result: dict[str, Any] = {"environment": environment(options.box)}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if {"rag", "plain", "single"} & set(options.only):
            if options.peer is None:
                raise SystemExit("--peer is needed for rag, plain and single; see this file's first lines")
            peer = peer_folder(options.peer, Path(spec.backend_path), folder / "peer")
            for shape in ("rag", "plain"):
                if shape in options.only:
                    result[shape] = compare(shape, spec, peer, options.levels, options.requests)
            if "single" in options.only:
                result["single"] = single(spec, peer, options.runs)
        if "grammar" in options.only:
            result["grammar"] = grammar_cost(spec, options.runs)
        if "memory" in options.only:
            result["memory"] = memory(spec, folder)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
