"""What a family of events looks like and where it keeps what: one `Profile` per family, literal tables only.

Invariant: a profile is data; the one reader of alert_families.py serves them all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

Family = Literal[
    "windows", "sysmon", "ecs", "ocsf", "cloudtrail", "guardduty", "wazuh", "suricata", "defender",
    "sentinel", "entra", "m365", "okta", "kubernetes", "zeek", "github", "gcp", "crowdstrike", "splunk",
    "cef", "leef", "syslog", "azure", "falco", "mail", "generic",
]  # fmt: skip
Scale = Literal[
    "words", "ocsf", "suricata", "wazuh", "ecs_score", "guardduty", "ten", "hundred", "crowdstrike",
    "log_level", "falco",
]  # fmt: skip
Table = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Profile:
    """How to know a family and read it. Patterns are those of alert_paths.py, the first that holds counts."""

    family: Family
    marks: tuple[str, ...]
    """Any of them is enough; the words of one must all hold."""
    fields: Table
    titles: tuple[str, ...] = ()
    """Templates over named fields and paths; the first whose every `{name}` has a value counts.

    One that begins with `mark ? ` is for events that meet the mark.
    """
    times: tuple[str, ...] = ()
    naive_is_utc: bool = False
    """The source documents its times as UTC without writing a zone."""
    ids: tuple[str, ...] = ()
    severities: tuple[tuple[str, Scale], ...] = ()
    providers: tuple[str, ...] = ()
    product: str | None = field(default=None)
    """The provider where the event does not name one."""


def table(text: str) -> Table:
    """Rows of `target pattern pattern …`, continued by lines that begin with `+`.

    `%20` is a space; a pattern behind `&` may share its path with another target.
    """
    joined = re.sub(r"\n\s*\+", " ", text)
    rows = (line.split() for line in joined.splitlines())
    return tuple((row[0], tuple(one.replace("%20", " ") for one in row[1:])) for row in rows if row)
