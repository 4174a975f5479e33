"""What an event says it did, in words: actions taken apart, switches that are on, rights of a handle.

Invariant: only words of the event's own names and of literal tables; nothing is judged here.
Source: Windows process access rights; event names of alert_names.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from whis_box.ingest.alert_names import Channel, event_name

# Events whose name says nothing that sets one apart from the next.
PLAIN_EVENTS: dict[Channel, frozenset[str]] = {
    "sysmon": frozenset({"1", "3", "5", "7", "11", "12", "13", "14", "22", "23", "26"}),
    "security": frozenset(
        {"4624", "4634", "4656", "4658", "4663", "4672", "4688", "4689", "4690", "4703", "5156"}
    ),
    "powershell": frozenset({"400", "403", "600", "800", "4103", "4104"}),
}
PROCESS_RIGHTS: tuple[tuple[int, str], ...] = (
    (0x0002, "create thread"),
    (0x0008, "change memory"),
    (0x0010, "read memory"),
    (0x0020, "write memory"),
    (0x0040, "duplicate handle"),
    (0x0080, "create process"),
    (0x0800, "suspend or resume"),
)
FULL_ACCESS = 0x1F0FFF  # PROCESS_ALL_ACCESS before Vista; later ones have all of its bits too
CALLED = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
ACTION_FIELDS = ("cloud.action", "event.action")
ACTION_FAMILIES = frozenset({"cloudtrail", "gcp", "m365", "okta", "github", "entra", "guardduty", "defender"})
# Objects whose members are switches and settings of the action.
SETTING_PREFIXES = ("Parameters.", "requestObject.spec.", "requestParameters.")
MAX_SETTINGS = 8
OFF = frozenset({"false", "0", "no", "none", "exists"})


def windows_meaning(channel: Channel, event_id: str) -> str | None:
    """The event's name where it tells more than the kind of record."""
    return None if event_id in PLAIN_EVENTS.get(channel, ()) else event_name(channel, event_id)


def process_rights(mask: str) -> str:
    """The telling rights of a process access mask, or ""."""
    if not re.fullmatch(r"0[xX][0-9A-Fa-f]{1,8}", mask):
        return ""
    bits = int(mask, 16)
    if bits & FULL_ACCESS == FULL_ACCESS:
        return "full access, read and write memory"
    return ", ".join(words for bit, words in PROCESS_RIGHTS if bits & bit)


def action_meaning(family: str, fields: Mapping[str, str], flat: Mapping[str, str]) -> str | None:
    """The action's name as words, with the names of the settings that it switches on."""
    action = next((fields[name] for name in ACTION_FIELDS if name in fields), "")
    if not action or family not in (*ACTION_FAMILIES, "kubernetes"):
        return None
    words = _words(action)
    if family == "kubernetes":
        words = f"{action} {fields.get('resource.type', '')}".strip()
    settings: dict[str, None] = {}
    for path, text in flat.items():
        if path.startswith(SETTING_PREFIXES) and text.strip().lower() not in OFF:
            name = next((one for one in reversed(path.split(".")) if not one.isdigit()), "")
            settings[_words(name)] = None
    named = ", ".join(list(settings)[:MAX_SETTINGS])
    meaning = f"{words} with {named}" if named else words
    return meaning if meaning.lower() != action.lower() else None


def _words(name: str) -> str:
    """`ModifySnapshotAttribute` as `Modify Snapshot Attribute`, `user.lock` as `user lock`."""
    return " ".join(CALLED.sub(" ", re.sub(r"[._:/-]+", " ", name)).split())
