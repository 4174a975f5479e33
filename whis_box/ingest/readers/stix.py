"""STIX 2.x bundles, ATT&CK's above all: each object with its relationships as readable text.

Source: MITRE ATT&CK STIX data, spec 3.3.0 (detection strategies and analytics since v18).
Invariant: revoked and deprecated objects are skipped by name.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from whis_box.ingest.readers.draft import Draft, Item, Limits, RawFile, Skip, technique_labels

Object = Mapping[str, Any]
KINDS = {
    "attack-pattern": "technique",
    "intrusion-set": "group",
    "malware": "malware",
    "tool": "tool",
    "campaign": "campaign",
    "course-of-action": "mitigation",
    "x-mitre-tactic": "tactic",
    "x-mitre-data-component": "data component",
    "threat-actor": "group",
    "vulnerability": "vulnerability",
    "indicator": "indicator",
    "report": "report",
}
# Joined into the documents above, or about the bundle itself.
JOINED = {"relationship", "x-mitre-analytic", "x-mitre-detection-strategy", "x-mitre-data-source", "identity"}
JOINED |= {"marking-definition", "x-mitre-matrix", "x-mitre-collection", "extension-definition"}
_CITATION = re.compile(r"\s?\(Citation: [^)]*\)")
_LINK = re.compile(r"\[([^\]]+)\]\(https?://[^)\s]*\)")
_TAGS = re.compile(r"</?(?:code|br|p|b|i|ul|li)\s*/?>")


def read_bundle(bundle: Object, file: RawFile, limits: Limits) -> Iterator[Item]:
    """Documents of a parsed bundle, in its order."""
    listed = bundle.get("objects")
    if not isinstance(listed, list):
        yield Skip(file.name, "a STIX bundle without a list of objects")
        return
    graph = _Graph(listed)
    for number, one in enumerate(listed, start=1):
        if number > limits.max_drafts:
            yield Skip(f"{file.name}, object {number}", f"only {limits.max_drafts} objects are read")
            return
        kind = one.get("type") if isinstance(one, dict) else None
        if not isinstance(kind, str) or "id" not in one:
            yield Skip(f"{file.name}, object {number}", "not a STIX object (type and id are missing)")
        elif kind in JOINED:
            continue
        elif kind not in KINDS:
            yield Skip(f"{file.name}, {one['id']}", f"objects of type {kind} are not read")
        elif one.get("revoked") or one.get("x_mitre_deprecated"):
            state = "revoked" if one.get("revoked") else "deprecated"
            yield Skip(f"{file.name}, {_external_id(one) or one['id']}", state)
        else:
            yield graph.draft(one)


class _Graph:
    """The bundle's objects by id and its relationships by both ends."""

    def __init__(self, listed: list[Any]) -> None:
        usable = [one for one in listed if isinstance(one, dict) and isinstance(one.get("id"), str)]
        self.by_id: dict[str, Object] = {one["id"]: one for one in usable}
        self.to: dict[tuple[str, str], list[Object]] = defaultdict(list)
        self.of: dict[tuple[str, str], list[Object]] = defaultdict(list)
        for one in usable:
            if one.get("type") != "relationship" or one.get("revoked") or one.get("x_mitre_deprecated"):
                continue
            name = str(one.get("relationship_type"))
            self.to[str(one.get("target_ref")), name].append(one)
            self.of[str(one.get("source_ref")), name].append(one)

    def draft(self, one: Object) -> Draft:
        """One object as a document."""
        kind, code = KINDS[one["type"]], _external_id(one)
        name = str(one.get("name") or code or one["id"])
        sections = [("What it is", _clean(one.get("description") or name)), *self._facts(one, kind)]
        sections += self._detections(one) + self._relations(one, kind)
        techniques = [code] if kind == "technique" and code else []
        labels = (*technique_labels(techniques), f"kind:{kind.replace(' ', '-')}")
        labels += tuple(f"platform:{platform.lower()}" for platform in _strings(one, "x_mitre_platforms"))
        return Draft(
            key=one["id"],
            title=f"{code} {name}".strip()[:200],
            text="\n\n".join(f"## {heading}\n\n{body}" for heading, body in sections if body) + "\n",
            labels=labels,
            position=one["id"],
            record_id=(code or one["id"]).lower(),
        )

    def _facts(self, one: Object, kind: str) -> list[tuple[str, str]]:
        code = _external_id(one) or str(one.get("name"))
        phases = [phase.get("phase_name") for phase in one.get("kill_chain_phases") or []]
        lines = []
        if phases:
            lines.append(f"{code} belongs to the tactics {', '.join(map(str, phases))}.")
        if platforms := _strings(one, "x_mitre_platforms"):
            lines.append(f"{code} applies to the platforms {', '.join(platforms)}.")
        aliases = [alias for alias in _aliases(one) if alias != one.get("name")]
        if aliases:
            lines.append(f"{one.get('name')} is also known as {', '.join(aliases)}.")
        for relation in self.of[one["id"], "subtechnique-of"]:
            if parent := self.by_id.get(relation["target_ref"]):
                lines.append(f"{code} is a sub-technique of {_label(parent)}.")
        if one.get("pattern"):
            lines.append(f"Pattern: `{one['pattern']}`")
        return [("Facts", " ".join(lines))] if lines else []

    def _detections(self, one: Object) -> list[tuple[str, str]]:
        lines = []
        for relation in self.to[one["id"], "detects"]:
            strategy = self.by_id.get(relation.get("source_ref", ""), {})
            lines += [
                f"- {_clean(analytic.get('description'))}"
                for ref in strategy.get("x_mitre_analytic_refs") or []
                if (analytic := self.by_id.get(ref)) and analytic.get("description")
            ]
        return [("Detection", "\n".join(lines))] if lines else []

    def _relations(self, one: Object, kind: str) -> list[tuple[str, str]]:
        own = one["id"]
        if kind == "technique":
            return [
                ("Mitigation", self._listed(self.to[own, "mitigates"], "source_ref")),
                ("Procedure examples", self._listed(self.to[own, "uses"], "source_ref")),
            ]
        if kind == "mitigation":
            return [("Techniques it mitigates", self._listed(self.of[own, "mitigates"], "target_ref"))]
        return [
            ("What it does", self._listed(self.of[own, "uses"], "target_ref")),
            ("Used by", self._listed(self.to[own, "uses"], "source_ref")),
            ("Attributed to", self._listed(self.of[own, "attributed-to"], "target_ref")),
        ]

    def _listed(self, relations: list[Object], end: str) -> str:
        lines = []
        for relation in relations:
            other = self.by_id.get(str(relation.get(end)))
            if other is None or other.get("revoked") or other.get("x_mitre_deprecated"):
                continue
            said = _clean(relation.get("description"))
            lines.append(f"- {_label(other)}: {said}" if said else f"- {_label(other)}.")
        return "\n".join(lines)


def _external_id(one: Object) -> str:
    for reference in one.get("external_references") or []:
        source = str(reference.get("source_name", ""))
        if (source.startswith("mitre") or source == "cve") and reference.get("external_id"):
            return str(reference["external_id"])
    return ""


def _label(one: Object) -> str:
    return f"{_external_id(one)} {one.get('name', '')}".strip()


def _aliases(one: Object) -> list[str]:
    return _strings(one, "aliases") or _strings(one, "x_mitre_aliases")


def _strings(one: Object, key: str) -> list[str]:
    values = one.get(key)
    return [str(value) for value in values] if isinstance(values, list) else []


def _clean(text: object) -> str:
    """Without citation marks, with links as their words; paragraphs stay."""
    plain = _TAGS.sub("`", _LINK.sub(r"\1", _CITATION.sub("", str(text or ""))))
    plain = plain.replace("``", "`")
    return "\n\n".join(" ".join(part.split()) for part in plain.split("\n") if part.strip())
