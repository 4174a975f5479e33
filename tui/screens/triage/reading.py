"""Alerts from folders, files and stdin, as rows of the queue; the bytes stay where they are.

Invariant: a row holds no event, only where it lies and its sha256, so that ten thousand fit in little memory;
a line that cannot be read is a row too, with its reason.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from tui.safe_text import safe_line
from whis_box.batch import event_of
from whis_box.errors import InputError, StorageError, storage_error
from whis_box.ingest.alerts import MAX_EVENT_BYTES, parse_event, read_alert

RowState = Literal["new", "queued", "running", "done", "failed", "bad"]
ONE_EVENT = {".json"}
BY_LINE = {".ndjson", ".jsonl", ".log", ".txt", ".cef", ".leef", ".syslog"}
MAX_FILES = 20_000
TITLE_CHARS = 160


@dataclass(frozen=True, slots=True)
class Place:
    """Where an event lies: a file (or what was piped in) from `start` for `length` bytes."""

    name: str
    start: int
    length: int
    spool: IO[bytes] | None = None

    def read(self) -> bytes:
        """The bytes.

        Raises: StorageError.
        """
        try:
            if self.spool is not None:
                self.spool.seek(self.start)
                return self.spool.read(self.length)
            with open(self.name, "rb") as stream:
                stream.seek(self.start)
                return stream.read(self.length)
        except OSError as cause:
            raise storage_error("read the alert", Path(self.name), cause) from cause


@dataclass(slots=True, eq=False)
class Row:
    """One alert of the queue and what became of it."""

    key: str
    place: Place | None
    title: str
    alert_id: str = ""
    severity: str = ""
    at: str = ""
    source: str = ""
    state: RowState = "new"
    job: str = ""
    verdict: str = ""
    confidence: float = 0.0
    techniques: str = ""
    decision: str = ""
    reason: str = ""
    problem: str = ""
    ticked: set[int] = field(default_factory=set)

    def event(self) -> dict[str, Any]:
        """The event itself.

        Raises: StorageError, InputError; also when the file is not what it was.
        """
        if self.place is None:
            raise InputError("this alert came from a job of the server, which does not hand out its event")
        data = self.place.read()
        if digest(data) != self.key:
            raise StorageError(f"{self.place.name}: changed since it was opened; open the alerts again (o)")
        return event_of(dict(parse_event(data, self.place.name)))


def digest(data: bytes) -> str:
    """The name of an alert across runs."""
    return hashlib.sha256(data.strip()).hexdigest()[:32]


def read_all(paths: Sequence[str], piped: bytes = b"") -> Iterator[Row]:
    """Rows in the order of the files; each unreadable file or line is one row in state `bad`."""
    if piped:
        spool = io.BytesIO(piped)
        yield from _lines("stdin", spool, spool)
    for path in paths:
        try:
            yield from _path(Path(path).expanduser())
        except OSError as cause:
            yield bad(path, None, str(storage_error("read", Path(path), cause)))


def _path(path: Path) -> Iterator[Row]:
    if path.is_dir():
        found = (one for one in sorted(path.rglob("*")) if one.suffix.lower() in ONE_EVENT | BY_LINE)
        for count, file in enumerate(one for one in found if one.is_file()):
            if count == MAX_FILES:
                yield bad(str(path), None, f"{path}: more than {MAX_FILES} files; open a part of them")
                return
            yield from _path(file)
        return
    with path.open("rb") as stream:
        if path.suffix.lower() in BY_LINE or _is_many(path):
            yield from _lines(str(path), stream, None)
        else:
            data = stream.read(MAX_EVENT_BYTES + 1)
            yield row_of(Place(str(path), 0, len(data)), data, str(path))


def _is_many(path: Path) -> bool:
    """Whether a `.json` file is in truth one object a line."""
    with path.open("rb") as stream:
        first, second = stream.readline(MAX_EVENT_BYTES).strip(), stream.readline(MAX_EVENT_BYTES).strip()
    return first.startswith(b"{") and first.endswith(b"}") and second.startswith(b"{")


def _lines(name: str, stream: IO[bytes], spool: IO[bytes] | None) -> Iterator[Row]:
    start, number = 0, 0
    while True:
        stream.seek(start)  # a reader of an earlier row may have moved a spool
        line = stream.readline(MAX_EVENT_BYTES + 1)
        if not line:
            return
        number += 1
        rest = line
        while rest and not rest.endswith(b"\n"):  # longer than an event may be: go on behind it
            rest = stream.readline(MAX_EVENT_BYTES)
        after = stream.tell()
        if line.strip():
            yield row_of(Place(name, start, len(line), spool), line, f"{name}: line {number}")
        start = after


def row_of(place: Place, data: bytes, where: str) -> Row:
    """A row of one event."""
    try:
        alert = read_alert(event_of(dict(parse_event(data, where))))
    except InputError as error:
        return bad(where, place, str(error), digest(data))
    return Row(
        key=digest(data),
        place=place,
        title=safe_line(alert.title, TITLE_CHARS),
        alert_id=safe_line(alert.id, 80),
        severity=alert.severity or "",
        at=safe_line(alert.occurred_at or "", 30),
        source=safe_line(alert.provider or alert.family, 40),
    )


def bad(where: str, place: Place | None, problem: str, key: str = "") -> Row:
    """A row that says why something could not be read."""
    held = key or hashlib.sha256(where.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    title = safe_line(problem.replace(where, Path(where).name), TITLE_CHARS)
    return Row(key=held, place=place, title=title, state="bad", problem=problem)
