"""Packed codes of an index's vectors: a coarse pass that keeps dense search fast in a large index.

Sign bits of every vector are scanned whole, the best few thousand are scored by eight-bit copies, and the
caller scores the best of those exactly. Invariant: a file of codes names the vectors it was made from by
digest; other codes are refused. Opening reads the header only; bits are mapped, copies are read row by row.
Source: sign bits with re-scoring, Yamada et al. 2021 (arXiv 2106.00882).
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whis_box.errors import ConfigError, NotReadyError, VerificationError, storage_error

EXACT_ROWS = 20_000
"""Up to so many vectors sqlite-vec's full scan takes under 10 ms, and no codes are made."""
BLOCK = 16_384
"""Vectors per block of bits: one column of a block fits the first-level cache."""
BITS_CANDIDATES = 2_000
"""Vectors that the scan of sign bits hands on; chosen for recall@10 of 0.99 (docs/measurements.md)."""
HEADER_BYTES = 4096
MAGIC = "whis-codes-1"
SUFFIX = ".codes"


class CodeWriter:
    """Takes vectors in the order of their row ids, from 1, and writes their codes beside the index."""

    def __init__(self, index: Path, table: str, dim: int) -> None:
        """Codes of one table of vectors of the index at `index`; nothing is there before `finish`."""
        if dim % 64:
            raise ConfigError(f"{index}: vectors of {dim} dimensions cannot be coded; 64 must divide them")
        self._index, self._table, self._dim = index, table, dim
        self._beside = index.with_name(f".{index.name}.{table}.{os.getpid()}.building")
        self._rows = self._beside.with_name(self._beside.name + ".rows")
        self._pending: list[NDArray[np.float32]] = []
        self._digest = hashlib.sha256()
        self.n = 0
        try:
            self._bits_out, self._rows_out = self._beside.open("wb"), self._rows.open("wb")
            self._bits_out.write(b"\0" * HEADER_BYTES)
        except OSError as cause:
            raise storage_error("write the codes", index, cause) from cause

    @property
    def digest(self) -> str:
        """sha256 over all vectors so far."""
        return self._digest.hexdigest()

    def add(self, vector: NDArray[np.float32]) -> None:
        """One unit vector, shape (dim,)."""
        self._digest.update(vector.tobytes())
        self._pending.append(vector)
        self.n += 1
        if len(self._pending) == BLOCK:
            self._flush()

    def finish(self) -> None:
        """Put the file in its place; with EXACT_ROWS vectors or fewer there is none.

        Raises: StorageError.
        """
        try:
            self._flush()
            self._rows_out.close()
            if self.n > EXACT_ROWS:
                self._join()
                self._beside.replace(codes_path(self._index, self._table, self.digest))
        except OSError as cause:
            raise storage_error("write the codes", self._index, cause) from cause
        finally:
            self.close()

    def forget_others(self) -> None:
        """Delete the codes of earlier indexes, once the new index is in its place."""
        current = codes_path(self._index, self._table, self.digest)
        for path in self._index.parent.glob(f"{self._index.name}.{self._table}-*{SUFFIX}"):
            if path != current:
                path.unlink(missing_ok=True)

    def _join(self) -> None:
        header = {"magic": MAGIC, "n": self.n, "dim": self._dim, "vectors_sha256": self.digest}
        with self._rows.open("rb") as rows:
            while part := rows.read(1 << 22):
                self._bits_out.write(part)
        self._bits_out.seek(0)
        self._bits_out.write(json.dumps(header).encode().ljust(HEADER_BYTES, b" "))
        self._bits_out.flush()
        os.fsync(self._bits_out.fileno())

    def close(self) -> None:
        """Remove what is not finished."""
        for stream, path in ((self._bits_out, self._beside), (self._rows_out, self._rows)):
            stream.close()
            path.unlink(missing_ok=True)

    def _flush(self) -> None:
        if not self._pending:
            return
        vectors = np.stack(self._pending)  # (rows, dim)
        self._pending.clear()
        block = np.zeros((self._dim // 64, BLOCK), dtype=np.uint64)
        block[:, : len(vectors)] = sign_bits(vectors).T
        self._bits_out.write(block.tobytes())
        self._rows_out.write(eight_bit_rows(vectors).tobytes())


def codes_path(index: Path, table: str, vectors_sha256: str) -> Path:
    """Where the codes of these vectors lie. The digest is in the name, so that a kill between the renaming of
    codes and index leaves both pairs whole."""
    return index.with_name(f"{index.name}.{table}-{vectors_sha256[:12]}{SUFFIX}")


class Codes:
    """The codes of one table of vectors."""

    def __init__(self, place: Path, dim: int, n: int, vectors_sha256: str) -> None:
        """Open the file and compare its header with what the index says of its vectors.

        Raises: NotReadyError if it is missing; VerificationError if it belongs to other vectors or is cut.
        """
        remedy = "run `whis index build` or copy the box again"
        try:
            self._file = place.open("rb")
        except FileNotFoundError:
            raise NotReadyError(f"{place}: missing; {remedy}") from None
        except OSError as cause:
            raise storage_error("read the codes", place, cause) from cause
        wanted = {"magic": MAGIC, "n": n, "dim": dim, "vectors_sha256": vectors_sha256}
        try:
            header = json.loads(self._file.read(HEADER_BYTES))
        except ValueError:
            header = None
        self.n, self.dim, self._words = n, dim, dim // 64
        self._n_blocks = -(-n // BLOCK)
        self._rows_at = HEADER_BYTES + self._n_blocks * self._words * BLOCK * 8
        size = os.fstat(self._file.fileno()).st_size
        if header != wanted or size != self._rows_at + n * (dim + 4):
            self._file.close()
            raise VerificationError(f"{place}: not the codes of this index, or cut off; {remedy}")
        self._map = mmap.mmap(self._file.fileno(), self._rows_at, access=mmap.ACCESS_READ)
        self._bits = np.frombuffer(self._map, dtype=np.uint64, offset=HEADER_BYTES).reshape(
            self._n_blocks, self._words, BLOCK
        )

    def nearest(self, query: NDArray[np.float32], k: int) -> list[int]:
        """About the `k` most similar row ids to `query` (dim,), best first."""
        rows = self._by_bits(query, max(BITS_CANDIDATES, k))
        scores = self._by_rows(query, rows)
        order = np.lexsort((rows, -scores))[:k]
        return [int(row) + 1 for row in rows[order]]

    def close(self) -> None:
        """Unmap and close."""
        del self._bits
        self._map.close()
        self._file.close()

    def _by_bits(self, query: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """Rows, from 0 and ascending, whose sign bits differ least; ties at the border all count."""
        wanted = sign_bits(query[None])[0]
        differing = np.empty(self._n_blocks * BLOCK, dtype=np.uint16)
        mixed, counted = np.empty(BLOCK, dtype=np.uint64), np.empty(BLOCK, dtype=np.uint8)
        for number, block in enumerate(self._bits):
            total = differing[number * BLOCK : (number + 1) * BLOCK]
            total[:] = 0
            for word, column in zip(wanted, block, strict=True):
                np.bitwise_xor(column, word, out=mixed)
                np.bitwise_count(mixed, out=counted)
                total += counted
        differing = differing[: self.n]
        histogram = np.bincount(differing, minlength=self.dim + 1)
        limit = int(np.searchsorted(np.cumsum(histogram), min(k, self.n)))
        return np.flatnonzero(differing <= limit)

    def _by_rows(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Similarity by the eight-bit copies, (rows,); read, because mapped pages would count as memory."""
        width, handle = self.dim + 4, self._file.fileno()
        buffer = bytearray(len(rows) * width)
        view = memoryview(buffer)
        at = 0
        for row in rows.tolist():
            os.preadv(handle, [view[at : at + width]], self._rows_at + row * width)
            at += width
        table = np.frombuffer(buffer, dtype=np.uint8).reshape(len(rows), width)
        scales = np.ascontiguousarray(table[:, self.dim :]).view(np.float32)[:, 0]
        values = table[:, : self.dim].view(np.int8).astype(np.float32)
        similarity: NDArray[np.float32] = (values @ query) * scales
        return similarity


def sign_bits(vectors: NDArray[np.float32]) -> NDArray[np.uint64]:
    """(n, dim) float32 to (n, dim / 64): one bit a dimension, set where the value is positive."""
    return np.packbits(vectors > 0, axis=1).view(np.uint64)


def eight_bit_rows(vectors: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(n, dim) float32 to (n, dim + 4) bytes: dim signed bytes and the float32 that scales them back."""
    scale = np.abs(vectors).max(axis=1, keepdims=True) / 127.0
    scale[scale == 0] = 1.0
    values = np.rint(vectors / scale).astype(np.int8)
    scales: NDArray[Any] = scale.astype(np.float32).view(np.uint8)
    return np.hstack([values.view(np.uint8), scales])
