"""The closed vocabulary: an identifier in an output stands in the alert, a cited passage or the catalogue.

Invariant: an output that names something else loses that sentence; nothing is corrected by guessing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from whis_box.errors import VerificationError
from whis_box.guards.grounding import unknown_codes
from whis_box.knowledge import identifiers
from whis_box.knowledge.techniques import Catalogue
from whis_box.paths import read_text

_VALUE = re.compile(
    r"(?<![\w.])(?:[0-9a-f]{64}|[0-9a-f]{40}|[0-9a-f]{32}|(?:\d{1,3}\.){3}\d{1,3}|[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){3,7}|"
    r"(?:[\w-]+\.)+(?:com|net|org|io|ru|cn|info|biz|xyz|top|local|corp|example)|(?:[A-Za-z]:|\\\\)\\?[\w.$%\\-]+)(?![\w])",
    re.IGNORECASE,
)


def foreign(text: str, sources: Iterable[str], catalogue: Catalogue) -> list[str]:
    """Identifiers and values of `text` that stand in none of `sources` and are no catalogued technique."""
    known = list(sources)
    lowered = "\n".join(known).lower()
    listed = {one for source in known for one in identifiers.extract(source)}
    named = [one for one in identifiers.extract(text) if one not in listed]
    strange = [one.value for one in named if one.kind != "technique" or one.value not in catalogue]
    values = [found[0] for found in _VALUE.finditer(text) if found[0].lower() not in lowered]
    codes = [code for code in unknown_codes(text, known) if code.upper() not in catalogue]
    return list(dict.fromkeys([*strange, *values, *codes]))


def check_version(path: Path, wanted: str) -> None:
    """Compare the catalogue's first line with the version that the policy names.

    Raises: VerificationError when it is another one; NotReadyError if the file is missing.
    """
    first = read_text(path).partition("\n")[0]
    if not first.lstrip("# ").startswith(f"{wanted}:"):
        raise VerificationError(
            f"{path}: is {first[:60]!r}, configs/policy.yaml wants guards.catalogue {wanted!r}; "
            "copy the matching catalogue, or name its version in the policy"
        )
