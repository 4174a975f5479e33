"""Installing a box from a medium: authenticate, copy, verify, check headers, try out, switch, confirm.

Invariant: nothing of the medium is parsed before its signature and hash were checked; the release in use
stays in use until the new one has answered; a run that was cut off is resumed by running it again.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from whis_box.box import trust
from whis_box.box.headers import check_headers
from whis_box.box.manifest import (
    UNLISTED,
    FileEntry,
    Manifest,
    check_file,
    read_manifest,
    verify,
)
from whis_box.box.minisign import PublicKey
from whis_box.box.slots import (
    STAGING_PREFIX,
    Home,
    begin_switch,
    confirm,
    discard,
    prune,
    settle,
    sweep,
)
from whis_box.durable import PART_SUFFIX, make_folders, write_file
from whis_box.errors import (
    InputError,
    NotReadyError,
    StorageError,
    VerificationError,
    WhisError,
    storage_error,
)

BLOCK_BYTES = 1 << 20
SPARE_BYTES = 64 * 1024 * 1024  # left free for state while the copy is there

Gate = Callable[[Path], list[str]]
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


@dataclass(frozen=True)
class Options:
    """What the operator allows by an explicit flag."""

    allow_downgrade: bool = False
    allow_expired: bool = False


@dataclass
class Outcome:
    """What an install did; `warnings` are for people."""

    sequence: int
    changed: bool
    copied_bytes: int = 0
    resumed_bytes: int = 0
    removed: list[int] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Request:
    """An authentic manifest, and how it is brought in."""

    manifest: Manifest
    keys: list[PublicKey]
    options: Options
    gate: Gate
    progress: Progress


def pin(home: Home, root_path: Path, sha256: str) -> trust.Root:
    """Trust a root file whose fingerprint came another way; only where none is trusted yet.

    Raises: InputError, NotReadyError, VerificationError, StorageError; under the lock.
    """
    root, raw = trust.read_pinned(root_path, sha256)
    place = home.control / "root.json"
    if place.exists() and place.read_bytes() != raw:
        raise InputError(f"{place}: another root is trusted here; a new one must come signed, inside a box")
    write_file(home.disk, place, [raw])
    return root


def trusted_root(home: Home) -> trust.Root:
    """The root that is trusted here.

    Raises: NotReadyError if none is; VerificationError, StorageError.
    """
    place = home.control / "root.json"
    try:
        return trust.parse_root(place.read_bytes(), place)
    except FileNotFoundError:
        raise NotReadyError(
            f"{place}: no key is trusted yet; run `whis box trust ROOT.json --fingerprint SHA256`"
        ) from None
    except OSError as cause:
        raise storage_error("read", place, cause) from cause


def authenticate(folder: Path, root: trust.Root, options: Options) -> tuple[Manifest, trust.Root, list[str]]:
    """The signed manifest of `folder`, by the newest root it leads to; and warnings about the clock.

    Raises: NotReadyError, VerificationError, StorageError.
    """
    now = datetime.now(UTC)
    newest, raw = trust.follow(root, folder / trust.TRUST_FOLDER)
    warnings = trust.check_time(
        "the root of trust", "", "" if options.allow_expired else newest.expires_at, now
    )
    manifest, _ = read_manifest(folder, newest.signers())
    expires_at = "" if options.allow_expired else manifest.expires_at
    warnings += trust.check_time(f"release {manifest.sequence}", manifest.issued_at, expires_at, now)
    here = this_platform()
    if manifest.platform and manifest.platform != here:
        raise VerificationError(
            f"{folder}: made for {manifest.platform}, this machine is {here}; get that box"
        )
    return manifest, newest, warnings


def this_platform() -> str:
    """Operating system and CPU family, as manifests name them."""
    return f"{platform.system().lower()}-{platform.machine()}"


def install(medium: Path, home: Home, options: Options, gate: Gate, progress: Progress) -> Outcome:
    """Install the box on `medium`, or do nothing if it is the one in use.

    Raises: NotReadyError, VerificationError, StorageError, InputError; under the lock. Whatever is raised,
    the release in use is the old one.
    """
    settle(home)
    manifest, newest, warnings = authenticate(medium, trusted_root(home), options)
    request = Request(manifest, newest.signers(), options, gate, progress)
    outcome = bring_in(MediumSource(medium), request, home)
    outcome.warnings = warnings + outcome.warnings
    keep_root(home, newest)
    return outcome


def keep_root(home: Home, newest: trust.Root) -> None:
    """Trust the newer root from now on.

    Raises: StorageError.
    """
    if newest.version > trusted_root(home).version:
        write_file(
            home.disk, home.control / "root.json", [(newest.model_dump_json(indent=1) + "\n").encode()]
        )


def bring_in(source: Source, request: Request, home: Home) -> Outcome:
    """From an authentic manifest to a confirmed release.

    Raises: as `install`.
    """
    sequence = request.manifest.sequence
    outcome = Outcome(sequence, changed=False)
    _check_order(home, request)
    if not _is_installed(home, request):
        _check_room(home, request.manifest, source)
        sweep(home, keep_staging=sequence)
        _stage(source, request, home, outcome)
    elif home.active() == sequence:
        return outcome
    _try_out(home, sequence, request.gate)
    outcome.changed = True
    outcome.removed = prune(home)
    return outcome


def _is_installed(home: Home, request: Request) -> bool:
    """Whether this very box is whole on the disk; a damaged one is removed, unless it is in use."""
    sequence = request.manifest.sequence
    folder = home.release(sequence)
    if not folder.is_dir():
        return False
    try:
        present, _ = verify(folder, request.keys)
    except VerificationError as cause:
        if home.active() == sequence:
            raise VerificationError(
                f"{cause}\n{folder}: in use; `whis box rollback`, then install again"
            ) from None
        discard(home, sequence)
        return False
    if present != request.manifest:
        raise VerificationError(
            f"{folder}: another box is installed as release {sequence}; a sequence is used only once"
        )
    return True


def _check_order(home: Home, request: Request) -> None:
    sequence, last_seen = request.manifest.sequence, home.record().last_seen
    if sequence < 1:
        raise VerificationError(
            "the box has sequence 0, it was never released; build it with `whis box build --sequence N`"
        )
    if sequence < last_seen and not request.options.allow_downgrade:
        raise VerificationError(
            f"release {sequence} is older than {last_seen}, which was in use here; "
            "install it with --allow-downgrade if that is what you want"
        )


def _check_room(home: Home, manifest: Manifest, source: Source) -> None:
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


def _stage(source: Source, request: Request, home: Home, outcome: Outcome) -> None:
    """Copy, verify as a whole, check headers, and give the release its name."""
    manifest = request.manifest
    staging = home.releases / f"{STAGING_PREFIX}{manifest.sequence}"
    try:
        make_folders(home.disk, staging)
        _drop_strangers(staging, manifest, home)
        for entry in manifest.files:
            if (staging / entry.path).is_file() and not check_file(staging, entry):
                outcome.resumed_bytes += entry.size_bytes
            else:
                _fetch(source, entry, staging, home)
                linked = source.twin(entry) is not None
                outcome.copied_bytes += 0 if linked else entry.size_bytes
            request.progress(entry.path, entry.size_bytes)
        for name in UNLISTED:
            write_file(home.disk, staging / name, [source.unlisted(name)])
        for folder in sorted((path for path in staging.rglob("*") if path.is_dir()), reverse=True):
            home.disk.sync_folder(folder)
        home.disk.sync_folder(staging)
        staged, _ = verify(staging, request.keys)
        if staged != manifest:
            raise VerificationError(f"{staging}: the medium changed while it was read; copy the box again")
        check_headers(staging, manifest)
        home.disk.rename(staging, home.release(manifest.sequence))
        home.disk.sync_folder(home.releases)
    except OSError as cause:
        raise storage_error("install", staging, cause) from cause


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


def _try_out(home: Home, sequence: int, gate: Gate) -> None:
    """Health check before and after the switch; the old release stays, or comes back, when it fails."""
    if problems := gate(home.release(sequence)):
        raise _refused(home, sequence, problems)
    begin_switch(home, sequence, "install")
    try:
        problems = gate(home.current)
    except WhisError:
        settle(home)
        raise
    if problems:
        settle(home)
        raise _refused(home, sequence, problems)
    confirm(home)


def _refused(home: Home, sequence: int, problems: list[str]) -> VerificationError:
    active = home.active()
    home.write_record(home.record().noting("refused", sequence, "; ".join(problems)))
    if active != sequence:
        discard(home, sequence)
    kept = "nothing is" if active is None else f"release {active} stays"
    return VerificationError(
        f"release {sequence} did not pass its health check ({'; '.join(problems)}); {kept} in use"
    )
