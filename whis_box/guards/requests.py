"""Requests that policy refuses: which class a question falls into, and the words it is refused with.

Invariant: the decision is made in code from the question alone; only the policy file changes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from whis_box.errors import VerificationError
from whis_box.guards.policy import RefusalClass, RequestAction
from whis_box.guards.views import readings
from whis_box.paths import read_text

RULE_FILE = "requests.tsv"
EXPLANATIONS: dict[RefusalClass, str] = {
    "training_data": "it asks for text the model was trained on, word for word",
    "system_prompt": "it asks for the instructions this program runs with",
    "secrets": "it asks for passwords, keys, tokens or values that were taken out",
    "offensive_tooling": "it asks for something to attack with; how attacks work and are found may be asked",
    "out_of_scope": "it is not about security operations",
    "tlp": "it asks for more than its sharing mark (TLP) allows",
}


@dataclass(frozen=True)
class Refusal:
    """The class of a refused request and what the user is told."""

    kind: RefusalClass
    message: str


class RequestRules:
    """Regular expressions by class, and what the policy does with each class."""

    def __init__(self, folder: Path, actions: dict[RefusalClass, RequestAction]) -> None:
        """Read the rules of `folder`.

        Raises: NotReadyError if they are missing; VerificationError if one is not usable.
        """
        self._rules = list(_rules(folder / RULE_FILE))
        self._actions = actions

    def check(self, question: str) -> Refusal | None:
        """The refusal of `question`, None when it may be answered; disguises are read too."""
        for _, words in readings(question):
            for kind, pattern in self._rules:
                if self._actions[kind] == "refuse" and pattern.search(words):
                    reason = EXPLANATIONS[kind]
                    return Refusal(kind, f"This request is refused: {reason} (policy rule `{kind}`).")
        return None


def _rules(path: Path) -> Iterator[tuple[RefusalClass, re.Pattern[str]]]:
    known: dict[str, RefusalClass] = {name: name for name in get_args(RefusalClass)}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        kind, _, pattern = line.partition("\t")
        if kind not in known or not pattern:
            raise VerificationError(
                f"{path}: line {number}: the class {kind!r} is none of {', '.join(known)}; copy the box again"
            )
        try:
            yield known[kind], re.compile(pattern)
        except re.error as cause:
            raise VerificationError(f"{path}: line {number}: {cause}; copy the box again") from None
