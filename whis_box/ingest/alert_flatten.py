"""A nested event as a flat dictionary of dotted paths to text.

Invariant: bounded and without recursion, so that no event, however deep or wide, can exhaust the stack.
JSON that a source packed into a string is unpacked; a list of name and value pairs counts as an object.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from whis_box.ingest.alert_json import embedded_json

MAX_DEPTH = 64  # the reader's limit too; deeper values of a caller that skipped the reader are dropped
MAX_FIELDS = 20_000  # as many as the reader lets in
MAX_VALUE_CHARS = 65_536  # a script block is at most 32 KB of UTF-16; longer text only slows the scans

SURROGATES = re.compile("[\ud800-\udfff]")
# What sources write when a value is not there; `%%1793` is Windows' own "no value", `4294967295` the login
# id of Linux audit that nobody set, `<NA>` Falco's.
EMPTY_VALUES = frozenset(
    {"", "-", "--", "(null)", "null", "none", "n/a", "<na>", "%%1793", "4294967295", "<unknown process>"}
)
# These say nothing where a thing is named, yet `change_ticket: none` and `DKIM: none` are answers.
CHOSEN_WORDS = frozenset({"none", "4294967295"})
# Around one event: CloudTrail and Event Hub files, Graph pages (`value`), and what webhooks add.
LIST_ENVELOPES = ("Records", "records", "value")
OBJECT_ENVELOPES = frozenset({"event", "alert", "finding", "log", "record", "body", "payload"})
MAX_ENVELOPES = 4
# Fields in which sources send an object or a list as a string; elsewhere such a string is evidence.
PACKED = frozenset(
    {
        "entities", "extendedproperties", "extendedlinks", "techniques", "subtechniques", "customdetails",
        "additionalinfo", "additionalfields", "additionaldetails", "auditdata", "devicedetail",
        "locationdetails", "status", "targetresources", "initiatedby", "authenticationdetails",
        "conditionalaccesspolicies", "modifiedproperties", "alertdetails", "properties",
    }
)  # fmt: skip
PACKED_MESSAGES = frozenset({"message", "log", "_raw"})  # unpacked when they hold an object
PAIR_NAMES, PAIR_VALUES = ("Name", "name", "Key", "key"), ("Value", "value")
DATA_SEGMENTS = frozenset({"data", "eventdata", "event_data"})
XML_SEGMENTS = frozenset({"#text", "#attributes"})


def is_empty(text: str) -> bool:
    """Whether a source says "nothing here" with this text."""
    return text.strip().lower() in EMPTY_VALUES


def says_nothing(text: str) -> bool:
    """Whether the text tells nothing even beside a name that nobody knows."""
    return is_empty(text) and text.strip().lower() not in CHOSEN_WORDS


def unwrap(event: Mapping[str, object]) -> Mapping[str, object]:
    """Take the event out of what carried it: search hit, EventBridge, SNS, webhook, one-record file."""
    for _ in range(MAX_ENVELOPES):
        inner = _inner(event)
        if inner is None:
            break
        event = inner
    return event


def _inner(event: Mapping[str, object]) -> Mapping[str, object] | None:
    source, detail, result = event.get("_source"), event.get("detail"), event.get("result")
    if isinstance(source, Mapping):
        return {**{key: event[key] for key in ("_id",) if key in event}, **source}
    if isinstance(detail, Mapping) and ("eventName" in detail or "service" in detail):
        return detail
    if isinstance(result, Mapping) and ("search_name" in event or "sid" in event):
        return {**{key: event[key] for key in ("search_name",) if key in event}, **result}
    if event.get("Type") == "Notification" and isinstance(event.get("Message"), str):
        message = embedded_json(str(event["Message"]).strip())
        return message if isinstance(message, dict) else None
    for key in LIST_ENVELOPES:
        records = event.get(key)
        if isinstance(records, list) and len(records) == 1 and isinstance(records[0], Mapping):
            return records[0]
    if len(event) == 1:
        key, value = next(iter(event.items()))
        return value if key in OBJECT_ENVELOPES and isinstance(value, Mapping) else None
    return None


def flatten(event: Mapping[str, object]) -> dict[str, str]:
    """Every scalar under its dotted path, in the event's order; null is left out, a scalar list is one value.

    `#text` and `#attributes` (XML turned into JSON) leave no trace in the path; a `{"Name", "#text"}` pair
    of EventData counts as a member with that name.
    """
    flat: dict[str, str] = {}
    waiting: list[tuple[str, object, int]] = [("", event, 0)]
    while waiting and len(flat) < MAX_FIELDS:
        path, value, depth = waiting.pop()
        children = _children(path, value)
        if children is None:
            _add(flat, path, value)
        elif depth < MAX_DEPTH:
            waiting.extend((p, v, depth + 1) for p, v in reversed(children))
    return flat


def _children(path: str, value: object) -> list[tuple[str, object]] | None:
    """The values below this one, or None for a scalar or a list of scalars."""
    last_segment = path.rpartition(".")[2].lower()
    if isinstance(value, str):
        value = _unpacked(last_segment, value)
    if isinstance(value, Mapping):
        if last_segment in DATA_SEGMENTS and _data_name(value) is not None:
            value = [value]
        else:
            return [(_join(path, str(key)), child) for key, child in value.items()]
    if isinstance(value, list | tuple):
        if last_segment in DATA_SEGMENTS and value and all(_data_name(item) is not None for item in value):
            if path.lower().endswith(".eventdata.data"):
                path = path[: -len(".data")]
            return [(_join(path, _data_name(item) or ""), _data_text(item)) for item in value]
        if pairs := _pairs(value):
            return [(_join(path, name), child) for name, child in pairs]
        if any(isinstance(item, Mapping | list | tuple) for item in value):
            return [(_join(path, str(n)), item) for n, item in enumerate(value)]
    return None


def _unpacked(last_segment: str, text: str) -> object:
    """The value that a string of a known field holds as JSON, else the string."""
    name = last_segment.replace(" ", "")
    if name in PACKED or name in PACKED_MESSAGES:
        value = embedded_json(text.strip())
        if value is not None and (name in PACKED or isinstance(value, dict)):
            return value
    return text


def _pairs(items: list[object] | tuple[object, ...]) -> list[tuple[str, object]]:
    """`[{"Name": n, "Value": v}, …]` as (n, v); empty where any item is something else."""
    found: list[tuple[str, object]] = []
    for item in items:
        if not isinstance(item, Mapping) or len(item) != 2:
            return []
        name = next((item[key] for key in PAIR_NAMES if key in item), None)
        key = next((key for key in PAIR_VALUES if key in item), None)
        if not isinstance(name, str) or not name or key is None:
            return []
        found.append((name, item[key]))
    return found


def _data_name(item: object) -> str | None:
    if not isinstance(item, Mapping):
        return None
    attributes = item.get("#attributes")
    name = item.get(
        "@Name", item.get("Name", attributes.get("Name") if isinstance(attributes, Mapping) else None)
    )
    return name if isinstance(name, str) and len(item) <= 2 else None


def _data_text(item: object) -> object:
    if not isinstance(item, Mapping):
        return None
    return next((value for key, value in item.items() if key not in ("@Name", "Name", "#attributes")), None)


def _join(path: str, key: str) -> str:
    key = SURROGATES.sub("\ufffd", key)
    if path and key in XML_SEGMENTS:
        return path
    return f"{path}.{key}" if path else key


def _add(flat: dict[str, str], path: str, value: object) -> None:
    if isinstance(value, list | tuple):
        separator = " " if path.endswith(("args", "command")) else ", "
        text = separator.join(_scalar_texts(value))
    else:
        text = "".join(_scalar_texts((value,)))
    if not text:
        return
    text = SURROGATES.sub("\ufffd", text[:MAX_VALUE_CHARS])
    if path in flat:
        text = f"{flat[path]}, {text}"[:MAX_VALUE_CHARS]
    flat[path] = text


def _scalar_texts(values: Iterable[object]) -> Iterable[str]:
    for value in values:
        if isinstance(value, bool):
            yield "true" if value else "false"
        elif value is not None:
            yield str(value)
