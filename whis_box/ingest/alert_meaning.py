"""What an event says it did, in words: actions taken apart, switches that are on, rights of a handle.

Invariant: only words of the event's own names and of literal tables; nothing is judged here.
Source: Windows access rights of processes, files, keys and directory objects; event names of alert_names.py.
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
STANDARD_RIGHTS: tuple[tuple[int, str], ...] = (
    (0x10000, "delete"),
    (0x40000, "change permissions"),
    (0x80000, "take ownership"),
)
FILE_RIGHTS: tuple[tuple[int, str], ...] = (
    (0x0001, "read data"),
    (0x0002, "write data"),
    (0x0004, "append data"),
    (0x0020, "execute"),
    (0x0040, "delete child"),
    *STANDARD_RIGHTS,
)
KEY_RIGHTS: tuple[tuple[int, str], ...] = (
    (0x0001, "query value"),
    (0x0002, "set value"),
    (0x0004, "create subkey"),
    (0x0008, "enumerate subkeys"),
    (0x0020, "create link"),
    *STANDARD_RIGHTS,
)
DIRECTORY_RIGHTS: tuple[tuple[int, str], ...] = (
    (0x0001, "create child"),
    (0x0002, "delete child"),
    (0x0008, "validated write"),
    (0x0010, "read property"),
    (0x0020, "write property"),
    (0x0040, "delete tree"),
    (0x0100, "extended right"),
    *STANDARD_RIGHTS,
)
# The rights of an object by its type, and the bits that together are every right it has. PROCESS_ALL_ACCESS
# is that before Vista; later ones have all of its bits too.
OBJECT_RIGHTS: dict[str, tuple[int, tuple[tuple[int, str], ...]]] = {
    "process": (0x1F0FFF, PROCESS_RIGHTS),
    "file": (0x1F01FF, FILE_RIGHTS),
    "key": (0xF003F, KEY_RIGHTS),
    "directory object": (0xF01FF, DIRECTORY_RIGHTS),
}
FULL_ACCESS = {"process": "full access, read and write memory"}
# Events whose object has one type whatever `ObjectType` says: a share, or the class of a directory object.
EVENT_OBJECTS = {"10": "process", "4662": "directory object", "5140": "file", "5145": "file"}
CALLED = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
ACTION_FIELDS = ("cloud.action", "event.action")
ACTION_FAMILIES = frozenset(
    {"cloudtrail", "gcp", "m365", "okta", "github", "entra", "guardduty", "defender", "azure"}
)
# Objects whose members are switches and settings of the action.
SETTING_PREFIXES = ("Parameters.", "requestObject.spec.", "requestParameters.")
MAX_SETTINGS = 8
OFF = frozenset({"false", "0", "no", "none", "exists"})


def windows_meaning(channel: Channel, event_id: str) -> str | None:
    """The event's name where it tells more than the kind of record."""
    return None if event_id in PLAIN_EVENTS.get(channel, ()) else event_name(channel, event_id)


def access_rights(mask: str, event_id: str | None, fields: Mapping[str, str]) -> str:
    """The telling rights of an access mask, as its kind of object reads it, or ""."""
    stated = next((text for path, text in fields.items() if path.endswith("ObjectType")), "")
    kind = EVENT_OBJECTS.get(event_id or "", stated.strip().lower())
    if kind not in OBJECT_RIGHTS or not re.fullmatch(r"0[xX][0-9A-Fa-f]{1,8}", mask):
        return ""
    full, rights = OBJECT_RIGHTS[kind]
    bits = int(mask, 16)
    if bits & full == full:
        return FULL_ACCESS.get(kind, "full access")
    return ", ".join(words for bit, words in rights if bits & bit)


def action_meaning(family: str, fields: Mapping[str, str], flat: Mapping[str, str]) -> str | None:
    """The action's name as words, with the names of the settings that it switches on."""
    action = next((fields[name] for name in ACTION_FIELDS if name in fields), "")
    if not action or family not in (*ACTION_FAMILIES, "kubernetes"):
        return None
    words = _words(action.lower() if action.isupper() and family == "azure" else action)
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
