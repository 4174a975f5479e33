"""A triage in the formats other tools read: ATT&CK Navigator, STIX 2.1, a Markdown note, CACAO 2.0.

Invariant: an export says what the triage says and proposes; nothing here acts, connects or writes a file.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from whis_box.exports.cacao import playbook
from whis_box.exports.case import Case
from whis_box.exports.navigator import layer
from whis_box.exports.note import case_note
from whis_box.exports.stix import bundle

__all__ = ["FORMATS", "Case", "export", "to_text"]

FORMATS: dict[str, Callable[[Case], str | dict[str, Any]]] = {
    "navigator": layer,
    "stix": bundle,
    "case": case_note,
    "cacao": playbook,
}


def export(name: str, case: Case) -> str | dict[str, Any]:
    """The export `name` of `FORMATS`: a JSON object, or Markdown text for `case`."""
    return FORMATS[name](case)


def to_text(exported: str | dict[str, Any]) -> str:
    """What is printed or saved: Markdown as it is, JSON indented."""
    return exported if isinstance(exported, str) else json.dumps(exported, ensure_ascii=False, indent=2)
