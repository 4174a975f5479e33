"""Small random LoRA adapters as GGUF files, written by hand so that the tests need no converter."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

ALIGNMENT = 32
N_EMBD, N_LAYERS, R = 576, 30, 4  # of SmolLM2-135M


def write_adapter(
    path: Path,
    seed: int,
    strength: float = 8.0,
    architecture: str = "llama",
    n_embd: int = N_EMBD,
    base: str = "",
) -> Path:
    """An adapter on every attention output projection; `strength` is about the size of its effect."""
    rng = np.random.default_rng(seed)
    tensors = []
    for layer in range(N_LAYERS):
        for part, shape in (("a", (R, n_embd)), ("b", (n_embd, R))):
            values = rng.standard_normal(shape).astype(np.float32) * strength / n_embd**0.5
            tensors.append((f"blk.{layer}.attn_output.weight.lora_{part}", values))
    keys = [
        _text("general.architecture") + struct.pack("<I", 8) + _text(architecture),
        _text("general.type") + struct.pack("<I", 8) + _text("adapter"),
        _text("adapter.type") + struct.pack("<I", 8) + _text("lora"),
        _text("adapter.lora.alpha") + struct.pack("<If", 6, float(4 * R)),
    ]
    if base:
        keys.append(_text("whis.base_sha256") + struct.pack("<I", 8) + _text(base))
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(keys)
    infos, data = b"", b""
    for name, values in tensors:
        infos += _text(name) + struct.pack("<IQQIQ", 2, *reversed(values.shape), 0, len(data))
        data += values.tobytes() + b"\0" * (-values.nbytes % ALIGNMENT)
    path.write_bytes(head + infos + b"\0" * (-len(head + infos) % ALIGNMENT) + data)
    return path


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()
