"""What the box answered, one line each, so that a run that was cut off goes on where it was.

Invariant: a journal belongs to one binding (box, golden sets, code, seed); a line that was cut off counts as
never written.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import ValidationError

from whis_box.errors import InputError, storage_error
from whis_box.paths import repository_root
from whis_box.schemas import Answer, Frozen, Triage


class SeenHit(Frozen):
    """A retrieved chunk, best first."""

    chunk_id: str
    record_id: str
    text: str


class Observation(Frozen):
    """What came back for one item of one golden set; exactly one of the results, or an error."""

    kind: str
    id: str
    seconds: float
    hits: list[SeenHit] | None = None
    answer: Answer | None = None
    triage: Triage | None = None
    text: str | None = None
    error: str = ""


class Journal:
    """An append-only NDJSON file of observations. Not shared between processes."""

    def __init__(self, path: Path, binding: dict[str, Any]) -> None:
        """Open or begin it.

        Raises: InputError if it belongs to another binding; StorageError.
        """
        self.path, self.seen = path, dict[tuple[str, str], Observation]()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            complete = self._read(binding) if path.exists() else 0
            self._stream = path.open("r+b" if complete else "wb")
            self._stream.truncate(complete)
            self._stream.seek(complete)
            if not complete:
                self._write(json.dumps({"binding": binding}, sort_keys=True))
        except OSError as cause:
            raise storage_error("keep the run's records", path, cause) from cause

    def _read(self, binding: dict[str, Any]) -> int:
        """Load every complete line; the number of bytes they take."""
        complete = 0
        with self.path.open("rb") as stream:
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                try:
                    if complete == 0:
                        self._compare(json.loads(line).get("binding"), binding)
                    else:
                        one = Observation.model_validate_json(line)
                        self.seen[one.kind, one.id] = one
                except (ValidationError, ValueError, AttributeError) as cause:
                    raise InputError(
                        f"{self.path}: not a run's records ({cause}); remove the folder"
                    ) from None
                complete += len(line)
        return complete

    def _compare(self, found: Any, binding: dict[str, Any]) -> None:
        if found != binding:
            differing = sorted(
                key for key in binding if not isinstance(found, dict) or found.get(key) != binding[key]
            )
            raise InputError(
                f"{self.path}: belongs to a run with another {', '.join(differing)}; "
                "choose another --out or remove the folder"
            )

    def add(self, one: Observation) -> None:
        """Keep an observation; it survives the end of the process.

        Raises: StorageError.
        """
        self.seen[one.kind, one.id] = one
        self._write(one.model_dump_json(exclude_none=True))

    def _write(self, line: str) -> None:
        try:
            self._stream.write(line.encode() + b"\n")
            self._stream.flush()
        except OSError as cause:
            raise storage_error("keep the run's records", self.path, cause) from cause

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()


def code_digest() -> str:
    """sha256 over the program's own source, evaluation left out: its scoring is repeated on every run."""
    root = repository_root() / "whis_box"
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if relative.parts[0] != "evaluation" and not relative.name.startswith("cli"):
            digest.update(f"{relative.as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()
