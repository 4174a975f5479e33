"""Bringing the files of a release to the disk: copied, hashed as they are read, verified whole, named.

Invariant: a staged release gets its name only when it is the manifest's in every byte; a copy that was cut
off goes on where it was.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from whis_box.box.headers import check_headers
from whis_box.box.manifest import UNLISTED, FileEntry, Manifest, check_file, verify
from whis_box.box.minisign import PublicKey
from whis_box.box.slots import STAGING_PREFIX, Home
from whis_box.durable import PART_SUFFIX, make_folders, write_file
from whis_box.errors import StorageError, VerificationError, storage_error

BLOCK_BYTES = 1 << 20
SPARE_BYTES = 64 * 1024 * 1024  # left free for state while the copy is there

Progress = Callable[[str, int], None]


class Source(Protocol):
    """Where the files of a release come from: a medium, or a pack over an installed release."""

    def blocks(self, entry: FileEntry) -> Iterator[bytes]:
        """The file's bytes; they are checked by the caller."""

    def twin(self, entry: FileEntry) -> Path | None:
        """The same file in an installed release, if there is one."""

    def unlisted(self, name: str) -> bytes:
        """The manifest, the sums or one of their signatures."""


@dataclass(frozen=True)
class MediumSource:
    """A folder on a USB stick."""

    folder: Path

    def blocks(self, entry: FileEntry) -> Iterator[bytes]:
        """Raises: StorageError, also when the medium is pulled out; VerificationError for a link."""
        path = self.folder / entry.path
        if any(step.is_symlink() for step in (path, *path.parents) if self.folder in step.parents):
            raise VerificationError(f"{path}: is a link; copy the box to the medium again")
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(handle, "rb") as stream:
                while block := stream.read(BLOCK_BYTES):
                    yield block
        except OSError as cause:
            raise storage_error("read from the medium", path, cause) from cause

    def twin(self, entry: FileEntry) -> Path | None:
        """None: everything is copied."""
        return None

    def unlisted(self, name: str) -> bytes:
        """Raises: StorageError."""
        try:
            return (self.folder / name).read_bytes()
        except OSError as cause:
            raise storage_error("read from the medium", self.folder / name, cause) from cause


def check_room(home: Home, manifest: Manifest, source: Source) -> None:
    """Raises: StorageError when the copy would not fit."""
    staged = home.releases / f"{STAGING_PREFIX}{manifest.sequence}"
    there = sum(path.stat().st_size for path in staged.rglob("*") if path.is_file()) if staged.is_dir() else 0
    new = sum(entry.size_bytes for entry in manifest.files if source.twin(entry) is None)
    needed = max(0, new - there) + SPARE_BYTES
    free = home.disk.free_bytes(home.releases)
    if free < needed:
        raise StorageError(
            f"{home.releases}: {free / 1e6:.0f} MB are free, the box needs {needed / 1e6:.0f} MB; "
            "free some space, or remove old releases"
        )


def stage(
    source: Source, manifest: Manifest, keys: list[PublicKey], home: Home, progress: Progress
) -> tuple[int, int]:
    """Copy, verify as a whole, check headers, and give the release its name; bytes copied and found there.

    Raises: VerificationError, StorageError.
    """
    copied_bytes = resumed_bytes = 0
    staging = home.releases / f"{STAGING_PREFIX}{manifest.sequence}"
    try:
        make_folders(home.disk, staging)
        _drop_strangers(staging, manifest, home)
        for entry in manifest.files:
            if (staging / entry.path).is_file() and not check_file(staging, entry):
                resumed_bytes += entry.size_bytes
            else:
                _fetch(source, entry, staging, home)
                linked = source.twin(entry) is not None
                copied_bytes += 0 if linked else entry.size_bytes
            progress(entry.path, entry.size_bytes)
        for name in UNLISTED:
            write_file(home.disk, staging / name, [source.unlisted(name)])
        for folder in sorted((path for path in staging.rglob("*") if path.is_dir()), reverse=True):
            home.disk.sync_folder(folder)
        home.disk.sync_folder(staging)
        staged, _ = verify(staging, keys)
        if staged != manifest:
            raise VerificationError(f"{staging}: the medium changed while it was read; copy the box again")
        check_headers(staging, manifest)
        home.disk.rename(staging, home.release(manifest.sequence))
        home.disk.sync_folder(home.releases)
    except OSError as cause:
        raise storage_error("install", staging, cause) from cause
    return copied_bytes, resumed_bytes


def _drop_strangers(staging: Path, manifest: Manifest, home: Home) -> None:
    """A staged copy that goes on holds only what this manifest lists."""
    listed = {entry.path for entry in manifest.files}
    for path in sorted(staging.rglob("*"), reverse=True):
        if path.is_symlink() or not path.is_dir():
            if path.relative_to(staging).as_posix() not in listed:
                home.disk.remove(path)
        elif not any(path.iterdir()):
            home.disk.rmdir(path)


def _fetch(source: Source, entry: FileEntry, staging: Path, home: Home) -> None:
    """One file under its name, or nothing."""
    target = staging / entry.path
    for folder in reversed([one for one in target.parents if staging in one.parents and not one.is_dir()]):
        home.disk.mkdir(folder)
    part = target.with_name(target.name + PART_SUFFIX)
    twin = source.twin(entry)
    if twin is not None:
        if target.exists():  # what an earlier run left is not this file
            home.disk.remove(target)
        home.disk.link(twin, target)
        return
    digest, size = hashlib.sha256(), 0
    handle = home.disk.create(part, 0o755 if entry.executable else 0o644)
    try:
        for block in source.blocks(entry):
            digest.update(block)
            size += len(block)
            if size > entry.size_bytes:
                break
            home.disk.write(handle, block)
        home.disk.sync(handle)
    finally:
        os.close(handle)
    if size != entry.size_bytes or digest.hexdigest() != entry.sha256:
        home.disk.remove(part)
        raise VerificationError(
            f"{entry.path}: the medium does not hold what the manifest says; copy the box to it again"
        )
    home.disk.rename(part, target)
