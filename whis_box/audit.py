"""The audit log: append-only NDJSON, each line with a keyed digest of itself and of the line before.

Invariant: a line that was changed, removed, added or moved breaks the chain; a cut tail is shorter than the
head file says. The key lies beside the log and belongs to its owner alone.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from whis_box.errors import StorageError, VerificationError, storage_error
from whis_box.paths import written_beside
from whis_box.schemas import Frozen

KEY_NAME, HEAD_NAME, FILES = "audit.key", "audit.head", "audit-*.ndjson"
START = "0" * 64
SYNC_INTERVAL_S = 1.0  # an entry is with the system at once, and on the disk after this long at most


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


class AuditCheck(Frozen):
    """Outcome of reading the whole chain."""

    intact: bool
    entries: int
    problem: str = ""


class AuditLog:
    """Appends to the newest file of a folder. Thread-safe; one process at a time."""

    def __init__(self, folder: Path, rotate_bytes: int = 50_000_000) -> None:
        """Open or begin the log; a last line that a crash cut off is put aside and noted.

        Raises: StorageError; VerificationError when the last line is not one of ours.
        """
        self.folder, self._rotate_bytes = folder, rotate_bytes
        self._lock = threading.Lock()
        self._synced_at = 0.0
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._key = _load_key(folder / KEY_NAME)
            paths = sorted(folder.glob(FILES))
            self._path = paths[-1] if paths else folder / "audit-000001.ndjson"
            torn_bytes = _cut_torn_line(self._path)
            self._seq, self._last = self._resume(paths)
            self._stream = self._path.open("ab", buffering=0)
            os.chmod(self._path, 0o600)
        except OSError as cause:
            raise storage_error("open the audit log", folder, cause) from cause
        if torn_bytes:
            self.append("audit.repaired", "whis", detail={"torn_bytes": torn_bytes})

    def append(
        self,
        action: str,
        actor: str,
        request_id: str = "",
        subject: str = "",
        detail: dict[str, Any] | None = None,
    ) -> AuditEntry:
        """Add one entry.

        Raises: StorageError; then nothing was added.
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
            self._write(entry.model_dump_json().encode() + b"\n")
            self._seq, self._last = entry.seq, entry.mac
            if time.monotonic() - self._synced_at >= SYNC_INTERVAL_S:
                self._sync()
            return entry

    def _write(self, line: bytes) -> None:
        try:
            size = self._stream.tell()
            if size and size + len(line) > self._rotate_bytes:
                self._sync()
                self._stream.close()
                number = int(self._path.stem.rpartition("-")[2]) + 1
                self._path = self.folder / f"audit-{number:06d}.ndjson"
                self._stream = self._path.open("ab", buffering=0)
                os.chmod(self._path, 0o600)
                size = 0
            written = self._stream.write(line)
            if written != len(line):
                self._stream.truncate(size)
                raise StorageError(
                    f"{self._path}: only {written} of {len(line)} bytes written; free some space"
                )
        except OSError as cause:
            raise storage_error("write the audit log", self._path, cause) from cause

    def _sync(self) -> None:
        os.fsync(self._stream.fileno())
        fields: dict[str, Any] = {"seq": self._seq, "last": self._last}
        with written_beside(self.folder / HEAD_NAME) as path:
            path.write_text(json.dumps({**fields, "mac": _mac(self._key, fields)}))
        self._synced_at = time.monotonic()

    def close(self) -> None:
        """Put everything on the disk."""
        with self._lock:
            if not self._stream.closed:
                self._sync()
                self._stream.close()

    def _resume(self, paths: list[Path]) -> tuple[int, str]:
        for path in reversed(paths):
            last = deque(_lines(path), maxlen=1)
            if last:
                entry = _entry(last[0], path)
                return entry.seq, entry.mac
        return 0, START


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
    if not path.is_file():
        return AuditCheck(intact=False, entries=seq, problem=f"{path}: missing; the tail cannot be checked")
    head = json.loads(path.read_text())
    if not hmac.compare_digest(str(head.get("mac")), _mac(key, {"seq": head["seq"], "last": head["last"]})):
        return AuditCheck(intact=False, entries=seq, problem=f"{path}: was changed")
    if head["seq"] > seq:
        problem = f"the log ends at entry {seq}, but {head['seq']} were written; the tail is missing"
        return AuditCheck(intact=False, entries=seq, problem=problem)
    if head["seq"] == seq and head["last"] != last:
        return AuditCheck(intact=False, entries=seq, problem=f"{path}: names another last entry")
    return AuditCheck(intact=True, entries=seq)


def _mac(key: bytes, fields: dict[str, Any]) -> str:
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hmac.new(key, canonical.encode(), hashlib.sha256).hexdigest()


def _load_key(path: Path) -> bytes:
    try:
        return bytes.fromhex(path.read_text().strip())
    except FileNotFoundError:
        key = secrets.token_bytes(32)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(key.hex())
        return key


def _cut_torn_line(path: Path) -> int:
    """Put a last line without its end aside; the number of bytes that were cut."""
    if not path.is_file():
        return 0
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole == len(data):
        return 0
    with path.with_suffix(".torn").open("ab") as aside:
        aside.write(data[whole:] + b"\n")
    os.truncate(path, whole)
    return len(data) - whole


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
