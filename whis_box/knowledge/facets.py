"""What a search may be narrowed by: source, platform, technique, licence, and who may see it.

Invariant: a narrowed search never returns a chunk outside of what was asked, and looks as deep as it must to
fill its lists. One bitmap a value, compressed; a technique's bitmap also holds its sub-techniques' chunks.
"""

from __future__ import annotations

import zlib
from collections import defaultdict

import apsw
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from whis_box.knowledge.identifiers import Identifier, parents
from whis_box.schemas import TLP_ORDER, Chunk, Frozen, Tlp

Mask = NDArray[np.bool_]


class Filter(Frozen):
    """Every field that is given must hold; within a field, any of its values."""

    sources: list[str] = Field(default_factory=list)
    platforms: list[str] = Field(default_factory=list)
    techniques: list[str] = Field(default_factory=list)
    licenses: list[str] = Field(default_factory=list)
    clearance: Tlp = "red"
    """Highest TLP that the reader may see."""

    @property
    def is_open(self) -> bool:
        """Whether it lets everything through."""
        return (
            not (self.sources or self.platforms or self.techniques or self.licenses)
            and self.clearance == "red"
        )


class FacetWriter:
    """Collects row ids by facet value while an index is built."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], list[int]] = defaultdict(list)

    def add(self, rowid: int, source: str, chunk: Chunk) -> None:
        """One chunk; row ids come in ascending order from 1."""
        techniques = {Identifier("technique", value) for value in chunk.meta.technique_ids}
        techniques |= {parent for one in techniques for parent in parents(one)}
        values = {
            ("source", source),
            ("license", chunk.meta.license),
            ("tlp", chunk.meta.tlp),
            *(("platform", value.lower()) for value in chunk.meta.platforms),
            *(("technique", one.value) for one in techniques),
        }
        for value in values:
            self._rows[value].append(rowid)

    def write(self, connection: apsw.Connection, n_chunks: int) -> None:
        """Store the bitmaps."""
        for (kind, value), rows in sorted(self._rows.items()):
            mask = np.zeros(n_chunks + 1, dtype=bool)
            mask[rows] = True
            connection.execute(
                "insert into facets values (?, ?, ?)",
                (kind, value, zlib.compress(np.packbits(mask).tobytes(), 1)),
            )


def allowed_chunks(connection: apsw.Connection, wanted: Filter, n_chunks: int) -> Mask | None:
    """Which row ids a filter lets through, shape (n_chunks + 1,); None for all of them."""
    if wanted.is_open:
        return None
    mask = np.ones(n_chunks + 1, dtype=bool)
    seen = TLP_ORDER[: TLP_ORDER.index(wanted.clearance) + 1]
    for kind, values in (
        ("source", wanted.sources),
        ("platform", [value.lower() for value in wanted.platforms]),
        ("technique", [value.upper() for value in wanted.techniques]),
        ("license", wanted.licenses),
        ("tlp", seen if wanted.clearance != "red" else ()),
    ):
        if values:
            mask &= np.logical_or.reduce([_bitmap(connection, kind, value, n_chunks) for value in values])
    return mask


def _bitmap(connection: apsw.Connection, kind: str, value: str, n_chunks: int) -> Mask:
    row = connection.execute("select bits from facets where kind = ? and value = ?", (kind, value)).fetchone()
    if row is None:
        return np.zeros(n_chunks + 1, dtype=bool)
    packed = np.frombuffer(zlib.decompress(row[0]), dtype=np.uint8)
    return np.unpackbits(packed, count=n_chunks + 1).astype(bool)
