"""Documents that say the same: equal comparable text, or MinHash similarity above a threshold.

Source: Broder 1997 (MinHash); datasketch's LSH over it.
"""

from __future__ import annotations

import hashlib
import re

import numpy as np
from datasketch import MinHash, MinHashLSH

N_PERMUTATIONS = 64
SHINGLE_WORDS = 5
MIN_WORDS = 40  # below, a shared sentence makes two texts look alike
NEAR = 0.9
SCHEME = MinHash(num_perm=N_PERMUTATIONS, seed=1).scheme  # signatures of two schemes do not compare
_WORD = re.compile(r"\w+")


def comparable_sha256(text: str) -> str:
    """Hash of the words alone: case, spacing and punctuation do not make another text."""
    return hashlib.sha256(" ".join(_WORD.findall(text.casefold())).encode()).hexdigest()


def signature(text: str) -> bytes:
    """The MinHash of the text's word shingles as bytes; empty for a text too short to compare."""
    words = _WORD.findall(text.casefold())
    if len(words) < MIN_WORDS:
        return b""
    shingles = {
        " ".join(words[at : at + SHINGLE_WORDS]).encode() for at in range(len(words) - SHINGLE_WORDS + 1)
    }
    sketch = MinHash(num_perm=N_PERMUTATIONS, seed=1, scheme=SCHEME)
    sketch.update_batch(sorted(shingles))
    return bytes(sketch.hashvalues.astype("<u8").tobytes())


class NearDuplicates:
    """The signatures of accepted records, searchable for one that is nearly the same."""

    def __init__(self) -> None:
        self._index = MinHashLSH(threshold=NEAR, num_perm=N_PERMUTATIONS)
        self._sketches: dict[str, MinHash] = {}

    def add(self, record_id: str, value: bytes) -> None:
        """Remember one record; an id that is already there is replaced."""
        if not value:
            return
        self.discard(record_id)
        sketch = _sketch(value)
        self._index.insert(record_id, sketch)
        self._sketches[record_id] = sketch

    def discard(self, record_id: str) -> None:
        """Forget one record."""
        if self._sketches.pop(record_id, None) is not None:
            self._index.remove(record_id)

    def nearest(self, value: bytes, own_id: str) -> tuple[str, float] | None:
        """(id, estimated Jaccard similarity) of the nearest other record at or above the threshold."""
        if not value:
            return None
        sketch = _sketch(value)
        near = [
            (self._sketches[one].jaccard(sketch), one) for one in self._index.query(sketch) if one != own_id
        ]
        best = max(near, default=None)
        return (best[1], float(best[0])) if best is not None and best[0] >= NEAR else None


def _sketch(value: bytes) -> MinHash:
    values = np.frombuffer(value, dtype="<u8").astype(np.uint64)
    return MinHash(num_perm=N_PERMUTATIONS, seed=1, hashvalues=values, scheme=SCHEME)
