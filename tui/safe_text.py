"""Text from alerts, documents and the server, made fit for a terminal.

Invariant: what `safe` returns holds no control character but line feed, no escape sequence, and nothing that
reorders or hides other characters; what it replaces stays visible, because an analyst must see an attack.
"""

from __future__ import annotations

import re
import unicodedata

TAB = "    "
# C0 without tab and line feed, DEL, C1; bidirectional and invisible ones; line separators; surrogates; tags.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f\U000e0100-\U000e01ef]"
)
_MARKS = re.compile(r"[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]{4,}")


def safe(text: str) -> str:
    """`text` as it may be shown, on as many lines as it has."""
    lined = text.replace("\r\n", "\n").replace("\t", TAB)
    return _MARKS.sub(lambda piled: piled[0][:3], _UNSAFE.sub(_visible, lined))


def safe_line(text: str, limit: int = 0) -> str:
    """`text` on one line, cut to `limit` characters if one is given."""
    if limit:
        text = text[: 4 * limit]  # a 5 MB value costs nothing here
    line = " ".join(safe(text).split())
    return line if not limit or len(line) <= limit else line[: limit - 1] + "…"


def _visible(match: re.Match[str]) -> str:
    """A control picture for C0 and DEL, the code point of anything else."""
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    return f"<U+{code:04X}>"


def to_ascii(text: str) -> str:
    """`text` for a terminal that is not UTF-8: letters without accents, lines drawn in ASCII, else `?`."""
    if text.isascii():
        return text
    plain = text.translate(_DRAWN)
    if not plain.isascii():
        plain = "".join(_ascii(one) for one in plain)
    return plain


def _ascii(one: str) -> str:
    if one.isascii():
        return one
    base = unicodedata.normalize("NFKD", one)[0]
    shown = base if base.isascii() else "?"
    return shown * (2 if unicodedata.east_asian_width(one) in "WF" else 1)


_DRAWN = str.maketrans(
    {
        drawn: plain
        for plain, group in (
            ("-", "─━┄–—▔"),
            ("|", "│┃┆▎▊▏▕▌▐"),
            ("+", "┌┐└┘├┤┬┴┼╭╮╰╯"),
            ("=", "═"),
            ("_", "▁▂▃▄▅"),
            ("#", "█▇▆"),
            (":", "░▒▓"),
            ("*", "•●◆"),
            ("o", "○◇"),
            (".", "·…"),
            ("'", "‘’"),
            ('"', "“”«»"),
            ("v", "✓✔▼↓"),
            ("x", "✗✘"),
            (">", "▶→❯›"),
            ("<", "◀←"),
            ("^", "▲↑"),
            ("!", "⚠‼"),
        )
        for drawn in group
    }
)
