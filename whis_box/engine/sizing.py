"""How many slots, which context and which KV type this machine's memory allows.

Invariant: what differs from what was asked is said in `notes`; nothing is shrunk silently.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from whis_box.engine.gguf_header import GgufHeader
from whis_box.engine.protocol import KvType

MAX_SLOTS = 4
"""Chosen by itself; more are for the one who asks for them, since every slot reserves its whole context."""
KV_SHARE = 0.25
"""Of the memory that is available beside the weights, what KV caches may take."""
MIN_CTX = 512
BYTES_PER_VALUE: dict[KvType, float] = {"f16": 2.0, "q8_0": 34 / 32}  # Source: ggml, block of 32 and a scale
ADDRESS_SPACE_BYTES = 4 * 1024**3
"""Libraries, thread stacks and compute buffers of the child, generously."""


@dataclass(frozen=True)
class Sizing:
    """What to give the engine."""

    n_ctx: int
    n_slots: int
    kv_type: KvType
    kv_bytes: int
    memory_limit_bytes: int
    notes: tuple[str, ...] = ()


def plan(
    header: GgufHeader,
    n_ctx: int,
    n_lanes: int,
    available_bytes: int,
    n_slots: int = 0,
    kv_type: KvType | Literal["auto"] = "auto",
) -> Sizing:
    """The most slots (up to MAX_SLOTS, or as asked) whose caches fit; q8_0 before fewer than two slots, a
    shorter context only when one slot does not fit."""
    budget = max(0, int(KV_SHARE * (available_bytes - header.file_size_bytes)))
    asked_ctx = min(n_ctx, header.n_ctx_train or n_ctx)
    types: list[KvType] = ["f16", "q8_0"] if kv_type == "auto" else [kv_type]
    counts = [n_slots] if n_slots else [MAX_SLOTS, 2]
    choices = [(asked_ctx, count, kind) for count in counts for kind in types]
    choices += [(asked_ctx, 1, kind) for kind in types if not n_slots]
    context = asked_ctx // 2
    while context >= MIN_CTX:
        choices.append((context, n_slots or 1, types[-1]))
        context //= 2
    for context, count, kind in choices:
        size = n_lanes * count * context * kv_bytes_per_token(header, kind)
        if size <= budget:
            break
    limit = 2 * header.file_size_bytes + 2 * int(size) + ADDRESS_SPACE_BYTES
    notes = _notes(n_ctx, header.n_ctx_train, context, int(size), budget)
    return Sizing(context, count, kind, int(size), limit, notes)


def _notes(asked: int, trained: int, context: int, size: int, budget: int) -> tuple[str, ...]:
    notes = []
    if context < asked:
        why = "the model was trained for no more" if context == trained else "memory allows no more"
        notes.append(f"engine.n_ctx is {asked}, {context} is used: {why}")
    if size > budget:
        notes.append(
            f"KV caches take {size / 1e6:.0f} MB, more than the {budget / 1e6:.0f} MB set aside for them"
        )
    return tuple(notes)


def kv_bytes_per_token(header: GgufHeader, kv_type: KvType) -> int:
    """Bytes of one token's keys and values over all layers."""
    return int(2 * header.n_layers * header.n_head_kv * header.head_dim * BYTES_PER_VALUE[kv_type])


def available_memory() -> int:
    """Bytes that may be taken without swapping: the kernel's estimate, or less under a cgroup limit."""
    available = 0
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        available = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 2 * 1024**3  # unknown: plan for a small machine
    left = _cgroup_left("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current")
    return available if left is None else min(available, left)


def _cgroup_left(limit_path: str, used_path: str) -> int | None:
    try:
        return int(Path(limit_path).read_text()) - int(Path(used_path).read_text())
    except (OSError, ValueError):  # no cgroup, or "max"
        return None
