"""Observables: addresses, names, files, accounts and commands that the alert itself holds, found by code.

Invariant: every value is text of the alert (or of its decoded command), validated for its type, each once,
in a stable order.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import urlsplit

from whis_box.ingest.alert_families import Alert
from whis_box.ingest.alert_flatten import is_empty
from whis_box.ingest.alert_text import plain
from whis_box.schemas import Observable

MAX_OBSERVABLES = 100
MAX_VALUE_CHARS = 4_096
MAX_SCAN_CHARS = 65_536

# field, type, role; an address or a name is checked again before it counts.
FIELD_OBSERVABLES: tuple[tuple[str, str, str], ...] = (
    ("process.executable", "process", "process"),
    ("process.command_line", "command_line", "process"),
    ("process.command_line.decoded", "command_line", "process"),
    ("process.original_file_name", "file_name", "process"),
    ("process.name", "process", "process"),
    ("process.parent.executable", "process", "parent_process"),
    ("process.parent.name", "process", "parent_process"),
    ("process.parent.command_line", "command_line", "parent_process"),
    ("target.image", "process", "target_process"),
    ("image.loaded", "file_path", "loaded_image"),
    ("image.original_file_name", "file_name", "loaded_image"),
    ("file.path", "file_path", "file"),
    ("file.name", "file_name", "file"),
    ("registry.path", "registry_key", "registry"),
    ("service.name", "service", "service"),
    ("service.binary", "command_line", "service"),
    ("task.name", "scheduled_task", "task"),
    ("pipe.name", "pipe", "pipe"),
    ("source.ip", "ip", "source"),
    ("source.port", "port", "source"),
    ("source.domain", "domain", "source"),
    ("destination.ip", "ip", "destination"),
    ("destination.port", "port", "destination"),
    ("destination.domain", "domain", "destination"),
    ("dns.question.name", "domain", "destination"),
    ("url.full", "url", "destination"),
    ("user_agent", "user_agent", "source"),
    ("user", "user", "actor"),
    ("user.target", "user", "target"),
    ("group.member", "user", "target"),
    ("user.email", "email", "actor"),
    ("email.sender", "email", "sender"),
    ("email.recipient", "email", "recipient"),
    ("email.forward_to", "email", "recipient"),
    ("host.name", "host", "host"),
    ("host.ip", "ip", "host"),
    ("source.host", "host", "source"),
    ("destination.host", "host", "destination"),
    ("cloud.account", "cloud_account", "target"),
    ("cloud.action", "cloud_action", "actor"),
    ("cloud.resource", "cloud_resource", "target"),
    ("container.image", "container_image", "target"),
    ("repository.name", "repository", "target"),
    ("application.name", "application", "target"),
    ("hash.md5", "md5", "hash"),
    ("hash.sha1", "sha1", "hash"),
    ("hash.sha256", "sha256", "hash"),
    ("hash.imphash", "imphash", "hash"),
)
# Names of XML schemas, in every task and EVTX export; nobody connects there.
NAMESPACES = ("http://schemas.microsoft.com/win", "http://www.w3.org/")
FIELD_NAMES = frozenset(field for field, _, _ in FIELD_OBSERVABLES)

# Text in which paths, URLs and addresses are looked for, in this order, before every other field.
TEXT_FIELDS: tuple[tuple[str, str], ...] = (
    ("process.command_line", "process"),
    ("process.command_line.decoded", "process"),
    ("script_block.text", "process"),
    ("process.parent.command_line", "parent_process"),
    ("service.binary", "service"),
    ("task.content", "task"),
    ("registry.data", "registry"),
    ("share.name", "destination"),
    ("url.full", "destination"),
    ("dns.answers", "destination"),
    ("rule.name", "rule"),
    ("message", "mentioned"),
)
PATH_FIELDS = frozenset(field for field, _ in TEXT_FIELDS[:8])

URL = re.compile(r"\b(?:https?|ftps?|sftp|ldaps?|wss?)://[^\s\"'<>|`^{}\\)\],;]{3,2000}", re.IGNORECASE)
EMAIL = re.compile(
    r"(?<![\w.+-])[A-Za-z0-9][\w.+-]{0,63}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,4}(?![\w-])", re.ASCII
)
CVE = re.compile(r"\bCVE-\d{4}-\d{4,7}\b", re.IGNORECASE | re.ASCII)
# Not a version number in a path (\1.2.3.4\), a product token (Chrome/1.2.3.4) or a longer dotted number.
IPV4 = re.compile(r"(?<![\w.\-/])(?<![^\\]\\)(?:\d{1,3}\.){3}\d{1,3}(?!\.?\w)", re.ASCII)
# Not after "]", where [Type]::Add( is PowerShell.
IPV6 = re.compile(r"(?<![\w:.\]])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:.])")
PATH = re.compile(
    r"\"([A-Za-z]:\\[^\"<>|*?\r\n]{2,260})\"|(?<![\w\\])([A-Za-z]:\\[^\s\"'<>|*?,;)]{2,260})|(?<![\w\\:])(\\\\[\w.$-]{1,64}\\[^\s\"'<>|*?,;)]{1,260})"
)
LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)", re.ASCII)
HEX_LENGTHS = {"md5": 32, "imphash": 32, "sha1": 40, "sha256": 64}
WHOLE_HASHES = {32: "md5", 40: "sha1", 64: "sha256"}
# Last labels that are file extensions far more often than top-level domains.
FILE_EXTENSIONS = frozenset(
    {
        "exe", "dll", "sys", "bat", "cmd", "ps1", "psm1", "psd1", "vbs", "vbe", "js", "jse", "wsf",
        "hta", "msi", "msp", "scr", "cpl", "lnk", "jar", "py", "pl", "rb", "php", "asp", "aspx",
        "jsp", "txt", "log", "ini", "cfg", "conf", "xml", "json", "yaml", "yml", "csv", "doc", "docx",
        "docm", "xls", "xlsx", "xlsm", "ppt", "pptx", "pdf", "rtf", "dat", "tmp", "bin", "iso", "img",
        "dmp", "evtx", "gz", "tar", "rar", "7z", "bak", "inf", "reg", "ocx", "drv", "so", "deb",
        "rpm", "service", "html", "htm", "png", "jpg", "gif", "ico",
    }
)  # fmt: skip


def observables(alert: Alert) -> list[Observable]:
    """Every observable in the alert's fields, the most telling first, at most `MAX_OBSERVABLES`."""
    found: dict[tuple[str, str], Observable] = {}
    for kind, raw, role in _candidates(alert):
        value = plain(raw).strip()
        if not value or is_empty(value):
            continue
        key = (kind, value if kind in ("command_line", "url") else value.lower())
        known = {"argument": "process", "mentioned": "user"}.get(role, "")
        if key not in found and (known, key[1]) not in found:
            found[key] = Observable(type=kind, value=value[:MAX_VALUE_CHARS], role=role)
            if len(found) == MAX_OBSERVABLES:
                break
    return list(found.values())


def _candidates(alert: Alert) -> Iterator[tuple[str, str, str]]:
    fields = alert.fields
    for field, kind, role in FIELD_OBSERVABLES:
        if f"{field.removesuffix('.name')}.executable" in fields:
            continue  # the path says more than the base name
        first = _account(alert, field) if kind == "user" else fields.get(field, "")
        for text in (first, *_more(fields, f"{field}.name" if kind == "user" else field)):
            if text and not is_empty(text):
                yield from _typed(kind, text, role)
    for technique_id in alert.technique_ids:
        yield "technique_id", technique_id, "rule"
    for field, role in TEXT_FIELDS:
        if field in fields:
            yield from _scan(fields[field][:MAX_SCAN_CHARS], role, with_paths=field in PATH_FIELDS)
    scanned = FIELD_NAMES | {field for field, _ in TEXT_FIELDS}
    for field, text in fields.items():
        if (
            field.partition("#")[0] not in scanned
            and "version" not in field.lower()
            and "agent" not in field.lower()
        ):
            yield from _whole_value(text.strip())
            yield from _scan(text[:2000], "mentioned", with_paths=False)


def _more(fields: Mapping[str, str], field: str) -> list[str]:
    """Further values of a field, `file.path#2` and so on."""
    return [fields[name] for n in range(2, 10) if (name := f"{field}#{n}") in fields]


def _account(alert: Alert, field: str) -> str:
    name = alert.fields.get(f"{field}.name", alert.fields.get(field, ""))
    domain = alert.fields.get(f"{field}.domain", "")
    return f"{domain}\\{name}" if name and domain and not is_empty(domain) and not is_empty(name) else name


def _typed(kind: str, text: str, role: str) -> Iterator[tuple[str, str, str]]:
    """A field of known meaning, checked: one address, name, port or hash, or several of a joined list."""
    if kind in ("ip", "domain"):
        for part in re.split(r"[,;\s]+", text[:4096]):
            if address := _address(part):
                yield (*address, role)
            elif kind == "domain" and is_domain(part):
                yield "domain", part.rstrip(".").lower(), role
    elif kind == "port":
        if re.fullmatch(r"[0-9]{1,5}", text) and 0 < int(text) < 65536:
            yield "port", text, role
    elif kind in HEX_LENGTHS:
        if re.fullmatch(rf"[0-9A-Fa-f]{{{HEX_LENGTHS[kind]}}}", text):
            yield kind, text.lower(), role
    elif kind == "url":
        yield from _from_url(text, role) if "://" in text else ()
    else:
        yield kind, text, role


def _scan(text: str, role: str, *, with_paths: bool) -> Iterator[tuple[str, str, str]]:
    """URLs, addresses, mail addresses, CVEs and, in commands, the paths named there."""
    rest = text
    for match in URL.finditer(text):
        yield from _from_url(match[0].rstrip(".:!?"), role)
    rest = URL.sub(" ", rest)
    for match in IPV4.finditer(rest):
        if address := _address(match[0]):
            yield (*address, role)
    for match in IPV6.finditer(rest):
        if address := _address(match[0]):
            yield (*address, role)
    for match in EMAIL.finditer(rest):
        if is_domain(match[0].partition("@")[2]):
            yield "email", match[0].lower(), role
    for match in CVE.finditer(rest):
        yield "cve", match[0].upper(), role
    if with_paths:
        for match in PATH.finditer(rest):
            yield "file_path", match[1] or match[2] or match[3], "argument"


def _from_url(url: str, role: str) -> Iterator[tuple[str, str, str]]:
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return
    if url.startswith(NAMESPACES):
        return
    yield "url", url, role
    if address := _address(host):
        yield (*address, role)
    elif is_domain(host):
        yield "domain", host.rstrip(".").lower(), role


def _whole_value(text: str) -> Iterable[tuple[str, str, str]]:
    if len(text) in WHOLE_HASHES and re.fullmatch(r"[0-9A-Fa-f]+", text):
        return [(WHOLE_HASHES[len(text)], text.lower(), "mentioned")]
    return []


def _address(text: str) -> tuple[str, str] | None:
    """`("ipv4" | "ipv6", canonical text)`, or None for no address, loopback or unspecified."""
    try:
        address = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_loopback or address.is_unspecified:
        return None
    return f"ipv{address.version}", str(address)


def is_domain(text: str) -> bool:
    """Whether this is a dotted DNS name with a plausible last label; `cmd.exe` and `1.2.3.4` are not."""
    labels = text.rstrip(".").split(".")
    if not 2 <= len(labels) <= 40 or len(text) > 253 or not all(LABEL.fullmatch(label) for label in labels):
        return False
    last = labels[-1].lower()
    return (last.isalpha() and len(last) > 1 or last.startswith("xn--")) and last not in FILE_EXTENSIONS
