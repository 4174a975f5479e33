"""The vectors of one table, searched and compared: sqlite-vec's full scan, or codes and then exact vectors.

Invariant: a similarity is the cosine of unit vectors in fp32, whichever way it was found.
"""

from __future__ import annotations

import json

import apsw
import numpy as np
from numpy.typing import NDArray

from whis_box.knowledge.codes import Codes
from whis_box.knowledge.facets import Mask
from whis_box.knowledge.store import fetch, placeholders

Vector = NDArray[np.float32]
CODES_MARGIN = 24  # exact scores beyond k, for what the eight-bit copies rank a little too low


class DenseTable:
    """One vector table of an open index; `codes` is None where the table is scanned whole."""

    def __init__(self, connection: apsw.Connection, name: str, codes: Codes | None) -> None:
        self._connection, self._name, self._codes = connection, name, codes

    def nearest(self, vector: Vector, k: int, allowed: Mask | None = None) -> dict[int, float]:
        """The `k` most similar row ids with their cosine, best first; `vector` has shape (dim,)."""
        if self._codes is None:
            return self._scanned(vector, k, None if allowed is None else np.flatnonzero(allowed).tolist())
        similarity = self.similarity(vector, self._codes.nearest(vector, k + CODES_MARGIN, allowed))
        order = sorted(similarity, key=lambda rowid: (-similarity[rowid], rowid))[:k]
        return {rowid: similarity[rowid] for rowid in order}

    def similarity(self, vector: Vector, rowids: list[int]) -> dict[int, float]:
        """Cosine of `vector` with each of the rows."""
        if self._codes is None:  # one scan: reading a single row of a vec0 table costs as much as 300 rows
            return self._scanned(vector, len(rowids), rowids)
        rows = fetch(
            self._connection,
            f"select rowid, embedding from {self._name} where rowid in ({placeholders(rowids)})",
            rowids,
        )
        return {int(rowid): float(np.frombuffer(blob, dtype=np.float32) @ vector) for rowid, blob in rows}

    def close(self) -> None:
        """Close the codes."""
        if self._codes is not None:
            self._codes.close()

    def _scanned(self, vector: Vector, k: int, only: list[int] | None) -> dict[int, float]:
        """Distance is Euclidean: for unit vectors, cosine = 1 - distance^2 / 2."""
        if not k or only == []:
            return {}
        narrowed = "" if only is None else "and rowid in (select value from json_each(?)) "
        rows = fetch(
            self._connection,
            f"select rowid, distance from {self._name} where embedding match ? and k = ? "
            f"{narrowed}order by distance",
            [vector.tobytes(), k, *([] if only is None else [json.dumps(only)])],
        )
        return {int(rowid): 1.0 - float(distance) ** 2 / 2.0 for rowid, distance in rows}
