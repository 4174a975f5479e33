"""Telephone, card and account numbers, each by its form and, where it has one, its checksum.

Invariant: each finder yields (entity type, start, end, score, name) and never reads beyond its own match,
but for the words before a telephone number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import phonenumbers

PHONE_REGIONS = ("US", "GB", "DE")
# With an extension, if there is one; a label such as -Fax may follow.
_DIGITS = re.compile(r"(?<![\w.:/\\-])\+?\(?\d[\d ()./-]{5,22}\d(?: ?x\d{1,5})?(?!\w|-(?![A-Z][a-z])|\.\d)")
_CARD = re.compile(r"(?<![\w.:/-])\d(?:[ -]?\d){11,18}(?![\w-]|\.\d)")
_CARD_WORD = re.compile(r"\bcards?\b", re.I)
CARD_WORD_CHARS = 60  # how far before a number of only 12 digits such a word must stand
# Issuer prefixes. Source: ISO/IEC 7812 registrations of the large card networks.
_ISSUER = re.compile(r"4|5[0-8]|2[2-7]|3[04-9]|6|2131|1800")
_IBAN = re.compile(r"(?<![\w-])([A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]){11,30})(?![\w-])")
# Source: the SWIFT registry of IBAN formats.
_IBAN_LENGTHS = {
    **dict.fromkeys(("GB", "DE", "IE", "GE", "ME", "RS", "BG", "BH"), 22),
    **dict.fromkeys(("FR", "IT", "GR", "SM", "MC"), 27),
    **dict.fromkeys(("ES", "SE", "CZ", "SK", "RO", "PK", "MD", "SA"), 24),
    **dict.fromkeys(("AT", "EE", "LT", "LU", "KZ", "XK"), 20),
    **dict.fromkeys(("NL", "DK", "FI", "FO", "GL"), 18),
    **dict.fromkeys(("PL", "HU", "AL", "CY", "LB", "DO"), 28),
    **dict.fromkeys(("CH", "HR", "LI", "LV"), 21),
    **{
        "BE": 16,
        "NO": 15,
        "PT": 25,
        "IS": 26,
        "TR": 26,
        "MT": 31,
        "SI": 19,
        "MK": 19,
        "IL": 23,
        "AE": 23,
        "UA": 29,
    },
}
_PHONE_WORDS = re.compile(
    r"\b(?:phone|telephone|tel|mobile|cell|fax|call(?:ed|ing)?|dial|sms|whatsapp|reach(?:able)?|hotline)\b",
    re.I,
)
# Labels that mean a telephone only right before the number, or right after it.
_LABEL_BEFORE = re.compile(
    r"\b(?:phone|tel(?:ephone)?|mobile|cell|fax|desk|office|work|home)\s?[:=]\s{0,3}$", re.I
)
_LABEL_AFTER = re.compile(r"[ -](?:office|fax|mobile|cell|desk|home)\b", re.I)
_DATE = re.compile(r"(?:19|20)\d\d[-./]\d\d?[-./]\d\d?|\d\d?[./]\d\d?[./](?:19|20)\d\d")
PHONE_WORD_CHARS = 48  # how far before a number such a word may stand


def phones(text: str) -> Iterator[tuple[str, int, int, float, str]]:
    """Only windows that look like a number are parsed: the matcher is slow on whole logs."""
    for window in _DIGITS.finditer(text):
        raw = window.group()
        before = text[max(0, window.start() - PHONE_WORD_CHARS) : window.start()]
        labelled = _LABEL_BEFORE.search(before) or _LABEL_AFTER.match(text, window.end())
        called = _PHONE_WORDS.search(before.rpartition("\n")[2])
        if (labelled and not _DATE.match(raw)) or (called and not _date_or_version(raw)):
            yield "PHONE_NUMBER", window.start(), window.end(), 0.75, "phone word"
            continue
        if not raw.startswith(("+", "(")) and not re.fullmatch(r"(?:\d+[ ./-]){2,}\d+|0\d+[ /-]\d{5,}", raw):
            continue  # two numbers with a hyphen are a range, a bare run of digits is a counter
        if _date_or_version(raw):
            continue
        if re.fullmatch(r"[1-9]\d(?: \d\d)+|\d{3}-\d\d-\d{4}|\(?[1-9]\d{0,4}(?:/[1-9]\d{0,4})+\)?", raw):
            continue  # bytes in hexadecimal; a social security number; ports or sizes
        for region in PHONE_REGIONS:
            try:
                number = phonenumbers.parse(raw, region)
            except phonenumbers.NumberParseException:
                continue
            if phonenumbers.is_valid_number(number):
                yield "PHONE_NUMBER", window.start(), window.end(), 0.7, "phone"
                break


def _date_or_version(raw: str) -> bool:
    version = re.fullmatch(r"(?:\d{3} )?(?:\d{1,3}\.)+\d{1,5}", raw)
    return bool(_DATE.match(raw)) or bool(version and not re.fullmatch(r"0\d(?:\.\d\d){4}", raw))


def cards(text: str) -> Iterator[tuple[str, int, int, float, str]]:
    """Runs of 12 to 19 digits with an issuer's prefix and a right checksum; 12 only where a card is meant."""
    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match.group())
        before = text[max(0, match.start() - CARD_WORD_CHARS) : match.start()]
        if len(digits) == 12 and not _CARD_WORD.search(before):
            continue
        if _ISSUER.match(digits) and _luhn(digits):
            yield "CREDIT_CARD", match.start(), match.end(), 0.9, "card"


def _luhn(digits: str) -> bool:
    """Source: ISO/IEC 7812-1, annex B."""
    doubled = (int(one) * (1 + at % 2) for at, one in enumerate(reversed(digits)))
    return sum(one - 9 if one > 9 else one for one in doubled) % 10 == 0


def ibans(text: str) -> Iterator[tuple[str, int, int, float, str]]:
    """Source: ISO 13616: the number with its head moved to the end is 1 modulo 97."""
    for match in _IBAN.finditer(text):
        plain = match[1].replace(" ", "").upper()
        length = _IBAN_LENGTHS.get(plain[:2], 0)
        plain = plain[:length]  # the pattern may have taken a following word along
        turned = plain[4:] + plain[:4]
        if 0 < length == len(plain) and int("".join(str(int(one, 36)) for one in turned)) % 97 == 1:
            end = match.start(1) + _length_with_spaces(match[1], length)
            yield "IBAN_CODE", match.start(1), end, 0.95, "iban"


def _length_with_spaces(written: str, n_characters: int) -> int:
    seen = 0
    for at, one in enumerate(written):
        seen += one != " "
        if seen == n_characters:
            return at + 1
    return len(written)
