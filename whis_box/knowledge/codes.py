"""Packed codes of an index's vectors: a coarse pass that keeps dense search fast in a large index.

The sign bits of every vector, turned at random around the mean, are scanned whole; the few thousand nearest
are scored by eight-bit copies; the caller scores the best of those exactly. Invariant: a file of codes names
the vectors it was made from by digest, and other codes are refused. Opening reads header and rotation; bits
are mapped; copies are mapped while they are few.
Source: random rotation before sign bits, Gong et al. 2013 (the RR baseline of ITQ); re-scoring, Yamada et al.
2021 (BPR).
"""

from __future__ import annotations

import json
import mmap
import os
import weakref
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whis_box.durable import Disk, remove_file, write_file
from whis_box.errors import ConfigError, NotReadyError, VerificationError, storage_error

EXACT_ROWS = 5_000
"""Up to so many vectors sqlite-vec scans the whole table in a few milliseconds, and no codes are made."""
BLOCK = 16_384
"""Vectors per block of bits: one column of a block fits the second-level cache."""
BITS_CANDIDATES, LARGE, LARGE_CANDIDATES = 5_000, 400_000, 9_000
"""Vectors that the scan of sign bits hands on, more of LARGE tables; docs/measurements.md has the recall."""
READ_CANDIDATES = 2_000
"""Of those, how many are scored by copies that must be read one by one."""
WORDS_AT_ONCE = 3
"""Words whose differing bits, at most 64 each, are summed in a byte."""
SAMPLE, SAMPLED_FROM = 8, 16_384
"""Every SAMPLE-th row tells where to cut, if at least so many are left."""
MAPPED_COPIES = 128 * 2**20
"""Eight-bit copies up to so many bytes are mapped; mapped pages count as memory, so larger ones are read."""
HEADER_BYTES = 4096
MAGIC = "whis-codes-1"
SUFFIX = ".codes"
# (8, 256): +1 where a byte's bit is set, the first dimension in the highest bit, as numpy.packbits puts it.
_SIGNS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).T.astype(np.float32) * 2 - 1
_REMEDY = "run `whis index build` or copy the box again"

Vectors = NDArray[np.float32]
Blocks = Callable[[], Iterator[Vectors]]


def codes_path(index: Path, table: str, vectors_sha256: str) -> Path:
    """Where the codes of these vectors lie. The digest is in the name, so that a kill between the renaming of
    codes and index leaves both pairs whole."""
    return index.with_name(f"{index.name}.{table}-{vectors_sha256[:12]}{SUFFIX}")


def beside(place: Path) -> Path:
    """Where this process writes a file of an index until it is complete; killed builds are swept by it."""
    return place.with_name(f".{place.name}.{os.getpid()}.building")


def write_codes(
    place: Path, blocks: Blocks, n: int, dim: int, vectors_sha256: str, disk: Disk | None = None
) -> None:
    """Write the codes of `n` unit vectors; `blocks()` gives them in order, BLOCK at a time, at each call.

    Raises: ConfigError if 64 does not divide `dim`; StorageError.
    """
    if dim % 64:
        raise ConfigError(f"{place}: vectors of {dim} dimensions cannot be coded; 64 must divide them")
    mean = sum((block.sum(axis=0, dtype=np.float64) for block in blocks()), np.zeros(dim)) / n
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(dim, dim)))[0]
    header = {"magic": MAGIC, "n": n, "dim": dim, "vectors_sha256": vectors_sha256}
    turn = _Turn(mean.astype(np.float32), rotation.astype(np.float32))
    head = (
        json.dumps(header).encode().ljust(HEADER_BYTES, b" ") + turn.mean.tobytes() + turn.rotation.tobytes()
    )
    write_file(disk or Disk(), place, chain([head], _coded(blocks, turn)), beside=beside(place))


def forget_others(index: Path, table: str, vectors_sha256: str, disk: Disk) -> None:
    """Delete the codes of earlier indexes, once the new index is in its place."""
    current = codes_path(index, table, vectors_sha256)
    for path in index.parent.glob(f"{index.name}.{table}-*{SUFFIX}"):
        if path != current:
            remove_file(disk, path)


class _Turn:
    """What is done to a vector before its signs are taken."""

    def __init__(self, mean: Vectors, rotation: Vectors) -> None:
        self.mean, self.rotation = mean, rotation

    def bits(self, vectors: Vectors) -> NDArray[np.uint64]:
        """(n, dim) float32 to (n, dim / 64): one bit a dimension, set where the turned value is positive."""
        return np.packbits((vectors - self.mean) @ self.rotation > 0, axis=1).view(np.uint64)


class Codes:
    """The codes of one table of vectors."""

    def __init__(self, place: Path, dim: int, n: int, vectors_sha256: str) -> None:
        """Open the file and compare its header with what the index says of its vectors.

        Raises: NotReadyError if it is missing; VerificationError if it belongs to other vectors or is cut.
        """
        self.n, self.dim, self._place, self._words = n, dim, place, dim // 64
        try:
            handle = os.open(place, os.O_RDONLY)
        except FileNotFoundError:
            raise NotReadyError(f"{place}: missing; {_REMEDY}") from None
        except OSError as cause:
            raise storage_error("read the codes", place, cause) from cause
        self._close = weakref.finalize(self, os.close, handle)  # also when it is merely forgotten
        self._handle = handle
        wanted = {"magic": MAGIC, "n": n, "dim": dim, "vectors_sha256": vectors_sha256}
        n_blocks = -(-n // BLOCK)
        self._bits_at = HEADER_BYTES + 4 * dim * (dim + 1)
        self._rows_at = self._bits_at + n_blocks * self._words * BLOCK * 8
        size = os.fstat(handle).st_size
        if _header(os.pread(handle, HEADER_BYTES, 0)) != wanted or size != self._rows_at + n * (dim + 4):
            self._close()
            raise VerificationError(f"{place}: not the codes of this index, or cut off; {_REMEDY}")
        values = np.frombuffer(os.pread(handle, 4 * dim * (dim + 1), HEADER_BYTES), dtype=np.float32)
        self._turn = _Turn(values[:dim], values[dim:].reshape(dim, dim))
        is_small = n * (dim + 4) <= MAPPED_COPIES
        self._map = mmap.mmap(handle, size if is_small else self._rows_at, access=mmap.ACCESS_READ)
        n_words = n_blocks * self._words * BLOCK
        self._bits = np.frombuffer(self._map, np.uint64, n_words, self._bits_at).reshape(
            n_blocks, self._words, BLOCK
        )
        self._copies: NDArray[np.uint8] | None = None
        if is_small:
            self._copies = np.frombuffer(self._map, np.uint8, offset=self._rows_at).reshape(n, dim + 4)

    def nearest(self, query: Vectors, k: int, allowed: NDArray[np.bool_] | None = None) -> list[int]:
        """About the `k` most similar row ids, which count from 1, to `query` (dim,), best first.

        `allowed` (n + 1,) says by row id which may be returned; None allows all.
        """
        wanted = LARGE_CANDIDATES if self.n >= LARGE else BITS_CANDIDATES
        rows = self._by_bits(query, max(wanted, k), allowed)
        if self._copies is None:
            rows = self._fewer(query, rows, max(READ_CANDIDATES, k))
        scores = self._by_copies(query, rows)
        order = np.lexsort((rows, -scores))[:k]
        return [int(row) + 1 for row in rows[order]]

    def verify(self, blocks: Blocks) -> None:
        """Compare every code with the vectors.

        Raises: VerificationError.
        """
        at = self._rows_at
        for number, block in enumerate(blocks()):
            copies = eight_bit_copies(block).tobytes()
            same = np.array_equal(self._bits[number, :, : len(block)], self._turn.bits(block).T)
            if not same or os.pread(self._handle, len(copies), at) != copies:
                raise VerificationError(f"{self._place}: the codes differ from the vectors; {_REMEDY}")
            at += len(copies)

    def close(self) -> None:
        """Unmap and close."""
        del self._bits, self._copies
        self._map.close()
        self._close()

    def _by_bits(self, query: Vectors, k: int, allowed: NDArray[np.bool_] | None) -> NDArray[np.int64]:
        """Rows, from 0 and ascending, whose sign bits differ least; ties at the border all count."""
        differing = self._differing(self._turn.bits(query[None])[0])
        if allowed is not None:
            differing[~allowed[1:]] = self.dim + 1
        # A sample tells the border well enough where rows are many; the allowed ones may be few.
        step = SAMPLE if allowed is None and self.n >= SAMPLE * SAMPLED_FROM else 1
        histogram = np.bincount(differing[::step], minlength=self.dim + 2)
        limit = int(np.searchsorted(np.cumsum(histogram) * step, min(k, self.n)))
        return np.flatnonzero(differing <= min(limit, self.dim))

    def _differing(self, wanted: NDArray[np.uint64]) -> NDArray[np.uint16]:
        """How many sign bits of each row differ from `wanted` (words,), shape (n,)."""
        differing = np.empty(len(self._bits) * BLOCK, dtype=np.uint16)
        mixed = np.empty((WORDS_AT_ONCE, BLOCK), dtype=np.uint64)
        counted = np.empty((WORDS_AT_ONCE, BLOCK), dtype=np.uint8)
        for number, block in enumerate(self._bits):
            total = differing[number * BLOCK : (number + 1) * BLOCK]
            total[:] = 0
            for at in range(0, self._words, WORDS_AT_ONCE):
                words = block[at : at + WORDS_AT_ONCE]
                some, bits = counted[: len(words)], mixed[: len(words)]
                np.bitwise_xor(words, wanted[at : at + WORDS_AT_ONCE, None], out=bits)
                np.bitwise_count(bits, out=some)
                for other in some[1:]:  # eight bits hold the sum, and adding them is cheaper
                    some[0] += other
                total += some[0]
        return differing[: self.n]

    def _fewer(self, query: Vectors, rows: NDArray[np.int64], k: int) -> NDArray[np.int64]:
        """Of `rows` the `k` whose signs agree best with the query, ascending; each copy would cost a read."""
        if len(rows) <= k:
            return rows
        by_byte = (query @ self._turn.rotation).reshape(-1, 8) @ _SIGNS  # (dim / 8, 256)
        signs = self._bits[rows // BLOCK, :, rows % BLOCK].view(np.uint8)  # (rows, dim / 8)
        scores = by_byte.ravel()[signs + 256 * np.arange(len(by_byte))].sum(axis=1)
        return np.sort(rows[np.argpartition(scores, -k)[-k:]])

    def _by_copies(self, query: Vectors, rows: NDArray[np.int64]) -> Vectors:
        """Similarity by the eight-bit copies, (rows,)."""
        table = self._read(rows) if self._copies is None else self._copies[rows]
        scales = np.ascontiguousarray(table[:, self.dim :]).view(np.float32)[:, 0]
        similarity: Vectors = (table[:, : self.dim].view(np.int8).astype(np.float32) @ query) * scales
        return similarity

    def _read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Copies from the file, (rows, dim + 4)."""
        width, handle = self.dim + 4, self._handle
        buffer = bytearray(len(rows) * width)
        view = memoryview(buffer)
        at = 0
        for row in rows.tolist():
            os.preadv(handle, [view[at : at + width]], self._rows_at + row * width)
            at += width
        return np.frombuffer(buffer, dtype=np.uint8).reshape(len(rows), width)


def eight_bit_copies(vectors: Vectors) -> NDArray[np.uint8]:
    """(n, dim) float32 to (n, dim + 4) bytes: dim signed bytes and the float32 that scales them back."""
    scale = np.abs(vectors).max(axis=1, keepdims=True) / 127.0
    scale[scale == 0] = 1.0
    values = np.rint(vectors / scale).astype(np.int8)
    scales: NDArray[Any] = scale.astype(np.float32).view(np.uint8)
    return np.hstack([values.view(np.uint8), scales])


def _coded(blocks: Blocks, turn: _Turn) -> Iterator[bytes]:
    for block in blocks():
        columns = np.zeros((block.shape[1] // 64, BLOCK), dtype=np.uint64)
        columns[:, : len(block)] = turn.bits(block).T
        yield columns.tobytes()
    for block in blocks():
        yield eight_bit_copies(block).tobytes()


def _header(raw: bytes) -> object:
    try:
        return json.loads(raw)
    except ValueError:
        return None
