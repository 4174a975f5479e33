"""SQLite's own writes on the failing disk: xWrite, xTruncate, xSync and xDelete are operations of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from tests.faulty_disk import FaultyDisk, Node

NAME, BASE = "whis-faulty", "unix"


class FaultySqlite(apsw.VFS):
    """The default file system of SQLite while `on` is open."""

    disk: FaultyDisk | None = None

    def __init__(self) -> None:
        super().__init__(NAME, BASE, makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        """A file of the database, or a temporary one."""
        return FaultyFile(self.disk, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        """A journal that is not needed any more."""
        path, disk = Path(filename), self.disk
        if disk is None or not path.is_relative_to(disk.root):
            return super().xDelete(filename, syncdir)
        _step(disk, "remove", path)
        super().xDelete(filename, syncdir)
        disk.node(path.parent).change(path.name, None)
        if syncdir:
            disk.node(path.parent).settle()


class FaultyFile(apsw.VFSFile):
    """One open file; those outside the disk's root are left alone."""

    def __init__(
        self, disk: FaultyDisk | None, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> None:
        text = name.filename() if isinstance(name, apsw.URIFilename) else name
        path = Path(text) if text else None
        self._disk, self._node = disk, None
        if disk is not None and path is not None and path.is_relative_to(disk.root):
            folder = disk.node(path.parent)
            if path.name not in folder.live and flags[0] & apsw.SQLITE_OPEN_CREATE:
                _step(disk, "create", path)
                folder.change(path.name, Node("file"))
            self._node = folder.live.get(path.name)
        super().__init__(BASE, name, flags)  # type: ignore[arg-type]

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        """One page, or a part of one."""
        if self._disk is not None and self._node is not None:
            _step(self._disk, "write", offset)
            self._node.put(offset, bytes(data))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        """As it says."""
        if self._disk is not None and self._node is not None:
            _step(self._disk, "truncate", newsize)
            self._node.cut(newsize)
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802
        """As it says; memory needs no real one."""
        if self._disk is not None and self._node is not None:
            _step(self._disk, "sync", "")
            self._node.sync()


def _step(disk: FaultyDisk, name: str, what: object) -> None:
    try:
        disk.step(name, what)
    except OSError as error:
        kind = apsw.FullError if "ENOSPC" in disk.fault else apsw.IOError
        raise kind(str(error)) from error


@contextmanager
def failing_sqlite() -> Iterator[FaultySqlite]:
    """Every connection that is opened inside goes to the `disk` set on the result."""
    vfs = FaultySqlite()
    try:
        yield vfs
    finally:
        vfs.unregister()
