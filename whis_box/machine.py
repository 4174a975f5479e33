"""What `whis doctor` asks the machine: memory, disk, clock, permissions, trusted keys, open sockets.

Invariant: a check that could not run says so instead of passing.
"""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from whis_box.box.install import trusted_root
from whis_box.box.manifest import Manifest
from whis_box.box.slots import Home
from whis_box.box.trust import check_time
from whis_box.durable import Disk
from whis_box.errors import NotReadyError, VerificationError, WhisError
from whis_box.guards.egress import check_silence
from whis_box.paths import installed_home, state_dir

State = Literal["ok", "warning", "failed"]
BESIDE_WEIGHTS_MB = 800  # the box's own peak without the base model, see docs/measurements.md, and some room
MIN_FREE_DISK_MB = 200


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    name: str
    state: State
    detail: str
    remedy: str = ""


def memory(weights_mb: float) -> Check:
    """Free memory against the base model and what stands beside it."""
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        available_mb = int(fields["MemAvailable"].split()[0]) / 1024
    except (OSError, KeyError, ValueError):
        return Check("memory", "warning", "cannot be read on this system", "check that about 1 GB is free")
    needed_mb = weights_mb + BESIDE_WEIGHTS_MB
    state: State = "ok" if available_mb >= needed_mb else "warning"
    detail = f"{available_mb:.0f} MB available, {needed_mb:.0f} MB needed"
    return Check("memory", state, detail, "free memory, or install a box with a smaller base model")


def disk() -> Check:
    """The state folder: writable, and some room."""
    folder = state_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free_mb = shutil.disk_usage(folder).free / 1e6
    except OSError as cause:
        return Check(
            "state folder", "warning", f"{folder}: {cause.strerror}", "set WHIS_STATE to a writable folder"
        )
    if not os.access(folder, os.W_OK):
        return Check(
            "state folder", "warning", f"{folder}: not writable", "set WHIS_STATE to a writable folder"
        )
    state: State = "ok" if free_mb >= MIN_FREE_DISK_MB else "warning"
    return Check("state folder", state, f"{folder}: writable, {free_mb:.0f} MB free", "free some disk space")


def clock(manifest: Manifest) -> Check:
    """The clock against the release's times; it only warns, as an air-gapped clock is often wrong."""
    now = datetime.now(UTC)
    try:
        warnings = check_time("the box", manifest.issued_at, manifest.expires_at, now)
    except WhisError as error:
        return Check("clock", "warning", str(error), "install a newer release, or set the clock")
    if warnings:
        return Check("clock", "warning", warnings[0], "set the clock")
    until = (
        f"the box is valid until {manifest.expires_at}" if manifest.expires_at else "the box never expires"
    )
    return Check("clock", "ok", f"{now:%Y-%m-%dT%H:%M:%SZ}; {until}")


def permissions(folder: Path) -> Check:
    """Whether somebody else may write into the box."""
    open_to_all = [
        path.relative_to(folder.parent).as_posix()
        for path in (folder, *folder.rglob("*"))
        if not path.is_symlink() and path.stat().st_mode & stat.S_IWOTH
    ]
    if open_to_all:
        detail = f"{len(open_to_all)} files may be written by everybody, like {open_to_all[0]}"
        return Check("permissions", "warning", detail, f"chmod -R o-w {folder}")
    return Check("permissions", "ok", "nobody but owner and group may write into the box")


def trusted_keys(home_folder: Path | None = None) -> Check:
    """The root of trust of an installed box; none is needed to run one from a folder."""
    folder = home_folder or installed_home()
    if folder is None:
        return Check("key", "ok", "not installed: run from a folder, no key is pinned")
    home = Home(folder, Disk())
    try:
        root = trusted_root(home)
        pending = home.record().pending
    except WhisError as error:
        return Check("key", "warning", str(error), "pin the builder's root with `whis box trust`")
    detail = f"root {root.version}, {len(root.release_keys)} release keys, until {root.expires_at}"
    if pending is not None:
        return Check(
            "key", "warning", f"{detail}; release {pending.following} is not confirmed", "start whis again"
        )
    return Check("key", "ok", detail)


def sockets(name: str = "sockets", pid: int | str = "self") -> Check:
    """The egress self-test of a process that serves nobody: it holds no Internet socket at all."""
    try:
        check_silence(pid)
    except NotReadyError as error:
        return Check(name, "warning", str(error), "run on a system with /proc")
    except VerificationError as error:
        return Check(name, "failed", str(error), "report this: none is expected")
    return Check(name, "ok", "no Internet socket is open")
