"""Each source's own severity scale, mapped to the five words used here.

Invariant: only the source's word or number counts; nothing is guessed from the event itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

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
    "fatal": "critical",
}
# Source: OCSF 1.x `severity_id`; 6 is "Fatal".
OCSF_SEVERITIES: dict[str, AlertSeverity] = {
    "1": "informational", "2": "low", "3": "medium", "4": "high", "5": "critical", "6": "critical",
}  # fmt: skip
# Source: Suricata EVE, where 1 is the most severe.
SURICATA_SEVERITIES: dict[str, AlertSeverity] = {"1": "high", "2": "medium", "3": "low", "4": "informational"}
# Upper bounds. Source: Wazuh 4 dashboard (low to 6, medium to 11, high to 14); to 3 it is routine.
WAZUH_LEVELS: tuple[tuple[float, AlertSeverity], ...] = (
    (3, "informational"), (6, "low"), (11, "medium"), (14, "high"), (math.inf, "critical"),
)  # fmt: skip
# Upper bounds. Source: Elastic Security risk scores: 0-21 low, 22-47 medium, 48-73 high, 74-100 critical.
ECS_SCORES: tuple[tuple[float, AlertSeverity], ...] = (
    (0, "informational"), (21, "low"), (47, "medium"), (73, "high"), (math.inf, "critical"),
)  # fmt: skip


def source_severity(flat: Mapping[str, str], family: str) -> AlertSeverity | None:
    """The severity that the source gave, or None where it gave none that can be compared."""
    if family == "ocsf" and flat.get("severity_id") in OCSF_SEVERITIES:
        return OCSF_SEVERITIES[flat["severity_id"]]
    if family == "suricata":
        return SURICATA_SEVERITIES.get(flat.get("alert.severity", ""))
    if family == "wazuh":
        return _graded(flat.get("rule.level", ""), WAZUH_LEVELS)
    words = [
        "kibana.alert.severity",
        "signal.rule.severity",
        "Severity Name",
        "Event.EventData.Severity Name",
    ]
    if family in ("generic", "ocsf") or any(path in flat for path in ("RuleTitle", "name", "title")):
        words += ["severity", "Severity", "level", "Level", "alert.severity", "AlertSeverity", "priority"]
    for path in words:
        if flat.get(path, "").strip().lower() in SEVERITY_WORDS:
            return SEVERITY_WORDS[flat[path].strip().lower()]
    return _graded(flat.get("event.severity", ""), ECS_SCORES)


def _graded(number: str, bounds: tuple[tuple[float, AlertSeverity], ...]) -> AlertSeverity | None:
    if not re.fullmatch(r"\d{1,3}(\.\d+)?", number, re.ASCII):
        return None
    return next(severity for bound, severity in bounds if float(number) <= bound)
