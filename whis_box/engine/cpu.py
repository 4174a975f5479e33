"""Which CPU backend to load and how many threads to give it.

Invariant: a backend is used only after a throw-away child has really decoded with it; AMX is never used.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from whis_box.engine import native
from whis_box.errors import EngineError, NotReadyError, StorageError
from whis_box.paths import written_beside

log = logging.getLogger("whis_box.engine.cpu")

PROBE_TIMEOUT_S = 60

# Source: llama.cpp issue 20824; a batched decode in the AMX kernels is a segmentation fault.
EXCLUDED = {"sapphirerapids": "uses AMX, which crashes in batched decode (llama.cpp issue 20824)"}


@dataclass(frozen=True)
class Variant:
    """One CPU backend library; `score` is ggml's own rank for this CPU, 0 means it cannot run here."""

    name: str
    path: Path
    score: int


@dataclass(frozen=True)
class CpuChoice:
    """The backend that was chosen, and why each better-ranked one was not."""

    variant: str
    path: str
    refused: dict[str, str] = field(default_factory=dict)


def variants(folder: Path) -> list[Variant]:
    """All CPU backends in `folder`, best first."""
    found = []
    # The backends carry no search path of their own; with their base library loaded they need none.
    for base in folder.glob("libggml-base.so.?"):
        ctypes.CDLL(str(base))
    for path in sorted(folder.glob("libggml-cpu*.so")):
        try:
            score_of = ctypes.CDLL(str(path)).ggml_backend_score
        except (OSError, AttributeError) as cause:
            log.warning("%s: not a loadable CPU backend: %s", path.name, cause)
            continue
        name = path.stem.removeprefix("libggml-cpu").lstrip("-") or "native"
        found.append(Variant(name, path, int(score_of())))
    return sorted(found, key=lambda variant: -variant.score)


def load_backend(binding: Any, path: str) -> None:
    """Register one CPU backend with ggml, by absolute path.

    Raises: EngineError when ggml refuses it.
    """
    # Through the binding's own handle: the wheel holds copies of libggml with registries of their own.
    load = binding._lib.ggml_backend_load
    load.argtypes, load.restype = [ctypes.c_char_p], ctypes.c_void_p
    if not load(os.fsencode(path)):
        raise EngineError(f"{path}: ggml could not load this CPU backend; run `whis doctor`")


def choose(model_path: Path, cache_path: Path | None = None) -> CpuChoice:
    """The best backend that survives a real decode of `model_path`; cached by CPU and library.

    Raises: NotReadyError when no backend works.
    """
    folder = native.library_dir()
    candidates = variants(folder)
    key = _cache_key(candidates)
    cached = _read_cache(cache_path, key)
    if cached is not None:
        return cached
    refused: dict[str, str] = {}
    for variant in candidates:
        reason = EXCLUDED.get(variant.name) or (
            "this CPU lacks its instructions" if variant.score == 0 else None
        )
        reason = reason or probe(variant, model_path)
        if reason is None:
            choice = CpuChoice(variant.name, str(variant.path), refused)
            _write_cache(cache_path, key, choice)
            return choice
        refused[variant.name] = reason
    raise NotReadyError(
        f"{folder}: no CPU backend works on this machine: {refused or 'the folder holds none'}"
    )


def probe(variant: Variant, model_path: Path) -> str | None:
    """Decode a batch in a throw-away process; the reason when it fails, else None."""
    command = [*worker_command(), "--probe", str(variant.path), str(model_path)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, env=child_environment()
        )
    except subprocess.TimeoutExpired:
        return f"the probe took more than {PROBE_TIMEOUT_S} s"
    if done.returncode == 0:
        return None
    last_line = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return f"the probe ended with status {done.returncode}: {last_line}"


def worker_command() -> list[str]:
    """Command line that starts the engine's child, frozen or not."""
    if getattr(sys, "frozen", False):
        return [sys.executable, "engine-worker"]
    return [sys.executable, "-m", "whis_box.engine.worker"]


def child_environment() -> dict[str, str]:
    """Environment of a process that decodes.

    libgomp's threads spin at barriers, by default for so long that any other busy process on the machine
    makes decoding 3 times slower than need be; a short spin costs nothing when idle (docs/measurements.md).
    """
    package_parent = str(Path(__file__).resolve().parent.parent.parent)
    return {"GOMP_SPINCOUNT": "20000"} | dict(os.environ) | {"PYTHONPATH": package_parent}


def thread_count() -> int:
    """Threads this process may really use: affinity and cgroup quota, rounded down, at least 1."""
    allowed = float(len(os.sched_getaffinity(0)))
    for quota in (_cgroup_v2_cpus(), _cgroup_v1_cpus()):
        if quota is not None:
            allowed = min(allowed, quota)
    return max(1, int(allowed))


def _cgroup_v2_cpus() -> float | None:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _cgroup_v1_cpus() -> float | None:
    folder = Path("/sys/fs/cgroup/cpu")
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 else None


def cpu_model() -> str:
    """The CPU's name as the kernel gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        log.debug("/proc/cpuinfo cannot be read")
    return platform.processor() or platform.machine()


def _cache_key(candidates: list[Variant]) -> str:
    libraries = ",".join(f"{v.name}:{v.score}:{v.path.stat().st_size}" for v in candidates)
    return f"{cpu_model()}|{libraries}"


def _read_cache(cache_path: Path | None, key: str) -> CpuChoice | None:
    if cache_path is None:
        return None
    try:
        cached = json.loads(cache_path.read_text())
        choice = CpuChoice(**cached["choice"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return choice if cached.get("key") == key and Path(choice.path).is_file() else None


def _write_cache(cache_path: Path | None, key: str, choice: CpuChoice) -> None:
    if cache_path is None:
        return
    try:
        with written_beside(cache_path) as beside:
            beside.write_text(json.dumps({"key": key, "choice": asdict(choice)}))
    except StorageError as cause:  # a cache that cannot be written only costs the next start a probe
        log.info("%s: the CPU choice was not cached: %s", cache_path, cause)
