"""Log lines: CEF, LEEF, syslog (RFC 5424, RFC 3164) and Linux audit, each turned into one JSON-like object.

Invariant: the line itself stays under `original`; a text that is none of these gives None, never an error.
Source: ArcSight CEF 0/1, IBM LEEF 1.0/2.0, RFC 5424 section 6, RFC 3164 section 4.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from whis_box.ingest.alert_json import MAX_KEYS, embedded_json

MAX_LINE_CHARS = 262_144  # syslog relays cut at 8 KB; a longer line is no log line
MAX_PAIRS = 500
MIN_PAIRS = 3  # fewer "a=b" in a message are prose

MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
RFC5424 = re.compile(
    r"<(?P<pri>\d{1,3})>\d{1,2} (?P<timestamp>\S+) (?P<host>\S+) (?P<app>\S+) (?P<pid>\S+) (?P<msgid>\S+) ?"
    r"(?P<data>-|(?:\[(?:[^\]\\\"]|\\.|\"(?:[^\"\\]|\\.)*+\")*+\])++)? ?(?P<message>.*)",
    re.DOTALL,
)
RFC3164 = re.compile(
    r"(?:<(?P<pri>\d{1,3})>)?"
    rf"(?P<timestamp>(?:{MONTHS})  ?\d{{1,2}}(?: \d{{4}})? \d\d:\d\d:\d\d|\d{{4}}-\d\d-\d\dT\S+) "
    r"(?P<host>[\w.:-]{1,255}) (?:(?P<app>[\w./()-]{1,64})(?:\[(?P<pid>\d{1,10})\])?: ?)?(?P<message>.*)",
    re.DOTALL,
)
PRIORITY_ONLY = re.compile(r"<(?P<pri>\d{1,3})>(?P<message>.*)", re.DOTALL)
AUDIT = re.compile(r"(?:node=\S+ )?type=[A-Z_]+ msg=audit\(")
CEF = re.compile(r"CEF: ?[01]\|")
LEEF = re.compile(r"LEEF: ?[12]\.0\|")
CEF_HEADER = (
    "version",
    "device_vendor",
    "device_product",
    "device_version",
    "signature_id",
    "name",
    "severity",
)
CEF_KEY = re.compile(r"(?:^|(?<=\s))([\w.\[\]-]{1,100})=")
CEF_LABEL = re.compile(r"((?:cs|cn|cfp|c6a|flexString|flexNumber|flexDate|deviceCustomDate)\d)Label")
PAIR = re.compile(r"(?<![\w.])([A-Za-z][\w.-]{0,63})=(\"(?:[^\"\\]|\\.)*+\"|'[^'=]*'|[^\s\"',;]*)")
SD_ELEMENT = re.compile(r"\[([^\s\]=\"]{1,64})((?: [^\s=\]\"]{1,64}=\"(?:[^\"\\]|\\.)*+\")*+) ?\]")
SD_PARAM = re.compile(r"([^\s=\]\"]{1,64})=\"((?:[^\"\\]|\\.)*+)\"")


def read_line(text: str) -> dict[str, object] | None:
    """The event that one log line holds, or None where the text is no such line."""
    if len(text) > MAX_LINE_CHARS or text[:1] in ("{", "[", '"') or "\n" in text:
        return None
    cef, leef = CEF.search(text[:2048]), LEEF.search(text[:2048])
    if cef or leef:
        start = (cef or leef).start()  # type: ignore[union-attr]
        body = _cef(text[start:]) if cef else _leef(text[start:])
        if body is None:
            return None
        header = _header(text[:start].rstrip())
        return {**body, **({"syslog": header} if header else {}), "original": text}
    if AUDIT.match(text):
        return {"audit": _pairs(text.replace("\x1d", " ")), "message": text, "original": text}
    header = _header(text)
    if header is None:
        return None
    message = str(header.pop("message", "")).lstrip("\ufeff")
    inner = embedded_json(message.removeprefix("@cee:").strip())
    if isinstance(inner, dict):  # many products send their JSON through syslog
        return {**inner, "syslog": header, "original": text}
    pairs = _pairs(message)
    return {"syslog": header, "message": message, **({"pairs": pairs} if pairs else {}), "original": text}


def _header(text: str) -> dict[str, object] | None:
    match = RFC5424.fullmatch(text) or RFC3164.fullmatch(text)
    match = match or RFC3164.fullmatch(f"{text} ")  # the header alone, in front of CEF or LEEF
    match = match or PRIORITY_ONLY.fullmatch(text)
    if match is None:
        return None
    found = {name: value for name, value in match.groupdict().items() if value not in (None, "", "-")}
    header: dict[str, object] = {name: value for name, value in found.items() if name not in ("pri", "data")}
    if "pri" in found and int(found["pri"]) < 192:
        header["facility"], header["severity"] = divmod(int(found["pri"]), 8)
    if data := found.get("data"):
        header["data"] = {
            element[1]: {name: _unescape(value) for name, value in SD_PARAM.findall(element[2])}
            for element in list(SD_ELEMENT.finditer(data))[:50]
        }
    return header


def _cef(text: str) -> dict[str, object] | None:
    parts = re.split(r"(?<!\\)\|", text, maxsplit=7)
    if len(parts) < 7:
        return None
    header = {
        name: _unescape(part.strip())
        for name, part in zip(CEF_HEADER, parts[:7], strict=True)
        if part.strip()
    }
    header["version"] = parts[0].partition(":")[2].strip()
    return {"cef": header, "extension": _labelled(_extension(parts[7] if len(parts) == 8 else ""))}


def _extension(text: str) -> dict[str, str]:
    """`key=value key=value` where values hold spaces: a value ends where the next key begins."""
    keys = list(CEF_KEY.finditer(text))[:MAX_PAIRS]
    ends = [*(key.start() for key in keys[1:]), *([len(text)] if keys else [])]
    found: dict[str, str] = {}
    for key, end in zip(keys, ends, strict=True):
        if text[key.start() - 1 : key.start()] != "\\":
            found.setdefault(key[1], _unescape(text[key.end() : end].strip()))
    return found


def _labelled(extension: Mapping[str, str]) -> dict[str, str]:
    """Custom fields under the names that their labels give: `cs1Label=Rule cs1=x` is `Rule: x`."""
    labels = {match[1]: text for name, text in extension.items() if (match := CEF_LABEL.fullmatch(name))}
    named: dict[str, str] = {}
    for name, text in extension.items():
        if not CEF_LABEL.fullmatch(name) or name.removesuffix("Label") not in extension:
            label = labels.get(name) or name
            named[label if label not in named and label not in extension else name] = text
    return named


def _leef(text: str) -> dict[str, object] | None:
    parts = text.split("|")
    if len(parts) < 6:
        return None
    version = parts[0].partition(":")[2].strip()
    names = ("device_vendor", "device_product", "device_version", "signature_id")
    header = {
        "version": version,
        **{n: p.strip() for n, p in zip(names, parts[1:5], strict=True) if p.strip()},
    }
    delimiter, rest = "\t", "|".join(parts[5:])
    if version == "2.0" and len(parts) > 6 and len(parts[5]) <= 6:
        delimiter, rest = _delimiter(parts[5]), "|".join(parts[6:])
    pairs = (pair.partition("=") for pair in rest.split(delimiter)[:MAX_PAIRS])
    return {
        "leef": header,
        "extension": {name.strip(): text.strip() for name, _, text in pairs if name.strip()},
    }


def _delimiter(text: str) -> str:
    """LEEF 2.0 gives the separator as a character or as its code, `x5E` or `0x5E`."""
    code = re.fullmatch(r"(?:0x|x|\\x)([0-9A-Fa-f]{1,4})", text)
    return chr(int(code[1], 16)) if code else text[:1] or "\t"


def _pairs(message: str) -> dict[str, str]:
    """`key=value` pairs, as firewalls write them; a message with fewer than three is prose."""
    found: dict[str, str] = {}
    for match in PAIR.finditer(message):
        value = match[2][1:-1] if match[2][:1] in ("'", '"') and len(match[2]) > 1 else match[2]
        found.setdefault(match[1], value)
        if len(found) == min(MAX_PAIRS, MAX_KEYS):
            break
    return found if len(found) >= MIN_PAIRS else {}


def _unescape(text: str) -> str:
    plain = {"n": "\n", "r": "\r"}
    return re.sub(r"\\(.)", lambda match: plain.get(match[1], match[1]), text) if "\\" in text else text
