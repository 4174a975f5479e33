"""A STIX 2.1 bundle: what was observed, a note with the triage, an opinion with the verdict.

Invariant: ids of observables are the deterministic ones of the specification; nothing is called an indicator.
Source: OASIS STIX 2.1, sections 4.11 (note), 4.12 (observed-data), 4.13 (opinion), 2.9 and 6 (observables);
OASIS STIX TLP 2.0 marking extension.
"""

from __future__ import annotations

import json
import ntpath
import posixpath
import re
import uuid
from datetime import datetime
from typing import Any

from whis_box.exports.case import PRODUCT, Case, stable_id, technique_url, timestamp
from whis_box.schemas import Observable, Tlp

Object = dict[str, Any]

SCO_NAMESPACE = uuid.UUID("00abedb4-aa42-466c-9c01-fed23315a9b7")
TLP_EXTENSION = "extension-definition--60a3c5c5-0d10-413e-aab3-9e08dde9e88d"
TLP_MARKINGS: dict[Tlp, str] = {
    "clear": "marking-definition--94868c89-83c2-464b-929b-a1a8aa3c8487",
    "green": "marking-definition--bab4a63c-aed9-4cf5-a766-dfca5abac2bb",
    "amber": "marking-definition--55d920b0-5e8b-4f79-9ee9-91f868d9b421",
    "amber+strict": "marking-definition--939a9414-2ddd-4d32-a0cd-375ea402b003",
    "red": "marking-definition--e828b379-4e03-4974-9ac4-e53a884c97c1",
}
# Whether the alert is right that something bad happened.
OPINIONS = {
    "true_positive": "strongly-agree",
    "escalate": "agree",
    "needs_review": "neutral",
    "benign_true_positive": "disagree",
    "benign": "strongly-disagree",
    "false_positive": "strongly-disagree",
}
VALUE_TYPES = {
    "ipv4": "ipv4-addr",
    "ipv6": "ipv6-addr",
    "domain": "domain-name",
    "url": "url",
    "email": "email-addr",
}
HASH_NAMES = {"md5": "MD5", "sha1": "SHA-1", "sha256": "SHA-256"}
PATH_TYPES = frozenset({"file_path", "file_name", "process"})


def bundle(case: Case) -> Object:
    """Identity, marking, observables, observed-data, attack-patterns, note and opinion of one triage."""
    made_at = timestamp(case.made_at)
    author = stable_id("identity", PRODUCT)
    marking = TLP_MARKINGS[case.tlp]
    common = {
        "spec_version": "2.1",
        "created_by_ref": author,
        "created": made_at,
        "modified": made_at,
        "object_marking_refs": [marking],
    }
    seen = _observables(case)
    data = [_observed_data(case, common, list(seen))] if seen else []
    patterns = [_attack_pattern(one.id, one.name, common) for one in case.triage.techniques]
    about = [one["id"] for one in (*data, *patterns)] or [author]
    identity = {
        "type": "identity",
        "spec_version": "2.1",
        "id": author,
        "created": made_at,
        "modified": made_at,
        "name": PRODUCT,
        "identity_class": "system",
    }
    objects = [identity, _marking(case.tlp), *seen.values(), *data, *patterns]
    objects += [_note(case, common, about), _opinion(case, common, about)]
    return {"type": "bundle", "id": case.object_id("bundle", case.triage.id), "objects": objects}


def _marking(tlp: Tlp) -> Object:
    return {
        "type": "marking-definition",
        "spec_version": "2.1",
        "id": TLP_MARKINGS[tlp],
        "created": "2022-10-01T00:00:00.000Z",
        "name": f"TLP:{tlp.upper()}",
        "extensions": {TLP_EXTENSION: {"extension_type": "property-extension", "tlp_2_0": tlp}},
    }


def _note(case: Case, common: Object, about: list[str]) -> Object:
    triage = case.triage
    lines = [f"Verdict: {triage.verdict}, severity {triage.severity}.", triage.summary]
    lines += [f"Check: {one.text}" for one in triage.false_positive_checks]
    lines += [f"Proposed step: {one.text}" for one in triage.recommended_steps]
    lines += [f"[{one.n}] {one.title}: {one.quote}" for one in triage.citations]
    return {
        "type": "note",
        "id": case.object_id("note", triage.id),
        **common,
        "abstract": case.title,
        "content": "\n".join(lines),
        "object_refs": about,
        "confidence": round(triage.confidence * 100),
        "external_references": [
            {"source_name": case.alert.provider or case.alert.family, "external_id": triage.alert_id}
        ],
    }


def _opinion(case: Case, common: Object, about: list[str]) -> Object:
    triage = case.triage
    reason = triage.abstain_reason or f"the strongest evidence scores {triage.confidence:.2f}"
    return {
        "type": "opinion",
        "id": case.object_id("opinion", triage.id),
        **common,
        "opinion": OPINIONS[triage.verdict],
        "explanation": f"{triage.verdict}: {reason}",
        "object_refs": about[:1],
        "confidence": round(triage.confidence * 100),
    }


def _attack_pattern(technique_id: str, name: str, common: Object) -> Object:
    reference = {
        "source_name": "mitre-attack",
        "external_id": technique_id,
        "url": technique_url(technique_id),
    }
    return {
        "type": "attack-pattern",
        "id": stable_id("attack-pattern", technique_id),
        **common,
        "name": name,
        "external_references": [reference],
    }


def _observed_data(case: Case, common: Object, object_refs: list[str]) -> Object:
    moment = _moment(case)
    return {
        "type": "observed-data",
        "id": case.object_id("observed-data"),
        **common,
        "first_observed": moment,
        "last_observed": moment,
        "number_observed": 1,
        "object_refs": object_refs,
    }


def _moment(case: Case) -> str:
    """When it happened, or when this was written where the source gives no time with a zone."""
    try:
        moment = datetime.fromisoformat(case.alert.occurred_at or "")
    except ValueError:
        return timestamp(case.made_at)
    return timestamp(moment if moment.tzinfo else case.made_at)


def _observables(case: Case) -> dict[str, Object]:
    """Id to object, each once; types that STIX has no object for stay in the note's words only."""
    found: dict[str, Object] = {}
    for one in case.triage.observables:
        for item in _objects_of(case, one):
            found.setdefault(item["id"], item)
    return found


def _objects_of(case: Case, one: Observable) -> list[Object]:
    if one.type in VALUE_TYPES:
        return [_sco(VALUE_TYPES[one.type], {"value": one.value})]
    if one.type in HASH_NAMES:
        return [_sco("file", {"hashes": {HASH_NAMES[one.type]: one.value}})]
    if one.type == "user":
        return [_sco("user-account", {"account_login": one.value})]
    if one.type == "registry_key":
        return [_sco("windows-registry-key", {"key": one.value})]
    if one.type == "command_line":  # a process has no identifying property: its id is this alert's
        item = {"command_line": one.value}
        return [_with_id("process", case.object_id("process", one.value), item)]
    if one.type in PATH_TYPES:
        return _file(one.value)
    return []


def _file(path: str) -> list[Object]:
    split = ntpath.split if "\\" in path or re.match(r"[A-Za-z]:", path) else posixpath.split
    folder, name = split(path)
    if not name:
        return [_sco("directory", {"path": path})]
    if not folder:
        return [_sco("file", {"name": name})]
    parent = _sco("directory", {"path": folder})
    return [parent, _sco("file", {"name": name, "parent_directory_ref": parent["id"]})]


def _sco(kind: str, properties: Object) -> Object:
    """An observable with the id that its identifying properties give (STIX 2.1 section 2.9)."""
    canonical = json.dumps(properties, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return _with_id(kind, f"{kind}--{uuid.uuid5(SCO_NAMESPACE, canonical)}", properties)


def _with_id(kind: str, object_id: str, properties: Object) -> Object:
    return {"type": kind, "spec_version": "2.1", "id": object_id, **properties}
