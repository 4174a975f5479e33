"""From logits to a token, in numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]
NEGLIGIBLE = 30.0
"""A token this far below the best has less than 1e-13 of its probability."""


def make_sampler(
    temperature: float, seed: int, top_p: float = 1.0, min_p: float = 0.0
) -> Callable[[Logits], int]:
    """A function from logits (n_vocab,) to a token; greedy at temperature 0, else seeded sampling.

    `min_p`, then `top_p`, cut the tail of the untempered distribution, as libllama's own samplers do.
    """
    if temperature <= 0.0:
        return lambda logits: int(logits.argmax())
    generator = np.random.default_rng(seed)

    def sample(logits: Logits) -> int:
        tokens = np.flatnonzero(logits >= logits.max() - _reach(min_p, temperature))
        kept = logits[tokens].astype(np.float64)
        if top_p < 1.0:
            tokens, kept = _nucleus(tokens, kept, top_p)
        # Gumbel-max: the argmax of logits plus Gumbel noise is a draw from their softmax.
        return int(tokens[(kept / temperature + generator.gumbel(size=len(kept))).argmax()])

    return sample


def _reach(min_p: float, temperature: float) -> float:
    """How far below the best logit a token may lie."""
    return float(-np.log(min_p)) if min_p > 0.0 else NEGLIGIBLE * max(1.0, temperature)


def _nucleus(
    tokens: NDArray[np.intp], logits: NDArray[np.float64], top_p: float
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The most probable tokens that together reach `top_p`, at least one."""
    order = np.argsort(-logits, kind="stable")
    cumulated = np.cumsum(np.exp(logits[order] - logits[order[0]]))
    count = int(np.searchsorted(cumulated, top_p * cumulated[-1])) + 1
    return tokens[order[:count]], logits[order[:count]]


def logprobs(
    logits: Logits, mask: NDArray[np.bool_] | None, token: int, count: int
) -> tuple[float, list[tuple[int, float]]]:
    """Log probability of `token` and the `count` best (token, logprob), among the tokens of `mask`."""
    tokens = np.flatnonzero(mask) if mask is not None else np.arange(len(logits))
    values = logits[tokens].astype(np.float64)
    values -= values.max()
    values -= np.log(np.exp(values).sum())
    best = np.argpartition(-values, min(count, len(values)) - 1)[:count]
    best = best[np.argsort(-values[best], kind="stable")]
    own = float(values[np.searchsorted(tokens, token)])
    return own, [(int(tokens[one]), float(values[one])) for one in best]
