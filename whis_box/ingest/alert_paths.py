"""A flat event looked up by pattern: `evidences.*.file.path`, `Entities.ip.Address`, any letter case.

Invariant: building is linear in the event; a lookup gives the event's own paths in the event's order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from whis_box.ingest.alert_flatten import is_empty

# What says of which kind an item of a list is; `#microsoft.graph.security.ipEvidence` is kind "ipevidence".
KIND_SUFFIXES = (".@odata.type", ".entitytype", ".type", ".kind")
# Objects around what counts: Azure diagnostic records, exported audit records, Sentinel incidents, OCSF.
CARRIERS = ("properties.", "auditdata.", "object.properties.", "evidences.*.")
MAX_PREFIX_SEGMENTS = 3


class Paths:
    """The patterns that the paths of one event fit.

    A number in a path is written `*` or as the item's kind; a carrier at the front may be left out.
    """

    def __init__(self, flat: Mapping[str, str]) -> None:
        self._flat = flat
        self._by_pattern: dict[str, list[str]] = {}
        self._prefixes: set[str] = set()
        kinds = _kinds(flat)
        for path in flat:
            lower = path.lower()
            segments = lower.split(".", MAX_PREFIX_SEGMENTS)[:-1]
            self._prefixes.update(".".join(segments[: n + 1]) for n in range(len(segments)))
            for pattern in _patterns(lower, kinds):
                self._by_pattern.setdefault(pattern, []).append(path)

    def all(self, pattern: str) -> list[str]:
        """Every path that fits and holds something."""
        found = self._by_pattern.get(pattern.lower(), ())
        return [path for path in found if not is_empty(self._flat[path])]

    def text(self, patterns: tuple[str, ...]) -> str | None:
        """The first value under the first pattern that has one."""
        return next((self._flat[path] for pattern in patterns for path in self.all(pattern)), None)

    def meets(self, mark: str) -> bool:
        """Whether all of a mark's words hold: `path`, `path=value`, `path~part`, `prefix.`, `this|that`."""
        return all(any(self._holds(word) for word in words.split("|")) for words in mark.split())

    def _holds(self, word: str) -> bool:
        if word.endswith("."):
            return word[:-1].lower() in self._prefixes
        match = re.fullmatch(r"([^=~]+)(?:([=~])(.+))?", word)
        if match is None:
            return False
        texts = [self._flat[path].lower() for path in self._by_pattern.get(match[1].lower(), ())]
        if match[2] is None:
            return bool(texts)
        wanted = match[3].lower()
        return any(text == wanted if match[2] == "=" else wanted in text for text in texts)


def _kinds(flat: Mapping[str, str]) -> dict[str, str]:
    """Path of a list item to the kind it states."""
    kinds: dict[str, str] = {}
    for path, text in flat.items():
        lower = path.lower()
        suffix = next((suffix for suffix in KIND_SUFFIXES if lower.endswith(suffix)), "")
        item = lower.removesuffix(suffix) if suffix else ""
        if item.rpartition(".")[2].isdigit():
            kinds.setdefault(item, text.rpartition(".")[2].strip().lower()[:64])
    return kinds


def _patterns(path: str, kinds: Mapping[str, str]) -> set[str]:
    segments = path.split(".")
    numbered = [n for n, segment in enumerate(segments) if segment.isdigit()]
    found = {path}
    if numbered:
        starred, by_kind = list(segments), list(segments)
        for n in numbered:
            starred[n] = "*"
            by_kind[n] = kinds.get(".".join(segments[: n + 1]), "*")
        found |= {".".join(starred), ".".join(by_kind)}
    carried = {one.removeprefix(carrier) for one in found for carrier in CARRIERS if one.startswith(carrier)}
    return found | carried
