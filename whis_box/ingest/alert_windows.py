"""Windows events in the shapes exporters give them: EVTX as JSON, winlogbeat, Wazuh, NXLog and flat ones.

Invariant: one `WindowsSystem` says where the event's data lies; the same field table then serves every shape.
Source: field names of Sysmon 15 and of Windows security auditing.
"""

from __future__ import annotations

import ntpath
import re
from collections.abc import Mapping
from dataclasses import dataclass

from whis_box.ingest.alert_flatten import is_empty
from whis_box.ingest.alert_names import Channel, channel_of

HASH = re.compile(r"\b(MD5|SHA1|SHA256|IMPHASH)=([0-9A-Fa-f]{32,64})\b", re.IGNORECASE)
REGISTRY_OBJECT = re.compile(r"\\?\\?REGISTRY\\|^HK(?:LM|CU|U|CR|EY)", re.IGNORECASE)

PROVIDER_NAMES = (
    "System.Provider.Name", "System.Provider.@Name", "Provider.Name", "provider_name", "system.providerName",
    "SourceName", "ProviderName", "Provider_Name", "Provider", "Source",
)  # fmt: skip
MAX_HEADERS = 4  # a real event has one; a hostile one could hold thousands
ID_NAMES = ("EventID", "EventId", "event_id", "eventID", "eventid")

# Leaf names of EventData / UserData, for every event that has no exception below.
WINDOWS_FIELDS: tuple[tuple[str, str], ...] = (
    ("Image", "process.executable"),
    ("SourceImage", "process.executable"),
    ("NewProcessName", "process.executable"),
    ("ProcessName", "process.executable"),
    ("CallerProcessName", "process.executable"),
    ("Process Name", "process.executable"),
    ("Application", "process.executable"),
    ("CommandLine", "process.command_line"),
    ("ProcessCommandLine", "process.command_line"),
    ("HostApplication", "process.command_line"),
    ("OriginalFileName", "process.original_file_name"),
    ("CurrentDirectory", "process.working_directory"),
    ("IntegrityLevel", "process.integrity_level"),
    ("Description", "process.description"),
    ("Product", "process.product"),
    ("Company", "process.company"),
    ("NewProcessId", "process.pid"),
    ("ProcessId", "process.pid"),
    ("SourceProcessId", "process.pid"),
    ("CallerProcessId", "process.pid"),
    ("ParentImage", "process.parent.executable"),
    ("ParentProcessName", "process.parent.executable"),
    ("ParentCommandLine", "process.parent.command_line"),
    ("ParentProcessId", "process.parent.pid"),
    ("ParentUser", "process.parent.user"),
    ("TargetImage", "target.image"),
    ("TargetProcessId", "target.pid"),
    ("GrantedAccess", "access.mask"),
    ("AccessMask", "access.mask"),
    ("StartFunction", "thread.start_function"),
    ("CallTrace", "process.call_trace"),
    ("User", "user.name"),
    ("SourceUser", "user.name"),
    ("SubjectUserName", "user.name"),
    ("UserName", "user.name"),
    ("UserContext", "user.name"),
    ("AccountName", "user.name"),
    ("Detection User", "user.name"),
    ("SubjectDomainName", "user.domain"),
    ("TargetUser", "user.target.name"),
    ("TargetUserName", "user.target.name"),
    ("TargetDomainName", "user.target.domain"),
    ("MemberName", "group.member"),
    ("Requester", "user.name"),
    ("SourceIp", "source.ip"),
    ("IpAddress", "source.ip"),
    ("SourceAddress", "source.ip"),
    ("ClientAddress", "source.ip"),
    ("ClientIP", "source.ip"),
    ("SourcePort", "source.port"),
    ("IpPort", "source.port"),
    ("SourceHostname", "source.domain"),
    ("WorkstationName", "source.host"),
    ("Workstation", "source.host"),
    ("DestinationIp", "destination.ip"),
    ("DestAddress", "destination.ip"),
    ("DestinationPort", "destination.port"),
    ("DestPort", "destination.port"),
    ("DestinationHostname", "destination.domain"),
    ("TargetServerName", "destination.host"),
    ("QueryName", "dns.question.name"),
    ("QueryResults", "dns.answers"),
    ("TargetFilename", "file.path"),
    ("RelativeTargetName", "file.path"),
    ("Path", "file.path"),
    ("ShareName", "share.name"),
    ("TargetObject", "registry.path"),
    ("ObjectValueName", "registry.value"),
    ("Details", "registry.data"),
    ("NewValue", "registry.data"),
    ("New Value", "registry.data"),
    ("EventType", "event.type"),
    ("ServiceName", "service.name"),
    ("ServiceFileName", "service.binary"),
    ("ImagePath", "service.binary"),
    ("ServiceType", "service.type"),
    ("TaskName", "task.name"),
    ("TaskContent", "task.content"),
    ("TaskContentNew", "task.content"),
    ("ScriptBlockText", "script_block.text"),
    ("Payload", "script_block.text"),
    ("LogonType", "logon.type"),
    ("SubStatus", "logon.sub_status"),
    ("LogonProcessName", "logon.process"),
    ("AuthenticationPackageName", "logon.package"),
    ("TicketEncryptionType", "kerberos.encryption"),
    ("TicketOptions", "kerberos.options"),
    ("ImageLoaded", "image.loaded"),
    ("Signed", "image.signed"),
    ("SignatureStatus", "image.signature_status"),
    ("PipeName", "pipe.name"),
    ("EnabledPrivilegeList", "privilege.list"),
    ("PrivilegeList", "privilege.list"),
    ("Threat Name", "rule.name"),
    ("RuleTitle", "rule.name"),
    ("RuleName", "rule.name"),
    ("Message", "message"),
)

# In these events the leaf means something else; applied before the table above.
WINDOWS_EXCEPTIONS: dict[Channel, dict[str, tuple[tuple[str, str], ...]]] = {
    "security": {
        "4688": (("NewProcessName", "process.executable"), ("ProcessId", "process.parent.pid")),
        "4657": (("ObjectName", "registry.path"),),
        **{
            e: (
                ("Status", "logon.status"),
                ("TargetUserName", "user.name"),
                ("TargetDomainName", "user.domain"),
            )
            for e in ("4768", "4769", "4771", "4776")
        },
        **{
            e: (("TargetUserName", "user.name"), ("TargetDomainName", "user.domain"))
            for e in ("4634", "4647")
        },
        "4624": (
            ("TargetUserName", "user.name"),
            ("TargetDomainName", "user.domain"),
            ("SubjectUserName", "logon.subject"),
            ("TargetOutboundUserName", "user.target.name"),
        ),
        "4625": (
            ("TargetUserName", "user.name"),
            ("TargetDomainName", "user.domain"),
            ("SubjectUserName", "logon.subject"),
            ("Status", "logon.status"),
        ),
        "4740": (("TargetDomainName", "source.host"),),  # the computer that sent the wrong passwords
        **{
            e: (("TargetUserName", "group.name"),)
            for e in ("4728", "4729", "4731", "4732", "4733", "4756", "4799")
        },
    },
    "sysmon": {
        "2": (("CreationUtcTime", "file.created_at"), ("PreviousCreationUtcTime", "file.created_before")),
        **{
            e: (
                ("OriginalFileName", "image.original_file_name"),
                ("Description", "image.description"),
                ("Product", "image.product"),
                ("Company", "image.company"),
            )
            for e in ("6", "7")
        },
    },
    "remote_desktop": {
        "1149": (("Param1", "user.name"), ("Param2", "user.domain"), ("Param3", "source.ip")),
        **{e: (("Address", "source.ip"),) for e in ("21", "22", "24", "25")},
    },
}
KERBEROS_EVENTS = frozenset({"4768", "4769", "4771", "4776"})


@dataclass(frozen=True)
class WindowsSystem:
    """The header of a Windows event and the path prefix `base` under which it was found."""

    base: str
    event_id: str
    channel: Channel
    provider: str | None
    computer: str | None
    record_id: str | None


def read_system(flat: Mapping[str, str]) -> WindowsSystem | None:
    """Find the header of a Windows event in any shape, or None where this is no Windows event."""
    for base, id_path in _id_paths(flat)[:MAX_HEADERS]:
        event_id = flat[id_path].strip()
        names = {path: text for path, text in flat.items() if path.startswith(base) and not is_empty(text)}

        def pick(*leaves: str, base: str = base, names: dict[str, str] = names) -> str:
            return next((names[base + leaf] for leaf in leaves if base + leaf in names), "")

        channel = pick("System.Channel", "Channel", "channel", "system.channel", "LogName", "log_name")
        provider = pick(*PROVIDER_NAMES)
        if not event_id.isascii() or not event_id.isdigit() or len(event_id) > 6 or not (channel or provider):
            continue
        return WindowsSystem(
            base=base,
            event_id=event_id,
            channel=channel_of(channel, provider),
            provider=provider or channel,
            computer=pick(
                "System.Computer", "computer_name", "system.computer", "Computer", "Hostname", "ComputerName"
            )
            or None,
            record_id=pick(
                "System.EventRecordID", "record_id", "system.eventRecordID", "EventRecordID", "RecordNumber"
            )
            or None,
        )
    return None


def _id_paths(flat: Mapping[str, str]) -> list[tuple[str, str]]:
    """`(base, path of the event id)` of each shape that fits, the most explicit first."""
    found = [(path[: -len("System.EventID")], path) for path in flat if path.endswith("System.EventID")]
    found += [("winlog.", "winlog.event_id")] * ("winlog.event_id" in flat)
    found += [("data.win.", "data.win.system.eventID")] * ("data.win.system.eventID" in flat)
    return found + [("", name) for name in ID_NAMES if name in flat]


def map_windows(
    flat: Mapping[str, str], system: WindowsSystem, named: dict[str, str], used: set[str]
) -> None:
    """Add the event's data to `named` under ECS-like names and the paths it came from to `used`."""
    leaves = _data_leaves(flat, system.base)
    lowered = {leaf.lower(): path for leaf, path in reversed(leaves.items())}
    table = WINDOWS_EXCEPTIONS.get(system.channel, {}).get(system.event_id, ())
    for leaf, target in table + WINDOWS_FIELDS:
        path = leaves.get(leaf) or lowered.get(leaf.lower())
        if path and path not in used and target not in named and not is_empty(flat[path]):
            named[target] = flat[path].strip()
            used.add(path)
    if system.computer:
        named.setdefault("host.name", system.computer)
    hashes = flat.get(leaves.get("Hashes") or lowered.get("hashes", ""), "")
    for algorithm, digest in HASH.findall(hashes):
        named.setdefault(f"hash.{algorithm.lower()}", digest.lower())
    _refine(flat, system, leaves, named, used)


def _data_leaves(flat: Mapping[str, str], base: str) -> dict[str, str]:
    """Data name to path: the last segment (`UserData` adds a level); in a flat shape every undotted key."""
    prefixes = tuple(
        base + part for part in ("EventData.", "UserData.", "event_data.", "user_data.", "eventdata.")
    )
    leaves = {path.rpartition(".")[2]: path for path in flat if path.startswith(prefixes)}
    for path in flat:
        if "." not in path and (not base or path in ("RuleTitle", "message", "Message")):
            leaves.setdefault(path, path)
    return leaves


def _refine(
    flat: Mapping[str, str],
    system: WindowsSystem,
    leaves: Mapping[str, str],
    named: dict[str, str],
    used: set[str],
) -> None:
    """What one value means only beside another: object types, registry value names, Kerberos results."""
    object_path = leaves.get("ObjectName", "")
    name = flat.get(object_path, "")
    if system.channel == "security" and name and object_path not in used:
        target = "registry.path" if REGISTRY_OBJECT.search(name) else "file.path"
        if (
            not is_empty(name)
            and target not in named
            and flat.get(leaves.get("ObjectType", "")) in ("Key", "File")
        ):
            named[target] = name
            used.add(object_path)
    if system.channel == "defender" and "file.path" in named:
        named["file.path"] = named["file.path"].removeprefix("file:_")
    if system.channel == "sysmon" and system.event_id in ("13", "14") and "registry.path" in named:
        named.setdefault("registry.value", ntpath.basename(named["registry.path"]))
    if (
        system.channel == "security"
        and system.event_id not in KERBEROS_EVENTS
        and "logon.sub_status" in named
    ):
        sub_status = named.pop("logon.sub_status")
        named["logon.status"] = (
            sub_status if int_or_zero(sub_status) else named.get("logon.status", sub_status)
        )


def int_or_zero(code: str) -> int:
    """A decimal or 0x code as a number; 0 for anything else."""
    if re.fullmatch(r"0[xX][0-9A-Fa-f]{1,16}", code):
        return int(code, 16)
    return int(code) if re.fullmatch(r"[0-9]{1,18}", code) else 0
