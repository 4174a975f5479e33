"""NDJSON batches and the files and streams a command reads its input from.

Invariant: one line of output for each line of input, in order; a bad line gives an error object and the
batch goes on.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from whis_box.errors import EXIT_ERROR, EXIT_OK, InputError, storage_error
from whis_box.ingest.alerts import parse_event

MAX_LINE_BYTES = 5_000_000


def run(source: str, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> int:
    """Print `answer(line)` for each JSON object in the file `source` (`-` is stdin); the exit code.

    Raises: InputError for a line over the limit, StorageError; a line `answer` refuses goes on as an error.
    """
    worst = EXIT_OK
    for number, raw in enumerate(_lines(source), start=1):
        request_id = None
        try:
            line = dict(parse_event(raw, f"{source}: line {number}"))
            request_id = line.get("id")
            if request_id is not None and not isinstance(request_id, str):
                raise InputError(f"{source}: line {number}: id must be a string")
            result = answer(line)
        except InputError as error:
            worst = EXIT_ERROR
            body = {"message": str(error), "type": "invalid_request_error", "param": None, "code": error.code}
            result = {"request_id": request_id, "error": body}
        print(json.dumps(result, ensure_ascii=False), flush=True)
    return worst


def field(line: dict[str, Any], name: str) -> str:
    """The string `name` of a line.

    Raises: InputError.
    """
    value = line.get(name)
    if not isinstance(value, str):
        raise InputError(f'the line needs a string {name!r}, like {{"id": "1", {json.dumps(name)}: "…"}}')
    return value


def event_of(line: dict[str, Any]) -> dict[str, Any]:
    """The event of a line: under `event` beside an `id`, or the line itself."""
    event = line.get("event")
    return event if isinstance(event, dict) and set(line) <= {"id", "event"} else line


def text_argument(text: str) -> str:
    """The argument itself, or stdin for `-`."""
    return read_bytes("-").decode("utf-8", "replace") if text == "-" else text


def read_bytes(source: str) -> bytes:
    """A file's or stdin's first bytes, one more than the limit at most, so that the reader can refuse it.

    Raises: StorageError.
    """
    try:
        if source == "-":
            return sys.stdin.buffer.read(MAX_LINE_BYTES + 1)
        with open(source, "rb") as stream:
            return stream.read(MAX_LINE_BYTES + 1)
    except OSError as cause:
        raise storage_error("read the input", Path(source), cause) from cause


def _lines(source: str) -> Iterator[bytes]:
    try:
        with sys.stdin.buffer if source == "-" else open(source, "rb") as stream:
            while line := stream.readline(MAX_LINE_BYTES + 1):
                if len(line) > MAX_LINE_BYTES:
                    raise InputError(
                        f"{source}: a line is longer than {MAX_LINE_BYTES} bytes; split the file"
                    )
                if line.strip():
                    yield line
    except OSError as cause:
        raise storage_error("read", Path(source), cause) from cause
