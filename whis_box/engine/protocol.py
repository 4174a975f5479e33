"""What the supervisor and the engine's child say to each other: length-prefixed JSON frames.

Invariant: a frame is at most MAX_FRAME_BYTES; an end of file between frames is a clean end, inside one it
is not.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal

MAX_FRAME_BYTES = 16 * 1024 * 1024
_LENGTH = struct.Struct(">I")

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class LaneSpec:
    """One context over the shared weights: the base, or the base with one adapter."""

    name: str
    adapter_path: str = ""
    adapter_scale: float = 1.0


@dataclass(frozen=True)
class EngineSpec:
    """Everything the child needs to load; sizes in tokens."""

    model_path: str
    backend_path: str
    n_threads: int
    n_ctx: int = 2048
    n_batch: int = 256
    flash_attention: bool = True
    lanes: tuple[LaneSpec, ...] = (LaneSpec("base"),)


@dataclass(frozen=True)
class GenerateRequest:
    """One completion; `prompt` holds (text, trusted) segments, special tokens count only in trusted ones."""

    prompt: tuple[tuple[str, bool], ...]
    grammar: str = ""
    """llguidance Lark grammar the output must match; empty for free text."""
    lane: str = "base"
    max_tokens: int = 128
    temperature: float = 0.0
    """0 is greedy."""
    seed: int = 0
    deadline_s: float = 30.0


@dataclass(frozen=True)
class Completion:
    """A finished generation; times in milliseconds from the moment the child took the request."""

    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    ttft_ms: float
    total_ms: float


@dataclass(frozen=True)
class EngineInfo:
    """What the child loaded."""

    architecture: str
    n_ctx: int
    n_ctx_train: int
    n_vocab: int
    n_threads: int
    backend: str
    load_ms: float
    lanes: list[str] = field(default_factory=list)


def write_frame(stream: BinaryIO, message: dict[str, Any]) -> None:
    """Send one message."""
    body = json.dumps(message, ensure_ascii=False).encode("utf-8", "surrogatepass")
    if len(body) > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {len(body)} bytes is larger than {MAX_FRAME_BYTES}")
    stream.write(_LENGTH.pack(len(body)) + body)
    stream.flush()


def read_frame(stream: BinaryIO) -> dict[str, Any] | None:
    """Receive one message; None at a clean end of the stream.

    Raises: EOFError when the stream ends inside a frame; ValueError when a frame is too large or not JSON.
    """
    head = stream.read(_LENGTH.size)
    if not head:
        return None
    if len(head) < _LENGTH.size:
        raise EOFError("the stream ended inside a frame")
    (length,) = _LENGTH.unpack(head)
    if length > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {length} bytes is larger than {MAX_FRAME_BYTES}")
    body = stream.read(length)
    if len(body) < length:
        raise EOFError("the stream ended inside a frame")
    message = json.loads(body.decode("utf-8", "surrogatepass"))
    if not isinstance(message, dict):
        raise ValueError("a frame must hold a JSON object")
    return message
