"""From a decoded event of any known shape to one `Alert` with ECS-like field names.

Invariant: the family is recognized by content alone; no scalar is lost, since what has no ECS-like name
keeps its dotted path.
"""

from __future__ import annotations

import hashlib
import json
import ntpath
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Literal

from whis_box.ingest.alert_fields import (
    CLOUDTRAIL_FIELDS,
    COMMON_FIELDS,
    ECS_FIELDS,
    OCSF_FIELDS,
    SURICATA_FIELDS,
    WAZUH_FIELDS,
)
from whis_box.ingest.alert_flatten import flatten, is_empty, unwrap
from whis_box.ingest.alert_names import CHANNEL_TITLES, event_name
from whis_box.ingest.alert_severity import source_severity
from whis_box.ingest.alert_windows import WindowsSystem, map_windows, read_system
from whis_box.ingest.powershell import decoded_command
from whis_box.schemas import AlertSeverity, Frozen

Family = Literal["windows", "sysmon", "ecs", "ocsf", "cloudtrail", "wazuh", "suricata", "generic"]

MAX_ID_CHARS = 200
MAX_TITLE_CHARS = 200

TECHNIQUE = re.compile(r"(?<![A-Za-z0-9])[Tt]\d{4}(?:\.\d{3})?(?![\w.]*\w)")
TECHNIQUE_SEGMENTS = frozenset({"attack", "attacks", "tags", "tag", "labels"})

ID_PATHS = (
    "kibana.alert.uuid", "finding_info.uid", "finding.uid", "eventID", "event.id", "_id", "metadata.uid",
    "id", "alert_id", "alertId", "uuid",
)  # fmt: skip
TIME_PATHS = (
    "Event.System.TimeCreated.SystemTime", "kibana.alert.original_time", "@timestamp", "eventTime", "time_dt",
    "time", "timestamp", "winlog.time_created", "UtcTime", "EventTime", "TimeCreated", "Timestamp",
    "createdDateTime", "TimeGenerated", "date",
)  # fmt: skip


class Alert(Frozen):
    """One event as the rest of the program sees it."""

    id: str
    family: Family
    title: str
    event_id: str | None = None
    provider: str | None = None
    severity: AlertSeverity | None = None
    occurred_at: str | None = None
    """UTC ISO-8601 where the source says its zone; otherwise as the source wrote it."""
    technique_ids: list[str]
    fields: dict[str, str]


def read_alert(event: Mapping[str, object]) -> Alert:
    """Read one event; a shape nobody knows becomes family "generic", never an error."""
    flat = flatten(unwrap(event))
    system = read_system(flat)
    family = _family(flat, system)
    fields = _named_fields(flat, family, system)
    return Alert(
        id=_alert_id(flat, system, family),
        family=family,
        title=_title(family, system, fields),
        event_id=system.event_id if system else first(flat, ("event.code", "metadata.event_code")),
        provider=system.provider
        if system
        else first(flat, ("event.provider", "eventSource", "metadata.product.name")),
        severity=source_severity(flat, family),
        occurred_at=_occurred_at(flat),
        technique_ids=_technique_ids(flat),
        fields=fields,
    )


def first(fields: Mapping[str, str], paths: Iterable[str]) -> str | None:
    """The first of `paths` that holds something."""
    return next((fields[path] for path in paths if path in fields and not is_empty(fields[path])), None)


def _family(flat: Mapping[str, str], system: WindowsSystem | None) -> Family:
    def has(*paths: str) -> bool:
        return all(path in flat for path in paths)

    if has("rule.level") and any(path.startswith(("agent.", "manager.", "decoder.")) for path in flat):
        return "wazuh"
    if any(path.startswith(("kibana.alert.", "signal.rule.")) for path in flat):
        return "ecs"
    if has("class_uid") or has("category_uid", "severity_id"):
        return "ocsf"
    if has("event_type") and (has("src_ip") or has("flow_id")):
        return "suricata"
    if has("eventName", "eventSource"):
        return "cloudtrail"
    if system is not None:
        return "sysmon" if system.channel == "sysmon" else "windows"
    ecs_roots = {path.partition(".")[0] for path in flat if "." in path}
    if (
        has("ecs.version")
        or has("event.kind")
        or ("@timestamp" in flat and ecs_roots & {"event", "process", "host", "source"})
    ):
        return "ecs"
    return "generic"


def _named_fields(flat: dict[str, str], family: Family, system: WindowsSystem | None) -> dict[str, str]:
    tables = {
        "wazuh": WAZUH_FIELDS,
        "ocsf": OCSF_FIELDS,
        "suricata": SURICATA_FIELDS,
        "cloudtrail": CLOUDTRAIL_FIELDS,
    }
    named: dict[str, str] = {}
    used: set[str] = set()
    for path, target in tables.get(family, ECS_FIELDS):
        if path in flat and path not in used and target not in named and not is_empty(flat[path]):
            named[target] = flat[path]
            used.add(path)
    if family == "ecs" or (system is not None and system.base == "winlog."):
        named = {**named, **{path: flat[path] for path in flat if path in ECS_NAMES}}
    if family == "cloudtrail":
        _name_caller(flat, named, used)
    if system is not None:
        map_windows(flat, system, named, used)
    if family == "generic":
        _map_common(flat, named, used)
    _add_derived(named)
    return named | {path: text for path, text in flat.items() if path not in used and path not in named}


ECS_NAMES = frozenset(
    f"{root}.{leaf}"
    for root, leaves in {
        "process": "executable command_line name pid",
        "process.parent": "executable command_line name pid",
        "user": "name domain",
        "source": "ip port",
        "destination": "ip port domain",
    }.items()
    for leaf in leaves.split()
)


def _name_caller(flat: Mapping[str, str], named: dict[str, str], used: set[str]) -> None:
    """CloudTrail's caller is an address, or the name of the AWS service that called."""
    caller = flat.get("sourceIPAddress", "")
    if not is_empty(caller):
        named[
            "source.ip" if re.fullmatch(r"[0-9.]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*", caller) else "source.domain"
        ] = caller
        used.add("sourceIPAddress")


def _map_common(flat: Mapping[str, str], named: dict[str, str], used: set[str]) -> None:
    for path, text in flat.items():
        leaf = re.sub(r"[_\- ]", "", path.rpartition(".")[2]).lower()
        target = COMMON_FIELDS.get(leaf)
        if target is not None and target not in named and target not in flat and not is_empty(text):
            named[target] = text
            used.add(path)


def _add_derived(named: dict[str, str]) -> None:
    """Add base names, the domain of `DOMAIN\\user`, and the decoded PowerShell command."""
    for prefix in ("process", "process.parent"):
        executable = named.get(f"{prefix}.executable", "")
        if executable and f"{prefix}.name" not in named:
            named[f"{prefix}.name"] = ntpath.basename(executable) or executable
    for prefix in ("user", "user.target"):
        domain, slash, user = named.get(f"{prefix}.name", "").partition("\\")
        if slash and user:
            named[f"{prefix}.name"] = user
            named.setdefault(f"{prefix}.domain", domain)
    decoded = decoded_command(named.get("process.command_line", ""), named.get("process.name", ""))
    if decoded is not None:
        named["process.command_line.decoded"] = decoded


def _alert_id(flat: Mapping[str, str], system: WindowsSystem | None, family: Family) -> str:
    own_id = first(flat, ID_PATHS)
    if own_id is None and system is not None and system.record_id and family in ("windows", "sysmon"):
        own_id = f"{system.computer or 'unknown'}:{system.channel}:{system.record_id}"
    if own_id is not None:
        own_id = "".join(c for c in own_id if c.isprintable()).strip()[:MAX_ID_CHARS]
    if own_id:
        return own_id
    canonical = json.dumps(dict(flat), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()[:16]


def _title(family: Family, system: WindowsSystem | None, fields: Mapping[str, str]) -> str:
    rule = fields.get("rule.name", "")
    if system is not None and family in ("windows", "sysmon"):
        name = event_name(system.channel, system.event_id)
        title = f"{CHANNEL_TITLES[system.channel]} event {system.event_id}" + (f": {name}" if name else "")
        if rule and not is_empty(rule) and "technique_id=" not in rule:
            title = f"{title} (rule: {rule})"
    elif family == "cloudtrail":
        service = fields.get("cloud.service", "").removesuffix(".amazonaws.com")
        error = fields.get("cloud.error", "")
        title = f"CloudTrail: {service} {fields.get('cloud.action', '')}" + (
            f" failed: {error}" if error else ""
        )
    else:
        fallback = first(
            fields, ("rule.name", "name", "event.action", "activity_name", "class_name", "type", "message")
        )
        title = fallback or f"{family} event"
    return (
        " ".join("".join(c if c.isprintable() else " " for c in title).split())[:MAX_TITLE_CHARS]
        or f"{family} event"
    )


def _occurred_at(flat: Mapping[str, str]) -> str | None:
    text = first(flat, TIME_PATHS)
    if text is None:
        text = next((t for path, t in flat.items() if path.endswith("System.TimeCreated.SystemTime")), None)
    if text is None:
        return None
    text = "".join(c for c in text if c.isprintable()).strip()[:64]
    try:
        if re.fullmatch(r"\d{9,13}(\.\d+)?", text, re.ASCII):
            seconds = float(text) / (1000 if len(text.partition(".")[0]) > 11 else 1)
            return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC).isoformat().replace("+00:00", "Z") if moment.tzinfo else text
    except (ValueError, OverflowError, OSError):
        return text or None


def _technique_ids(flat: Mapping[str, str]) -> list[str]:
    """ATT&CK ids under a path that speaks of techniques, or in a Sysmon rule name."""
    found: dict[str, None] = {}
    for path, text in flat.items():
        segments = path.lower().split(".")
        claims = any("technique" in s or "mitre" in s or s in TECHNIQUE_SEGMENTS for s in segments)
        if claims or segments[-1] == "rulename":
            found.update((match.upper(), None) for match in TECHNIQUE.findall(text[:2000]))
    return list(found)
