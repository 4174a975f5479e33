"""From logits to a token, in numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


def make_sampler(temperature: float, seed: int) -> Callable[[NDArray[np.float32]], int]:
    """A function from logits (n_vocab,) to a token; greedy at temperature 0, else seeded sampling."""
    if temperature <= 0.0:
        return lambda logits: int(logits.argmax())
    generator = np.random.default_rng(seed)

    def sample(logits: NDArray[np.float32]) -> int:
        # Gumbel-max: the argmax of logits plus Gumbel noise is a draw from their softmax.
        noise = generator.gumbel(size=logits.shape)
        return int((logits / temperature + noise).argmax())

    return sample
