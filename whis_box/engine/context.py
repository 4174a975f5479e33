"""One llama context: rows in, logits out, and the KV cache of each of its slots.

Invariant: a slot is one sequence with a stream of its own, so attention never walks over another slot's
cells; measured against one shared pool in `tests/bench/engine_kv_layout.py`.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whis_box.engine.model import Model
from whis_box.engine.protocol import EngineSpec, LaneSpec
from whis_box.errors import EngineError, NotReadyError

GGML_TYPES = {"f16": 1, "q8_0": 8}  # Source: ggml.h, enum ggml_type
CONTEXT_STEP = 256  # libllama rounds a context up to a multiple of this


class Context:
    """A `llama_context` with at most one adapter, set once. One thread may use it."""

    def __init__(self, model: Model, engine: EngineSpec, lane: LaneSpec) -> None:
        """Allocate the caches.

        Raises: NotReadyError when memory does not suffice; VerificationError for an unusable adapter.
        """
        self.n_slots = lane.n_slots or engine.n_slots
        self.n_ctx = engine.n_ctx
        self.n_vocab = model.n_vocab
        self.batch = Batch(model.binding, engine.n_batch)
        self._binding = model.binding
        adapter = (
            model.load_adapter(Path(lane.adapter_path), engine.base_sha256) if lane.adapter_path else None
        )
        self._context = self._create(model, engine)
        self._memory = self._binding.llama_get_memory(self._context)
        self._logits_views: dict[int, NDArray[np.float32]] = {}
        if adapter is not None:
            self._apply(adapter, lane)

    def _create(self, model: Model, engine: EngineSpec) -> Any:
        binding = model.binding
        params = binding.llama_context_default_params()
        n_ctx = -(-engine.n_ctx // CONTEXT_STEP) * CONTEXT_STEP
        params.n_ctx = n_ctx * self.n_slots
        params.n_batch = params.n_ubatch = engine.n_batch
        params.n_seq_max = self.n_slots
        params.kv_unified = False
        # Without it libllama reserves logits for every row of a batch: 50 MB for a vocabulary of 49,152.
        params.n_outputs_max = min(engine.n_batch, self.n_slots * (1 + engine.n_draft))
        params.n_threads = params.n_threads_batch = engine.n_threads
        enabled, disabled = (
            binding.LLAMA_FLASH_ATTN_TYPE_ENABLED,
            binding.LLAMA_FLASH_ATTN_TYPE_DISABLED,
        )
        params.flash_attn_type = enabled if engine.flash_attention else disabled
        params.type_k = params.type_v = GGML_TYPES[engine.kv_type]
        params.offload_kqv = model.on_gpu
        params.no_perf = True
        context = binding.llama_init_from_model(model.pointer, params)
        if not context:
            raise NotReadyError(
                f"{self.n_slots} slots of {n_ctx} tokens ({engine.kv_type}) cannot be allocated; lower "
                "engine.n_ctx or engine.n_slots in configs/model.whis.yaml, or free memory"
            )
        return context

    def _apply(self, adapter: Any, lane: LaneSpec) -> None:
        adapters = (self._binding.llama_adapter_lora_p_ctypes * 1)(adapter)
        scales = (ctypes.c_float * 1)(lane.adapter_scale)
        if self._binding.llama_set_adapters_lora(self._context, adapters, 1, scales) != 0:
            raise EngineError(
                f"{lane.adapter_path}: libllama could not apply the adapter to lane {lane.name}"
            )

    def decode(self) -> None:
        """Run the batch's rows; their logits are valid until the next call.

        Raises: EngineError, after which every slot's cache must be cleared.
        """
        status = self._binding.llama_decode(self._context, self.batch.struct)
        if status != 0:
            raise EngineError(f"llama_decode returned {status} for {self.batch.n_rows} rows")

    def logits(self, row: int) -> NDArray[np.float32]:
        """Logits after `row`, a view (n_vocab,) on libllama's own buffer."""
        pointer = self._binding.llama_get_logits_ith(self._context, row)
        address = ctypes.addressof(pointer.contents)
        view = self._logits_views.get(address)
        if view is None:  # making a view costs more than reading it
            view = self._logits_views[address] = np.ctypeslib.as_array(pointer, (self.n_vocab,))
        return view

    def truncate(self, slot: int, n_tokens: int) -> None:
        """Forget what a slot holds from position `n_tokens` on."""
        if not self._binding.llama_memory_seq_rm(self._memory, slot, n_tokens, -1):
            raise EngineError(f"slot {slot} cannot be cut at {n_tokens}: this architecture is not supported")

    def clear(self) -> None:
        """Forget everything in every slot."""
        self._binding.llama_memory_clear(self._memory, True)

    def export(self, slot: int) -> NDArray[np.uint8]:
        """A slot's KV state, to be restored into any slot of this context."""
        size = self._binding.llama_state_seq_get_size(self._context, slot)
        state = np.empty(size, dtype=np.uint8)
        pointer = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        if self._binding.llama_state_seq_get_data(self._context, pointer, size, slot) != size:
            raise EngineError(f"the state of slot {slot} ({size} bytes) could not be read")
        return state

    def restore(self, slot: int, state: NDArray[np.uint8]) -> None:
        """Replace a slot's cache by a state that `export` gave."""
        pointer = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        if not self._binding.llama_state_seq_set_data(self._context, pointer, state.size, slot):
            raise EngineError(f"a state of {state.size} bytes could not be restored into slot {slot}")

    def close(self) -> None:
        """Free the context."""
        self._binding.llama_free(self._context)


class Batch:
    """A `llama_batch` over numpy arrays, so that a row costs no ctypes call."""

    def __init__(self, binding: Any, capacity: int) -> None:
        self.capacity = capacity
        self.n_rows = 0
        self._token = np.zeros(capacity, dtype=np.int32)
        self._position = np.zeros(capacity, dtype=np.int32)
        self._slot = np.zeros(capacity, dtype=np.int32)
        self._n_slots = np.ones(capacity, dtype=np.int32)
        self._wants_logits = np.zeros(capacity, dtype=np.int8)
        first = self._slot.ctypes.data
        self._slot_pointers = np.arange(first, first + 4 * capacity, 4, dtype=np.uintp)
        self.struct = binding.llama_batch()
        for name, array in (
            ("token", self._token),
            ("pos", self._position),
            ("n_seq_id", self._n_slots),
            ("seq_id", self._slot_pointers),
            ("logits", self._wants_logits),
        ):
            kind = type(getattr(self.struct, name))
            setattr(self.struct, name, ctypes.cast(array.ctypes.data, kind))

    @property
    def room(self) -> int:
        """Rows that can still be added."""
        return self.capacity - self.n_rows

    def reset(self) -> None:
        """Start an empty batch."""
        self.n_rows = self.struct.n_tokens = 0

    def add(self, slot: int, tokens: NDArray[np.int32] | list[int], position: int, n_logits: int) -> int:
        """Append `tokens` of one slot from `position` on; the last `n_logits` rows give logits.

        Returns the first of those rows.
        """
        start, end = self.n_rows, self.n_rows + len(tokens)
        self._token[start:end] = tokens
        self._position[start:end] = np.arange(position, position + len(tokens))
        self._slot[start:end] = slot
        self._wants_logits[start:end] = 0
        self._wants_logits[end - n_logits : end] = 1
        self.n_rows = self.struct.n_tokens = end
        return end - n_logits
