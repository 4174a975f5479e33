"""Prompt lookup: guess the next tokens from an earlier place with the same last tokens.

Source: A. Saxena, "Prompt Lookup Decoding", 2023. Whether it pays is measured in
`tests/bench/engine_speculation.py`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAX_NGRAM = 4
MIN_NGRAM = 2


def lookup(tokens: NDArray[np.int32], n_draft: int) -> list[int]:
    """Up to `n_draft` tokens that followed the latest earlier occurrence of the longest final n-gram."""
    for n in range(min(MAX_NGRAM, len(tokens) - 1), MIN_NGRAM - 1, -1):
        windows = np.lib.stride_tricks.sliding_window_view(tokens[:-1], n)
        hits = np.flatnonzero((windows == tokens[-n:]).all(axis=1))
        if hits.size:
            start = int(hits[-1]) + n
            return [int(token) for token in tokens[start : start + n_draft]]
    return []
