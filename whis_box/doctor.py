"""`whis doctor`: is this machine, and this box, fit to answer?

Invariant: every check that is not ok names its remedy; a check that could not run says so instead of passing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from whis_box.box.manifest import Manifest, verify
from whis_box.box.opening import engine_spec, open_retriever, size_engine
from whis_box.config import BoxConfig, ModelConfig, RagConfig, load_config
from whis_box.engine import cpu, native
from whis_box.engine.gguf_header import read_header
from whis_box.engine.protocol import GenerateRequest
from whis_box.engine.supervisor import Engine
from whis_box.errors import EXIT_OK, WhisError
from whis_box.paths import state_dir
from whis_box.prompts import chat

State = Literal["ok", "warning", "failed"]
MIN_FREE_RAM_MB = 900  # the box's own peak, see docs/measurements.md, and some room
MIN_FREE_DISK_MB = 200


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    name: str
    state: State
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class Report:
    """All checks; `exit_code` is the first failed check's, 0 when none failed."""

    checks: list[Check]
    exit_code: int

    def as_dict(self) -> dict[str, object]:
        """For `--json`."""
        return {"ok": self.exit_code == EXIT_OK, "checks": [asdict(check) for check in self.checks]}


def examine(folder: Path) -> Report:
    """Run every check that still makes sense after the ones before it."""
    checks = [_memory(), _disk()]
    steps = _Steps(folder)
    for name, step in steps.all():
        try:
            checks.append(step())
        except WhisError as error:
            checks.append(Check(name, "failed", str(error), "see the message"))
            return Report(checks, error.exit_code)
    checks.append(_sockets())
    return Report(checks, EXIT_OK)


class _Steps:
    """Checks that build on one another: manifest, configs, weights, CPU, index, engine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._manifest: Manifest | None = None

    def all(self) -> Iterator[tuple[str, Callable[[], Check]]]:
        yield "box", self._box
        yield "configs", self._configs
        yield "base model", self._weights
        yield "cpu", self._cpu
        yield "index", self._index
        yield "engine", self._engine

    def _box(self) -> Check:
        self._manifest, digest = verify(self._folder)
        return Check(
            "box", "ok", f"{self._folder}: {len(self._manifest.files)} files match manifest {digest[:16]}"
        )

    def _configs(self) -> Check:
        configs = self._folder / "configs"
        self._box_config = load_config(configs / "box.yaml", BoxConfig)
        self._model_config = load_config(configs / "model.whis.yaml", ModelConfig)
        self._rag_config = load_config(configs / "rag.yaml", RagConfig)
        return Check("configs", "ok", "box.yaml, model.whis.yaml and rag.yaml validate")

    def _weights(self) -> Check:
        header = read_header(self._folder / self._box_config.base_model)
        size_mb = header.file_size_bytes / 1e6
        return Check(
            "base model", "ok", f"{header.architecture}, {header.n_tensors} tensors, {size_mb:.0f} MB"
        )

    def _cpu(self) -> Check:
        model_path = self._folder / self._box_config.base_model
        choice = cpu.choose(model_path, state_dir() / "cpu-variant.json")
        refused = "; ".join(f"{name}: {why}" for name, why in choice.refused.items())
        excluded = "; ".join(f"{name}: {why}" for name, why in cpu.EXCLUDED.items())
        present = [variant.name for variant in cpu.variants(native.library_dir())]
        detail = (
            f"{cpu.cpu_model()}, {cpu.thread_count()} threads, backend {choice.variant} (of {len(present)})"
        )
        return Check("cpu", "ok", f"{detail}; refused: {refused or 'none'}; never used: {excluded}")

    def _index(self) -> Check:
        assert self._manifest is not None
        retriever = open_retriever(self._folder, self._box_config, self._rag_config, self._manifest)
        hits = retriever.search("event 4625 failed logon")
        meta = retriever.meta
        counts = f"{meta['n_records']} records, {meta['n_chunks']} chunks, {meta['n_sentences']} sentences"
        return Check(
            "index",
            "ok" if hits else "warning",
            f"{counts}; a test search gave {len(hits)} hits",
            "" if hits else "the index holds nothing about a common event; build it again from data/raw",
        )

    def _engine(self) -> Check:
        spec = engine_spec(self._folder / self._box_config.base_model, self._model_config)
        with Engine(spec) as engine:
            info = engine.start()
            request = GenerateRequest(
                chat("Reply with one word.", "Say yes or no."), 'start: "yes" | "no"', max_tokens=4
            )
            completion = engine.generate(request)
        sizing = size_engine(self._folder / self._box_config.base_model, self._model_config)
        context = (
            f"context {info.n_ctx} of {info.n_ctx_train}, {info.n_slots} slots, "
            f"KV {info.kv_type} {sizing.kv_bytes / 1e6:.0f} MB, on {info.device}"
        )
        context += "".join(f"; {note}" for note in (*sizing.notes, *info.notes))
        detail = f"loaded in {info.load_ms:.0f} ms, {context}, said {completion.text!r}"
        return Check("engine", "ok", f"{detail} in {completion.total_ms:.0f} ms")


def _memory() -> Check:
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        available_mb = int(fields["MemAvailable"].split()[0]) / 1024
    except (OSError, KeyError, ValueError):
        return Check("memory", "warning", "cannot be read on this system", "check that about 1 GB is free")
    state: State = "ok" if available_mb >= MIN_FREE_RAM_MB else "warning"
    return Check(
        "memory",
        state,
        f"{available_mb:.0f} MB available",
        f"free memory: the box needs {MIN_FREE_RAM_MB} MB",
    )


def _disk() -> Check:
    folder = state_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free_mb = shutil.disk_usage(folder).free / 1e6
    except OSError as cause:
        return Check(
            "state folder", "warning", f"{folder}: {cause.strerror}", "set WHIS_STATE to a writable folder"
        )
    if not os.access(folder, os.W_OK):
        return Check(
            "state folder", "warning", f"{folder}: not writable", "set WHIS_STATE to a writable folder"
        )
    state: State = "ok" if free_mb >= MIN_FREE_DISK_MB else "warning"
    return Check("state folder", state, f"{folder}: writable, {free_mb:.0f} MB free", "free some disk space")


def _sockets() -> Check:
    """Open Internet sockets of this process, by inode, from /proc."""
    inodes: set[str] = set()
    try:
        for name in ("tcp", "tcp6", "udp", "udp6"):
            rows = Path(f"/proc/self/net/{name}").read_text().splitlines()[1:]
            inodes.update(row.split()[9] for row in rows)
        mine = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_link(fd)]
    except OSError as cause:
        return Check("sockets", "warning", f"not measured: {cause.strerror}", "run on a system with /proc")
    opened = [link for link in mine if link.startswith("socket:[") and link[8:-1] in inodes]
    if opened:
        return Check(
            "sockets", "failed", f"{len(opened)} Internet sockets are open", "report this: none is expected"
        )
    return Check("sockets", "ok", "no Internet socket is open")


def _is_link(fd: str) -> bool:
    return os.path.islink(f"/proc/self/fd/{fd}")
