"""Stores in the state folder: one transaction is all or nothing, and a file outlives the program's version.

Invariant: a step of a store's form only adds tables, indexes and columns with a default, so the release that
was replaced still reads and writes what its successor left.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
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


ADDS = re.compile(
    r"create (?:unique )?(?:table|index) if not exists |alter table \w+ add column \w+ .*\bdefault\b",
    re.DOTALL,
)


def open_store(path: Path, steps: Sequence[str]) -> apsw.Connection:
    """A connection to the file at `path`, readable by its owner alone and brought forward to the last step.

    Each of `steps` is SQL that makes version i + 1 of version i; a file of a later version is left as it is.
    Raises: StorageError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with translated(path):
        connection = apsw.Connection(str(path))
        path.chmod(0o600)
        connection.set_busy_timeout(5000)
        connection.execute("pragma journal_mode = wal; pragma synchronous = full")
        if version_of(connection) < len(steps):
            with transaction(connection):
                for step in steps[version_of(connection) :]:
                    for statement in filter(None, map(str.strip, step.split(";"))):
                        assert ADDS.match(statement), f"would break the release before: {statement}"
                        connection.execute(statement)
                connection.execute(f"pragma user_version = {len(steps)}")
        return connection


def version_of(connection: apsw.Connection) -> int:
    """How many steps the file has behind it."""
    [(version,)] = connection.execute("pragma user_version").fetchall()
    return int(str(version))


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
