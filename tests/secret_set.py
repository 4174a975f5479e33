"""The own set of 100 secrets: lines of data/golden/secrets.tsv with invented values drawn into them."""

from __future__ import annotations

import random
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass

from whis_box.paths import repository_root

PATH = repository_root() / "data" / "golden" / "secrets.tsv"
_DRAWN = re.compile(r"<([aAnxXsup]+):(\d+)>")
_ALPHABETS = {
    "a": string.ascii_lowercase,
    "A": string.ascii_uppercase,
    "n": string.digits,
    "x": "0123456789abcdef",
    "X": "0123456789ABCDEF",
    "s": "+/",
    "u": "_-",
    "p": "!?.+#",
}


@dataclass(frozen=True)
class PlantedSecret:
    """A text with one secret in it: `text[start:end]`."""

    kind: str
    text: str
    start: int
    end: int


def planted_secrets(seed: int) -> Iterator[PlantedSecret]:
    """All of them, with values that follow from `seed`."""
    rng = random.Random(seed)
    for line in PATH.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        kind, _, template = line.partition("\t")
        drawn = _DRAWN.sub(lambda match: _draw(match, rng), template).replace("\\n", "\n")
        start = drawn.index("<!")
        end = drawn.index("!>", start) - 2
        yield PlantedSecret(kind, drawn.replace("<!", "", 1).replace("!>", "", 1), start, end)


def _draw(match: re.Match[str], rng: random.Random) -> str:
    alphabet = "".join(_ALPHABETS[one] for one in match[1])
    first = rng.choice([one for one in alphabet if one.isalnum()])
    inner = "".join(rng.choices(alphabet, k=int(match[2]) - 2))
    return (
        first + inner + rng.choice([one for one in alphabet if one.isalnum()]) if int(match[2]) > 1 else first
    )
