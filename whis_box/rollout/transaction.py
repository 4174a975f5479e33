"""One SQLite transaction: all of a block or nothing, also when the disk is full in the middle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from whis_box.errors import StorageError


@contextmanager
def transaction(connection: apsw.Connection) -> Iterator[None]:
    """Commit the block, or roll it back.

    A full disk makes SQLite roll back by itself, after which a savepoint, apsw's own way, cannot be undone.
    """
    connection.execute("begin immediate")
    done = False
    try:
        yield
        connection.execute("commit")
        done = True
    finally:
        if not done and connection.in_transaction:
            connection.execute("rollback")


def open_store(path: Path, schema: str) -> apsw.Connection:
    """A connection to the file at `path`, made with `schema` if it is new, readable by its owner alone.

    Raises: StorageError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with translated(path):
        connection = apsw.Connection(str(path))
        path.chmod(0o600)
        connection.set_busy_timeout(5000)
        for statement in schema.split(";"):
            connection.execute(statement)
        return connection


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """SQLite's errors as ours.

    Raises: StorageError.
    """
    try:
        yield
    except apsw.FullError:
        raise StorageError(f"{path}: the disk is full; free some space, nothing is lost") from None
    except apsw.Error as cause:
        raise StorageError(f"{path}: {cause}; check the disk and the file's owner") from cause
