"""Strict JSON: depth, width, NaN, repeated keys and huge numbers are refused before or while parsing.

Invariant: `load_json` raises InputError and nothing else on any text; no text can exhaust the stack.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter

from whis_box.errors import InputError

MAX_DEPTH = 64  # OCSF, the deepest family, nests about 12 levels; Python's parser fails near 1,000
MAX_KEYS = 20_000  # keys and list items together; a wide event has some 500

# A string (closed or not, so that the scan stays linear), a bracket, a comma, or a word JSON does not have.
TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[\]{},]|NaN|Infinity', re.DOTALL)


def load_json(text: str, where: str) -> object:
    """Parse one JSON value; `where` names the file or request in errors.

    Raises: InputError, with `where`, the line and column, and what to do.
    """
    _check_shape(text, where)
    try:
        return json.loads(text, object_pairs_hook=_unique_keys, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: {_broken(text, error)}") from error
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error


def embedded_json(text: str) -> dict[str, object] | list[object] | None:
    """The object or list that a string value holds as JSON, or None where it is just text."""
    start = text[:1]
    if start not in ("{", "[") or text[-1:] not in ("}", "]"):
        return None
    try:
        value = load_json(text, "embedded JSON")
    except InputError:
        return None  # not JSON after all: the caller keeps the text itself
    return value if isinstance(value, dict | list) else None


def position(text: str, offset: int) -> str:
    """Where an offset lies, in words."""
    line = text.count("\n", 0, offset) + 1
    return f"line {line}, column {offset - text.rfind(chr(10), 0, offset)}"


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
            raise InputError(f"{where}: {position(text, token.start())}: {problem}")


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
    at = position(text, error.pos)
    if error.msg.startswith("Extra data"):
        return f"{at}: something follows the first object; give one event, or many as one per line (NDJSON)"
    if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
        return f"{at}: the JSON ends too early ({error.msg}); export the event again"
    return f"{at}: not valid JSON ({error.msg}); correct it there"
