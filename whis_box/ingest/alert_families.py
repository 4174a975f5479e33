"""From a decoded event of any known shape to one `Alert` with ECS-like field names.

Invariant: the family is recognized by content alone; no scalar is lost, since what has no ECS-like name
keeps its dotted path, and `sources` says which path each name was read from.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from whis_box.ingest.alert_derive import add_derived, common_name, executed_command
from whis_box.ingest.alert_flatten import flatten, is_empty, unwrap
from whis_box.ingest.alert_meaning import action_meaning, windows_meaning
from whis_box.ingest.alert_messages import read_message
from whis_box.ingest.alert_names import CHANNEL_TITLES, event_name
from whis_box.ingest.alert_paths import Paths
from whis_box.ingest.alert_profiles import GENERIC, PROFILES, WINDOWS, Family, Profile
from whis_box.ingest.alert_severity import source_severity
from whis_box.ingest.alert_time import occurred_at
from whis_box.ingest.alert_windows import WindowsSystem, map_windows, read_system
from whis_box.schemas import AlertSeverity, Frozen

__all__ = ["Alert", "Family", "read_alert"]

MAX_ID_CHARS = 200
MAX_TITLE_CHARS = 200
MAX_REPEATS = 8  # further values of a named field, as `file.path#2`; the rest keep their paths

TECHNIQUE = re.compile(r"(?<![A-Za-z0-9])[Tt]\d{4}(?:\.\d{3})?(?![\w.]*\w)")
TECHNIQUE_SEGMENTS = frozenset({"attack", "attacks", "tags", "tag", "labels"})

# Letter case counts here: `eventID` is CloudTrail's own id, `EventID` is Windows' kind of event.
ID_PATHS = (
    "kibana.alert.uuid", "finding_info.uid", "finding.uid", "eventID", "event.id", "_id", "metadata.uid",
    "id", "alert_id", "alertId", "uuid",
)  # fmt: skip
GENERIC_TITLES = (
    "rule.name", "name", "event.action", "activity_name", "class_name", "operation", "operationName",
    "eventType", "event_type", "action", "summary", "subject", "type", "message",
)  # fmt: skip


class Alert(Frozen):
    """One event as the rest of the program sees it."""

    id: str
    family: Family
    title: str
    event_id: str | None = None
    provider: str | None = None
    severity: AlertSeverity | None = None
    severity_source: str | None = None
    """Where and how the source wrote its severity: `rule.level 10`."""
    occurred_at: str | None = None
    """UTC ISO-8601 where the source says its zone; otherwise as the source wrote it."""
    technique_ids: list[str]
    fields: dict[str, str]
    sources: dict[str, str] = {}
    """Named field to the path of the event that it was read from."""


def read_alert(event: Mapping[str, object]) -> Alert:
    """Read one event; a shape nobody knows becomes family "generic", never an error."""
    flat = flatten(unwrap(event))
    system = read_system(flat)
    paths = Paths(flat)
    profile = _profile(paths, system)
    if profile.family == "wazuh":
        flat = _without_doubled_backslashes(flat)
    fields, sources = _named_fields(flat, paths, profile, system)
    severity, severity_source = source_severity(paths, flat, profile)
    return Alert(
        id=_alert_id(flat, paths, system, profile),
        family=_family(profile, system),
        title=_title(profile, paths, system, fields),
        event_id=system.event_id if system else paths.text(("event.code", "metadata.event_code")),
        provider=system.provider if system else paths.text(profile.providers) or profile.product,
        severity=severity,
        severity_source=severity_source,
        occurred_at=occurred_at(flat, paths, profile),
        technique_ids=_technique_ids(flat),
        fields=fields,
        sources=sources,
    )


def first(fields: Mapping[str, str], paths: Iterable[str]) -> str | None:
    """The first of `paths` that holds something."""
    return next((fields[path] for path in paths if path in fields and not is_empty(fields[path])), None)


def _profile(paths: Paths, system: WindowsSystem | None) -> Profile:
    for profile in PROFILES:
        if system is not None if profile is WINDOWS else any(paths.meets(mark) for mark in profile.marks):
            return profile
    return GENERIC


def _family(profile: Profile, system: WindowsSystem | None) -> Family:
    sysmon = profile is WINDOWS and system is not None and system.channel == "sysmon"
    return "sysmon" if sysmon else profile.family


def _without_doubled_backslashes(flat: dict[str, str]) -> dict[str, str]:
    """Wazuh's Windows decoder doubles every backslash of an event's values; take each pair as one."""
    return {
        path: text.replace("\\\\", "\\")
        if path.startswith("data.win.") and all(len(run) % 2 == 0 for run in re.findall(r"\\+", text))
        else text
        for path, text in flat.items()
    }


def _named_fields(
    flat: dict[str, str], paths: Paths, profile: Profile, system: WindowsSystem | None
) -> tuple[dict[str, str], dict[str, str]]:
    named: dict[str, str] = {}
    sources: dict[str, str] = {}
    used: set[str] = set()
    for target, patterns in profile.fields:
        for pattern in patterns:
            shared, pattern = pattern.startswith("&"), pattern.removeprefix("&")
            found = [path for path in paths.all(pattern) if shared or path not in used]
            for path in found[:MAX_REPEATS]:
                _put(named, sources, target, flat[path], path)
            used.update(() if shared else found[:MAX_REPEATS])
            if found:
                break
    if system is not None:
        known, told = set(named), set(used)
        map_windows(flat, system, named, used)
        came_from = {flat[path].strip(): path for path in flat if path in used - told}
        sources |= {t: came_from[x] for t, x in named.items() if t not in known and x in came_from}
    if profile is GENERIC:
        _map_common(flat, named, sources, used)
    if "message" in named and profile.family in ("syslog", "wazuh"):
        said = read_message(named["message"])
        # A decoder of the product has read the message already; bare pairs of a line have not.
        named.update(
            said if profile.family == "syslog" else {k: v for k, v in said.items() if k not in named}
        )
    if command := executed_command(flat):
        named.setdefault("process.command_line", command)
    add_derived(named)
    meaning = action_meaning(profile.family, named, flat)
    if system is not None:
        meaning = windows_meaning(system.channel, system.event_id)
    if meaning:
        named["event.meaning"] = meaning
    rest = {path: text for path, text in flat.items() if path not in used and path not in named}
    return named | rest, {target: path for target, path in sources.items() if target in named}


def _put(named: dict[str, str], sources: dict[str, str], target: str, text: str, path: str) -> None:
    """The first value under the name itself, further ones under `name#2`, `name#3`…; none twice."""
    number = 1
    while (name := target if number == 1 else f"{target}#{number}") in named:
        if named[name] == text:
            return
        number += 1
    named[name] = text
    sources[name] = path


def _map_common(
    flat: Mapping[str, str], named: dict[str, str], sources: dict[str, str], used: set[str]
) -> None:
    for path, text in flat.items():
        target = None if is_empty(text) else common_name(path, text)
        if target is not None and target not in named and target not in flat:
            named[target] = text
            sources[target] = path
            used.add(path)


def _alert_id(flat: Mapping[str, str], paths: Paths, system: WindowsSystem | None, profile: Profile) -> str:
    own_id = paths.text(profile.ids) or first(flat, ID_PATHS)
    if own_id is None and system is not None and system.record_id and profile is WINDOWS:
        own_id = f"{system.computer or 'unknown'}:{system.channel}:{system.record_id}"
    if own_id is not None:
        own_id = "".join(c for c in own_id if c.isprintable()).strip()[:MAX_ID_CHARS]
    if own_id:
        return own_id
    canonical = json.dumps(dict(flat), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()[:16]


def _title(profile: Profile, paths: Paths, system: WindowsSystem | None, fields: Mapping[str, str]) -> str:
    def value(name: str) -> str:
        text = fields.get(name, "")
        return (paths.text((name,)) or "") if is_empty(text) else text

    rule = fields.get("rule.name", "")
    if system is not None and profile is WINDOWS:
        name = event_name(system.channel, system.event_id)
        title = f"{CHANNEL_TITLES[system.channel]} event {system.event_id}" + (f": {name}" if name else "")
        if rule and not is_empty(rule) and "technique_id=" not in rule:
            title = f"{title} (rule: {rule})"
    else:
        filled = (_filled(template, value) for template in _fitting(profile.titles, paths))
        title = next((text for text in filled if text), "")
    title = title or next((text for text in map(value, GENERIC_TITLES) if text), "")
    clean = " ".join("".join(c if c.isprintable() else " " for c in title).split())[:MAX_TITLE_CHARS]
    return clean or f"{profile.family} event"


def _fitting(titles: Iterable[str], paths: Paths) -> Iterator[str]:
    """The templates whose condition, where they have one, the event meets."""
    for title in titles:
        mark, asked, template = title.partition(" ? ")
        if not asked or paths.meets(mark):
            yield template or title


def _filled(template: str, value: Callable[[str], str]) -> str:
    """The template with every `{name}` replaced, or "" where one has no value."""
    values = {
        name: value(name).removesuffix(".amazonaws.com") for name in re.findall(r"\{([^}]+)\}", template)
    }
    if not all(values.values()):
        return ""
    return re.sub(r"\{([^}]+)\}", lambda match: values[match[1]][:MAX_TITLE_CHARS], template)


def _technique_ids(flat: Mapping[str, str]) -> list[str]:
    """ATT&CK ids under a path that speaks of techniques, or in a Sysmon rule name."""
    found: dict[str, None] = {}
    for path, text in flat.items():
        segments = path.lower().split(".")
        claims = any("technique" in s or "mitre" in s or s in TECHNIQUE_SEGMENTS for s in segments)
        if claims or segments[-1] == "rulename":
            found.update((match.upper(), None) for match in TECHNIQUE.findall(text[:2000]))
    return list(found)
