"""The hidden half of a PowerShell command line: `-EncodedCommand` (or any prefix of it) and its base64.

Invariant: decoding never raises; what is not base64 of UTF-16LE text is not decoded at all.
"""

from __future__ import annotations

import base64
import binascii
import re

MAX_DECODED_BYTES = 16_384

# PowerShell takes -, / and the Unicode dashes, and every unambiguous prefix of a parameter name.
SWITCH = re.compile(
    r"(?:^|[\s\"'^])[-/\u2013\u2014\u2015]([A-Za-z]{1,14})[\s:\"']+([A-Za-z0-9+/]{12,}={0,2})"
)


def decoded_command(command_line: str, process_name: str) -> str | None:
    """The text behind `-enc`, at most 16 KB of it, or None."""
    words = f"{process_name} {command_line}".lower()
    if "powershell" not in words and "pwsh" not in words:
        return None
    for match in SWITCH.finditer(command_line):
        switch = match[1].lower()
        if switch == "ec" or "encodedcommand".startswith(switch):
            return _decoded(match[2])
    return None


def _decoded(encoded: str) -> str | None:
    encoded = encoded.rstrip("=")[: MAX_DECODED_BYTES // 3 * 4]
    try:
        raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        text = raw[: len(raw) // 2 * 2].decode("utf-16-le")
    except (binascii.Error, UnicodeDecodeError):
        return None
    printable = sum(c.isprintable() or c in "\r\n\t" for c in text)
    return text if text and printable >= 0.8 * len(text) else None
