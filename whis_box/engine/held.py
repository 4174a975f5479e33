"""The very file that was hashed is the one that is loaded.

Invariant: between hashing and loading no name is looked up again; libllama opens the descriptor that was
hashed by its name in /proc (Source: proc_pid_fd(5): opening it gives the same file, whatever was renamed).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from whis_box.errors import NotReadyError, VerificationError, storage_error

DESCRIPTORS = Path("/proc/self/fd")


@contextmanager
def held(path: Path, sha256: str) -> Iterator[Path]:
    """A way to the file at `path` whose bytes have this hash, while the block runs; any file if it is empty.

    Where there is no /proc the path itself is given: a file exchanged in between goes unnoticed until the
    next look. Raises: NotReadyError if it is missing; VerificationError if it has another hash; StorageError.
    """
    if not sha256:
        yield path
        return
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotReadyError(f"{path}: missing; copy the box again") from None
    except OSError as cause:
        raise storage_error("read", path, cause) from cause
    try:
        _check(handle, path, sha256)
        yield DESCRIPTORS / str(handle) if DESCRIPTORS.is_dir() else path
    finally:
        os.close(handle)


def _check(handle: int, path: Path, sha256: str) -> None:
    try:
        with open(handle, "rb", closefd=False) as stream:
            actual = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as cause:
        raise storage_error("read", path, cause) from cause
    if actual != sha256:
        raise VerificationError(
            f"{path}: sha256 is {actual[:16]}…, it should be {sha256[:16]}…; the file changed since it was "
            "verified, copy the box again"
        )
