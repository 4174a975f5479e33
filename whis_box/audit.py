"""The audit log: append-only NDJSON, each line with a keyed digest of itself and of the line before.

Invariant: an entry that `append` returned is on the disk. A line that was changed, removed, added or moved
breaks the chain; a cut tail is shorter than the head file says. The key lies beside the log and belongs to
its owner alone.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from whis_box.durable import Disk, make_folders, write_file
from whis_box.errors import StorageError, VerificationError, storage_error
from whis_box.schemas import Frozen

KEY_NAME, HEAD_NAME, FILES = "audit.key", "audit.head", "audit-*.ndjson"
START = "0" * 64
log = logging.getLogger("whis.audit")
HEAD_INTERVAL_S = 1.0  # how far the head file may be behind the log


class AuditEntry(Frozen):
    """One line; `mac` covers every other field, and `previous` is the `mac` of the line before."""

    seq: int
    at: str
    request_id: str
    actor: str
    action: str
    subject: str = ""
    detail: dict[str, Any] = Field(default_factory=dict)
    previous: str
    mac: str


class Head(Frozen):
    """The head file: the last entry that is known to be on the disk."""

    seq: int
    last: str
    mac: str


class AuditCheck(Frozen):
    """Outcome of reading the whole chain."""

    intact: bool
    entries: int
    problem: str = ""


class AuditLog:
    """Appends to the newest file of a folder. Thread-safe; one process at a time."""

    def __init__(self, folder: Path, rotate_bytes: int = 50_000_000, disk: Disk | None = None) -> None:
        """Open or begin the log; a last line that a crash cut off is put aside, and what is missing is noted.

        Raises: StorageError; VerificationError when the last line is not one of ours.
        """
        self.folder, self._rotate_bytes, self._disk = folder, rotate_bytes, disk or Disk()
        self._lock = threading.Lock()
        self._head_at = float("-inf")
        self._handle: int | None = None
        self._size, self._torn = 0, False
        try:
            make_folders(self._disk, folder, 0o700)
            self._key = _make_key(self._disk, folder / KEY_NAME)
            paths = sorted(folder.glob(FILES))
            self._path = paths[-1] if paths else folder / "audit-000001.ndjson"
            torn_bytes = self._cut_torn_line()
            self._seq, self._last = self._resume(paths)
            found = self._compare_head() | ({"torn_bytes": torn_bytes} if torn_bytes else {})
            if not paths:
                self._write_head()
            self._open()
        except OSError as cause:
            self._release()
            raise storage_error("open the audit log", folder, cause) from cause
        if found:
            self.append("audit.repaired", "whis", detail=found)

    def append(
        self,
        action: str,
        actor: str,
        request_id: str = "",
        subject: str = "",
        detail: dict[str, Any] | None = None,
    ) -> AuditEntry:
        """Add one entry; it is on the disk when this returns.

        Raises: StorageError; then the entry does not count, and the next one takes its place.
        """
        with self._lock:
            fields = {
                "seq": self._seq + 1,
                "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "request_id": request_id,
                "actor": actor,
                "action": action,
                "subject": subject,
                "detail": detail or {},
                "previous": self._last,
            }
            entry = AuditEntry.model_validate({**fields, "mac": _mac(self._key, fields)})
            try:
                self._write(entry.model_dump_json().encode() + b"\n")
            except OSError as cause:
                with suppress(OSError):  # else the next call does it, or the next start
                    self._repair()
                raise storage_error("write the audit log", self._path, cause) from cause
            self._seq, self._last = entry.seq, entry.mac
            if time.monotonic() - self._head_at >= HEAD_INTERVAL_S:
                self._update_head()
            return entry

    def _write(self, line: bytes) -> None:
        """One line, on the disk."""
        self._repair()
        if self._handle is None:
            self._open()
        if self._size and self._size + len(line) > self._rotate_bytes:
            self._release()
            number = int(self._path.stem.rpartition("-")[2]) + 1
            self._path = self.folder / f"audit-{number:06d}.ndjson"
            self._open()
        assert self._handle is not None
        self._torn = True
        self._disk.write(self._handle, line)
        self._disk.sync(self._handle)
        self._size, self._torn = self._size + len(line), False

    def _repair(self) -> None:
        """Take back what a failed attempt left."""
        if self._torn and self._handle is not None:
            self._disk.truncate(self._handle, self._size)
            self._disk.sync(self._handle)
            self._torn = False

    def _open(self) -> None:
        """The newest file, with its name on the disk."""
        handle = self._disk.append(self._path)
        try:
            self._disk.sync_folder(self.folder)
        except OSError:
            os.close(handle)
            raise
        self._handle, self._size = handle, os.fstat(handle).st_size

    def _release(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)

    def _update_head(self) -> None:
        """The entry counts already: a head that stays behind is told, and tried again with the next one."""
        try:
            self._write_head()
        except StorageError as error:
            log.warning("the audit log's head stays behind: %s", error)

    def _write_head(self) -> None:
        """Say how far the log goes; it never says more than is on the disk."""
        fields: dict[str, Any] = {"seq": self._seq, "last": self._last}
        text = json.dumps({**fields, "mac": _mac(self._key, fields)})
        write_file(self._disk, self.folder / HEAD_NAME, [text.encode()], 0o600)
        self._head_at = time.monotonic()

    def close(self) -> None:
        """Bring the head up to date and close."""
        with self._lock:
            if self._handle is not None:
                self._release()
                self._write_head()

    def _resume(self, paths: list[Path]) -> tuple[int, str]:
        for path in reversed(paths):
            last = deque(_lines(path), maxlen=1)
            if last:
                entry = _entry(last[0], path)
                return entry.seq, entry.mac
        return 0, START

    def _compare_head(self) -> dict[str, Any]:
        """What the head file says against the log as it was found, so that no restart hides it."""
        if not self._seq and not (self.folder / HEAD_NAME).is_file():
            return {}
        checked = _check_head(self.folder, self._key, self._seq, self._last)
        return {} if checked.intact else {"head": checked.problem}

    def _cut_torn_line(self) -> int:
        """Put a last line aside that has no end, or a hole; the number of bytes that were cut."""
        if not self._path.is_file():
            return 0
        data = self._path.read_bytes()
        whole = data.rfind(b"\n") + 1
        last = data[:whole].rstrip(b"\n").rfind(b"\n") + 1
        if b"\0" in data[last:whole]:  # no entry holds a zero byte
            whole = last
        if whole == len(data):
            return 0
        aside = self._path.with_suffix(".torn")
        kept = aside.read_bytes() if aside.is_file() else b""
        if not kept.endswith(data[whole:] + b"\n"):
            write_file(self._disk, aside, [kept, data[whole:] + b"\n"], 0o600)
        handle = self._disk.append(self._path)
        try:
            self._disk.truncate(handle, whole)
            self._disk.sync(handle)
        finally:
            os.close(handle)
        return len(data) - whole


def tail(folder: Path, limit: int, before: int | None = None) -> list[AuditEntry]:
    """The last `limit` entries, of those with a smaller `seq` than `before`; oldest first.

    Raises: StorageError, VerificationError.
    """
    found: deque[AuditEntry] = deque()
    for path in sorted(folder.glob(FILES), reverse=True):
        newest = deque(
            (one for one in _entries(path) if before is None or one.seq < before), maxlen=limit - len(found)
        )
        found.extendleft(reversed(newest))
        if len(found) >= limit:
            break
    return list(found)


def verify_log(folder: Path) -> AuditCheck:
    """Read the whole chain; the first problem is named with its file and line.

    Raises: StorageError.
    """
    paths = sorted(folder.glob(FILES))
    if not paths:
        return AuditCheck(intact=True, entries=0)
    if not (folder / KEY_NAME).is_file():
        return AuditCheck(intact=False, entries=0, problem=f"{folder / KEY_NAME}: missing; bring it back")
    key = _load_key(folder / KEY_NAME)
    seq, last = 0, START
    for path in paths:
        for number, line in enumerate(_lines(path), start=1):
            problem = ""
            try:
                entry = _entry(line, path)
            except VerificationError as error:
                return AuditCheck(intact=False, entries=seq, problem=f"line {number}: {error}")
            if entry.seq != seq + 1:
                problem = f"entry {entry.seq} follows entry {seq}"
            elif entry.previous != last:
                problem = f"entry {entry.seq} does not continue the one before"
            elif not hmac.compare_digest(entry.mac, _mac(key, entry.model_dump(exclude={"mac"}))):
                problem = f"entry {entry.seq} was changed"
            if problem:
                return AuditCheck(intact=False, entries=seq, problem=f"{path}: line {number}: {problem}")
            seq, last = entry.seq, entry.mac
    return _check_head(folder, key, seq, last)


def _check_head(folder: Path, key: bytes, seq: int, last: str) -> AuditCheck:
    """The head file must not be ahead of the log: that would be a tail that was cut off."""
    path = folder / HEAD_NAME
    head = _read_head(path)
    problem = ""
    if not path.is_file():
        problem = f"{path}: missing; the tail cannot be checked"
    elif head is None or not hmac.compare_digest(head.mac, _mac(key, head.model_dump(exclude={"mac"}))):
        problem = f"{path}: was changed"
    elif head.seq > seq:
        problem = f"the log ends at entry {seq}, but {head.seq} were written; the tail is missing"
    elif head.seq == seq and head.last != last:
        problem = f"{path}: names another last entry"
    return AuditCheck(intact=not problem, entries=seq, problem=problem)


def _read_head(path: Path) -> Head | None:
    """What the head file says, None if it says nothing."""
    try:
        return Head.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    except OSError as cause:
        raise storage_error("read the audit log's head", path, cause) from cause


def _mac(key: bytes, fields: dict[str, Any]) -> str:
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hmac.new(key, canonical.encode(), hashlib.sha256).hexdigest()


def _make_key(disk: Disk, path: Path) -> bytes:
    """The log's key, made when there is none."""
    if not path.is_file():
        write_file(disk, path, [secrets.token_hex(32).encode()], 0o600)
    return _load_key(path)


def _load_key(path: Path) -> bytes:
    try:
        return bytes.fromhex(path.read_text().strip())
    except ValueError:
        raise VerificationError(f"{path}: is not a key; bring the right one back") from None


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as stream:
            yield from stream
    except OSError as cause:
        raise storage_error("read the audit log", path, cause) from cause


def _entries(path: Path) -> Iterator[AuditEntry]:
    for line in _lines(path):
        if line.endswith(b"\n"):  # the last line may still be on its way
            yield _entry(line, path)


def _entry(line: bytes, path: Path) -> AuditEntry:
    try:
        return AuditEntry.model_validate_json(line)
    except ValidationError:
        raise VerificationError(f"{path}: a line is not an audit entry; run `whis audit verify`") from None
