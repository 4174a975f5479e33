"""Cleaning untrusted text before anything else reads it.

Invariant: what is removed is reported as a finding; visible words are never changed.
"""

from __future__ import annotations

import re
import unicodedata

from whis_box.schemas import Finding

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# Zero-width, bidirectional, variation selector and tag characters: invisible, and used to hide text.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufe00-\ufe0f\ufeff"
    "\U000e0000-\U000e007f]"
)
_SPECIAL_TOKEN = re.compile(
    r"<\|[a-z0-9_]{1,40}\|>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>", re.IGNORECASE
)


def clean_text(text: str, where: str) -> tuple[str, list[Finding]]:
    """`text` in NFC without escape sequences, control and invisible characters, and what was found in it."""
    findings = []
    stripped = _ANSI.sub("", text)
    if stripped != text:
        findings.append(_finding("ansi_escape", f"terminal escape sequences were removed from the {where}"))
    visible = _INVISIBLE.sub("", stripped)
    if visible != stripped:
        findings.append(
            _finding("invisible_characters", f"invisible characters were removed from the {where}")
        )
    printable = _CONTROL.sub(" ", visible)
    if printable != visible:
        findings.append(_finding("control_characters", f"control characters were removed from the {where}"))
    if _SPECIAL_TOKEN.search(printable):
        findings.append(
            _finding(
                "special_tokens",
                f"the {where} holds text that looks like a model's control token; it was read as text",
            )
        )
    return unicodedata.normalize("NFC", printable), findings


def _finding(code: str, message: str) -> Finding:
    return Finding(code=code, severity="warning", message=message)
