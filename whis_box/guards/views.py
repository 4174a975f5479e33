"""The ways an instruction can be written: one text as the readings that a detector should see.

Invariant: pure functions of the text, bounded in its length; no reading is ever shown or executed.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import html
import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote

MAX_CHARS = 20_000
MAX_DECODED = 8
# Letters of other scripts that look like Latin ones. Source: Unicode TR39 confusables, the common rows.
_LOOKALIKES = str.maketrans(
    "аАвВсСеЕёЁнНіІјЈкКмМоОрРѕЅтТуУхХԁԛԝһӏɪɡαΑβΒεΕηΗιΙκΚμΜνΝοΟρΡτΤυΥχΧωϲ",
    "aAbBcCeEeEhHiIjJkKmMoOpPsStTyYxXdqwhligaAbBeEnHiIkKuMvNoOpPtTuYxXwc",
)
_OTHER = "[а-яёѕіјһԁԛԝӏα-ωΑ-ΩА-Я]"
_MIXED_WORD = re.compile(rf"\w*(?:[A-Za-z]{_OTHER}|{_OTHER}[A-Za-z])\w*")
_LEET = str.maketrans("013457@$!|", "oieastasil")
_LEET_WORD = re.compile(r"(?<!\w)(?=[\w@$!|]*[a-z])(?=[\w@$!|]*[013457@$!|])[\w@$!|]{2,20}(?!\w)")
_SPELLED = re.compile(r"(?<!\w)(?:\w([ .*_\-|~/])\1{0,3}){4,}\w(?!\w)")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_GAP = re.compile(r"[\s_.\-+/\\|*~,;:=&?#\"'`()\[\]{}<>^%$@!…]+")
_BASE64 = re.compile(r"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{16,}={0,2}")
_BASE32 = re.compile(r"(?<![A-Z2-7])[A-Z2-7]{24,}={0,6}")
_HEX = re.compile(r"(?:(?:0x|\\x|%|U\+00|&#x)?[0-9a-fA-F]{2}[\s,;:]{0,2}){8,}")
_HEX_PAIR = re.compile(r"(?:U\+00|0x)?([0-9a-fA-F]{2})")
_UNICODE_ESCAPE = re.compile(r"(?:\\u[0-9a-fA-F]{4}){4,}")
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]"
)
_ACCENT = re.compile("(?<=[A-Za-z])[\u0300-\u036f]+")
_TURNED = re.compile("[\u202d\u202e\u2067]|U\\+202E")
_TAGS = re.compile("[\U000e0020-\U000e007e]+")


# A text that was turned round is looked at further only when common words of an order come out.
_TELLING_TEXT = """
    a all alert analyst and answer any as assistant benign case close false ignore in instructions
    is it mark model no not of on or prompt reply rules say severity system that the this to
    verdict write you your
    """
_TELLING = frozenset(_TELLING_TEXT.split())


def plain(text: str) -> str:
    """Lower-case words with single spaces: lookalikes folded, separators and camel case opened."""
    folded = _fold(text[:MAX_CHARS])
    return f" {_GAP.sub(' ', _CAMEL.sub(' ', folded)).strip().lower()} "


def readings(text: str) -> Iterator[tuple[str, str]]:
    """(name of the reading, text like `plain`'s); the plain one first, the others only where they differ."""
    text = text[:MAX_CHARS]
    base = plain(text)
    yield "plain", base
    leet = _LEET_WORD.sub(lambda found: found[0].translate(_LEET), _fold(text).lower())
    if (unleet := f" {_GAP.sub(' ', leet).strip()} ") != base:
        yield "leetspeak", unleet
    if _SPELLED.search(text):
        yield "spelled", plain(_SPELLED.sub(_joined, text))
    hidden = "".join(chr(ord(char) - 0xE0000) for run in _TAGS.findall(text) for char in run)
    if hidden:
        yield "tag characters", plain(hidden)
    for name, decoded in _decoded(text):
        yield name, plain(decoded)
    if _TURNED.search(text):
        yield "turned", base[::-1]
    for name, turned in (("rot13", codecs.encode(base, "rot13")), ("reversed", base[::-1])):
        if len(_TELLING.intersection(turned.split())) >= 2:
            yield name, turned


def _fold(text: str) -> str:
    """NFKC without invisible characters, marks and percent or entity escapes, lookalikes as Latin letters."""
    if text.isascii():
        return html.unescape(unquote(text)) if "%" in text or "&" in text else text
    text = unicodedata.normalize("NFKD", _TAGS.sub("", _INVISIBLE.sub("", text)))
    text = _ACCENT.sub("", text)
    # A word in one script is a word of that language; one in two scripts is a disguise.
    text = _MIXED_WORD.sub(lambda found: found[0].translate(_LOOKALIKES), text)
    return html.unescape(unquote(unicodedata.normalize("NFC", text)))


def _joined(found: re.Match[str]) -> str:
    """`i g n o r e` as `ignore`; where the separator is doubled, a word ends."""
    separator = re.escape(found[1])
    return re.sub(rf"(?<=\w){separator}(?=\w)", "", re.sub(rf"{separator}{{2,}}", "  ", found[0]))


def _decoded(text: str) -> Iterator[tuple[str, str]]:
    """Readable text inside base64, base32, hex and escape runs, one level deep and then once more."""
    for depth in range(2):
        found = list(_decoded_once(text))[:MAX_DECODED]
        yield from found
        text = " ".join(one for _, one in found)
        if depth == 0 and not text:
            return


def _decoded_once(text: str) -> Iterator[tuple[str, str]]:
    for match in _BASE64.finditer(text):
        run = match[0].rstrip("=").replace("-", "+").replace("_", "/")
        yield from _readable("base64", _bytes(base64.b64decode, run[: len(run) - (len(run) % 4 == 1)], 4))
    for match in _BASE32.finditer(text):
        yield from _readable("base32", _bytes(base64.b32decode, match[0].rstrip("="), 8))
    for match in _HEX.finditer(text):
        yield from _readable("hex", bytes.fromhex("".join(_HEX_PAIR.findall(match[0]))))
    for match in _UNICODE_ESCAPE.finditer(text):
        yield "escapes", "".join(chr(int(code, 16)) for code in re.findall(r"[0-9a-fA-F]{4}", match[0]))


def _bytes(decode: object, run: str, block: int) -> bytes:
    assert callable(decode)
    try:
        return bytes(decode(run + "=" * (-len(run) % block)))
    except (binascii.Error, ValueError):
        return b""


def _readable(name: str, data: bytes) -> Iterator[tuple[str, str]]:
    """The bytes as text, if they are UTF-8 or UTF-16 text of some length."""
    for encoding in ("utf-16-le", "utf-8") if b"\0" in data else ("utf-8",):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        letters = sum(char.isalpha() or char.isspace() for char in text)
        if len(text) >= 8 and letters >= 0.7 * len(text) and text.replace("\n", " ").isprintable():
            yield name, text
            return
