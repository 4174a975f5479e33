"""Training text for the people-finder: filled templates and real prose that names nobody.

Invariant: templates are split, not filled sentences: none of a validation sentence's words around its slots
was ever trained on. Source of the idea: presidio-research's template sentences; the templates are our own.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from train.ner_values import Values
from whis_box.errors import InputError
from whis_box.paths import read_text

# What each slot is labelled as; the slots that are missing here have a form of their own and are left alone.
TYPE_OF_SLOT = {
    **dict.fromkeys(("PERSON", "FIRST", "LAST"), "PERSON"),
    **dict.fromkeys(("GPE", "COUNTRY", "STATE"), "LOCATION"),
    **dict.fromkeys(("STREET", "ADDRESS"), "STREET_ADDRESS"),
    **dict.fromkeys(("NRP", "NATIONALITY"), "NRP"),
    **dict.fromkeys(("DATE", "TIME"), "DATE_TIME"),
    **dict.fromkeys(("SSN", "LICENSE"), "NATIONAL_ID"),
    "ORG": "ORGANIZATION",
    "TITLE": "TITLE",
    "AGE": "AGE",
    "ZIP": "ZIP_CODE",
    "PHONE": "PHONE_NUMBER",
    "CARD": "CREDIT_CARD",
    "IBAN": "IBAN_CODE",
}
TYPES = tuple(sorted(set(TYPE_OF_SLOT.values())))
LABELS = ("O", *(f"{prefix}-{kind}" for kind in TYPES for prefix in ("B", "I")))
VALID_SHARE = 10  # one template in so many
_SLOT = re.compile(r"\{\{|\}\}|\{([A-Z]+)\}")


@dataclass(frozen=True)
class Example:
    """A text and its entities as (type, start, end), in text order and apart from each other."""

    text: str
    entities: tuple[tuple[str, int, int], ...]


def read_templates(folder: Path, slots: frozenset[str]) -> tuple[list[str], list[str]]:
    """Templates for training and for validation.

    Raises: InputError naming every line with an unknown slot; NotReadyError.
    """
    parts: tuple[list[str], list[str]] = ([], [])
    wrong = []
    for path in sorted(folder.glob("*.txt")):
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            unknown = {match[1] for match in _SLOT.finditer(line) if match[1]} - slots
            if unknown:
                wrong.append(f"{path.name}: line {number}: no slot {', '.join(sorted(unknown))}")
            elif line.strip():
                digest = hashlib.sha256(line.strip().encode()).digest()
                parts[digest[0] % VALID_SHARE == 0].append(line.strip().replace("\\n", "\n"))
    if wrong:
        raise InputError("\n".join(wrong))
    return parts


def fill(template: str, values: Values) -> Example:
    """The template with a value in each slot."""
    text, entities, at = "", [], 0
    for match in _SLOT.finditer(template):
        text += template[at : match.start()]
        at = match.end()
        if match[1] is None:
            text += match[0][0]
            continue
        value = values.draw(match[1])
        kind = TYPE_OF_SLOT.get(match[1])
        if kind:
            entities.append((kind, len(text), len(text) + len(value)))
        text += value
    return Example(text + template[at:], tuple(entities))


def examples(
    templates: Sequence[str], prose: Sequence[str], values: Values, seed: int, n_examples: int
) -> Iterator[Example]:
    """`n_examples` windows: one filled template, or several of them and of the prose, one after the other."""
    rng = random.Random(seed)
    for _ in range(n_examples):
        kind = rng.random()
        n_parts = 1 if kind < 0.6 else rng.randint(2, 4)
        parts = [
            Example(rng.choice(prose), ())
            if prose and rng.random() < 0.15
            else fill(rng.choice(templates), values)
            for _ in range(n_parts)
        ]
        yield _recased(_joined(parts, rng.choice((" ", "\n", "\n"))), rng)


def _joined(parts: Sequence[Example], gap: str) -> Example:
    text, entities = "", []
    for part in parts:
        if text:
            text += gap
        entities += [(kind, start + len(text), end + len(text)) for kind, start, end in part.entities]
        text += part.text
    return Example(text, tuple(entities))


def _recased(example: Example, rng: random.Random) -> Example:
    """Chat is often lower-case and headings upper-case; only where that keeps every position."""
    kind = rng.random()
    text = example.text
    changed = text.lower() if kind < 0.08 else text.upper() if kind < 0.11 else text
    return Example(changed, example.entities) if len(changed) == len(text) else example


def prose_of(folder: Path) -> list[str]:
    """Paragraphs of Markdown files below `folder`: prose that names nobody and must be left alone."""
    paragraphs = []
    for path in sorted(folder.rglob("*.md")):
        body = read_text(path).split("\n---\n", 1)[-1]
        for block in re.split(r"\n\s*\n", body):
            paragraphs += [block[at : at + 400] for at in range(0, len(block), 400)]
    return [one for one in paragraphs if len(one) > 30]
