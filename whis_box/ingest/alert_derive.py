"""What follows from named fields: base names, domains of accounts, ports beside addresses, decoded commands.

Invariant: nothing is invented; each value is a part, a joining or a decoding of values the event holds.
"""

from __future__ import annotations

import ipaddress
import ntpath
import re
from collections.abc import Mapping
from urllib.parse import parse_qs, unquote_plus

from whis_box.ingest.powershell import decoded_command

ADDRESS_AND_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|((?:\d{1,3}\.){3}\d{1,3})):(\d{1,5})")
MAX_ARN_CHARS = 2_048  # the limit of AWS
AWS_ROLE = re.compile(r":assumed-role/([^/]+)/([^/]+)$")
AWS_USER = re.compile(r":(?:(?:user|federated-user)/(?:.*/)?)?([^/:]+)$")
POD_EXEC = re.compile(r"/pods/[^/?]+/(?:exec|attach)\?")
EXECVE_ARGUMENT = re.compile(r"\.execve\.a(\d{1,3})$")
HASH_NAMES = {32: "md5", 40: "sha1", 64: "sha256"}
# The leaf name, or the last two names joined, in lower case without "_", "-" and spaces.
COMMON_FIELDS: dict[str, str] = {
    **dict.fromkeys(("rulename", "alertname", "signature", "ruletitle", "title", "alerttitle"), "rule.name"),
    **dict.fromkeys(("commandline", "cmdline", "processcommandline", "command"), "process.command_line"),
    **dict.fromkeys(("executable", "exe", "image", "processpath", "imagepath"), "process.executable"),
    **dict.fromkeys(("processname", "comm"), "process.name"),
    **dict.fromkeys(("parentimage", "parentprocesspath"), "process.parent.executable"),
    **dict.fromkeys(("parentprocessname", "parentname", "initiatingprocessfilename"), "process.parent.name"),
    **dict.fromkeys(("parentcommandline", "initiatingprocesscommandline"), "process.parent.command_line"),
    **dict.fromkeys(
        (
            "user", "username", "accountname", "account", "userprincipalname", "srcuser", "sourceuser",
            "useremail", "actoremail", "principalemail", "actorname", "actoralternateid", "suser", "usrname",
        ),
        "user.name",
    ),
    **dict.fromkeys(("targetuser", "targetusername", "dstuser", "duser"), "user.target.name"),
    **dict.fromkeys(
        ("host", "hostname", "devicename", "computer", "computername", "device", "endpoint", "agenthostname"),
        "host.name",
    ),
    **dict.fromkeys(
        (
            "srcip", "sourceip", "clientip", "remoteaddr", "sourceaddress", "src", "ipaddress", "callerip",
            "calleripaddress", "actorip", "sourceipaddress", "remoteipaddress", "srcaddr", "clientaddress",
        ),
        "source.ip",
    ),
    **dict.fromkeys(("srcport", "sourceport", "spt"), "source.port"),
    **dict.fromkeys(
        ("dstip", "destip", "destinationip", "remoteip", "destinationaddress", "dst", "dest", "dstaddr"),
        "destination.ip",
    ),
    **dict.fromkeys(("dstport", "destport", "destinationport", "remoteport", "dpt"), "destination.port"),
    **dict.fromkeys(
        ("domain", "destinationdomain", "destinationhostname", "dnsdomain"), "destination.domain"
    ),
    **dict.fromkeys(("query", "queryname", "dnsquery"), "dns.question.name"),
    **dict.fromkeys(("filepath", "folderpath", "targetfilename"), "file.path"),
    **dict.fromkeys(("registrykey", "registrypath", "targetobject"), "registry.path"),
    **dict.fromkeys(("url", "remoteurl", "requesturl"), "url.full"),
    **dict.fromkeys(("useragent", "httpuseragent", "rawuseragent"), "user_agent"),
    **dict.fromkeys(("message", "description", "msg"), "message"),
    **{name: f"hash.{name}" for name in ("md5", "sha1", "sha256", "imphash")},
}  # fmt: skip


def common_name(path: str, text: str) -> str | None:
    """The name of a field of an unknown event, from how it is called and what it holds."""
    segments = [re.sub(r"[_\- ]", "", segment).lower() for segment in path.split(".")[-2:]]
    target = COMMON_FIELDS.get(segments[-1]) or COMMON_FIELDS.get("".join(segments))
    if target in ("source.ip", "destination.ip") and not address_of(text)[0]:
        return None
    if target in ("source.port", "destination.port") and not re.fullmatch(r"\d{1,5}", text, re.ASCII):
        return None
    if target == "host.name" and text.lower() in ("unknown", "true", "false"):
        return None
    return target


def address_of(text: str) -> tuple[str, str]:
    """(address, port) of `address`, `address:port` or `[address]:port`; empty where it is none."""
    match = ADDRESS_AND_PORT.fullmatch(text.strip())
    address, port = (match[1] or match[2], match[3]) if match else (text.strip().strip("[]"), "")
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return "", ""
    return address, port


def executed_command(flat: Mapping[str, str]) -> str:
    """The command that a Linux audit EXECVE record holds as numbered arguments, or ""."""
    found = {int(match[1]): text for path, text in flat.items() if (match := EXECVE_ARGUMENT.search(path))}
    if not found and flat.get("audit.type") == "EXECVE":
        found = {int(path[7:]): text for path, text in flat.items() if re.fullmatch(r"audit\.a\d{1,3}", path)}
    return " ".join(found[number] for number in sorted(found))


def add_derived(named: dict[str, str]) -> None:
    """Add what follows from the named fields, in place."""
    _split_connection(named)
    for side in ("source", "destination"):
        _split_address(named, side)
    if address := address_of(named.get("host.name", ""))[0]:
        named.setdefault("host.ip", address)
        del named["host.name"]
    for name in [name for name in named if name.partition("#")[0] == "hash"]:
        _place_hash(named, name)
    for prefix in ("process", "process.parent", "file"):
        _join_path(named, prefix)
    for prefix in ("process", "process.parent"):
        executable = named.get(f"{prefix}.executable", "")
        if executable and f"{prefix}.name" not in named:
            named[f"{prefix}.name"] = ntpath.basename(executable) or executable
    _name_principal(named)
    _read_exec(named)
    if suffix := named.get("user.upn_suffix"):
        name = named.get("user.name", "")
        if name and "@" not in name and "\\" not in name:
            named["user.name"] = f"{name}@{suffix}"
    for prefix in ("user", "user.target"):
        domain, slash, user = named.get(f"{prefix}.name", "").partition("\\")
        if slash and user:
            named[f"{prefix}.name"] = user
            named.setdefault(f"{prefix}.domain", domain)
    decoded = decoded_command(named.get("process.command_line", ""), named.get("process.name", ""))
    if decoded is not None:
        named["process.command_line.decoded"] = decoded


def _split_connection(named: dict[str, str]) -> None:
    """A descriptor `10.0.0.5:40000->203.0.113.9:443` is a connection and no file."""
    near, arrow, far = named.get("file.path", "").partition("->")
    sides = [("source", address_of(near)), ("destination", address_of(far))]
    if arrow and all(address for _, (address, _) in sides):
        for side, (address, port) in sides:
            named.setdefault(f"{side}.ip", address)
            named.setdefault(f"{side}.port", port)
        del named["file.path"]


def _name_principal(named: dict[str, str]) -> None:
    """The user and the session of an AWS identity that gives only its ARN or its principal id."""
    principal, _, session = named.get("user.principal", "").partition(":")
    if role := AWS_ROLE.search(arn := named.get("user.arn", "")[:MAX_ARN_CHARS]):
        named.setdefault("user.name", role[1])
        session = role[2]
    elif user := AWS_USER.search(arn):
        named.setdefault("user.name", user[1])
    if session:
        named.setdefault("user.session", session)
    if session or principal:
        named.setdefault("user.name", session or principal)


def _read_exec(named: dict[str, str]) -> None:
    """The command that a request to `exec` into a container carries as `command=` parameters."""
    if POD_EXEC.search(path := named.get("url.path", "")):
        parameters = parse_qs(path.partition("?")[2])
        if command := " ".join(parameters.get("command", ())):
            named.setdefault("process.command_line", command)
            named["url.path"] = unquote_plus(path)


def _split_address(named: dict[str, str], side: str) -> None:
    """`203.0.113.9:443` is an address and a port; `source.address` may be an address or a name."""
    text = named.pop(f"{side}.address", "")
    if text:
        kind = "ip" if address_of(text)[0] else "domain" if "." in text else "host"
        named.setdefault(f"{side}.{kind}", text)
    address, port = address_of(named.get(f"{side}.ip", ""))
    if port:
        named[f"{side}.ip"] = address
        named.setdefault(f"{side}.port", port)


def _place_hash(named: dict[str, str], name: str) -> None:
    text = named[name].strip()
    kind = HASH_NAMES.get(len(text), "") if re.fullmatch(r"[0-9A-Fa-f]+", text) else ""
    if kind and f"hash.{kind}" not in named:
        named[f"hash.{kind}"] = text.lower()
        del named[name]


def _join_path(named: dict[str, str], prefix: str) -> None:
    """A directory and the name of what lies in it, also where the path itself stops at the directory."""
    target = "file.path" if prefix == "file" else f"{prefix}.executable"
    directory, name = named.get(f"{prefix}.directory", ""), named.get(f"{prefix}.name", "")
    path = named.get(target, "")
    if path and name and _is_directory_of(path, name):
        directory = path
    if directory and name and (target not in named or directory == path):
        windows = "\\" in directory or directory.endswith(":")
        named[target] = directory.rstrip("/\\") + ("\\" if windows else "/") + name
        named.pop(f"{prefix}.directory", None)


def _is_directory_of(path: str, name: str) -> bool:
    """Whether the path lacks this name: it ends with a separator, or without the name's extension."""
    if path[-1] in "/\\":
        return True
    extension, last = ntpath.splitext(name)[1].lower(), ntpath.basename(path).lower()
    on_windows = "\\" in path and re.fullmatch(r"\.[a-z0-9]{1,5}", extension) is not None
    return on_windows and last != name.lower() and ntpath.splitext(last)[1] != extension
