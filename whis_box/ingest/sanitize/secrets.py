"""Secrets in text: the token formats of detect-secrets, and assignments, URLs and key blocks of our own.

Invariant: only the secret's value is marked, so the command or setting around it stays readable.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from detect_secrets.plugins.artifactory import ArtifactoryDetector
from detect_secrets.plugins.aws import AWSKeyDetector
from detect_secrets.plugins.azure_storage_key import AzureStorageKeyDetector
from detect_secrets.plugins.cloudant import CloudantDetector
from detect_secrets.plugins.discord import DiscordBotTokenDetector
from detect_secrets.plugins.github_token import GitHubTokenDetector
from detect_secrets.plugins.gitlab_token import GitLabTokenDetector
from detect_secrets.plugins.mailchimp import MailchimpDetector
from detect_secrets.plugins.npm import NpmDetector
from detect_secrets.plugins.openai import OpenAIDetector
from detect_secrets.plugins.pypi_token import PypiTokenDetector
from detect_secrets.plugins.sendgrid import SendGridDetector
from detect_secrets.plugins.slack import SlackDetector
from detect_secrets.plugins.square_oauth import SquareOAuthDetector
from detect_secrets.plugins.stripe import StripeDetector
from detect_secrets.plugins.telegram_token import TelegramBotTokenDetector
from detect_secrets.plugins.twilio import TwilioKeyDetector

from whis_box.ingest.sanitize.spans import Span

DETECTORS = (
    ArtifactoryDetector,
    AWSKeyDetector,
    AzureStorageKeyDetector,
    CloudantDetector,
    DiscordBotTokenDetector,
    GitHubTokenDetector,
    GitLabTokenDetector,
    MailchimpDetector,
    NpmDetector,
    OpenAIDetector,
    PypiTokenDetector,
    SendGridDetector,
    SlackDetector,
    SquareOAuthDetector,
    StripeDetector,
    TelegramBotTokenDetector,
    TwilioKeyDetector,
)
_NAME = (
    r"c?pass(?:word|wd|phrase)?|pwd|bind_?pw|secret|api[_-]?key|apikey|access[_-]?key|secret[_-]?(?:access[_-]?)?key|"
    r"(?:access|auth|refresh|bearer|id)[_-]?token|(?<!with )token|"
    r"client[_-]?secret|account[_-]?key|shared[_-]?access[_-]?key"
)
_ASSIGNED = rf"(?<![A-Za-z])(?<!with )(?:[A-Za-z0-9]{{1,30}}[_-])*(?:{_NAME})"
_ASSIGNED += r"[\"']?\s{0,3}(?::=|=>|=|:(?!:))\s{0,3}"
# Each: the regular expression, whose group "s" is the secret.
OWN: dict[str, re.Pattern[str]] = {
    "private key": re.compile(
        r"(?P<s>-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
        r"(?:(?:\\[rn]|\s)*(?:[A-Za-z0-9+/=]{8,}|[A-Z][A-Za-z-]{1,30}: [^\n]{1,200}))+"
        r"(?:(?:\\[rn]|\s)*[A-Za-z0-9+/=]{0,7}(?:\\[rn]|\s)*"
        r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----)?)"
    ),
    "json web token": re.compile(r"(?P<s>\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?)"),
    "password in a URL": re.compile(
        r"\b[a-z][a-z0-9+.-]{1,20}://[^\s:/@\"']{0,80}:(?P<s>[^\s/@\"']{3,200})@"
    ),
    "assignment": re.compile(
        rf"{_ASSIGNED}"
        r"(?P<q>[\"']?)(?P<s>[^\s\"',;&|<>(){}\[\]]{6,400})",
        re.IGNORECASE,
    ),
    "quoted assignment": re.compile(
        rf"{_ASSIGNED}"
        r"(?P<q>[\"'])(?P<s>[^\"'\n]{6,200})(?P=q)",
        re.IGNORECASE,
    ),
    "authorization header": re.compile(
        r"\bauthorization[\"']?\s?[:=]\s?[\"']?(?:bearer|basic|token|negotiate|ntlm|ssws|splunk|apikey)\s+(?P<s>[A-Za-z0-9+/=._~-]{8,})",
        re.IGNORECASE,
    ),
    "bearer token": re.compile(r"\bbearer\s+(?P<s>[A-Za-z0-9+/=._~-]{20,})", re.IGNORECASE),
    "command-line password": re.compile(
        r"(?:--?(?:password|passwd|pass|pw|secret|token|api-key)|/(?:pass|password|rp|p))[ =:]{1,2}"
        r"[\"']?(?P<s>[^\s\"'|<>]{6,120})",
        re.IGNORECASE,
    ),
    "net user password": re.compile(
        r"\bnet1?(?:\.exe)?\s+user\s+\S+\s+(?P<s>[^\s/\"']{6,60})\s+/add\b", re.IGNORECASE
    ),
    "net use password": re.compile(
        r"\bnet1?(?:\.exe)?\s+use\s[^\n|&]{0,120}?/u(?:ser)?:\S+\s+(?P<s>[^\s/\"'][^\s\"']{5,60})",
        re.IGNORECASE,
    ),
    "remote tool password": re.compile(
        r"\b(?:psexec(?:64)?|plink|pscp|winexe|sshpass|paexec)(?:\.exe)?\s[^\n|&]{0,120}?-p[w ]\s{0,3}"
        r"[\"']?(?P<s>[^\s\"'|<>]{6,120})",
        re.IGNORECASE,
    ),
    "curl password": re.compile(
        r"\bcurl(?:\.exe)?\s[^\n|]{0,200}?(?:-u|--user)\s+[\"']?[^\s:\"']{1,64}:(?P<s>[^\s\"']{6,120})"
    ),
    "secure string": re.compile(
        r"ConvertTo-SecureString\s+(?:-String\s+)?(?P<q>[\"'])(?P<s>[^\"'\n]{6,200})(?P=q)", re.IGNORECASE
    ),
    "password element": re.compile(
        r"<(?P<t>password|passwd|pwd|secret)>(?P<s>[^<>\s]{6,200})</(?P=t)>", re.IGNORECASE
    ),
    "default of a password": re.compile(
        r"(?:password|secret|token)\"?\s{0,3}\{[^{}]{0,80}?default\s{0,3}=\s{0,3}\"(?P<s>[^\"\n]{6,200})\"",
        re.IGNORECASE,
    ),
    "registry login": re.compile(r"\"auth\"\s{0,3}:\s{0,3}\"(?P<s>[A-Za-z0-9+/]{16,}={0,2})\""),
    "password hash": re.compile(r"(?P<s>\$(?:1|2[abxy]|5|6|y|apr1|argon2id?)\$[./A-Za-z0-9$=,+]{20,})"),
    "dumped hashes": re.compile(r":\d{3,10}:(?P<s>[0-9a-fA-F]{32}:[0-9a-fA-F]{32}):"),
    "putty private key": re.compile(r"Private-Lines: \d{1,4}\s+(?P<s>(?:[A-Za-z0-9+/=]{8,}\s?)+)"),
    "prefixed token": re.compile(
        r"(?P<s>\b(?:gh[pousr]_[A-Za-z0-9]{30,}|dp\.(?:pt|st|ct|sa|scim)\.[A-Za-z0-9]{40,}"
        r"|shp(?:at|ca|pa|ss)_[0-9a-f]{32}|lin_api_[A-Za-z0-9]{30,}|[0-9a-f]{36}NRAL|glsa_[A-Za-z0-9]{32}_[0-9a-f]{8}"
        r"|ATATT3[A-Za-z0-9_=-]{30,}|hf_[A-Za-z]{30,}|dapi[0-9a-f]{32}|do[opr]_v1_[0-9a-f]{64})\b)"
    ),
    "google api key": re.compile(r"(?P<s>\bAIza[0-9A-Za-z_-]{35}\b)"),
    "aws temporary key id": re.compile(r"(?P<s>\b(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}\b)"),
    "vault token": re.compile(r"(?P<s>\bhv[sbr]\.[A-Za-z0-9_-]{20,})"),
    "shared access signature": re.compile(r"[?&]sig=(?P<s>[A-Za-z0-9%+/=]{20,})"),
    "fine-grained github token": re.compile(r"(?P<s>\bgithub_pat_[A-Za-z0-9_]{30,})"),
    "anthropic or openai key": re.compile(r"(?P<s>\bsk-[A-Za-z0-9_-]{20,})"),
    "slack webhook": re.compile(
        r"hooks\.slack\.com/services/(?P<s>T[A-Z0-9]{6,}/B[A-Z0-9]{6,}/[A-Za-z0-9]{16,})"
    ),
}
WEAK = {
    *("assignment", "quoted assignment", "command-line password", "net user password", "password in a URL"),
    *("net use password", "remote tool password", "curl password", "secure string", "password element"),
    *("default of a password",),
}
# A variable, a placeholder, a path or a plain word in the place of a value is not a secret.
_HARMLESS = re.compile(
    r"[<$%#{*].*|.*[*>]|(?:[A-Z]*[a-z]*)[.:]?|\w+\\.*|(?:true|false|null|none)|x{3,}.*|\.{3}.*|[A-Za-z]:\\.*|/.*/.*|"
    r"(?:[A-Z]{2,5})?(?:[A-Z][a-z]{2,}){2,}|\\.*|-.*|[A-Za-z]+_[A-Za-z_]+|.*\$\(.*|[a-z-]+(?:\.[a-z]+)+|0x[0-9a-f]{1,16}",
)


def find_secrets(text: str) -> Iterator[Span]:
    """Every secret's value in `text`; one value can be found more than once."""
    for detector in _DETECTORS:
        for regex in detector.denylist:
            for match in regex.finditer(text):
                groups = [number for number in range(1, (regex.groups or 0) + 1) if match[number]]
                start, end = match.span(groups[0]) if groups else match.span()
                yield Span("SECRET", start, end, 1.0, detector.secret_type)
    for name, pattern in OWN.items():
        for match in pattern.finditer(text):
            value = match["s"]
            if name not in WEAK:
                yield Span("SECRET", *match.span("s"), 1.0, name)
            elif not _HARMLESS.fullmatch(value):
                yield Span("SECRET", *match.span("s"), 0.95, name)


_DETECTORS = tuple(detector() for detector in DETECTORS)
