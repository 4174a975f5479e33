"""Which GPU backend to load, if the program came with one.

Invariant: a backend is used only after a throw-away child has really decoded with it; without one, or when
it fails, the CPU decodes, and the reason is kept.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from whis_box.engine import cpu, native
from whis_box.errors import StorageError
from whis_box.paths import written_beside

log = logging.getLogger("whis_box.engine.gpu")

KINDS = ("cuda", "hip", "metal", "sycl", "vulkan")


@dataclass(frozen=True)
class GpuChoice:
    """`path` is empty when the CPU decodes; `refused` says why of each backend that was tried."""

    path: str
    refused: dict[str, str]


def choose(model_path: Path, cache_path: Path | None = None) -> GpuChoice:
    """The first GPU backend that decodes `model_path`; cached by library."""
    found = [native.library_dir() / f"libggml-{kind}.so" for kind in KINDS]
    found = [path for path in found if path.is_file()]
    if not found:
        return GpuChoice("", {})
    key = ",".join(f"{path}:{path.stat().st_size}" for path in found)
    cached = _read(cache_path, key)
    if cached is not None:
        return cached
    refused: dict[str, str] = {}
    chosen = ""
    for path in found:
        reason = cpu.probe(cpu.Variant(path.stem.removeprefix("libggml-"), path, 1), model_path)
        if reason is None:
            chosen = str(path)
            break
        refused[path.name] = reason
    choice = GpuChoice(chosen, refused)
    _write(cache_path, key, choice)
    return choice


def _read(cache_path: Path | None, key: str) -> GpuChoice | None:
    if cache_path is None:
        return None
    try:
        cached = json.loads(cache_path.read_text())
        return GpuChoice(cached["path"], cached["refused"]) if cached["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(cache_path: Path | None, key: str, choice: GpuChoice) -> None:
    if cache_path is None:
        return
    try:
        with written_beside(cache_path) as beside:
            beside.write_text(json.dumps({"key": key, "path": choice.path, "refused": choice.refused}))
    except StorageError as cause:  # a cache that cannot be written only costs the next start a probe
        log.info("%s: the GPU choice was not cached: %s", cache_path, cause)
