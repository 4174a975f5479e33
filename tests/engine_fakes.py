"""A context without a model: its logits are a function of every token the slot holds, and of the adapter."""

from __future__ import annotations

import zlib
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whis_box.engine.generation import Generation
from whis_box.engine.lane import Lane
from whis_box.engine.prefix_tree import CacheKey, PrefixTree
from whis_box.engine.protocol import GenerateRequest
from whis_box.errors import EngineError

N_VOCAB = 64
END = 0


class FakeBatch:
    """Rows as tuples; the interface of `whis_box.engine.context.Batch`."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.rows = capacity, []
        self.rows: list[tuple[int, int, int, bool]]

    @property
    def room(self) -> int:
        return self.capacity - len(self.rows)

    @property
    def n_rows(self) -> int:
        return len(self.rows)

    def reset(self) -> None:
        self.rows = []

    def add(self, slot: int, tokens: Any, position: int, n_logits: int) -> int:
        assert len(self.rows) + len(tokens) <= self.capacity
        for offset, token in enumerate(tokens):
            wants = offset >= len(tokens) - n_logits
            self.rows.append((slot, position + offset, int(token), wants))
        return len(self.rows) - n_logits


class FakeContext:
    """Stands in for `whis_box.engine.context.Context`; refuses what libllama would refuse."""

    def __init__(self, adapter: str, n_slots: int = 4, n_ctx: int = 256, n_batch: int = 32) -> None:
        self.adapter, self.n_slots, self.n_ctx, self.n_vocab = adapter, n_slots, n_ctx, N_VOCAB
        self.batch = FakeBatch(n_batch)
        self.cells: list[list[int]] = [[] for _ in range(n_slots)]
        self.fail_next = False
        self.n_decoded = 0
        self._logits: dict[int, NDArray[np.float32]] = {}

    def decode(self) -> None:
        self._logits = {}
        if self.fail_next:
            self.fail_next = False
            raise EngineError("llama_decode returned -3")
        for row, (slot, position, token, wants) in enumerate(self.batch.rows):
            assert position == len(self.cells[slot]), "a hole or an overlap in the cache"
            assert position < self.n_ctx
            self.cells[slot].append(token)
            self.n_decoded += 1
            if wants:
                self._logits[row] = logits_after(self.adapter, self.cells[slot])

    def logits(self, row: int) -> NDArray[np.float32]:
        return self._logits[row]

    def truncate(self, slot: int, n_tokens: int) -> None:
        del self.cells[slot][n_tokens:]

    def clear(self) -> None:
        self.cells = [[] for _ in self.cells]

    def export(self, slot: int) -> NDArray[np.uint8]:
        body = f"{self.adapter}|{','.join(map(str, self.cells[slot]))}"
        return np.frombuffer(body.encode(), dtype=np.uint8)

    def restore(self, slot: int, state: NDArray[np.uint8]) -> None:
        adapter, _, tokens = state.tobytes().decode().partition("|")
        assert adapter == self.adapter, f"a state of {adapter} in the lane of {self.adapter}"
        self.cells[slot] = [int(token) for token in tokens.split(",") if token]

    def close(self) -> None:
        return None


def logits_after(adapter: str, tokens: list[int]) -> NDArray[np.float32]:
    """Pseudo-random logits that change with any token and with the adapter."""
    seed = zlib.crc32(f"{adapter}:{tokens}".encode())
    return np.random.default_rng(seed).standard_normal(N_VOCAB).astype(np.float32)


MODEL: Any = SimpleNamespace(is_end=lambda token: token == END, piece=lambda token: bytes([48 + token % 64]))


def expected(adapter: str, prompt: list[int], max_tokens: int) -> list[int]:
    """What a cold, lonely greedy run writes."""
    tokens, output = list(prompt), []
    while len(output) < max_tokens:
        token = int(logits_after(adapter, tokens).argmax())
        if token == END:
            break
        output.append(token)
        tokens.append(token)
    return output


def make_lane(
    name: str = "base", weight: int = 8, n_draft: int = 0, **sizes: int
) -> tuple[Lane, FakeContext]:
    """A lane over a fake context, with a small prefix cache of its own."""
    context = FakeContext(name, **sizes)
    prefixes = PrefixTree(CacheKey("base", name, 1.0), max_tokens=2000, max_bytes=4000)
    any_context: Any = context
    return Lane(name, weight, any_context, prefixes, n_draft), context


def make_generation(
    request_id: str, prompt: list[int], now: float = 0.0, constraint: Any = None, **fields: Any
) -> Generation:
    """A generation over tokens, without a tokenizer."""
    request = GenerateRequest(((str(prompt), True),), **{"max_tokens": 8, "deadline_s": 1e6, **fields})
    return Generation(request_id, request, prompt, constraint, MODEL, now)
