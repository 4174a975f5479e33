"""A lane: one llama context, with at most one adapter, over the shared weights.

Invariant: `_cached` always equals the tokens in this lane's KV cache, and no other lane ever sees them, so
a prefix is reused only under the adapter that computed it (llama.cpp issue 26207 is what happens
otherwise).
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whis_box.engine.grammar import Constraint
from whis_box.engine.model import Model
from whis_box.engine.protocol import EngineSpec, FinishReason, LaneSpec
from whis_box.errors import EngineError, InputError

SEQUENCE = 0


@dataclass
class GenerationStats:
    """Filled while a generation runs."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    ttft_ms: float = 0.0
    finish_reason: FinishReason = "stop"


class Lane:
    """One context. Serves one generation at a time; owned by the engine's single thread."""

    def __init__(self, model: Model, engine: EngineSpec, spec: LaneSpec) -> None:
        self.name = spec.name
        self.n_ctx = engine.n_ctx
        self._model, self._binding, self._n_batch = model, model.binding, engine.n_batch
        self._context = _new_context(model, engine)
        self._memory = self._binding.llama_get_memory(self._context)
        self._batch = _Batch(self._binding, engine.n_batch)
        self._cached: list[int] = []
        self._logits_views: dict[int, NDArray[np.float32]] = {}
        if spec.adapter_path:
            self._apply_adapter(Path(spec.adapter_path), spec.adapter_scale)

    def generate(
        self,
        prompt: list[int],
        constraint: Constraint | None,
        max_tokens: int,
        pick: Callable[[NDArray[np.float32]], int],
        checkpoint: Callable[[], None],
        stats: GenerationStats,
    ) -> Iterator[int]:
        """Yield the completion's tokens as they are decided.

        `pick` maps logits (n_vocab,) to a token; `checkpoint` is called between decodes and raises to stop.

        Raises: InputError when the prompt does not fit the context; EngineError; whatever `checkpoint`
        raises.
        """
        started = time.perf_counter()
        self._check_fits(prompt, max_tokens)
        stats.prompt_tokens = len(prompt)
        stats.cached_tokens = self._reuse_prefix(prompt)
        stats.finish_reason = "length"
        logits = self._prefill(prompt, checkpoint)
        stats.ttft_ms = (time.perf_counter() - started) * 1000
        while stats.completion_tokens < max_tokens:
            token = _choose(logits, constraint, pick)
            if self._model.is_end(token):
                stats.finish_reason = "stop"
                return
            forced = constraint.accept(token) if constraint else []
            accepted = [token, *forced][: max_tokens - stats.completion_tokens]
            stats.completion_tokens += len(accepted)
            yield from accepted
            if constraint and constraint.finished:
                stats.finish_reason = "stop"
                return
            checkpoint()
            if stats.completion_tokens < max_tokens:
                logits = self._decode(accepted)

    def _check_fits(self, prompt: list[int], max_tokens: int) -> None:
        if not prompt:
            raise InputError("the prompt is empty")
        if len(prompt) + max_tokens > self.n_ctx:
            raise InputError(
                f"the prompt has {len(prompt)} tokens and the answer up to {max_tokens}, more than "
                f"the context of {self.n_ctx}; shorten it or raise engine.n_ctx in configs/model.whis.yaml"
            )

    def _reuse_prefix(self, prompt: list[int]) -> int:
        """Keep the longest common prefix in the KV cache; at least one token is always decoded again."""
        common = 0
        for ours, theirs in zip(self._cached, prompt[:-1], strict=False):
            if ours != theirs:
                break
            common += 1
        if not self._binding.llama_memory_seq_rm(self._memory, SEQUENCE, common, -1):
            self._binding.llama_memory_clear(self._memory, True)
            common = 0
        del self._cached[common:]
        return common

    def _prefill(self, prompt: list[int], checkpoint: Callable[[], None]) -> NDArray[np.float32]:
        rest = prompt[len(self._cached) :]
        logits = None
        for at in range(0, len(rest), self._n_batch):
            checkpoint()
            logits = self._decode(rest[at : at + self._n_batch])
        if logits is None:
            raise EngineError("nothing was left to decode; this is a defect in prefix reuse")
        return logits

    def _decode(self, tokens: list[int]) -> NDArray[np.float32]:
        """Run `tokens` through the model; logits of the last, shape (n_vocab,), valid until the next call."""
        self._batch.fill(tokens, first_position=len(self._cached))
        status = self._binding.llama_decode(self._context, self._batch.struct)
        if status != 0:
            self._binding.llama_memory_clear(self._memory, True)
            self._cached.clear()
            raise EngineError(
                f"llama_decode returned {status} for {len(tokens)} tokens; the request was dropped"
            )
        self._cached.extend(tokens)
        pointer = self._binding.llama_get_logits_ith(self._context, len(tokens) - 1)
        return self._logits_view(pointer)

    def _logits_view(self, pointer: Any) -> NDArray[np.float32]:
        """A view on libllama's own buffer, made once per address: making one costs more than reading it."""
        address = ctypes.addressof(pointer.contents)
        view = self._logits_views.get(address)
        if view is None:
            view = self._logits_views[address] = np.ctypeslib.as_array(pointer, (self._model.n_vocab,))
        return view

    def _apply_adapter(self, path: Path, scale: float) -> None:
        adapters = (self._binding.llama_adapter_lora_p_ctypes * 1)(self._model.load_adapter(path))
        scales = (ctypes.c_float * 1)(scale)
        if self._binding.llama_set_adapters_lora(self._context, adapters, 1, scales) != 0:
            raise EngineError(f"{path}: libllama could not apply the adapter to lane {self.name}")

    def close(self) -> None:
        """Free the context and the batch."""
        self._batch.close()
        self._binding.llama_free(self._context)


def _choose(
    logits: NDArray[np.float32], constraint: Constraint | None, pick: Callable[[NDArray[np.float32]], int]
) -> int:
    """Pick freely first; the full mask costs a pass over the vocabulary, so it is made only on rejection."""
    token = pick(logits)
    if constraint is None or constraint.allows(token):
        return token
    return pick(np.where(constraint.mask(), logits, -np.inf))


def _new_context(model: Model, engine: EngineSpec) -> Any:
    binding = model.binding
    params = binding.llama_context_default_params()
    params.n_ctx = engine.n_ctx
    params.n_batch = params.n_ubatch = engine.n_batch
    params.n_seq_max = 1
    params.n_threads = params.n_threads_batch = engine.n_threads
    params.flash_attn_type = (
        binding.LLAMA_FLASH_ATTN_TYPE_ENABLED
        if engine.flash_attention
        else binding.LLAMA_FLASH_ATTN_TYPE_DISABLED
    )
    params.no_perf = True
    context = binding.llama_init_from_model(model.pointer, params)
    if not context:
        raise EngineError(
            f"a context of {engine.n_ctx} tokens cannot be made; lower engine.n_ctx or free memory"
        )
    return context


class _Batch:
    """A llama_batch whose arrays are filled through numpy views instead of one ctypes call per item."""

    def __init__(self, binding: Any, capacity: int) -> None:
        self._binding = binding
        self.struct = binding.llama_batch_init(capacity, 0, 1)
        self._token = np.ctypeslib.as_array(self.struct.token, (capacity,))
        self._position = np.ctypeslib.as_array(self.struct.pos, (capacity,))
        self._wants_logits = np.ctypeslib.as_array(self.struct.logits, (capacity,))
        np.ctypeslib.as_array(self.struct.n_seq_id, (capacity,))[:] = 1
        for row in range(capacity):
            self.struct.seq_id[row][0] = SEQUENCE

    def fill(self, tokens: list[int], first_position: int) -> None:
        count = len(tokens)
        self.struct.n_tokens = count
        self._token[:count] = tokens
        self._position[:count] = np.arange(first_position, first_position + count)
        self._wants_logits[:count] = 0
        self._wants_logits[count - 1] = 1

    def close(self) -> None:
        self._binding.llama_batch_free(self.struct)
