"""Recognizers for SOC text, as presidio wants them: accounts, hosts, own addresses, SIDs, staff, phones.

Invariant: each looks at the form or the field a value stands in; none guesses from the word itself.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence

from presidio_analyzer import EntityRecognizer, RecognizerResult
from presidio_analyzer.nlp_engine import NlpArtifacts

from whis_box.ingest.sanitize.numbers import cards, ibans, phones
from whis_box.ingest.sanitize.policy import PolicyConfig

MAX_VALUE = 80
# Heads of registry and device paths, which look like DOMAIN\user, and domains reserved for examples.
_NOT_DOMAINS = {
    *(
        "CA",
        "EXAMPLE",
        "CONTOSO",
        "HKLM",
        "HKCU",
        "HKCR",
        "HKU",
        "HKCC",
        "HKEY",
        "SOFTWARE",
        "SYSTEM",
        "SAM",
        "SECURITY",
        "BUILTIN",
    ),
    *(
        "CLSID",
        "REGISTRY",
        "DEVICE",
        "GLOBALROOT",
        "BCD",
        "PIPE",
        "ROOT",
        "CIMV",
        "USB",
        "PCI",
        "ACPI",
        "HID",
    ),
    *(
        "NT",
        "AUTHORITY",
        "WINDOWS",
        "MICROSOFT",
        "PROGRAMDATA",
        "APPDATA",
        "TEMP",
        "USERS",
        "CURRENTCONTROLSET",
    ),
    *(
        "ADMIN",
        "IPC",
        "SYSVOL",
        "NETLOGON",
        "C",
        "D",
        "E",
        "WOW",
        "IIS",
        "SERVICE",
        "APPPOOL",
        "FONT",
        "MACHINE",
    ),
}
_PLACEHOLDER = re.compile(
    r"[-*?%<>{}$#\[\]()]|\.\.|~|^-|^(?:null|none|n/a|unknown|user(?:name)?|name|any|account)$|[`,]|&lt;", re.I
)
_PATTERNS: tuple[tuple[str, float, re.Pattern[str]], ...] = (
    ("SID", 0.95, re.compile(r"\b(S-1-5-21(?:-\d{1,10}){3,4})\b")),
    (
        "ACCOUNT",
        0.75,
        re.compile(r"(?<![\w\\/.:%$-])([A-Z][A-Z0-9-]{1,14})\\([A-Za-z][\w.-]{1,39}\$?)(?![\w\\*.-]|\$)"),
    ),
    (
        "ACCOUNT",
        0.8,
        re.compile(
            r"(?:\b[A-Za-z]:)?\\+(?:Users|Documents and Settings)\\+([^\\/:*?\"<>|\r\n]{2,40})(?=\\)", re.I
        ),
    ),
    ("ACCOUNT", 0.8, re.compile(r"(?<![\w.])/(?:home|Users)/([A-Za-z_][\w.-]{1,31})(?=[/\s\"',;:)]|$)")),
    (
        "ACCOUNT",
        0.7,
        re.compile(
            r"(?<![\w.|])(?:user(?:name)?|usr|acct|account|login|logname|ruser|uid|suser|duser|src_user|dst_user)="
            r"[\"']?([A-Za-z_][\w.@\\-]{1,63})",
            re.I,
        ),
    ),
    (
        "ACCOUNT",
        0.7,
        re.compile(r"\b(?:for|by) (?:invalid )?user ([A-Za-z_][\w.-]{1,31})(?= from| port|\(uid|$)"),
    ),
    ("ACCOUNT", 0.7, re.compile(r"(?<!Masquerade )\bAccount Name:[ \t]{1,8}([A-Za-z_][\w.-]{1,63}\$?)")),
    (
        "EMPLOYEE_ID",
        0.8,
        re.compile(
            r"\b(?:employee|staff|personnel|badge)(?:[ _-]?(?:id|no|nr|number))?"
            r"\s?[:=#]\s?([A-Z]{0,4}-?\d{3,10})\b",
            re.I,
        ),
    ),
)
_LICENSE = re.compile(
    r"\bdriv(?:er'?s?|ing) licen[cs]e(?: (?:number|no\.?))?(?: is|:| #)? ([A-Z]?\d[\d-]{4,15})\b", re.I
)
_EMAIL = re.compile(
    r"(?<![\w.+-])([\w.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,5}[A-Za-z][A-Za-z0-9-]{1,23})(?![\w@-])"
)
_IPV4 = re.compile(r"(?<![\w.])((?:\d{1,3}\.){3}\d{1,3})(?![\w/]|\.\d)")
_HOST = re.compile(r"(?<![\w.@\\-])((?:[A-Za-z0-9][A-Za-z0-9-]{0,62}\.){1,6}[A-Za-z]{2,12})(?![\w-]|\.\w)")
_FILE_ENDS = (".exe", ".dll", ".sys", ".tmp", ".bat", ".ps1", ".txt", ".log", ".dat")

Finder = Callable[[str], Iterator[tuple[str, int, int, float, str]]]


class Recognizer(EntityRecognizer):
    """One finder of (entity type, start, end, score, name) behind presidio's interface."""

    def __init__(self, finder: Finder, entities: Sequence[str], name: str) -> None:
        self._finder = finder
        super().__init__(supported_entities=list(entities), name=name, supported_language="en")

    def load(self) -> None:
        """Nothing to load."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts) -> list[RecognizerResult]:
        """Findings of the wanted types."""
        return [
            RecognizerResult(kind, start, end, score, recognition_metadata={"recognizer_name": name})
            for kind, start, end, score, name in self._finder(text)
            if kind in entities
        ]


def recognizers(policy: PolicyConfig) -> list[Recognizer]:
    """All recognizers of ours for one policy."""
    known = set(policy.well_known_accounts)
    return [
        Recognizer(lambda text: _forms(text, known), ("SID", "ACCOUNT", "EMPLOYEE_ID"), "soc_forms"),
        Recognizer(_fields(policy), ("ACCOUNT", "HOST", "PERSON", "EMPLOYEE_ID"), "alert_fields"),
        Recognizer(_licenses, ("NATIONAL_ID",), "driving_license"),
        Recognizer(_emails, ("EMAIL_ADDRESS",), "email"),
        Recognizer(_addresses(policy), ("INTERNAL_IP",), "internal_ip"),
        Recognizer(_hosts(policy), ("HOST",), "internal_host"),
        Recognizer(phones, ("PHONE_NUMBER",), "phone"),
        Recognizer(cards, ("CREDIT_CARD",), "card"),
        Recognizer(ibans, ("IBAN_CODE",), "iban"),
    ]


def _forms(text: str, known: set[str]) -> Iterator[tuple[str, int, int, float, str]]:
    for kind, score, pattern in _PATTERNS:
        for match in pattern.finditer(text):
            group = match.lastindex or 0
            if group == 2 and (match[1] in _NOT_DOMAINS or match[2].lower().endswith(_FILE_ENDS)):
                continue
            value = match[group]
            if kind == "ACCOUNT" and _nobody(value, known):
                continue
            if kind == "ACCOUNT" and value.endswith("$"):
                yield "HOST", match.start(group), match.end(group) - 1, score, "machine account"
                continue
            yield kind, match.start(group), match.end(group), score, "soc_forms"


def _nobody(value: str, known: set[str]) -> bool:
    bare = value.rpartition("\\")[2].partition("@")[0]
    return bare.lower() in known or bool(_PLACEHOLDER.search(bare.removesuffix("$"))) or len(bare) < 2


def _fields(policy: PolicyConfig) -> Finder:
    known = set(policy.well_known_accounts)
    named = {
        "ACCOUNT": policy.fields.account,
        "HOST": policy.fields.host,
        "PERSON": policy.fields.person,
        "EMPLOYEE_ID": policy.fields.employee_id,
    }
    patterns = {
        kind: re.compile(
            rf"^\s*(?:- )?[\"']?(?:[\w.\[\]]*\.)?(?:{'|'.join(map(re.escape, names))})[\"']?\s*[:=]\s*"
            rf"[\"']?([^\s\"',;|][^\"',;|\r\n]{{0,{MAX_VALUE}}}?)[\"']?\s*,?$",
            re.MULTILINE,
        )
        for kind, names in named.items()
        if names
    }
    suffixes = tuple(f".{one}" for one in policy.internal_suffixes)

    def find(text: str) -> Iterator[tuple[str, int, int, float, str]]:
        for kind, pattern in patterns.items():
            for match in pattern.finditer(text):
                value = match[1]
                if kind == "ACCOUNT" and (_nobody(value, known) or value.upper().startswith("NT ")):
                    continue
                if kind == "HOST" and (
                    _placeholder_host(value) or "." in value and not value.lower().endswith(suffixes)
                ):
                    continue  # a name of the outside world is an indicator
                yield kind, match.start(1), match.end(1), 0.9, "alert_fields"

    return find


def _placeholder_host(value: str) -> bool:
    return (
        bool(_PLACEHOLDER.search(value.replace("-", "")))
        or value.lower() in ("localhost", "-")
        or " " in value
    )


def _emails(text: str) -> Iterator[tuple[str, int, int, float, str]]:
    if "@" in text:
        for match in _EMAIL.finditer(text):
            yield "EMAIL_ADDRESS", match.start(1), match.end(1), 0.98, "email"


def _licenses(text: str) -> Iterator[tuple[str, int, int, float, str]]:
    for match in _LICENSE.finditer(text):
        yield "NATIONAL_ID", match.start(1), match.end(1), 0.8, "driving_license"


def _addresses(policy: PolicyConfig) -> Finder:
    networks = [ipaddress.ip_network(one) for one in policy.internal_networks]

    def find(text: str) -> Iterator[tuple[str, int, int, float, str]]:
        for match in _IPV4.finditer(text):
            try:
                address = ipaddress.ip_address(match[1])
            except ValueError:
                continue
            if any(address in network for network in networks) and not match[1].endswith(".0"):
                yield "INTERNAL_IP", match.start(1), match.end(1), 0.9, "internal_ip"

    return find


def _hosts(policy: PolicyConfig) -> Finder:
    suffixes = tuple(f".{one.lower()}" for one in policy.internal_suffixes)

    def find(text: str) -> Iterator[tuple[str, int, int, float, str]]:
        for match in _HOST.finditer(text):
            if match[1].lower().endswith(suffixes):
                yield "HOST", match.start(1), match.end(1), 0.85, "internal_host"

    return find
