"""The one seam to the file system for everything that must survive a power cut.

Invariant: a file appears under its name only when all of it is on the disk, and a function that returned has
left nothing in a cache. Tests put a failing `Disk` in its place and stop it at every single operation.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from whis_box.errors import storage_error

PART_SUFFIX = ".part"


class Disk:
    """The real file system, one method for each operation that can fail."""

    def create(self, path: Path, mode: int = 0o644) -> int:
        """A new or emptied file, open for writing; never follows a link."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(path, flags, mode)

    def append(self, path: Path, mode: int = 0o600) -> int:
        """A file open for writing at its end."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, mode)

    def reopen(self, path: Path) -> int:
        """A file that something else filled, such as SQLite, open to be synced."""
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)

    def write(self, handle: int, block: bytes) -> None:
        """All of `block`."""
        left = memoryview(block)
        while left:
            left = left[os.write(handle, left) :]

    def truncate(self, handle: int, size_bytes: int) -> None:
        """Cut a file back to what it was."""
        os.ftruncate(handle, size_bytes)

    def sync(self, handle: int) -> None:
        """The file's bytes reach the disk."""
        os.fsync(handle)

    def sync_folder(self, folder: Path) -> None:
        """The folder's names reach the disk."""
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def rename(self, old: Path, new: Path) -> None:
        """Replaces `new` if it is there."""
        os.replace(old, new)

    def mkdir(self, folder: Path, mode: int = 0o777) -> None:
        """One folder whose parent exists."""
        folder.mkdir(mode)

    def symlink(self, target: str, link: Path) -> None:
        """A link that must not exist yet."""
        os.symlink(target, link)

    def link(self, old: Path, new: Path) -> None:
        """A second name for a file."""
        os.link(old, new, follow_symlinks=False)

    def remove(self, path: Path) -> None:
        """One file or link."""
        path.unlink()

    def rmdir(self, folder: Path) -> None:
        """One empty folder."""
        folder.rmdir()

    def free_bytes(self, folder: Path) -> int:
        """Room that is left where `folder` lies."""
        return shutil.disk_usage(folder).free


def write_file(
    disk: Disk, path: Path, blocks: Iterable[bytes], mode: int = 0o644, beside: Path | None = None
) -> None:
    """Write beside, sync, rename, sync the folder: `path` holds the old bytes or the new ones.

    `beside` is for writers that may meet others at the same work. Raises: StorageError.
    """
    part = beside or path.with_name(path.name + PART_SUFFIX)
    try:
        make_folders(disk, path.parent)
        handle = disk.create(part, mode)
        try:
            for block in blocks:
                disk.write(handle, block)
            disk.sync(handle)
        finally:
            os.close(handle)
        disk.rename(part, path)
        disk.sync_folder(path.parent)
    except OSError as cause:
        raise storage_error("write", path, cause) from cause


def publish(disk: Disk, beside: Path, target: Path) -> None:
    """Give a file that was written beside its name, with all of it on the disk first.

    Raises: OSError.
    """
    handle = disk.reopen(beside)
    try:
        disk.sync(handle)
    finally:
        os.close(handle)
    disk.rename(beside, target)
    disk.sync_folder(target.parent)


def make_folders(disk: Disk, folder: Path, mode: int = 0o777) -> None:
    """`folder` and its parents, each of them on the disk."""
    missing = [one for one in (folder, *folder.parents) if not one.is_dir()]
    for one in reversed(missing):
        disk.mkdir(one, mode)
        disk.sync_folder(one.parent)


def replace_link(disk: Disk, link: Path, target: str) -> None:
    """Point `link` at `target`, in one step.

    Raises: StorageError.
    """
    beside = link.with_name(f".{link.name}{PART_SUFFIX}")
    try:
        if beside.is_symlink():
            disk.remove(beside)
        disk.symlink(target, beside)
        disk.rename(beside, link)
        disk.sync_folder(link.parent)
    except OSError as cause:
        raise storage_error("switch", link, cause) from cause


def remove_file(disk: Disk, path: Path) -> None:
    """Remove a file or link if it is there.

    Raises: StorageError.
    """
    try:
        if path.is_symlink() or path.exists():
            disk.remove(path)
            disk.sync_folder(path.parent)
    except OSError as cause:
        raise storage_error("remove", path, cause) from cause


def remove_tree(disk: Disk, folder: Path) -> None:
    """Remove a folder and all in it; links are removed, not followed.

    Raises: StorageError.
    """
    try:
        _empty(disk, folder)
        if folder.parent.is_dir():
            disk.sync_folder(folder.parent)
    except OSError as cause:
        raise storage_error("remove", folder, cause) from cause


def _empty(disk: Disk, folder: Path) -> None:
    if folder.is_symlink() or folder.is_file():
        disk.remove(folder)
    elif folder.is_dir():
        for entry in sorted(folder.iterdir()):
            _empty(disk, entry)
        disk.rmdir(folder)
