"""A slot: what one sequence of a context holds, and the generation it works on.

Invariant: `tokens[:n]` always equals what the slot's KV cache holds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from whis_box.engine.generation import Generation


class Slot:
    """One sequence of the context; keeps its prompt after the end, for the next one to share."""

    def __init__(self, index: int, n_ctx: int) -> None:
        self.index = index
        self.tokens: NDArray[np.int32] = np.zeros(n_ctx, dtype=np.int32)
        self.n = 0
        self.generation: Generation | None = None

    @property
    def held(self) -> NDArray[np.int32]:
        """Tokens in the KV cache."""
        return self.tokens[: self.n]

    @property
    def prompt_left(self) -> int:
        """Prompt tokens still to decode."""
        return len(self.generation.prompt) - self.n if self.generation and not self.generation.output else 0

    def append(self, tokens: NDArray[np.int32] | list[int]) -> None:
        """Note that these tokens were decoded."""
        self.tokens[self.n : self.n + len(tokens)] = tokens
        self.n += len(tokens)
