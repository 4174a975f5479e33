"""Where a box and its state lie, and how files are read, hashed and written.

Invariant: a box is read-only at run time; everything the program writes goes to the state folder, and a
file appears under its name only when it is complete.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from whis_box.durable import Disk, publish
from whis_box.errors import NotReadyError, storage_error

GET_IT_AGAIN = "run `make demo` or copy the box again"


def default_box() -> Path:
    """The box to use when none is named: `WHIS_BOX`, the frozen program's folder, or the assembled one."""
    named = os.environ.get("WHIS_BOX")
    if named:
        return Path(named)
    if getattr(sys, "frozen", False):
        return Path(sys.executable).resolve().parent
    return repository_root() / "build" / "box"


def own_program() -> list[str]:
    """The command that starts this program again, as a child of its own."""
    return [sys.executable] if getattr(sys, "frozen", False) else [sys.executable, "-m", "whis_box.cli"]


def installed_home() -> Path | None:
    """The folder that this frozen program is installed in, None when it runs from anywhere else."""
    if not getattr(sys, "frozen", False):
        return None
    releases = Path(sys.executable).resolve().parent.parent
    return releases.parent if releases.name == "releases" and (releases.parent / "control").is_dir() else None


def default_home() -> Path:
    """Where boxes are installed: `WHIS_HOME`, this program's own home, or the XDG data folder."""
    named = os.environ.get("WHIS_HOME")
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(named) if named else installed_home() or Path(base) / "whis-box"


def repository_root() -> Path:
    """Folder that holds the `whis_box` package."""
    return Path(__file__).resolve().parent.parent


def source_commit() -> str:
    """The commit this tree was built from, or "unknown" outside a repository."""
    try:
        command = ["git", "-C", str(repository_root()), "rev-parse", "HEAD"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def state_dir() -> Path:
    """Folder for caches and logs: `WHIS_STATE`, else an installed box's own, else the XDG state folder."""
    named = os.environ.get("WHIS_STATE")
    if named:
        return Path(named)
    home = installed_home()
    if home is not None and os.access(home / "state", os.W_OK):
        return home / "state"
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "whis-box"


def read_text(path: Path, remedy: str = GET_IT_AGAIN) -> str:
    """A UTF-8 text file; bytes that are not UTF-8 raise UnicodeDecodeError for the caller to explain.

    Raises: NotReadyError with `remedy` if it is missing; StorageError.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotReadyError(f"{path}: missing; {remedy}") from None
    except OSError as cause:
        raise storage_error("read", path, cause) from cause


def file_sha256(path: Path, remedy: str = GET_IT_AGAIN) -> str:
    """Hex sha256 of a file, streamed.

    Raises: NotReadyError with `remedy` if it is missing; StorageError.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        raise NotReadyError(f"{path}: missing; {remedy}") from None
    except OSError as cause:
        raise storage_error("read", path, cause) from cause


def file_bytes_hold(path: Path, passages: Sequence[bytes]) -> list[bytes]:
    """Which of the passages stand anywhere in the file's raw bytes.

    Raises: StorageError.
    """
    overlap = max((len(one) for one in passages), default=1)
    found: set[bytes] = set()
    try:
        with path.open("rb") as stream:
            tail = b""
            while block := stream.read(1 << 24):
                window = tail + block
                found.update(one for one in passages if one in window)
                tail = window[-overlap:]
    except OSError as cause:
        raise storage_error("read", path, cause) from cause
    return sorted(found)


@contextmanager
def written_beside(target: Path) -> Iterator[Path]:
    """A temporary path in `target`'s folder that is renamed onto `target` when the block succeeds.

    Raises: StorageError for anything the file system refuses.
    """
    beside: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
        beside = Path(name)
        yield beside
        beside.chmod(0o644)
        publish(Disk(), beside, target)
    except OSError as cause:
        raise storage_error("write", target, cause) from cause
    finally:
        if beside is not None:
            beside.unlink(missing_ok=True)
