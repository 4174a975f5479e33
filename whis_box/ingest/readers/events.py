"""Structured logs: JSON, NDJSON, CSV and EVTX. One event is one document, a line for each field.

Invariant: a broken line or record is reported with its position and does not stop the rest.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from evtx import PyEvtxParser

from whis_box.ingest.readers.draft import Draft, Item, Limits, RawFile, Skip, decode

MAX_FIELDS = 2_000
MAX_SKIPS = 1_000  # of one file; a binary file under a wrong name would report each line
_NEXT_VALUE = re.compile(r"[\s,]*(?=\S)")
NAMING_FIELDS = ("title", "name", "rule.name", "RuleName", "eventName", "signature", "message", "Message")


def read_csv(file: RawFile, limits: Limits) -> Iterator[Item]:
    """Rows under a header line; the delimiter is recognized."""
    text = decode(file.data)[0].lstrip("\ufeff")
    csv.field_size_limit(limits.max_line_chars)
    try:
        dialect: Any = csv.Sniffer().sniff(text[:20_000], delimiters=",;\t|")
    except csv.Error:
        dialect = csv.excel
    rows = csv.DictReader(io.StringIO(text, newline=""), dialect=dialect)
    number = 0
    try:
        for number, row in enumerate(rows, start=1):
            if number > limits.max_drafts:
                yield Skip(f"{file.name}, row {number}", f"only {limits.max_drafts} rows are read")
                return
            fields = {str(key): value for key, value in row.items() if value not in (None, "", [])}
            if fields:
                yield _draft(fields, f"row-{number}", f"row {number}", limits)
    except csv.Error as cause:
        yield Skip(f"{file.name}, row {number + 1}", f"{cause}; the rest was not read")


def objects(whole: object, file: RawFile, limits: Limits) -> Iterator[Item]:
    """Documents of a parsed JSON value."""
    items = whole if isinstance(whole, list) else [whole]
    for number, one in enumerate(items, start=1):
        position = f"item {number}"
        if number > limits.max_drafts:
            yield Skip(f"{file.name}, {position}", f"only {limits.max_drafts} items are read")
            return
        if isinstance(one, dict) and one:
            yield _draft(one, f"item-{number}", position, limits)
        else:
            yield Skip(f"{file.name}, {position}", f"a {type(one).__name__}, not an object")


def read_evtx(file: RawFile, limits: Limits) -> Iterator[Item]:
    """Records of a binary Windows event log."""
    try:
        records = iter(PyEvtxParser(io.BytesIO(file.data)).records_json())
    except (RuntimeError, OSError, ValueError) as cause:
        yield Skip(file.name, f"not a readable EVTX file ({cause}); export it again")
        return
    number = 0
    while True:
        number += 1
        try:
            record = next(records, None)
        except (RuntimeError, OSError, ValueError) as cause:
            yield Skip(f"{file.name}, record {number}", f"damaged record ({cause})")
            if number > MAX_SKIPS:
                return
            continue
        if record is None:
            return
        if number > limits.max_drafts:
            yield Skip(f"{file.name}, record {number}", f"only {limits.max_drafts} records are read")
            return
        key = str(record["event_record_id"])
        event = json.loads(record["data"]).get("Event", {})
        event.pop("#attributes", None)
        yield _draft(event, f"record-{key}", f"record {key}", limits)


def flatten(value: object, limits: Limits, path: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """(dotted path, text) of every leaf, in order; deeper than the limit the leaf is JSON text."""
    if depth >= limits.max_depth:
        yield path, json.dumps(value, ensure_ascii=False)[: limits.max_line_chars]
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            name = str(key).removeprefix("#")
            yield from flatten(inner, limits, f"{path}.{name}" if path else name, depth + 1)
    elif isinstance(value, list):
        if all(not isinstance(one, dict | list) for one in value):
            yield path, ", ".join(map(str, value))
        else:
            for number, inner in enumerate(value):
                yield from flatten(inner, limits, f"{path}[{number}]", depth + 1)
    elif value is not None and value != "":
        yield path, str(value)


def read_lines(file: RawFile, text: str, limits: Limits) -> Iterator[Item]:
    """One object a line, or objects over several lines, one after the other."""
    if not _is_json(text.partition("\n")[0]):
        yield from _concatenated(file, text, limits)
        return
    skips = 0
    for number, line in enumerate(text.split("\n"), start=1):
        place = f"{file.name}, line {number}"
        if not line.strip():
            continue
        if number > limits.max_drafts or skips > MAX_SKIPS:
            yield Skip(place, "too many lines, or too many that are not JSON; the rest was not read")
            return
        if len(line) > limits.max_line_chars:
            skips += 1
            yield Skip(place, f"{len(line)} characters are more than {limits.max_line_chars}")
            continue
        try:
            one = json.loads(line)
        except (ValueError, RecursionError) as cause:
            skips += 1
            yield Skip(place, f"not JSON ({cause})"[:200])
            continue
        if isinstance(one, dict) and one:
            yield _draft(one, f"line-{number}", f"line {number}", limits)
        else:
            skips += 1
            yield Skip(place, f"a {type(one).__name__}, not an object")


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _concatenated(file: RawFile, text: str, limits: Limits) -> Iterator[Item]:
    """Objects written over several lines, one after the other, as exporters of events do."""
    decoder, at, number = json.JSONDecoder(), 0, 0

    def place() -> str:  # counted only for what is reported: a file may hold thousands of objects
        return f"{file.name}, item {number} at line {text.count(chr(10), 0, at) + 1}"

    while match := _NEXT_VALUE.match(text, at):
        at = match.end()
        number += 1
        if number > limits.max_drafts:
            yield Skip(place(), f"only {limits.max_drafts} items are read")
            return
        try:
            one, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as cause:
            yield Skip(place(), f"not JSON ({cause}); the rest was not read"[:200])
            return
        if isinstance(one, dict) and one:
            yield _draft(one, f"item-{number}", f"item {number}", limits)
        else:
            yield Skip(place(), f"a {type(one).__name__}, not an object")
        at = end


def _draft(event: Mapping[str, object], key: str, position: str, limits: Limits) -> Draft:
    pairs = []
    for number, (path, value) in enumerate(flatten(event, limits)):
        if number >= MAX_FIELDS:
            break
        pairs.append((path, re.sub(r"\s*\n\s*", " ", value)[: limits.max_line_chars]))
    named = dict(pairs)
    title = next((named[name] for name in NAMING_FIELDS if named.get(name)), "")
    event_id = named.get("System.EventID") or named.get("System.EventID.text") or named.get("EventID")
    if event_id:
        title = f"Event {event_id} {named.get('System.Channel') or named.get('Channel') or ''}".strip()
    text = "\n".join(f"- {path}: {value}" for path, value in pairs) + "\n"
    return Draft(
        key, (title or f"Event at {position}")[:200], text[: limits.max_text_chars], ("kind:event",), position
    )
