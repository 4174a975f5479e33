"""When an alert says that it happened.

Invariant: UTC ISO-8601 where the source names its zone or documents UTC; otherwise the source's own text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from whis_box.ingest.alert_paths import Paths
from whis_box.ingest.alert_profiles import Profile

TIME_PATHS = (
    "Event.System.TimeCreated.SystemTime", "Event.System.TimeCreated.@SystemTime",
    "kibana.alert.original_time", "@timestamp",
    "eventTime", "time_dt", "time", "timestamp", "winlog.time_created", "UtcTime", "EventTime",
    "TimeCreated", "createdDateTime", "TimeGenerated", "published", "_time", "ts", "created_at",
    "detected_at", "occurred_at", "date", "syslog.timestamp",
)  # fmt: skip
# XML turned into JSON writes an attribute as `#attributes` or as a name behind "@".
HEADER_TIMES = ("System.TimeCreated.SystemTime", "System.TimeCreated.@SystemTime")
UTC_PATHS = frozenset({"UtcTime", "TimeGenerated"})  # documented as UTC, written without a zone
# What CEF and LEEF write beside epoch milliseconds.
WRITTEN_FORMATS = ("%b %d %Y %H:%M:%S", "%b %d %Y %H:%M:%S.%f", "%b %d %Y %H:%M:%S %Z", "%m/%d/%Y %H:%M:%S")
AUDIT_STAMP = re.compile(r"audit\((\d{9,12}\.\d{1,6}):\d+\)")
# Digits of an epoch to what one second is in its unit.
EPOCH_UNITS = ((11, 1), (14, 1_000), (17, 1_000_000), (20, 1_000_000_000))


def occurred_at(flat: Mapping[str, str], paths: Paths, profile: Profile) -> str | None:
    """The event's time, the family's own places first."""
    candidates = (path for pattern in (*profile.times, *TIME_PATHS) for path in paths.all(pattern))
    path = next(candidates, None)
    if path is None:
        path = next((one for one in flat if one.endswith(HEADER_TIMES)), None)
    if path is None:
        return None
    text = "".join(c for c in flat[path] if c.isprintable()).strip()[:64]
    if audit := AUDIT_STAMP.match(text):
        text = audit[1]
    naive_is_utc = profile.naive_is_utc or path.rpartition(".")[2] in UTC_PATHS
    return _iso(text, naive_is_utc=naive_is_utc) or text or None


def _iso(text: str, *, naive_is_utc: bool) -> str | None:
    try:
        if re.fullmatch(r"\d{9,19}(\.\d{1,9})?", text, re.ASCII):
            digits = len(text.partition(".")[0])
            unit = next(unit for limit, unit in EPOCH_UNITS if digits < limit + 1)
            return _utc(datetime.fromtimestamp(float(text) / unit, UTC))
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError):
        return _written(text, naive_is_utc=naive_is_utc)
    if moment.tzinfo is None:
        return _utc(moment.replace(tzinfo=UTC)) if naive_is_utc else None
    try:
        return _utc(moment.astimezone(UTC))
    except OverflowError:
        return None


def _written(text: str, *, naive_is_utc: bool) -> str | None:
    for form in WRITTEN_FORMATS if naive_is_utc or text.endswith((" UTC", " GMT")) else ():
        try:
            return _utc(datetime.strptime(text, form).replace(tzinfo=UTC))
        except ValueError:
            continue
    return None


def _utc(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
