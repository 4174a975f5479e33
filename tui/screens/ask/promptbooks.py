"""Ready questions for common tasks; `{...}` is a blank to fill in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from tui.safe_text import safe_line
from tui.screens.dialog import Choose
from tui.widgets.rows import Column

MAX_BOOKS = 200


@dataclass(frozen=True)
class Promptbook:
    """One question with blanks."""

    task: str
    text: str


BOOKS = (
    Promptbook("Understand an event", "What does Windows event {4625} mean?"),
    Promptbook("Understand a technique", "What is {T1003.001} and what does it look like in the log?"),
    Promptbook("First five minutes", "What are the first steps when {lsass.exe was dumped}?"),
    Promptbook("False positives", "Which benign programs cause {LSASS access} alerts?"),
    Promptbook("Tell two apart", "How do I tell {password spraying} from {brute force}?"),
    Promptbook("Where to look", "Which log shows {a new scheduled task}?"),
    Promptbook("Field meaning", "What does the field {SubStatus} of event {4625} say?"),
    Promptbook("Containment", "How do I contain {a compromised service account}?"),
    Promptbook("Evidence to keep", "Which evidence should I collect for {a ransomware case}?"),
    Promptbook("Vulnerability", "What is {CVE-2021-44228} and how is it exploited?"),
)
COLUMNS = [
    Column[Promptbook]("task", 24, lambda one: safe_line(one.task, 60)),
    Column[Promptbook]("question", 0, lambda one: safe_line(one.text, 200)),
]


def read_books(path: Path | None) -> tuple[list[Promptbook], str]:
    """The built-in ones and those of a YAML mapping `task: question`; and what is wrong with that file."""
    if path is None:
        return list(BOOKS), ""
    try:
        held = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as cause:
        return list(BOOKS), f"{path}: cannot be read ({cause}); the built-in promptbooks are shown"
    if not isinstance(held, dict) or not all(isinstance(one, str) for pair in held.items() for one in pair):
        return list(BOOKS), f"{path}: must be a mapping `task: question`; the built-in promptbooks are shown"
    own = [Promptbook(task, text) for task, text in list(held.items())[:MAX_BOOKS]]
    return [*own, *BOOKS], ""


def choose(books: list[Promptbook]) -> Choose[Promptbook]:
    """The list to pick from."""
    return Choose("Promptbooks", books, COLUMNS)
