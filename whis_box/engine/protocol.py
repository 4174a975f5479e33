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
Priority = Literal["interactive", "normal", "background"]
KvType = Literal["f16", "q8_0"]
Segments = tuple[tuple[str, bool], ...]
"""(text, trusted) pieces of a prompt; special tokens count only in trusted ones."""


@dataclass(frozen=True)
class LaneSpec:
    """One context over the shared weights: the base, or the base with one adapter."""

    name: str
    adapter_path: str = ""
    adapter_scale: float = 1.0
    weight: int = 8
    """Share of the engine's time beside other busy lanes; 0 (a shadow) runs only when nothing else waits."""
    n_slots: int = 0
    """Requests decoded together in this lane; 0 takes the engine's."""
    adapter_sha256: str = ""
    """Names the adapter in the prefix cache; computed from the file when empty."""


@dataclass(frozen=True)
class EngineSpec:
    """Everything the child needs to load; sizes in tokens."""

    model_path: str
    backend_path: str
    n_threads: int
    n_ctx: int = 2048
    """Longest prompt and answer of one request."""
    n_batch: int = 256
    flash_attention: bool = True
    lanes: tuple[LaneSpec, ...] = (LaneSpec("base"),)
    n_slots: int = 4
    """Requests decoded together in a lane; each slot has a KV cache of `n_ctx` tokens."""
    kv_type: KvType = "f16"
    pinned: tuple[Segments, ...] = ()
    """Prompt beginnings that most requests share; their KV state is never evicted."""
    prefix_bytes: int = 64 * 1024 * 1024
    """RAM for the KV states of shared prompt beginnings."""
    max_waiting: int = 256
    """Requests that may wait for a slot; one more is refused as busy."""
    n_draft: int = 0
    """Tokens guessed ahead by prompt lookup; 0 turns it off."""
    memory_limit_bytes: int = 0
    """Address space of the child (RLIMIT_AS); 0 sets no limit."""
    base_sha256: str = ""
    """What the base's file must hash to when it is loaded, and its name in the prefix cache; empty: any."""
    gpu_path: str = ""
    """A GPU backend library; layers are offloaded to it when it loads."""


@dataclass(frozen=True)
class GenerateRequest:
    """One completion; `prompt` holds (text, trusted) segments, special tokens count only in trusted ones."""

    prompt: Segments
    grammar: str = ""
    """llguidance Lark grammar the output must match; empty for free text."""
    lane: str = "base"
    max_tokens: int = 128
    temperature: float = 0.0
    """0 is greedy."""
    seed: int = 0
    deadline_s: float = 30.0
    """Seconds from arrival to the end, waiting included."""
    top_p: float = 1.0
    min_p: float = 0.0
    """Tokens less probable than this share of the best one are never drawn."""
    logprobs: int = 0
    """Alternatives reported per token; 0 reports nothing and costs nothing."""
    priority: Priority = "normal"


@dataclass(frozen=True)
class TokenLogprob:
    """How sure the model was of one token, among the tokens the grammar allowed there.

    A token that the grammar forced has a logprob of 0 and no alternatives.
    """

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()
    """The best alternatives, the token itself included, best first."""


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
    lane: str = "base"
    queue_ms: float = 0.0
    """Of `ttft_ms`, the time before the first prompt token was worked on."""
    logprobs: tuple[TokenLogprob, ...] = ()
    drafted_tokens: int = 0
    """Guesses of the prompt lookup; `accepted_tokens` of them were right."""
    accepted_tokens: int = 0


@dataclass(frozen=True)
class EngineState:
    """What the child did and holds, as of its last heartbeat."""

    waiting: int = 0
    active: int = 0
    queue_s: float = 0.0
    """Estimated time to work off everything accepted so far."""
    prompt_tokens_per_s: float = 0.0
    completion_tokens_per_s: float = 0.0
    prefix_bytes: int = 0
    resident_bytes: int = 0
    lanes: dict[str, dict[str, int]] = field(default_factory=dict)
    """Per lane: waiting, active, done, prompt_tokens, cached_tokens, completion_tokens."""


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
    n_slots: int = 1
    kv_type: str = "f16"
    device: str = "cpu"
    notes: list[str] = field(default_factory=list)
    """What differs from what was asked, such as a GPU that could not be used."""


def completion_from(fields: dict[str, Any]) -> Completion:
    """A Completion from its frame."""
    logprobs = tuple(
        TokenLogprob(one["text"], one["logprob"], tuple((text, value) for text, value in one["top"]))
        for one in fields.pop("logprobs", ())
    )
    return Completion(**fields, logprobs=logprobs)


def request_from(fields: dict[str, Any]) -> GenerateRequest:
    """A GenerateRequest from its frame."""
    prompt = tuple((text, trusted) for text, trusted in fields.pop("prompt"))
    return GenerateRequest(prompt, **fields)


def spec_from(fields: dict[str, Any]) -> EngineSpec:
    """An EngineSpec from its frame."""
    lanes = tuple(LaneSpec(**lane) for lane in fields.pop("lanes"))
    pinned = tuple(tuple((text, trusted) for text, trusted in one) for one in fields.pop("pinned"))
    return EngineSpec(**fields, lanes=lanes, pinned=pinned)


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
