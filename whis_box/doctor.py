"""`whis doctor`: is this machine, and this box, fit to answer?

Invariant: every check that is not ok names its remedy; a check that could not run says so instead of passing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from whis_box import machine
from whis_box.box.manifest import Manifest, verify
from whis_box.box.opening import engine_spec, open_box, open_retriever, size_engine
from whis_box.config import BoxConfig, ModelConfig, RagConfig, load_config
from whis_box.engine import cpu, native
from whis_box.engine.gguf_header import read_header
from whis_box.engine.protocol import GenerateRequest
from whis_box.engine.supervisor import Engine
from whis_box.errors import EXIT_OK, DeadlineError, WhisError
from whis_box.machine import Check
from whis_box.paths import state_dir
from whis_box.prompts import chat

SAMPLE_EVENT: dict[str, object] = {
    "EventID": 10,
    "Channel": "Microsoft-Windows-Sysmon/Operational",
    "SourceImage": r"C:\Windows\System32\rundll32.exe",
    "TargetImage": r"C:\Windows\System32\lsass.exe",
    "GrantedAccess": "0x1410",
}


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
    checks = [machine.disk(), machine.trusted_keys()]
    steps = _Steps(folder)
    for name, step in steps.all():
        try:
            checks.append(step())
        except WhisError as error:
            checks.append(Check(name, "failed", str(error), "see the message"))
            return Report(checks, error.exit_code)
    checks.append(machine.sockets())
    return Report(checks, EXIT_OK)


class _Steps:
    """Checks that build on one another: manifest, configs, weights, CPU, index, engine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._manifest: Manifest | None = None

    def all(self) -> Iterator[tuple[str, Callable[[], Check]]]:
        yield "box", self._box
        yield "clock", self._clock
        yield "permissions", lambda: machine.permissions(self._folder)
        yield "configs", self._configs
        yield "base model", self._weights
        yield "memory", self._memory
        yield "cpu", self._cpu
        yield "index", self._index
        yield "engine", self._engine
        yield "engine sockets", lambda: self._engine_sockets
        yield "capacity", self._capacity

    def _box(self) -> Check:
        self._manifest, digest = verify(self._folder)
        return Check(
            "box", "ok", f"{self._folder}: {len(self._manifest.files)} files match manifest {digest[:16]}"
        )

    def _clock(self) -> Check:
        assert self._manifest is not None
        return machine.clock(self._manifest)

    def _memory(self) -> Check:
        return machine.memory((self._folder / self._box_config.base_model).stat().st_size / 1e6)

    def _capacity(self) -> Check:
        """Alerts per hour, one after another, from one that this check triages itself."""
        with open_box(self._folder) as copilot:
            started = time.monotonic()
            try:
                copilot.triage(SAMPLE_EVENT, "doctor")
            except DeadlineError as error:
                remedy = "free the CPU: other work leaves too little of it, or this machine is too slow"
                return Check("capacity", "warning", f"one triage: {error}", remedy)
            took_s = time.monotonic() - started
        return Check(
            "capacity", "ok", f"one triage took {took_s:.1f} s: about {3600 / took_s:.0f} alerts per hour"
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
            self._engine_sockets = machine.sockets("engine sockets", engine.pid or "self")
        sizing = size_engine(self._folder / self._box_config.base_model, self._model_config)
        context = (
            f"context {info.n_ctx} of {info.n_ctx_train}, {info.n_slots} slots, "
            f"KV {info.kv_type} {sizing.kv_bytes / 1e6:.0f} MB, on {info.device}"
        )
        context += "".join(f"; {note}" for note in (*sizing.notes, *info.notes))
        detail = f"loaded in {info.load_ms:.0f} ms, {context}, said {completion.text!r}"
        return Check("engine", "ok", f"{detail} in {completion.total_ms:.0f} ms")
