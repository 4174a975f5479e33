"""The search query of an alert: the words that a guide page about its behaviour would also use.

Invariant: at most `MAX_WORDS` words about what happened; never who, where or when (no users, hosts,
addresses, GUIDs, hashes or pids).
"""

from __future__ import annotations

import ntpath
import re
from collections.abc import Iterable, Iterator

from whis_box.ingest.alert_families import Alert
from whis_box.ingest.alert_flatten import is_empty
from whis_box.ingest.alert_names import KERBEROS_ENCRYPTION, LOGON_STATUSES, LOGON_TYPES
from whis_box.ingest.alert_text import DIRECTION_MARKS, plain

MAX_WORDS = 60
MAX_COMMAND_WORDS = 24
MAX_COMMAND_CHARS = 8_192

PRIVATE = re.compile(
    r"\{?[0-9a-f]{8}-[0-9a-f]{4}-|[0-9a-f]{32,}|^s-1-\d|^(?:\d{1,3}\.){3}\d|[\w.+-]+@[\w-]+\.|[0-9a-f]*:[0-9a-f]*:[0-9a-f:]*$",
    re.IGNORECASE,
)
BASE64 = re.compile(r"[A-Za-z0-9+/]{40,}={0,2}")
URL = re.compile(r"\b(?:https?|ftps?|file)://[^\s\"'|)]*", re.IGNORECASE)
UNC = re.compile(r"(?<![:\w\\])\\{2,4}[\w.$-]+\\{1,2}[^\s\"']*")
QUOTED_PATH = re.compile(r"\"([A-Za-z]:\\[^\"]*)\"")
DIRECT_IP = re.compile(r"://\[?\d{1,3}(?:\.\d{1,3}){3}\b")
# The value after these is a secret or a name.
SECRET_SWITCH = re.compile(
    r"(?i)(?<!\S)([-/]{1,2}(?:u|p|user|username|pass|password|passwd|pwd|token|domain|node|host|name)\b)(?:[:=]|\s+)(\"[^\"]*\"|\S+)"
)
CMDLET = re.compile(r"\b[A-Z][a-z]+-[A-Z][A-Za-z]+\b")
API_NAME = re.compile(r"\b(?:[A-Z][a-z0-9]+){2,6}[AW]?\b")
WORD = re.compile(r"[A-Za-z0-9_$%.:/\\*@=~-]+")
# A forwarder's title that names the kind of record instead of a rule.
RECORD_TITLE = re.compile(r"(?i)\bevent (?:id )?1\b.*process creat|^process creat")
CALLED = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

# Folder names that say something about a dropped or started file.
TELLING_FOLDERS = frozenset(
    {
        "temp", "downloads", "public", "startup", "programdata", "appdata", "roaming", "desktop",
        "recycler", "$recycle.bin", "recyclers.bin", "perflogs", "tasks", "fonts", "sysvol", "ntds",
        "spool", "tmp", "shm", "cron.d", "cron", ".ssh", "inetpub", "wwwroot",
    }
)  # fmt: skip
QUIET_SEGMENTS = frozenset(
    {
        "hklm", "hkcu", "hku", "hkcr", "hkey_local_machine", "hkey_current_user", "hkey_users",
        "software", "system", "currentcontrolset", "controlset001", "control", "microsoft", "windows",
        "currentversion", "policies", "wow6432node", "registry", "machine", "user", "classes",
        "(default)", "domains", "account", "names",
    }
)  # fmt: skip
# Account and host names that are also words of a command or a page.
COMMON_NAMES = frozenset(
    {
        "", "system", "administrator", "admin", "root", "guest", "user", "users", "local", "service",
        "network", "local service", "network service", "nt authority", "test", "default",
    }
)  # fmt: skip
LABELS: tuple[tuple[str, str], ...] = (
    ("rule.category", ""),
    ("event.action", ""),
    ("group.name", "group"),
    ("privilege.list", "privilege"),
    ("thread.start_function", "start function"),
    ("logon.package", ""),
    ("network.protocol", ""),
    ("cloud.error", ""),
)


def search_text(alert: Alert) -> str:
    """The query for the behaviour of this alert; the same alert gives the same query."""
    private_words = _private_words(alert)
    chosen: dict[str, str] = {}
    for phrase in _phrases(alert):
        for word in plain(phrase).split():
            word = _without(private_words, word.strip("\"'`,;()[]{}<>|&^!?%"))
            key = word.lower()
            if not any(c.isalnum() for c in key) or key in chosen or len(word) > 80:
                continue
            if PRIVATE.search(word) or BASE64.search(word):
                continue
            chosen[key] = word
            if len(chosen) == MAX_WORDS:
                return " ".join(chosen.values())
    return " ".join(chosen.values())


def _private_words(alert: Alert) -> set[str]:
    """User, host and domain names of the event, lower case; well-known accounts say something and stay."""
    names = (
        "user.name",
        "user.domain",
        "user.target.name",
        "user.target.domain",
        "host.name",
        "source.host",
        "process.parent.user",
    )
    texts = (alert.fields.get(name, "").lower() for name in names)
    words = {part for text in texts for part in (text, text.partition(".")[0], *text.split("\\"))}
    return words - COMMON_NAMES


def _without(private_words: set[str], word: str) -> str:
    """The word without the parts between `/ : \\ @ =` that are private."""
    if word.lower() in private_words:
        return ""
    parts = re.split(r"([/:\\@=])", word)
    return "".join(part for part in parts if part.lower() not in private_words).rstrip("/:\\@=")


def _phrases(alert: Alert) -> Iterator[str]:
    fields = {name: text for name, text in alert.fields.items() if not is_empty(text)}
    if alert.family not in ("windows", "sysmon") and not RECORD_TITLE.search(alert.title):
        yield alert.title
    yield " ".join(alert.technique_ids)
    yield from _process_phrases(fields)
    if alert.family in ("windows", "sysmon") and not _command_says_more(alert):
        yield _headline(alert)
    yield " ".join(_registry_words(fields))
    yield from _object_phrases(fields)
    yield from _logon_phrases(fields)
    yield from _cloud_phrases(fields)
    for name, label in LABELS:
        if name in fields:
            yield f"{label} {fields[name][:200]}"
    yield " ".join(_script_words(fields.get("script_block.text", "")))
    if alert.family not in ("windows", "sysmon", "cloudtrail") and "message" in fields:
        yield " ".join([word for word in fields["message"][:400].split() if "=" not in word][:20])


def _command_says_more(alert: Alert) -> bool:
    """A process creation with its command: the kind of record would only find the page about the record."""
    return alert.event_id in ("1", "4688") and "process.command_line" in alert.fields


def _headline(alert: Alert) -> str:
    """The title; a Sysmon number is left out, since "1" or "13" finds nothing."""
    return re.sub(r"Sysmon event \d+:?", "Sysmon", alert.title) if alert.family == "sysmon" else alert.title


def _process_phrases(fields: dict[str, str]) -> Iterator[str]:
    executable, parent = fields.get("process.name", ""), fields.get("process.parent.name", "")
    original = fields.get("process.original_file_name", "")
    yield ntpath.basename(executable)
    if original and executable and _stem(original) != _stem(executable):
        yield f"{original} renamed" if _stem(original) not in ("cmd", "powershell") else original
    if DIRECTION_MARKS & set(fields.get("process.executable", "") + fields.get("file.path", "")):
        yield "right-to-left override character in file name masquerading"
    yield " ".join(_command_words(fields.get("process.command_line", ""), _stem(executable)))
    yield " ".join(_script_words(fields.get("process.command_line.decoded", "")))
    yield " ".join(_folders(fields.get("process.executable", "")))
    if parent and _stem(parent) not in ("explorer", "cmd", _stem(executable)):
        yield f"parent {ntpath.basename(parent)}"
    for name in ("target.image", "image.loaded"):
        yield ntpath.basename(fields.get(name, ""))
    yield " ".join(_folders(fields.get("image.loaded", "")))
    if "target.image" in fields:
        yield f"access {fields.get('access.mask', '')}"
    if "image.loaded" in fields and fields.get("image.signed", "").lower() == "false":
        yield "unsigned"


def _stem(path: str) -> str:
    return ntpath.splitext(ntpath.basename(path))[0].lower()


def _command_words(command_line: str, executable_stem: str) -> Iterable[str]:
    """Switches and words of a command; paths become file names, URLs and shares become what they are."""
    text = command_line[:MAX_COMMAND_CHARS]
    hints = ["direct IP address"] * bool(DIRECT_IP.search(text)) + _url_hints(text)
    hints += ["UNC path"] * bool(UNC.search(text)) + ["base64 encoded command"] * _has_base64(text)
    text = SECRET_SWITCH.sub(r"\1 ", text)
    text = URL.sub(lambda match: " " + _file_name(match[0]) + " ", text)
    text = UNC.sub(lambda match: " " + ntpath.basename(match[0]) + " ", text)
    text = QUOTED_PATH.sub(lambda match: " " + ntpath.basename(match[1]).replace(" ", "_") + " ", text)
    words: dict[str, None] = {}
    for token in WORD.findall(text):
        word = _word(token)
        if (
            word
            and _stem(word) != executable_stem
            and not re.fullmatch(r"\d{2,}", word)
            and not word.startswith("$")
        ):
            words[word] = None
    return [*list(words)[:MAX_COMMAND_WORDS], *hints]


def _url_hints(text: str) -> list[str]:
    urls = [match[0].lower() for match in URL.finditer(text)]
    local = all(url.startswith("file:") for url in urls)
    return ["local file URL" if local else "download URL"] if urls else []


def _has_base64(text: str) -> bool:
    """A long run of base64 letters that is neither a hex digest nor one long word."""
    runs = (match[0] for match in BASE64.finditer(text))
    return any(re.search("[a-z]", r) and re.search("[A-Z]", r) and re.search("[0-9+]", r) for r in runs)


def _word(token: str) -> str:
    """A token of a command without its path; registry keys keep their last two names."""
    if re.match(r"(?i)hk(lm|cu|u|cr|ey_\w+):?\\?", token):
        return " ".join(_registry_tail(token.replace(":", "\\")))
    if re.match(r"[A-Za-z]:[\\/]|\.{1,2}\\|%\w+%\\", token):
        return ntpath.basename(token.rstrip("\\"))
    if "\\" in token:
        return " ".join(part for part in token.split("\\")[-2:] if part)
    return token.strip(".:=*%")


def _file_name(url: str) -> str:
    name = url.partition("?")[0].rpartition("/")[2] if url.count("/") > 2 else ""
    return name if re.fullmatch(r"[\w-]{1,40}\.[A-Za-z]\w{1,4}", name) else ""


def _folders(path: str) -> list[str]:
    return [segment for segment in re.split(r"[\\/]", path)[:-1] if segment.lower() in TELLING_FOLDERS]


def _registry_words(fields: dict[str, str]) -> Iterator[str]:
    if "registry.path" not in fields:
        return
    yield fields.get("event.type", "")
    yield from _registry_tail(fields["registry.path"])
    data = fields.get("registry.data", "")
    if number := re.search(r"DWORD \(0x0*([0-9a-f]+)\)", data):
        yield "enabled" if number[1] == "1" else "0" if not number[1].strip("0") else ""
    elif re.search(r"[\\/]", data):
        yield from _command_words(data, "")


def _registry_tail(path: str) -> list[str]:
    """The last four telling names of a key; ids and the names every key has are left out."""
    names = [name for name in re.split(r"\\", path) if name and name.lower() not in QUIET_SEGMENTS]
    return [name for name in names if not PRIVATE.search(name)][-4:]


def _object_phrases(fields: dict[str, str]) -> Iterator[str]:
    path = fields.get("file.path", "")
    if path:
        yield " ".join([re.split(r"[\\/]", path)[-1], *_folders(path)])
    if "service.name" in fields:
        yield f"service {fields['service.name']}"
        yield " ".join(_command_words(fields.get("service.binary", ""), ""))
    if "task.name" in fields:
        yield "scheduled task " + " ".join(fields["task.name"].split("\\")[-2:])
        command = " ".join(
            re.findall(r"<(?:Command|Arguments)>([^<]{1,2000})", fields.get("task.content", ""))
        )
        yield " ".join(_command_words(command, ""))
    if "pipe.name" in fields:
        yield f"named pipe {ntpath.basename(fields['pipe.name'])}"
    if "share.name" in fields:
        yield f"network share {ntpath.basename(fields['share.name'])}"
    if "dns.question.name" in fields:
        yield "DNS query" + (" long subdomain" if len(fields["dns.question.name"]) > 60 else "")
    if "destination.port" in fields and len(fields["destination.port"]) <= 5:
        yield f"port {fields['destination.port']}"


def _logon_phrases(fields: dict[str, str]) -> Iterator[str]:
    if "logon.type" in fields:
        kind = fields["logon.type"]
        yield f"logon type {kind} {LOGON_TYPES.get(kind, '')}"
    yield LOGON_STATUSES.get(fields.get("logon.status", "").lower(), "")
    if encryption := KERBEROS_ENCRYPTION.get(fields.get("kerberos.encryption", "").lower()):
        yield f"{encryption} ticket encryption"


def _cloud_phrases(fields: dict[str, str]) -> Iterator[str]:
    action = fields.get("cloud.action", "")
    if action:
        yield f"{action} {CALLED.sub(' ', action)} {fields.get('cloud.service', '').partition('.')[0]}"
    if fields.get("user.type") == "Root":
        yield "root user"
    if fields.get("additionalEventData.MFAUsed") == "No":
        yield "without MFA"
    agent = fields.get("user_agent", "")
    if re.match(
        r"(?i)(curl|python|aws-cli|boto|go-http|wget|powershell|mozilla/5.0 \(windows nt; windows nt)", agent
    ):
        yield "user agent " + re.split(r"[/ ]", agent)[0]


def _script_words(script: str) -> list[str]:
    """Cmdlets and API-like names of a script, in the order they appear."""
    text = URL.sub(" ", script[:MAX_COMMAND_CHARS])
    hints = _url_hints(script[:MAX_COMMAND_CHARS])
    words = dict.fromkeys([*CMDLET.findall(text), *API_NAME.findall(text)])
    if not words:
        return [*text.split()[:12], *hints]
    return [*list(words)[:MAX_COMMAND_WORDS], *hints]
