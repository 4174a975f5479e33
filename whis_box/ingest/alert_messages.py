"""What well-known daemons write in prose: logins, privilege changes, scheduled commands.

Invariant: one pattern per message, its groups are the fields; a message nobody knows gives nothing.
Source: message texts of OpenSSH 9, sudo 1.9, shadow-utils, Linux-PAM, cron.
"""

from __future__ import annotations

import re

MAX_MESSAGE_CHARS = 8_192

_NAME = r"[\w.@\\$-]{1,64}"
_ACTOR = rf"(?P<user>{_NAME})"
_TARGET = rf"(?P<target>{_NAME})"
_FROM = r"(?P<ip>[0-9A-Fa-f.:]{3,45})(?: port (?P<port>\d{1,5}))?"
MESSAGES: tuple[tuple[str, str], ...] = (
    ("failed login", rf"Failed (?P<method>\S+) for (?:invalid user )?{_ACTOR} from {_FROM}"),
    ("login", rf"Accepted (?P<method>\S+) for {_ACTOR} from {_FROM}"),
    ("invalid user", rf"Invalid user {_ACTOR} from {_FROM}"),
    (
        "disconnect",
        r"(?:Disconnected from|Connection (?:closed|reset) by) "
        rf"(?:(?:authenticating|invalid) )?(?:user {_ACTOR} )?{_FROM}",
    ),
    (
        "sudo command",
        rf"(?:^|sudo: +|\s){_ACTOR} : (?:[^;]{{0,200}}; )?PWD=(?P<folder>[^;]{{1,1024}}) ; "
        rf"USER={_TARGET} ; (?:ENV=[^;]{{0,1024}} ; )?COMMAND=(?P<command>.+)",
    ),
    ("failed su", rf"'su {_TARGET}' failed for {_ACTOR}"),
    ("failed su", rf"FAILED (?:SU|su) (?:\(to |for ){_TARGET}\)? (?:by |on )?{_ACTOR}"),
    ("authentication failure", rf"authentication failure;.{{0,400}}rhost={_FROM}(?:\s+user={_ACTOR})?"),
    ("session opened", rf"session opened for user {_TARGET}(?:\(uid=\d+\))? by {_ACTOR}"),
    ("account created", rf"new user: name={_TARGET}"),
    ("group change", rf"add '{_TARGET}' to (?:shadow )?group '(?P<group>{_NAME})'"),
    ("password change", rf"password changed for {_TARGET}"),
    ("cron command", rf"^\({_ACTOR}\) CMD \((?P<command>.+)\)"),
)
PATTERNS = tuple((action, re.compile(pattern)) for action, pattern in MESSAGES)
FIELDS = {
    "user": "user.name",
    "target": "user.target.name",
    "ip": "source.ip",
    "port": "source.port",
    "method": "logon.package",
    "folder": "process.working_directory",
    "command": "process.command_line",
    "group": "group.name",
}


def read_message(message: str) -> dict[str, str]:
    """The fields of a known message, by ECS-like name."""
    text = message[:MAX_MESSAGE_CHARS]
    for action, pattern in PATTERNS:
        if match := pattern.search(text):
            found = {FIELDS[name]: value for name, value in match.groupdict().items() if value}
            return {"event.action": action, **found}
    return {}
