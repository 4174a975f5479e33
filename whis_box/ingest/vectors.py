"""Vectors of an index build: computed in several processes, and kept, so that a killed build goes on.

Invariant: a vector is kept under the hash of embedder and text, never the text; after a complete build the
file holds the vectors of that build and no others, so a purged passage leaves nothing here either.
"""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import apsw
import numpy as np
from numpy.typing import NDArray

from whis_box.errors import StorageError, VerificationError
from whis_box.knowledge.embedder import Embedder

KEY_BYTES = 16
SLICE = 256  # texts from one commit to the next: what a kill can cost


class TextEmbedder(Protocol):
    """What a build needs of an embedder."""

    dim: int

    def embed(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """Unit vectors, shape (n, dim)."""

    def count_tokens(self, text: str) -> int:
        """Tokens as the embedder counts them."""


class KeptVectors:
    """An embedder that remembers; a context manager."""

    def __init__(
        self, path: Path, folder: Path, embedder: Embedder, embedder_sha256: str, workers: int
    ) -> None:
        """`folder` holds the embedder's files, which each of the `workers` processes loads for itself."""
        self.dim, self._path, self._folder = embedder.dim, path, folder
        self._embedder, self._salt, self._workers = embedder, embedder_sha256.encode(), workers
        self.n_computed = self.n_kept = 0

    def __enter__(self) -> KeptVectors:
        """Raises: StorageError; VerificationError if the file is damaged."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._db = apsw.Connection(str(self._path))
            self._db.execute(
                "pragma journal_mode = wal; pragma synchronous = normal; pragma secure_delete = on"
            )
            self._db.execute(
                "create table if not exists vectors (key blob primary key, vector blob not null, "
                "used integer not null) without rowid; update vectors set used = 0"
            )
        except (apsw.NotADBError, apsw.CorruptError):
            raise VerificationError(f"{self._path}: damaged; delete it and run the command again") from None
        except (apsw.Error, OSError) as cause:
            raise StorageError(f"{self._path}: cannot open: {cause}; check the folder") from cause
        self._pool = None
        if self._workers > 1:
            context = multiprocessing.get_context("spawn")
            self._pool = context.Pool(self._workers, _start, (str(self._folder), self.dim))
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.terminate()
            self._pool.join()
        self._db.close()

    def count_tokens(self, text: str) -> int:
        """Tokens as the embedder counts them."""
        return self._embedder.count_tokens(text)

    def embed(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """Unit vectors, shape (n, dim) float32, in the order of `texts`.

        Raises: StorageError when the disk is full.
        """
        listed = list(texts)
        vectors = np.empty((len(listed), self.dim), dtype=np.float32)
        for at in range(0, len(listed), SLICE):
            vectors[at : at + SLICE] = self._slice(listed[at : at + SLICE])
        return vectors

    def forget_unused(self) -> None:
        """Drop what the build did not ask for."""
        self._written(lambda: self._db.execute("delete from vectors where used = 0"))
        self._written(lambda: self._db.execute("vacuum"))

    def _slice(self, texts: Sequence[str]) -> NDArray[np.float32]:
        keys = [hashlib.sha256(self._salt + text.encode()).digest()[:KEY_BYTES] for text in texts]
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        missing: dict[bytes, str] = {}
        known: dict[bytes, NDArray[np.float32]] = {}
        for key, text in zip(keys, texts, strict=True):
            row = self._db.execute("select vector from vectors where key = ?", (key,)).fetchone()
            if row is None:
                missing[key] = text
            else:
                known[key] = np.frombuffer(row[0], dtype=np.float32)
        known |= dict(zip(missing, self._compute(list(missing.values())), strict=True))
        self._written(lambda: self._keep(known, missing))
        for row_number, key in enumerate(keys):
            vectors[row_number] = known[key]
        self.n_computed += len(missing)
        self.n_kept += len(texts) - len(missing)
        return vectors

    def _compute(self, texts: list[str]) -> NDArray[np.float32]:
        if self._pool is None or len(texts) < 2 * self._workers:
            return self._embedder.embed(texts)
        return np.stack(self._pool.map(_embed, texts, chunksize=8))

    def _keep(self, known: dict[bytes, NDArray[np.float32]], missing: dict[bytes, str]) -> None:
        with self._db:
            self._db.executemany("update vectors set used = 1 where key = ?", [(key,) for key in known])
            self._db.executemany(
                "insert or ignore into vectors values (?, ?, 1)",
                [(key, known[key].tobytes()) for key in missing],
            )

    def _written(self, step: Callable[[], object]) -> None:
        try:
            step()
        except apsw.Error as cause:
            raise StorageError(
                f"{self._path}: cannot write: {cause}; free some space and run it again"
            ) from cause


_worker: list[Embedder] = []


def _start(folder: str, dim: int) -> None:
    _worker.append(Embedder(Path(folder), dim, 1))


def _embed(text: str) -> NDArray[np.float32]:
    vector: NDArray[np.float32] = _worker[0].embed([text])[0]
    return vector
