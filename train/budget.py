"""What a run needs and what the machine has: device, dtype, memory per component, time.

Invariant: a plan is made before training and checked after it; memory never changes the effective batch.
Sizes are bytes; H hidden, Q and KV the widths of queries and keys, F feed-forward, L layers, V vocabulary.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from train.config import AdapterSection, RuntimeSection, TrainConfig
from train.packing import Row
from whis_box.engine.cpu import cpu_model
from whis_box.errors import InputError, NotReadyError

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
SHARE_OF_PEAK = 0.35  # of the matmul peak that a run reaches; measured on a CPU, docs/training.md
SHARE_OF_ALLOCATOR = 0.3  # of a step's memory that glibc holds beyond it, with `return_memory`; measured
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense bf16; Source: NVIDIA data sheets


def device_and_dtype(section: RuntimeSection) -> tuple[str, torch.dtype]:
    """Where to compute and in what.

    Raises: NotReadyError for a CUDA device that is not there.
    """
    has_cuda = torch.cuda.is_available()
    if section.device == "cuda" and not has_cuda:
        raise NotReadyError("runtime.device is cuda, but torch sees no CUDA device; use auto or cpu")
    device = "cuda" if has_cuda and section.device != "cpu" else "cpu"
    if section.dtype != "auto":
        return device, DTYPES[section.dtype]
    fast = torch.cuda.is_bf16_supported() if device == "cuda" else has_fast_bfloat16()
    return device, torch.bfloat16 if fast else torch.float32


def has_fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


@dataclass
class Plan:
    """The choice, its prediction in bytes by component, and the yardsticks of its check."""

    device: str
    dtype: str
    gradient_checkpointing: bool
    compile: bool
    loss_chunk: int
    components: dict[str, int]
    flops_per_token: float
    peak_flops: float
    available: int
    start_bytes: int = 0

    @property
    def predicted(self) -> int:
        """Bytes of all components together."""
        return sum(self.components.values())

    def mfu(self, tokens_per_s: float) -> float:
        """Share of the matmul peak, counted at 4N per token: 2N forward, 2N backward to the inputs."""
        return tokens_per_s * self.flops_per_token / self.peak_flops

    def predicted_s(self, n_tokens: int) -> float:
        """Seconds for so many tokens, from the matmul peak measured here."""
        return n_tokens * self.flops_per_token / (SHARE_OF_PEAK * self.peak_flops)

    def start_measuring(self) -> None:
        """Called when weights and adapter exist: what else was there is not the run's."""
        held = self.components["weights"] + self.components["adapter"]
        reset_peak(self.device)
        self.start_bytes = 0 if self.device == "cuda" else resident_bytes() - held

    def residuals(self) -> dict[str, float]:
        """Prediction against the measured peak."""
        measured = peak_bytes(self.device) - self.start_bytes
        return {
            "memory_predicted_bytes": self.predicted,
            "memory_peak_bytes": measured,
            "memory_error": round((self.predicted - measured) / max(measured, 1), 4),
        }


def plan(
    model_config: Any, config: TrainConfig, device: str, dtype: torch.dtype, rows: Sequence[Row]
) -> Plan:
    """Choose recomputation and refuse what cannot fit.

    Raises: InputError with every component when nothing fits.
    """
    runtime = config.runtime
    available = int(runtime.memory_share * free_bytes(device))
    choices = {"never": [False], "always": [True], "auto": [False, True]}[runtime.gradient_checkpointing]
    plans = [
        Plan(
            device=device,
            dtype=str(dtype).removeprefix("torch."),
            gradient_checkpointing=recompute,
            compile=runtime.compile == "always" or (runtime.compile == "auto" and device == "cuda"),
            loss_chunk=runtime.loss_chunk,
            components=components(model_config, config, device, dtype.itemsize, recompute, Largest.of(rows)),
            flops_per_token=4.0 * n_matmul_parameters(model_config),
            peak_flops=peak_flops(device, dtype),
            available=available,
        )
        for recompute in choices
    ]
    for one in plans:
        if one.predicted <= available:
            return one
    listed = ", ".join(f"{name} {size / 2**20:.0f} MiB" for name, size in plans[-1].components.items())
    raise InputError(
        f"the run needs {plans[-1].predicted / 2**20:.0f} MiB on {device} and {available / 2**20:.0f} MiB "
        f"may be used ({listed}); lower optimizer.row_tokens or adapter.r, or take a smaller base"
    )


def components(
    model_config: Any, config: TrainConfig, device: str, itemsize: int, recompute: bool, largest: Largest
) -> dict[str, int]:
    """Bytes by component while the largest row is trained on.

    Activations are what the backward pass of our own kernels keeps of a decoder layer, counted tensor by
    tensor; tests compare the sum with the measured peak.
    """
    shape = _shape(model_config)
    n_adapter = n_adapter_parameters(model_config, config.adapter)
    n_weights = n_matmul_parameters(model_config) + shape["V"] * shape["H"] * (1 if shape["tied"] else 2)
    # What both norms read and write; q, k, v and what was attended; gate, its silu, up and the product.
    per_token = itemsize * (4 * shape["H"] + 2 * shape["Q"] + 2 * shape["KV"] + 4 * shape["F"])
    per_token += itemsize * config.adapter.r * len(config.adapter.target_modules) * 2  # inner and its mask
    attention = itemsize * shape["heads"] * largest.squares
    per_layer = largest.tokens * per_token + attention
    layers = shape["L"] * per_layer
    if recompute:
        layers = per_layer + shape["L"] * itemsize * largest.tokens * shape["H"]
    answers = min(config.runtime.loss_chunk, largest.answers)
    logits = int(3.5 * 4 * answers * shape["V"])
    return {
        "weights": n_weights * itemsize,
        "adapter": n_adapter * (itemsize + 4),
        "gradients": n_adapter * (itemsize + 4),
        "moments": n_adapter * 8,
        "activations": layers,
        "logits": logits,
        "allocator": int(SHARE_OF_ALLOCATOR * (layers + logits)) if device == "cpu" else 0,
    }


@dataclass(frozen=True)
class Largest:
    """The most that any packed row asks for."""

    tokens: int
    squares: int
    """Sum of the squared lengths of a row's samples: what attention keeps for each head."""
    answers: int

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Largest:
        """Over these rows."""
        return cls(
            max(row.n_tokens for row in rows),
            max(sum(n * n for n in row.lengths) for row in rows),
            max(row.n_answer_tokens for row in rows),
        )


def n_matmul_parameters(model_config: Any) -> int:
    """Weights that every token is multiplied with: all but embedding and head."""
    shape = _shape(model_config)
    attention = 2 * shape["H"] * shape["Q"] + 2 * shape["H"] * shape["KV"]
    return int(shape["L"] * (attention + 3 * shape["H"] * shape["F"]))


def n_adapter_parameters(model_config: Any, section: AdapterSection) -> int:
    """Trainable weights: r * (in + out) for each target."""
    shape = _shape(model_config)
    return int(shape["L"] * section.r * sum(a + b for a, b in _targets(shape, section).values()))


def _targets(shape: dict[str, int], section: AdapterSection) -> dict[str, tuple[int, int]]:
    sizes = {
        "q_proj": (shape["H"], shape["Q"]),
        "k_proj": (shape["H"], shape["KV"]),
        "v_proj": (shape["H"], shape["KV"]),
        "o_proj": (shape["Q"], shape["H"]),
        "gate_proj": (shape["H"], shape["F"]),
        "up_proj": (shape["H"], shape["F"]),
        "down_proj": (shape["F"], shape["H"]),
    }
    return {name: sizes[name] for name in section.target_modules}


def _shape(model_config: Any) -> dict[str, int]:
    head = getattr(model_config, "head_dim", None) or (
        model_config.hidden_size // model_config.num_attention_heads
    )
    return {
        "H": model_config.hidden_size,
        "Q": model_config.num_attention_heads * head,
        "KV": model_config.num_key_value_heads * head,
        "F": model_config.intermediate_size,
        "L": model_config.num_hidden_layers,
        "heads": model_config.num_attention_heads,
        "V": model_config.vocab_size,
        "tied": int(model_config.tie_word_embeddings),
    }


def free_bytes(device: str) -> int:
    """Free memory of the device, or what this machine could still give."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def reset_peak(device: str) -> None:
    """Start measuring the peak anew."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # Source: proc(5): resets VmHWM


def peak_bytes(device: str) -> int:
    """Highest memory since `reset_peak`: allocated tensors on CUDA, resident memory on a CPU."""
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def return_memory(device: str) -> None:
    """Give freed memory back to the system: rows of many lengths leave holes that would grow for hours."""
    if device != "cpu":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)


def resident_bytes() -> int:
    """Resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_flops(device: str, dtype: torch.dtype) -> float:
    """Matmul peak: the data sheet's on a known GPU, else the best of a few products on this device."""
    if device == "cuda":
        name = torch.cuda.get_device_name()
        known = [peak for part, peak in PEAK_FLOPS.items() if part in name]
        if known and dtype == torch.bfloat16:
            return known[0]
    size = 4096 if device == "cuda" else 1024
    left = torch.randn(size, size, device=device, dtype=dtype)
    best = 0.0
    for _ in range(5):
        started = time.perf_counter()
        product = left @ left
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * size**3 / (time.perf_counter() - started))
        del product
    return best


def environment() -> dict[str, str]:
    """What the run was made on and with."""
    packages = ("torch", "transformers", "peft", "gguf", "safetensors", "numpy")
    return {
        "python": platform.python_version(),
        "processor": torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_model(),
        "threads": str(torch.get_num_threads()),
    } | {name: importlib.metadata.version(name) for name in packages}
