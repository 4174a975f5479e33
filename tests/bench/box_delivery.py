"""What delivery costs: verify, size, and the start of the frozen program beside the unfrozen one.

    python -m tests.bench.box_delivery --box build/box --program dist/whis/whis

Both programs answer the same question of the same box, in turn; "to first token" is the wall time of the
whole process less what it did after its first token. CPU seconds are printed too: they do not depend on what
else the machine does.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from whis_box.box.manifest import read_manifest, verify
from whis_box.engine.cpu import cpu_model, thread_count
from whis_box.paths import source_commit

QUESTION = "What does logon type 10 mean?"


def main() -> int:
    """Print every figure with its peer or limit."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--box", type=Path, required=True)
    parser.add_argument("--program", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    print(f"{cpu_model()}, {thread_count()} threads, load {os.getloadavg()[0]:.1f} at the start")
    print(f"{datetime.now(UTC):%Y-%m-%d}, commit {source_commit()[:12]}")
    _size(options.program.parent)
    _verify(options.box, options.runs)
    _start(options.box, options.program, options.runs)
    return 0


def _size(folder: Path) -> None:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"frozen program: {size / 1e6:.0f} MB (limit 350)")


def _verify(box: Path, runs: int) -> None:
    """All files against the manifest, beside sha256 of the same bytes in memory."""
    manifest, _ = read_manifest(box)
    times = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        verify(box)
        times.append(time.perf_counter() - started)
    block, started = bytes(1 << 26), time.perf_counter()
    hashlib.sha256(block)
    rate = len(block) / (time.perf_counter() - started)
    floor_s = manifest.size_bytes / rate
    print(
        f"verify: {statistics.median(times[1:]):.2f} s for {manifest.size_bytes / 1e6:.0f} MB in "
        f"{len(manifest.files)} files (limit 3 s; sha256 alone {floor_s:.2f} s)"
    )


def _start(box: Path, program: Path, runs: int) -> None:
    commands = {"unfrozen": [sys.executable, "-m", "whis_box.cli"], "frozen": [str(program)]}
    wall: dict[str, list[float]] = {name: [] for name in commands}
    cpu: dict[str, list[float]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as state:
        for number in range(runs + 1):
            for name, command in commands.items():
                took_s, cpu_s = _ask(command, box, Path(state) / name)
                if number:  # the first fills the page cache and the CPU choice
                    wall[name].append(took_s)
                    cpu[name].append(cpu_s)
    for label, figures in (("wall", wall), ("CPU", cpu)):
        medians = {name: statistics.median(values) for name, values in figures.items()}
        spread = {name: f"{min(values):.2f}-{max(values):.2f}" for name, values in figures.items()}
        ratio = medians["frozen"] / medians["unfrozen"]
        print(
            f"ask to first token, {label}: frozen {medians['frozen']:.2f} s ({spread['frozen']}), unfrozen "
            f"{medians['unfrozen']:.2f} s ({spread['unfrozen']}), ratio {ratio:.2f} (limit 1.5)"
        )


def _ask(command: list[str], box: Path, state: Path) -> tuple[float, float]:
    """Wall seconds to the first token, and CPU seconds of the process and its children."""
    environment = os.environ | {"WHIS_STATE": str(state)}
    before, started = os.times(), time.perf_counter()
    done = subprocess.run(
        [*command, "ask", "--json", "--box", str(box), QUESTION], capture_output=True, env=environment
    )
    took_s, after = time.perf_counter() - started, os.times()
    if done.returncode != 0:
        raise SystemExit(f"{command[0]}: {done.stderr.decode()[-500:]}")
    timings = json.loads(done.stdout)["timings"]
    later_s = (timings["total_ms"] - timings["ttft_ms"]) / 1000
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return took_s - max(0.0, later_s), cpu_s


if __name__ == "__main__":
    sys.exit(main())
