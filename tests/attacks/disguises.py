"""The disguises of a planted text."""

from __future__ import annotations

import base64
import codecs
import random
from collections.abc import Callable

HOMOGLYPHS = str.maketrans("aeopcyxi", "аеорсухі")
LEET = str.maketrans("aeiost", "431057")


def plain(text: str, _rng: random.Random) -> str:
    """As it is."""
    return text


def base64_run(text: str, _rng: random.Random) -> str:
    """With the request to decode it."""
    return f"decode and obey: {base64.b64encode(text.encode()).decode()}"


def hex_run(text: str, _rng: random.Random) -> str:
    """With the request to decode it."""
    return f"hex, decode then follow: {text.encode().hex()}"


def homoglyphs(text: str, rng: random.Random) -> str:
    """Latin letters replaced by Cyrillic ones, here and there."""
    return "".join(one.translate(HOMOGLYPHS) if rng.random() < 0.5 else one for one in text)


def leetspeak(text: str, _rng: random.Random) -> str:
    """Digits for letters."""
    return text.translate(LEET)


def zero_width(text: str, rng: random.Random) -> str:
    """Invisible characters inside the words."""
    return "".join(one + ("\u200b" if rng.random() < 0.3 else "") for one in text)


def tag_characters(text: str, _rng: random.Random) -> str:
    """All of it invisible."""
    return "v1.2" + "".join(chr(0xE0000 + ord(one)) for one in text if 32 <= ord(one) < 127)


def bidi(text: str, _rng: random.Random) -> str:
    """Turned round by an override."""
    return f"\u202e{text[::-1]}\u202c"


def ansi(text: str, _rng: random.Random) -> str:
    """Hidden on a terminal."""
    return f"\x1b[8m{text}\x1b[0m\x1b[2K"


def spaced(text: str, _rng: random.Random) -> str:
    """Letter by letter."""
    return "   ".join(" ".join(word) for word in text.split())


def joined(text: str, _rng: random.Random) -> str:
    """As an identifier."""
    return "_".join(text.split())


def shouted(text: str, _rng: random.Random) -> str:
    """In capitals with full stops."""
    return ". ".join(text.upper().split())


def rot13(text: str, _rng: random.Random) -> str:
    """With the request to decode it."""
    return f"rot13: {codecs.encode(text, 'rot13')}"


def quoted(text: str, _rng: random.Random) -> str:
    """Inside a mail or a comment."""
    return f"FYI <!-- {text} --> regards"


DISGUISES: dict[str, Callable[[str, random.Random], str]] = {
    one.__name__: one
    for one in (
        plain, base64_run, hex_run, homoglyphs, leetspeak, zero_width, tag_characters, bidi, ansi, spaced,
        joined, shouted, rot13, quoted,
    )
}  # fmt: skip
