"""The index, read: one SQLite file with records, chunks, sentences, identifiers, full text and vectors.

Invariant: an index names the embedder that made it, and another embedder is refused; what is read whole is
compared with the digests that its writer left.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import sqlite_vec
from numpy.typing import NDArray

from whis_box.errors import NotReadyError, StorageError, VerificationError
from whis_box.knowledge.codes import BLOCK, EXACT_ROWS, Codes, codes_path

SCHEMA_VERSION = 2
VECTOR_TABLES = ("chunk_vectors", "sentence_vectors")


def connect(path: Path, writable: bool = False) -> apsw.Connection:
    """Open a SQLite file with sqlite-vec loaded.

    Raises: NotReadyError if it is missing; VerificationError if it is not a sound SQLite file; StorageError.
    """
    if not writable and not path.is_file():
        raise NotReadyError(f"{path}: the index is missing; run `whis index build` or copy the box again")
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE if writable else apsw.SQLITE_OPEN_READONLY
    try:
        connection = apsw.Connection(
            os.fspath(path) if writable else f"{path.absolute().as_uri()}?immutable=1",
            flags=flags | apsw.SQLITE_OPEN_URI,
        )
        connection.enable_load_extension(True)
        connection.load_extension(sqlite_vec.loadable_path())
        connection.enable_load_extension(False)
        connection.execute("select count(*) from sqlite_schema").fetchall()
    except apsw.Error as cause:
        raise index_error(path, cause) from cause
    return connection


def index_error(path: Path, cause: apsw.Error) -> Exception:
    """The WhisError for what SQLite said about `path`."""
    if isinstance(cause, apsw.FullError):
        return StorageError(f"{path}: the disk is full; free some space and run the command again")
    if isinstance(cause, apsw.CantOpenError | apsw.PermissionsError | apsw.ReadOnlyError):
        return StorageError(
            f"{path}: cannot be opened ({cause}); check the owner and mode of the file and its folder"
        )
    if isinstance(cause, apsw.IOError):
        return StorageError(f"{path}: input/output error ({cause}); check the disk")
    return VerificationError(f"{path}: not a sound index ({cause}); build it again or copy the box again")


def read_meta(connection: apsw.Connection, path: Path) -> dict[str, str | int]:
    """The index's own description.

    Raises: VerificationError if it is not an index of this version.
    """
    try:
        meta = {key: json.loads(value) for key, value in connection.execute("select key, value from meta")}
    except apsw.Error as cause:
        raise index_error(path, cause) from cause
    if meta.get("schema_version") != SCHEMA_VERSION:
        raise VerificationError(
            f"{path}: version {meta.get('schema_version')} is not {SCHEMA_VERSION}; run `whis index build`"
        )
    return meta


def describe(path: Path) -> dict[str, object]:
    """What an index holds: its own description and its records by licence and TLP.

    Raises: NotReadyError, VerificationError, StorageError.
    """
    connection = connect(path)
    meta: dict[str, object] = dict(read_meta(connection, path))
    for field in ("license", "tlp"):
        rows = connection.execute(f"select body ->> '{field}', count(*) from records group by 1 order by 1")
        meta[f"records_by_{field}"] = {str(value): int(count) for value, count in rows}
    rows = connection.execute(
        "select body ->> '$.source.name', body ->> 'license', body ->> 'pipeline_version', count(*),"
        " sum(length(body ->> 'text')) from records group by 1, 2, 3 order by 1, 2"
    )
    meta["sources"] = [
        {"name": name, "license": license_id, "pipeline": pipeline, "records": count, "characters": chars}
        for name, license_id, pipeline, count, chars in rows
    ]
    connection.close()
    return meta


def verify_index(path: Path) -> dict[str, object]:
    """Read the whole index: SQLite's own check, counts, the records' digest, every vector against its digest
    and its codes.

    Raises: NotReadyError, StorageError; VerificationError naming what differs.
    """
    connection = connect(path)
    meta = read_meta(connection, path)
    remedy = "build the index again or copy the box again"
    try:
        [(said,)] = connection.execute("pragma integrity_check(1)").fetchall()
        if said != "ok":
            raise VerificationError(f"{path}: {said}; {remedy}")
        digest = hashlib.sha256()
        for (body,) in connection.execute("select body from records order by rowid_in_build"):
            digest.update(str(body).encode())
        if digest.hexdigest() != meta["records_sha256"]:
            raise VerificationError(f"{path}: the records differ from their digest; {remedy}")
        for table, rows in (("chunk_vectors", "n_chunks"), ("sentence_vectors", "n_sentences")):
            _verify_vectors(connection, path, table, meta, int(meta[rows]))
    except apsw.Error as cause:
        raise index_error(path, cause) from cause
    finally:
        connection.close()
    return {"index": str(path), "verified": True, **meta}


def _verify_vectors(
    connection: apsw.Connection, path: Path, table: str, meta: dict[str, str | int], n: int
) -> None:
    digest, found = hashlib.sha256(), 0
    for block in vector_blocks(connection, table):
        digest.update(block.tobytes())
        found += len(block)
    if found != n or digest.hexdigest() != meta[f"{table}_sha256"]:
        raise VerificationError(
            f"{path}: {table} differ from their digest; build the index again or copy the box again"
        )
    codes = open_codes(path, table, meta, n)
    if codes is not None:
        try:
            codes.verify(partial(vector_blocks, connection, table))
        finally:
            codes.close()


def open_codes(path: Path, table: str, meta: dict[str, str | int], n_rows: int) -> Codes | None:
    """The codes of one table of the index at `path`; None where it is small enough to be scanned whole.

    Raises: NotReadyError, VerificationError, StorageError.
    """
    if n_rows <= EXACT_ROWS:
        return None
    digest = str(meta[f"{table}_sha256"])
    return Codes(codes_path(path, table, digest), int(meta["dim"]), n_rows, digest)


def vector_blocks(connection: apsw.Connection, table: str) -> Iterator[NDArray[np.float32]]:
    """All vectors of a table by row id, in blocks of (BLOCK, dim); the last one may be shorter."""
    rows = connection.execute(f"select embedding from {table} order by rowid")
    while part := list(islice(rows, BLOCK)):
        yield np.stack([np.frombuffer(blob, dtype=np.float32) for (blob,) in part])


def fetch(connection: apsw.Connection, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """All rows of one query."""
    return connection.execute(sql, values).fetchall()


def placeholders(items: Iterable[object]) -> str:
    """`?, ?, ?` for an `in (...)` clause."""
    return ", ".join("?" for _ in items)
