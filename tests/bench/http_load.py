"""What HTTP costs and survives on the real box: submission while saturated, kills, overhead, steady load.

    python -m tests.bench.http_load submit|kill|overhead|steady|shadow [--jobs 500] [--minutes 10]

Each part prints its figures beside their limits, with hardware, commit and date.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil

from whis_box.engine import cpu
from whis_box.paths import default_box, repository_root, source_commit, state_dir

QUESTIONS = (
    "What does logon type 10 mean?",
    "How do I tell password spraying from brute force?",
    "Which event is written when the audit log is cleared?",
    "What is LSASS memory dumping?",
)


class Server:
    """`whis serve` as a process of its own, which can be killed and started again on one state folder."""

    def __init__(self, state: Path, box: Path) -> None:
        self._state, self._box = state, box
        self.process: subprocess.Popen[str] | None = None
        self.http = httpx.Client(timeout=120.0)

    def start(self) -> float:
        """Start and wait until it is ready; the seconds that took."""
        started = time.monotonic()
        command = [sys.executable, "-m", "whis_box.cli", "serve", "--port", "0", "--box", str(self._box)]
        config = self._state / "server.yaml"
        command += ["--config", str(config)]
        log = (self._state / "server.log").open("a")
        environment = {**os.environ, "WHIS_STATE": str(self._state)}
        self.process = subprocess.Popen(
            command, stderr=log, text=True, env=environment, cwd=repository_root()
        )
        seen = (self._state / "server.log").read_text().count("whis serve: ")
        deadline = time.monotonic() + 180
        while True:
            lines = [line for line in self._log().splitlines() if line.startswith("whis serve: http")]
            if len(lines) > seen:
                break
            assert time.monotonic() < deadline and self.process.poll() is None, self._log()[-2000:]
            time.sleep(0.05)
        self.http.base_url = httpx.URL(lines[-1].removeprefix("whis serve: "))
        while self.http.get("/readyz").status_code != 200:
            assert time.monotonic() < deadline, self._log()[-2000:]
            time.sleep(0.1)
        return time.monotonic() - started

    def _log(self) -> str:
        return (self._state / "server.log").read_text()

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(60)

    def rss_mb(self) -> float:
        """Memory of the server without its engine."""
        assert self.process is not None
        return float(psutil.Process(self.process.pid).memory_info().rss) / 1e6


@contextmanager
def running(box: Path, **config: Any) -> Iterator[Server]:
    """A server on a fresh state folder that knows this machine's CPU choice."""
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        known = state_dir() / "cpu-variant.json"
        if known.is_file():
            (state / known.name).write_bytes(known.read_bytes())
        limits = {"rate_per_minute": 1_000_000, "concurrency": 64}
        (state / "server.yaml").write_text(json.dumps({"limits": limits, **config}))
        server = Server(state, box)
        server.start()
        try:
            yield server
        finally:
            server.stop()
            server.http.close()


def alert(n: int) -> dict[str, Any]:
    """One alert of many, each with an id of its own."""
    return {
        "_id": f"load-{n}",
        "@timestamp": "2026-11-25T10:00:00Z",
        "event": {"kind": "alert", "code": "1"},
        "host": {"name": f"ws{n % 40:02d}.example.corp"},
        "process": {
            "name": "rundll32.exe",
            "command_line": f"rundll32 comsvcs.dll, MiniDump {n} C:\\l.dmp full",
        },
    }


def submit(box: Path, jobs: int) -> dict[str, Any]:
    """Time of POST /v1/jobs while the engine is saturated. Limit: p99 at most 200 ms."""
    with running(box) as server:
        server.http.post("/v1/ask", json={"question": QUESTIONS[0]}).raise_for_status()
        ends = threading.Event()
        threads = [threading.Thread(target=_ask_until, args=(server, ends), daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        times = []
        for n in range(jobs):
            started = time.perf_counter()
            answer = server.http.post("/v1/jobs", json={"kind": "triage", "input": alert(n)})
            times.append((time.perf_counter() - started) * 1000)
            assert answer.status_code == 202, answer.text
        ends.set()
        for thread in threads:
            thread.join(60)
    return {"jobs": jobs, **spread(times), "limit_p99_ms": 200, "met": spread(times)["p99_ms"] <= 200}


def kill(box: Path, jobs: int) -> dict[str, Any]:
    """SIGKILL of the engine and of the server while jobs run; each must be answered exactly once."""
    with running(box) as server:
        lines = "\n".join(json.dumps({"kind": "triage", "input": alert(n)}) for n in range(jobs))
        answer = server.http.post("/v1/jobs", content=lines, headers={"content-type": "application/x-ndjson"})
        ids = [json.loads(line)["id"] for line in answer.text.splitlines()]
        assert len(set(ids)) == jobs
        engine_kills = server_kills = 0
        started = time.monotonic()
        for step in range(6):
            _until_done(server, (step + 1) * jobs // 8)
            if step % 2 == 0:
                pid = server.http.get("/v1/box/engine").json()["pid"]
                if pid:
                    os.kill(pid, signal.SIGKILL)
                    engine_kills += 1
            else:
                server.kill()
                server_kills += 1
                server.start()
        _until_done(server, jobs)
        seconds = time.monotonic() - started
        found = [server.http.get(f"/v1/jobs/{one}").json() for one in ids]
        alerts = [one["result"]["alert_id"] for one in found if one["result"]]
        triaged = [one for one in _audit(server) if one["action"] == "triage"]
        intact = server.http.get("/v1/audit/verify").json()
    completed = sum(one["status"] == "completed" for one in found)
    return {
        "jobs": jobs, "engine_kills": engine_kills, "server_kills": server_kills, "completed": completed,
        "distinct_answers": len(set(alerts)), "triages_in_audit": len(triaged), "audit": intact,
        "most_attempts": max(one["attempts"] for one in found), "seconds": round(seconds, 1),
        "met": completed == jobs == len(set(alerts)),
    }  # fmt: skip


def overhead(box: Path, runs: int) -> dict[str, Any]:
    """HTTP's own time beside the copilot's, one client. Limit: 3 %."""
    shares, own = [], []
    with running(box) as server:
        for n in range(runs + 4):
            question = QUESTIONS[n % len(QUESTIONS)]
            started = time.perf_counter()
            reply = server.http.post("/v1/ask", json={"question": question})
            assert reply.status_code == 200, reply.text
            answer = reply.json()
            whole_ms = (time.perf_counter() - started) * 1000
            if n >= 4:
                own.append(whole_ms - answer["timings"]["total_ms"])
                shares.append(own[-1] / answer["timings"]["total_ms"] * 100)
    share = statistics.median(shares)
    return {
        "runs": runs, "http_ms_median": round(statistics.median(own), 2), "share_percent": round(share, 2),
        "limit_percent": 3, "met": share <= 3,
    }  # fmt: skip


def steady(box: Path, clients: int, minutes: float) -> dict[str, Any]:
    """Several clients for minutes: no error, flat memory."""
    counts: dict[int, int] = {}
    times: list[float] = []
    memory: list[float] = []
    with running(box) as server:
        ends = time.monotonic() + minutes * 60

        def client(number: int) -> None:
            with httpx.Client(base_url=server.http.base_url, timeout=120.0) as http:
                n = 0
                while time.monotonic() < ends:
                    n += 1
                    started = time.perf_counter()
                    if n % 3:
                        answer = http.post("/v1/ask", json={"question": QUESTIONS[(n + number) % 4]})
                    else:
                        answer = http.post("/v1/triage", json=alert(n * 100 + number))
                    times.append((time.perf_counter() - started) * 1000)
                    counts[answer.status_code] = counts.get(answer.status_code, 0) + 1

        threads = [threading.Thread(target=client, args=(n,)) for n in range(clients)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            memory.append(server.rss_mb())
            time.sleep(2)
        status = server.stop()
        server.start()
    third = max(1, len(memory) // 3)
    middle, last = statistics.median(memory[third : 2 * third]), statistics.median(memory[-third:])
    return {
        "clients": clients, "minutes": minutes, "status_codes": counts, **spread(times),
        "rss_mb_middle_third": round(middle, 1), "rss_mb_last_third": round(last, 1), "exit_status": status,
        "met": set(counts) == {200} and last <= middle * 1.03,
    }  # fmt: skip


def shadow(box: Path, runs: int) -> dict[str, Any]:
    """Stable's p95 without and with a shadow of all traffic, in turns. Limit: 5 % worse."""
    times: dict[str, list[float]] = {"without": [], "with": []}
    with running(box) as server:
        for turn in range(4):
            name = "with" if turn % 2 else "without"
            body = {"adapter": "base@box"} if name == "with" else {}
            action = "shadow" if name == "with" else "stop"
            server.http.post(f"/v1/rollout/{action}", json=body).raise_for_status()
            for n in range(runs + 3):
                started = time.perf_counter()
                server.http.post("/v1/ask", json={"question": QUESTIONS[n % 4]}).raise_for_status()
                if n >= 3:
                    times[name].append((time.perf_counter() - started) * 1000)
                time.sleep(0.5)  # what analysts leave: the shadow works here, and is interrupted
        pairs = server.http.get("/v1/rollout/report").json()
    without, with_shadow = spread(times["without"]), spread(times["with"])
    worse = (with_shadow["p95_ms"] / without["p95_ms"] - 1) * 100
    return {
        "without": without, "with": with_shadow, "p95_worse_percent": round(worse, 1), "limit_percent": 5,
        "shadow": next((one for one in pairs["arms"] if one["arm"] == "shadow"), None), "met": worse <= 5,
    }  # fmt: skip


def spread(times: list[float]) -> dict[str, float]:
    """Quantiles in milliseconds."""
    ordered = sorted(times)
    rank = {name: ordered[min(len(ordered) - 1, int(q * len(ordered)))] for name, q in
            (("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99))}  # fmt: skip
    return {"n": len(ordered), **{name: round(value, 1) for name, value in rank.items()}}


def _ask_until(server: Server, ends: threading.Event) -> None:
    with httpx.Client(base_url=server.http.base_url, timeout=120.0) as http:
        n = 0
        while not ends.is_set():
            http.post("/v1/ask", json={"question": QUESTIONS[n % 4]})
            n += 1


def _until_done(server: Server, count: int) -> None:
    while True:
        counts = server.http.get("/v1/jobs", params={"limit": 1}).json()["counts"]
        if sum(counts.get(one, 0) for one in ("completed", "failed", "cancelled")) >= count:
            return
        time.sleep(0.2)


def _audit(server: Server) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    before: dict[str, int] = {}
    while True:
        page = server.http.get("/v1/audit", params={"limit": 1000, **before}).json()["entries"]
        if not page:
            return entries
        entries = [*page, *entries]
        before = {"before": page[0]["seq"]}


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("submit", "kill", "overhead", "steady", "shadow"))
    parser.add_argument("--box", type=Path, default=default_box())
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    parts = {
        "submit": lambda: submit(options.box, options.jobs),
        "kill": lambda: kill(options.box, options.jobs),
        "overhead": lambda: overhead(options.box, options.runs),
        "steady": lambda: steady(options.box, options.clients, options.minutes),
        "shadow": lambda: shadow(options.box, options.runs),
    }
    result = parts[options.part]()
    where = {
        "cpu": cpu.cpu_model(), "threads": cpu.thread_count(), "commit": source_commit()[:12],
        "date": datetime.now(UTC).date().isoformat(), "load_average": round(os.getloadavg()[0], 1),
    }  # fmt: skip
    print(json.dumps({"part": options.part, **result, **where}, indent=1))


if __name__ == "__main__":
    main()
