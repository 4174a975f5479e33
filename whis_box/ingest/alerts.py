"""Alerts in: read the bytes of one event within limits, then name, list and describe what it says.

Invariant: `parse_event` raises InputError and nothing else on any bytes; the rest takes any JSON object.
"""

from __future__ import annotations

import codecs

from whis_box.errors import InputError
from whis_box.ingest.alert_families import Alert, Family, read_alert
from whis_box.ingest.alert_json import MAX_DEPTH, MAX_KEYS, load_json, position
from whis_box.ingest.alert_lines import read_line
from whis_box.ingest.alert_observables import MAX_OBSERVABLES, observables
from whis_box.ingest.alert_query import search_text
from whis_box.ingest.alert_text import describe, described_values

__all__ = [
    "MAX_DEPTH",
    "MAX_KEYS",
    "MAX_OBSERVABLES",
    "Alert",
    "Family",
    "describe",
    "described_values",
    "observables",
    "parse_event",
    "read_alert",
    "search_text",
]

MAX_EVENT_BYTES = 5_000_000  # the largest real events are script blocks and task XML of some 100 KB
MAGIC: dict[bytes, str] = {
    b"ElfFile\x00": "a binary Windows event log (EVTX); export the event as JSON",
    b"PK\x03\x04": "a ZIP archive; unpack it first",
    b"\x1f\x8b": "a gzip file; unpack it first",
}


def parse_event(data: bytes, where: str) -> dict[str, object]:
    """Read one event: a JSON object, or one CEF, LEEF or syslog line; `where` names the source in errors.

    Raises: InputError, with `where`, the line and column or the byte offset, and what to do.
    """
    if len(data) > MAX_EVENT_BYTES:
        problem = f"{len(data)} bytes; an event may have {MAX_EVENT_BYTES}: give one event, not a whole log"
        raise InputError(f"{where}: {problem}")
    text = _decode(data, where)
    if not text.strip():
        raise InputError(f"{where}: empty (byte 0); give one JSON object or log line")
    from_line = read_line(text.strip())
    if from_line is not None:
        return from_line
    event = load_json(text, where)
    if isinstance(event, list) and len(event) == 1 and isinstance(event[0], dict):
        event = event[0]
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
        at = position(text, text.index("\0"))
        raise InputError(f"{where}: {at}: a NUL character; save the event as UTF-8 JSON text")
    return text


def _json_type(value: object) -> str:
    names = {list: "list", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")
