"""An alert in words: the lines that a prompt or an analyst is shown.

Invariant: deterministic, within the limit asked for, and free of control characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from whis_box.ingest.alert_families import Alert
from whis_box.ingest.alert_flatten import is_empty, says_nothing
from whis_box.ingest.alert_meaning import access_rights
from whis_box.ingest.alert_names import KERBEROS_ENCRYPTION, LOGON_STATUSES, LOGON_TYPES

MAX_VALUE_CHARS = 300
MIN_REPEAT_CHARS = 20  # a shorter value, an address or a name, says something by standing in two places

# Characters that turn the reading direction are evidence (T1036.002), so they are shown, not dropped.
DIRECTION_MARKS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

LINES: tuple[tuple[str, str], ...] = (
    ("event.meaning", "what happened"),
    ("event.action", "action"),
    ("event.type", "event type"),
    ("rule.name", "rule"),
    ("process.executable", "process"),
    ("process.name", "process name"),
    ("process.original_file_name", "original file name"),
    ("process.command_line", "command line"),
    ("process.command_line.decoded", "decoded command"),
    ("process.integrity_level", "integrity level"),
    ("process.parent.executable", "parent process"),
    ("process.parent.name", "parent process name"),
    ("process.parent.command_line", "parent command line"),
    ("target.image", "target process"),
    ("access.mask", "access mask"),
    ("thread.start_function", "start function"),
    ("image.loaded", "image loaded"),
    ("image.original_file_name", "image original file name"),
    ("image.signed", "image signed"),
    ("image.signature_status", "signature status"),
    ("file.path", "file"),
    ("file.name", "file name"),
    ("file.created_at", "file created"),
    ("file.created_before", "file created, before the change"),
    ("registry.path", "registry key"),
    ("registry.value", "registry value"),
    ("registry.data", "registry data"),
    ("service.name", "service"),
    ("service.binary", "service binary"),
    ("task.name", "scheduled task"),
    ("task.content", "task content"),
    ("script_block.text", "script block"),
    ("pipe.name", "named pipe"),
    ("share.name", "share"),
    ("cloud.action", "cloud action"),
    ("cloud.service", "cloud service"),
    ("cloud.error", "cloud error"),
    ("cloud.error_message", "cloud error message"),
    ("cloud.account", "cloud account"),
    ("cloud.resource", "cloud resource"),
    ("application.name", "application"),
    ("resource.type", "resource type"),
    ("resource.name", "resource"),
    ("repository.name", "repository"),
    ("container.image", "container image"),
    ("email.sender", "sender"),
    ("email.recipient", "recipient"),
    ("email.header_from", "header from"),
    ("email.subject", "subject"),
    ("email.forward_to", "forwards to"),
    ("event.outcome", "outcome"),
    ("event.reason", "reason"),
    ("user", "user"),
    ("user.type", "user type"),
    ("user.session", "session name"),
    ("user.audit.name", "login user"),
    ("user.target", "target user"),
    ("group.name", "group"),
    ("group.member", "group member"),
    ("logon.type", "logon type"),
    ("logon.status", "logon status"),
    ("logon.package", "authentication package"),
    ("kerberos.encryption", "ticket encryption"),
    ("privilege.list", "privileges"),
    ("host.name", "host"),
    ("source.ip", "source ip"),
    ("source.port", "source port"),
    ("source.host", "source host"),
    ("source.domain", "source"),
    ("source.country", "source country"),
    ("destination.ip", "destination ip"),
    ("destination.port", "destination port"),
    ("destination.domain", "destination"),
    ("destination.host", "destination host"),
    ("dns.question.name", "dns query"),
    ("dns.answers", "dns answers"),
    ("url.full", "url"),
    ("url.path", "url path"),
    ("user_agent", "user agent"),
    ("network.transport", "transport"),
    ("hash.sha256", "sha256"),
    ("process.working_directory", "working directory"),
    ("message", "message"),
)
# Names that are not shown beside a path that ends with them.
NAMES_IN_PATHS = {
    "process.name": "process.executable",
    "process.parent.name": "process.parent.executable",
    "file.name": "file.path",
    "registry.value": "registry.path",
}
LINE_FIELDS = frozenset(field for field, _ in LINES)
# Where the exporters of Windows events put the event's own data.
DATA_PREFIX = re.compile(r"(?i)^(?:.*\.)?(?:EventData|event_data|UserData\.[^.]+|user_data(?:\.[^.]+)?)\.")
# Shown when there is room: everything else but identifiers, versions, header numbers and what was shown.
QUIET = re.compile(
    r"(?i)guid|uuid|logonid|sid$|version|xmlns|utctime|sessionid|handleid|transactionid|principalid|rtid|time(created|stamp)?$|\.system\.|keywords|opcode|hashes|schema|"
    r"^(process|user|hash|host|agent|ecs|log|image|registry|kibana|metadata|manager|decoder)\b(?!\.code_signature)|"
    r"^target\b(?!\.\d)|^flow\.(alerted|end|reason)$|^winlog\b(?!\.(event|user)_data\b)|^@|(?<!signing)_id$|\.id$|^SourceModule|"
    r"^(event)?(record)?(id|number)$|eventid|requestid|^(task|channel|hostname|computer|sourcename|severity|level|provider\w*)$|^tags"
)


def plain(text: str) -> str:
    """One line of text without control characters; direction marks become `[U+202E]`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_plain_char, text))


def _plain_char(char: str) -> str:
    if char in DIRECTION_MARKS:
        return f"[U+{ord(char):04X}]"
    category = unicodedata.category(char)
    if category in ("Zl", "Zp", "Zs") or char in "\t\n\r\v\f":
        return " "
    return "" if category.startswith("C") else char


def describe(alert: Alert, max_chars: int = 1500) -> str:
    """The alert for a reader: its title, then one `label: value` line per telling field, in fixed order."""
    text = _cut(plain(alert.title), max_chars)
    for label, value in _labelled(alert):
        value = _cut(" ".join(plain(value[: 4 * MAX_VALUE_CHARS]).split()), MAX_VALUE_CHARS)
        room = max_chars - len(text) - 1
        line = f"{plain(label)}: {value}"
        if not value or room < len(label) + 20:
            continue
        text += "\n" + _cut(line, room)
    return text


def described_values(description: str) -> str:
    """The values of a description, without title and labels, which every alert of a kind shares."""
    return "\n".join(line.partition(": ")[2] for line in description.splitlines()[1:])


def _labelled(alert: Alert) -> Iterator[tuple[str, str]]:
    fields = alert.fields
    yield "time", alert.occurred_at or ""
    yield "severity", alert.severity or ""
    yield "techniques named by the source", ", ".join(alert.technique_ids)
    shown = {alert.title.casefold()}
    for label, value in _named(alert):
        if not is_empty(value):
            shown.add(value.casefold())
            yield label, value
    for field, value in fields.items():
        if field.partition("#")[0] in LINE_FIELDS or QUIET.search(field) or says_nothing(value):
            continue
        again = len(value) > MIN_REPEAT_CHARS and value.casefold() in shown
        if not again and (value != alert.event_id or value not in alert.title):
            yield DATA_PREFIX.sub("", field), value


def _named(alert: Alert) -> Iterator[tuple[str, str]]:
    fields = alert.fields
    for field, label in LINES:
        if field in ("user", "user.target"):
            domain, name = fields.get(f"{field}.domain", ""), fields.get(f"{field}.name", "")
            yield label, f"{domain}\\{name}" if domain and name and not is_empty(domain) else name
        elif field in fields and not _said_already(alert, field):
            yield label, _in_words(alert, field)
            yield from ((label, fields[name]) for n in range(2, 5) if (name := f"{field}#{n}") in fields)


def _said_already(alert: Alert, field: str) -> bool:
    fields = alert.fields
    if field == "rule.name":
        return plain(fields[field]) in alert.title
    if field == "message" and alert.family in ("windows", "sysmon"):
        # The message of an event with a name repeats its data; that of another is all there is to say.
        named = f"event {alert.event_id}: " in alert.title
        return named and ("process.executable" in fields or "user.name" in fields)
    if path := NAMES_IN_PATHS.get(field):
        return fields.get(path, "").lower().endswith(fields[field].lower())
    return False


def _in_words(alert: Alert, field: str) -> str:
    value = alert.fields[field]
    tables = {
        "logon.type": LOGON_TYPES,
        "logon.status": LOGON_STATUSES,
        "kerberos.encryption": KERBEROS_ENCRYPTION,
    }
    if field == "access.mask":
        meaning: str | None = access_rights(value, alert.event_id, alert.fields)
    else:
        meaning = tables.get(field, {}).get(value.lower())
    return f"{value} ({meaning})" if meaning else value


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: max(0, limit - 1)] + "…"[:limit]
