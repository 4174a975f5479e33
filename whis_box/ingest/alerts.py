"""Alerts in: read the bytes of one JSON event within limits, then name, list and describe what it says.

Invariant: `parse_event` raises InputError and nothing else on any bytes; the rest takes any JSON object.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections import Counter

from whis_box.errors import InputError
from whis_box.ingest.alert_families import Alert, Family, read_alert
from whis_box.ingest.alert_observables import MAX_OBSERVABLES, observables
from whis_box.ingest.alert_query import search_text
from whis_box.ingest.alert_text import describe

__all__ = [
    "MAX_OBSERVABLES",
    "Alert",
    "Family",
    "describe",
    "observables",
    "parse_event",
    "read_alert",
    "search_text",
]

MAX_EVENT_BYTES = 5_000_000  # the largest real events are script blocks and task XML of some 100 KB
MAX_DEPTH = 64  # OCSF, the deepest family, nests about 12 levels; Python's parser fails near 1,000
MAX_KEYS = 20_000  # keys and list items together; a wide event has some 500

# A string (closed or not, so that the scan stays linear), a bracket, a comma, or a word JSON does not have.
TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[\]{},]|NaN|Infinity', re.DOTALL)
MAGIC: dict[bytes, str] = {
    b"ElfFile\x00": "a binary Windows event log (EVTX); export the event as JSON",
    b"PK\x03\x04": "a ZIP archive; unpack it first",
    b"\x1f\x8b": "a gzip file; unpack it first",
}


def parse_event(data: bytes, where: str) -> dict[str, object]:
    """Read exactly one JSON object; `where` names the file or request in errors.

    Raises: InputError, with `where`, the line and column or the byte offset, and what to do.
    """
    if len(data) > MAX_EVENT_BYTES:
        problem = f"{len(data)} bytes; an event may have {MAX_EVENT_BYTES}: give one event, not a whole log"
        raise InputError(f"{where}: {problem}")
    text = _decode(data, where)
    if not text.strip():
        raise InputError(f"{where}: empty (byte 0); give one JSON object")
    _check_shape(text, where)
    try:
        event = json.loads(text, object_pairs_hook=_unique_keys, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: {_broken(text, error)}") from error
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error
    if not isinstance(event, dict):
        problem = (
            f"a JSON {_json_type(event)}; must be one object: give the events one by one, or one per line"
        )
        raise InputError(f"{where}: line 1, column 1: {problem}")
    return event


def _decode(data: bytes, where: str) -> str:
    for magic, meaning in MAGIC.items():
        if data.startswith(magic):
            raise InputError(f"{where}: byte 0: this is {meaning}")
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        name = "UTF-16" if encoding == "utf-16" else "UTF-8"
        problem = f"not {name} ({error.reason}); save the event as UTF-8 JSON"
        raise InputError(f"{where}: byte {error.start}: {problem}") from error
    if "\0" in text:
        at = _position(text, text.index("\0"))
        raise InputError(f"{where}: {at}: a NUL character; save the event as UTF-8 JSON text")
    return text


def _check_shape(text: str, where: str) -> None:
    """Refuse depth, width and NaN before the parser sees them: it would recurse, allocate or accept."""
    depth = items = 0
    problem = ""
    for token in TOKEN.finditer(text):
        first = token[0][0]
        if first in "[{":
            depth += 1
            items += 1
        elif first in "]}":
            depth -= 1
        elif first == ",":
            items += 1
        elif first in "NI":
            problem = f"{token[0]} is not a JSON value; write a number or null"
        if depth > MAX_DEPTH:
            problem = f"nested deeper than {MAX_DEPTH} levels; give the event itself, not a wrapped dump"
        if items > MAX_KEYS:
            problem = f"more than {MAX_KEYS} keys and list items; give one event, not a whole log"
        if problem:
            raise InputError(f"{where}: {_position(text, token.start())}: {problem}")


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice[:80]!r} occurs twice in one object; remove one of them")
    return members


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {digits[:40]} is out of range; write it as text")
    return number


def _broken(text: str, error: json.JSONDecodeError) -> str:
    at = _position(text, error.pos)
    if error.msg.startswith("Extra data"):
        return f"{at}: something follows the first object; give one event, or many as one per line (NDJSON)"
    if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
        return f"{at}: the JSON ends too early ({error.msg}); export the event again"
    return f"{at}: not valid JSON ({error.msg}); correct it there"


def _position(text: str, offset: int) -> str:
    line = text.count("\n", 0, offset) + 1
    return f"line {line}, column {offset - text.rfind(chr(10), 0, offset)}"


def _json_type(value: object) -> str:
    names = {list: "list", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")
