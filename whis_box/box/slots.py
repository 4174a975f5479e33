"""The releases of an installed box, and which of them is in use.

    HOME/releases/<sequence>/   whole, verified boxes; never changed
    HOME/current                a link to one of them
    HOME/control/record.json    the newest sequence ever confirmed, a switch under way, the history
    HOME/control/root.json      the keys that are trusted
    HOME/state/                 audit, jobs, feedback, pseudonym keys; no release touches it

Invariant: `current` changes by one rename, after the record says so; a switch that was not confirmed goes
back at the next start. Everything here but reading needs the lock.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from whis_box.config import describe_validation
from whis_box.durable import (
    PART_SUFFIX,
    Disk,
    make_folders,
    remove_file,
    remove_tree,
    replace_link,
    write_file,
)
from whis_box.errors import InputError, NotReadyError, StorageError, VerificationError, storage_error
from whis_box.schemas import Frozen, written_now

KEPT_RELEASES = 3
KEPT_HISTORY = 100
STAGING_PREFIX = ".staging-"


class Switch(Frozen):
    """A change of release that has begun and is not confirmed; None is "nothing installed"."""

    previous: int | None
    following: int
    action: str


class Event(Frozen):
    """One line of the history."""

    at: str
    action: str
    sequence: int | None
    detail: str = ""


class Record(Frozen):
    """What must survive every release."""

    format_version: int = Field(1, ge=1, le=1)
    last_seen: int = Field(0, ge=0)
    """Highest sequence that was ever confirmed; a lower one is a downgrade."""
    pending: Switch | None = None
    history: list[Event] = Field(default_factory=list)

    def noting(self, action: str, sequence: int | None, detail: str = "") -> Record:
        """The same with one more line of history."""
        event = Event(
            at=written_now(),
            action=action,
            sequence=sequence,
            detail=detail[:500],
        )
        return self.model_copy(update={"history": [*self.history[1 - KEPT_HISTORY :], event]})


@dataclass(frozen=True)
class Home:
    """Where a box is installed; `disk` is the seam that tests make fail."""

    folder: Path
    disk: Disk

    @property
    def releases(self) -> Path:
        """Folder of the releases."""
        return self.folder / "releases"

    @property
    def current(self) -> Path:
        """The link to the release in use."""
        return self.folder / "current"

    @property
    def control(self) -> Path:
        """Folder of what decides, outside every release."""
        return self.folder / "control"

    @property
    def state(self) -> Path:
        """Folder of what people and the program write."""
        return self.folder / "state"

    def release(self, sequence: int) -> Path:
        """Folder of one release."""
        return self.releases / str(sequence)

    def prepare(self) -> None:
        """Make the folders.

        Raises: StorageError.
        """
        try:
            for folder in (self.releases, self.control, self.state):
                make_folders(self.disk, folder)
        except OSError as cause:
            raise storage_error("create", self.folder, cause) from cause

    def active(self) -> int | None:
        """Sequence of the release in use, None when there is none.

        Raises: VerificationError if `current` is not one of our links.
        """
        if not self.current.is_symlink():
            if self.current.exists():
                raise VerificationError(f"{self.current}: is not a link; this is not an installed box")
            return None
        target = Path(os.readlink(self.current))
        if target.parent != Path("releases") or not target.name.isdecimal():
            raise VerificationError(
                f"{self.current}: leads to {target}, not to a release; point it at releases/<sequence>"
            )
        return int(target.name)

    def installed(self) -> list[int]:
        """Sequences of the whole releases on the disk, oldest first."""
        if not self.releases.is_dir():
            return []
        return sorted(int(one.name) for one in self.releases.iterdir() if one.name.isdecimal())

    def record(self) -> Record:
        """What the control folder says; the empty record before the first install.

        Raises: VerificationError, StorageError.
        """
        path = self.control / "record.json"
        try:
            return Record.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return Record()
        except ValidationError as cause:
            raise VerificationError(describe_validation(str(path), cause)) from None
        except OSError as cause:
            raise storage_error("read", path, cause) from cause

    def write_record(self, record: Record) -> None:
        """Raises: StorageError."""
        write_file(
            self.disk, self.control / "record.json", [(record.model_dump_json(indent=1) + "\n").encode()]
        )


@contextmanager
def locked(home: Home) -> Iterator[None]:
    """The only installer at work; the system lets go of the lock when the process dies.

    Raises: NotReadyError when another one holds it; StorageError.
    """
    home.prepare()
    path = home.control / "lock"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as cause:
        raise storage_error("lock", path, cause) from cause
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotReadyError(f"{path}: another installer is at work; wait until it has ended") from None
        yield
    finally:
        os.close(handle)


def settle(home: Home) -> str:
    """Undo a switch that was never confirmed; what was done, empty when nothing was.

    Raises: StorageError, VerificationError.
    """
    record = home.record()
    pending = record.pending
    if pending is None:
        return ""
    _point(home, pending.previous)
    back_to = "nothing installed" if pending.previous is None else f"release {pending.previous}"
    detail = f"{pending.action} of release {pending.following} was not confirmed; back to {back_to}"
    home.write_record(
        record.model_copy(update={"pending": None}).noting("reverted", pending.previous, detail)
    )
    return detail


def home_at(folder: Path) -> Home:
    """The place where boxes are installed, on the real disk."""
    return Home(folder.absolute(), Disk())


def settle_at_start(folder: Path) -> str:
    """`settle`, unless an installer is at work: then the switch under way is its own.

    Raises: StorageError, VerificationError.
    """
    home = Home(folder, Disk())
    if home.record().pending is None:
        return ""
    try:
        with locked(home):
            return settle(home)
    except NotReadyError:
        return ""


def begin_switch(home: Home, sequence: int, action: str) -> None:
    """Use another release, until `confirm` or the next `settle`."""
    record = home.record()
    switch = Switch(previous=home.active(), following=sequence, action=action)
    home.write_record(record.model_copy(update={"pending": switch}))
    _point(home, sequence)


def confirm(home: Home, detail: str = "") -> None:
    """Make the switch under way final."""
    record = home.record()
    assert record.pending is not None
    following, action = record.pending.following, record.pending.action
    settled = record.model_copy(update={"pending": None, "last_seen": max(record.last_seen, following)})
    home.write_record(settled.noting(action, following, detail))


def rollback(home: Home, sequence: int | None = None) -> int:
    """Use an older release that is still on the disk, by default the newest of them; its sequence.

    Raises: NotReadyError, InputError, StorageError; under the lock.
    """
    settle(home)
    active = home.active()
    if active is None:
        raise NotReadyError(f"{home.folder}: nothing is installed; run `whis box install MEDIUM`")
    older = [one for one in home.installed() if one < active]
    if sequence is None:
        if not older:
            raise NotReadyError(f"{home.folder}: no release older than {active} is kept; install one")
        sequence = older[-1]
    if sequence not in home.installed():
        kept = ", ".join(str(one) for one in home.installed())
        raise InputError(f"release {sequence} is not on this disk; there are: {kept}")
    if sequence != active:
        begin_switch(home, sequence, "rollback")
        confirm(home, f"from {active}")
    return sequence


def prune(home: Home) -> list[int]:
    """Remove what a killed install left, and all but the newest releases; the sequences that went.

    Raises: StorageError; under the lock.
    """
    active = home.active()
    keep = set(home.installed()[-KEPT_RELEASES:])
    if active is not None:
        # The one in use stays whatever its age, and counts.
        keep = {active, *sorted(keep - {active})[1 - KEPT_RELEASES :]}
    gone = [one for one in home.installed() if one not in keep]
    for sequence in gone:
        discard(home, sequence)
    return gone


def discard(home: Home, sequence: int) -> None:
    """Remove a release that is not in use: first its name, then its files.

    Raises: StorageError.
    """
    assert sequence != home.active()
    doomed = home.releases / f".removed-{sequence}"
    remove_tree(home.disk, doomed)
    try:
        home.disk.rename(home.release(sequence), doomed)
        home.disk.sync_folder(home.releases)
    except OSError as cause:
        raise storage_error("remove", home.release(sequence), cause) from cause
    remove_tree(home.disk, doomed)


def sweep(home: Home, keep_staging: int | None) -> None:
    """Remove what earlier runs left half done, but for the staged copy that is about to go on.

    Raises: StorageError.
    """
    kept = f"{STAGING_PREFIX}{keep_staging}"
    for path in sorted(home.releases.iterdir()):
        if path.name.startswith(".") and path.name != kept:
            remove_tree(home.disk, path)
    for folder in (home.folder, home.control):
        for path in sorted(folder.glob(f"*{PART_SUFFIX}")):
            remove_file(home.disk, path)


def _point(home: Home, sequence: int | None) -> None:
    if sequence is None:
        remove_file(home.disk, home.current)
        return
    if not home.release(sequence).is_dir():
        raise StorageError(f"{home.release(sequence)}: is gone; install a box again")
    if home.active() != sequence:
        replace_link(home.disk, home.current, f"releases/{sequence}")
