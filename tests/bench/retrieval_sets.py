"""Retrieval questions that were not written by us: rules, test names, procedures and real events.

Each comes with the ATT&CK techniques that its author gave it. Procedures of 30 % of the groups and software
are held out entirely: the index never sees a sentence about them. Weights are fitted on one part of each set
and reported on the other; the real events are for reporting only.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from whis_box.ingest.alerts import describe, read_alert
from whis_box.schemas import Record, Source

CITATION = re.compile(r"\(Citation: [^)]*\)|\[([^\]]+)\]\([^)]*\)|<[^>]+>")
TAG = re.compile(r"^attack\.(t\d{4}(?:\.\d{3})?)$", re.IGNORECASE)
SHA = "0" * 64
HELD_OUT_PERCENT = 30
DEV_SOURCES_PERCENT = 10  # of all sources: the part of the held-out ones on which weights are fitted


@dataclass(frozen=True)
class Question:
    """A text, the ids of the techniques that answer it, and whether weights may be fitted on it."""

    text: str
    techniques: frozenset[str]
    is_dev: bool


@dataclass(frozen=True)
class Attack:
    """ATT&CK as an index and as questions."""

    records: list[Record]
    """One a technique: description, then examples of groups and software that are not held out."""
    held_out: list[Question]
    """Procedures of held-out groups and software."""
    pairs: list[tuple[str, str]]
    """(procedure, technique id) of the others, for training."""


def attack(bundle: Path) -> Attack:
    """Read the Enterprise bundle (JSON, gzip or not)."""
    opener = gzip.open if bundle.suffix == ".gz" else open
    with opener(bundle, "rt", encoding="utf-8") as stream:
        objects = [one for one in json.load(stream)["objects"] if not _is_gone(one)]
    techniques = {one["id"]: one for one in objects if one["type"] == "attack-pattern"}
    names = {_id(one): one["name"] for one in techniques.values()}
    examples: dict[str, list[str]] = defaultdict(list)
    held_out, pairs = [], []
    for one in objects:
        if one["type"] != "relationship" or one["relationship_type"] != "uses" or not one.get("description"):
            continue
        technique = techniques.get(one["target_ref"])
        if technique is None or not one["source_ref"].startswith(("intrusion-set", "malware", "tool")):
            continue
        text, technique_id = _clean(one["description"]), _id(technique)
        bucket = _bucket(one["source_ref"])
        if bucket < HELD_OUT_PERCENT:
            held_out.append(Question(text, frozenset({technique_id}), bucket < DEV_SOURCES_PERCENT))
        else:
            examples[technique_id].append(text)
            pairs.append((text, technique_id))
    records = [_record(one, names, examples[_id(one)]) for one in sorted(techniques.values(), key=_id)]
    return Attack(records, held_out, pairs)


def sigma(archive: Path, known: set[str]) -> list[Question]:
    """Title and description of each rule -> its technique tags."""
    return [
        _halved(f"{rule['title']}. {_clean(str(rule.get('description', '')))}", techniques)
        for rule in _yaml_files(archive)
        if "title" in rule and (techniques := frozenset(_tags(rule)) & known)
    ]


def atomic(archive: Path, known: set[str]) -> list[Question]:
    """Name of each Atomic Red Team test -> its technique."""
    return [
        _halved(test["name"], frozenset({technique["attack_technique"]}))
        for technique in _yaml_files(archive)
        if technique.get("attack_technique") in known
        for test in technique.get("atomic_tests", ())
    ]


def events(archive: Path, rules: Path, known: set[str]) -> list[Question]:
    """Real events, described as the product describes an alert -> techniques of the rule that matched."""
    tags = {str(rule.get("id")): frozenset(_tags(rule)) & known for rule in _yaml_files(rules)}
    found = []
    with zipfile.ZipFile(archive) as opened:
        for name in sorted(opened.namelist()):
            if not name.endswith(".json"):
                continue
            folder = name.rpartition("/")[0]
            info = yaml.safe_load(opened.read(f"{folder}/info.yml"))
            rule_ids = [str(one.get("id")) for one in info.get("rule_metadata", ())]
            techniques = frozenset().union(*(tags.get(one, frozenset()) for one in rule_ids))
            try:
                event = json.loads(opened.read(name))
            except ValueError:
                continue  # three files hold several objects; they are events of other rules
            if techniques and isinstance(event, dict):
                found.append(Question(describe(read_alert(event)), techniques, is_dev=False))
    return found


def _halved(text: str, techniques: frozenset[str]) -> Question:
    return Question(text, techniques, _bucket(text) < 50)


def _record(one: dict[str, Any], names: dict[str, str], examples: list[str]) -> Record:
    technique_id = _id(one)
    parent = names.get(technique_id.split(".")[0], "") if "." in technique_id else ""
    title = f"{technique_id} {parent}: {one['name']}" if parent else f"{technique_id} {one['name']}"
    listed = "".join(f"- {text}\n" for text in examples)
    text = f"## Description\n\n{_clean(one['description'])}\n"
    text += f"\n## Examples\n\n{listed}" if listed else ""
    source = Source(name="mitre-attack", uri="bundle", revision="18.1", retrieved_at="2026-01-01T00:00:00Z")
    return Record(
        id=technique_id,
        source=source,
        title=title,
        text=text,
        labels=[f"technique:{technique_id}"],
        license="LicenseRef-ATTACK-Terms",
        tlp="clear",
        sha256_raw=SHA,
        sha256_text=SHA,
        pipeline_version="bench",
    )


def _clean(text: str) -> str:
    return " ".join(CITATION.sub(lambda match: match[1] or "", text).split())


def _is_gone(one: dict[str, Any]) -> bool:
    return bool(one.get("revoked") or one.get("x_mitre_deprecated"))


def _id(one: dict[str, Any]) -> str:
    return str(
        next(r["external_id"] for r in one["external_references"] if r["source_name"] == "mitre-attack")
    )


def _bucket(key: str) -> int:
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) % 100


def _tags(rule: dict[str, Any]) -> Iterator[str]:
    for tag in rule.get("tags") or ():
        if match := TAG.match(str(tag)):
            yield match[1].upper()


def _yaml_files(archive: Path) -> Iterator[dict[str, Any]]:
    with zipfile.ZipFile(archive) as opened:
        for name in sorted(opened.namelist()):
            if name.endswith((".yml", ".yaml")):
                for document in yaml.safe_load_all(opened.read(name)):
                    if isinstance(document, dict):
                        yield document
