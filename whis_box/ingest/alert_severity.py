"""Each source's own severity scale, mapped to the five words used here.

Invariant: only the source's word or number counts; nothing is guessed from the event itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from whis_box.ingest.alert_paths import Paths
from whis_box.ingest.alert_profiles import Profile
from whis_box.ingest.alert_profiles.profile import Scale
from whis_box.schemas import AlertSeverity

SEVERITY_WORDS: dict[str, AlertSeverity] = {
    "informational": "informational",
    "information": "informational",
    "info": "informational",
    "low": "low",
    "medium": "medium",
    "moderate": "medium",
    "high": "high",
    "severe": "critical",
    "critical": "critical",
    "very-high": "critical",
    "very high": "critical",
    "fatal": "critical",
}
# Levels of logs, not of alerts: a step lower than their names, since a daemon's "error" is no incident.
LOG_LEVELS: dict[str, AlertSeverity] = {
    **dict.fromkeys(
        ("7", "6", "5", "debug", "info", "information", "informational", "default", "notice"), "informational"
    ),
    **dict.fromkeys(("4", "warn", "warning"), "low"),
    **dict.fromkeys(("3", "error", "err"), "medium"),
    **dict.fromkeys(("2", "critical", "crit"), "high"),
    **dict.fromkeys(("1", "0", "alert", "emergency", "emerg"), "critical"),
}
# Source: OCSF 1.x `severity_id`; 6 is "Fatal".
OCSF_SEVERITIES: dict[str, AlertSeverity] = {
    "1": "informational", "2": "low", "3": "medium", "4": "high", "5": "critical", "6": "critical",
}  # fmt: skip
# Source: Suricata EVE, where 1 is the most severe.
SURICATA_SEVERITIES: dict[str, AlertSeverity] = {"1": "high", "2": "medium", "3": "low", "4": "informational"}
# Source: CrowdStrike event streams, `Severity` 1 to 5.
CROWDSTRIKE_SEVERITIES: dict[str, AlertSeverity] = {
    "1": "informational", "2": "low", "3": "medium", "4": "high", "5": "critical",
}  # fmt: skip
# Source: Falco rules, `priority`, which are the words of syslog for what a rule found.
FALCO_PRIORITIES: dict[str, AlertSeverity] = {
    **dict.fromkeys(("debug", "informational", "info"), "informational"),
    **dict.fromkeys(("notice",), "low"),
    **dict.fromkeys(("warning",), "medium"),
    **dict.fromkeys(("error",), "high"),
    **dict.fromkeys(("critical", "alert", "emergency"), "critical"),
}
TABLES: dict[Scale, dict[str, AlertSeverity]] = {
    "words": SEVERITY_WORDS,
    "log_level": LOG_LEVELS,
    "falco": FALCO_PRIORITIES,
    "ocsf": OCSF_SEVERITIES,
    "suricata": SURICATA_SEVERITIES,
    "crowdstrike": CROWDSTRIKE_SEVERITIES,
}

Bounds = tuple[tuple[float, AlertSeverity], ...]
# Upper bounds. Sources: Wazuh 4 dashboard (to 3 it is routine); Elastic Security risk scores; GuardDuty
# finding severity; CEF `Severity` 0-3, 4-6, 7-8, 9-10; a score to 100 as Falcon grades it.
BOUNDS: dict[Scale, Bounds] = {
    "wazuh": ((3, "informational"), (6, "low"), (11, "medium"), (14, "high"), (math.inf, "critical")),
    "ecs_score": ((0, "informational"), (21, "low"), (47, "medium"), (73, "high"), (math.inf, "critical")),
    "guardduty": ((0.99, "informational"), (3.99, "low"), (6.99, "medium"), (8.99, "high"), (10, "critical")),
    "ten": ((0, "informational"), (3, "low"), (6, "medium"), (8, "high"), (10, "critical")),
    "hundred": ((19, "informational"), (39, "low"), (59, "medium"), (79, "high"), (math.inf, "critical")),
}
# In an event of no known family, and in rules that name themselves beside a log record.
COMMON_PATHS = ("severity", "level", "alert.severity", "AlertSeverity", "priority", "urgency", "risk")
WINDOWS_PATHS = ("Severity Name", "Event.EventData.Severity Name")


def source_severity(
    paths: Paths, flat: Mapping[str, str], profile: Profile
) -> tuple[AlertSeverity | None, str | None]:
    """The severity that the source gave and how it wrote it, `(None, None)` where it gave none."""
    written: str | None = None
    for pattern, scale in profile.severities:
        for path in paths.all(pattern):
            written = written or f"{path} {flat[path].strip()[:40]}"
            if found := graded(flat[path].strip(), scale):
                return found, f"{path} {flat[path].strip()[:40]}"
    names: tuple[str, ...] = WINDOWS_PATHS if profile.family == "windows" else ()
    if profile.family == "generic" or any(path in flat for path in ("RuleTitle", "name", "title")):
        names += COMMON_PATHS
    for name in names:
        for path in paths.all(name):
            if found := graded(flat[path].strip(), "words"):
                return found, f"{path} {flat[path].strip()[:40]}"
    return None, written


def graded(text: str, scale: Scale) -> AlertSeverity | None:
    """A word or number of one scale in our five words."""
    if scale in TABLES:
        return TABLES[scale].get(text.lower())
    if not re.fullmatch(r"\d{1,3}(\.\d{1,6})?", text, re.ASCII):
        return SEVERITY_WORDS.get(text.lower())
    return next((severity for bound, severity in BOUNDS[scale] if float(text) <= bound), None)
