"""YAML knowledge: Sigma rules and Atomic Red Team tests.

Invariant: YAML aliases are refused, because a few lines of them can stand for gigabytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from whis_box.ingest.readers.draft import Draft, Item, Limits, RawFile, Skip, decode, fenced, technique_labels

try:
    from yaml import CSafeLoader as Loader
except ImportError:  # PyYAML without libyaml
    from yaml import SafeLoader as Loader  # type: ignore[assignment]

MAX_YAML_CHARS = 5_000_000
_TAG = re.compile(r"attack\.(t\d{4}(?:\.\d{3})?)", re.IGNORECASE)
_CVE_TAG = re.compile(r"cve[.-](\d{4})[.-](\d{4,7})", re.IGNORECASE)


def read_yaml(file: RawFile, limits: Limits) -> Iterator[Item]:
    """Sigma rules or an Atomic file; other YAML is skipped."""
    text = decode(file.data)[0]
    if len(text) > MAX_YAML_CHARS:
        yield Skip(file.name, f"{len(text)} characters of YAML are more than {MAX_YAML_CHARS}")
        return
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=Loader)):
            yield Skip(file.name, "YAML with aliases is not read; write the values out")
            return
        documents = list(yaml.load_all(text, Loader=Loader))
    except (yaml.YAMLError, ValueError, RecursionError) as cause:
        yield Skip(file.name, f"not valid YAML: {' '.join(str(cause).split())[:200]}")
        return
    for number, document in enumerate(documents, start=1):
        position = f"document {number}"
        if not isinstance(document, dict):
            yield Skip(f"{file.name}, {position}", "not a mapping")
        elif "detection" in document and "logsource" in document:
            yield _sigma(document, number, position)
        elif "atomic_tests" in document:
            yield _atomic(document, position)
        else:
            yield Skip(f"{file.name}, {position}", "YAML of an unknown kind (neither Sigma nor Atomic)")


def _sigma(rule: Mapping[str, Any], number: int, position: str) -> Draft:
    source = rule.get("logsource") or {}
    tags = [str(tag) for tag in rule.get("tags") or []]
    techniques = [found[1].upper() for tag in tags if (found := _TAG.fullmatch(tag))]
    cves = [f"CVE-{found[1]}-{found[2]}" for tag in tags if (found := _CVE_TAG.search(tag))]
    facts = [f"{key}: {source[key]}" for key in ("product", "category", "service") if source.get(key)]
    parts = ["## What it detects", _paragraph(rule.get("description") or rule.get("title"))]
    parts += ["## Log source", f"Log source {', '.join(facts)}." if facts else "Not stated."]
    if source.get("definition"):
        parts.append(_paragraph(source["definition"]))
    detection = yaml.safe_dump(rule["detection"], sort_keys=False, allow_unicode=True, width=100)
    parts += ["## Detection", fenced(detection, "yaml")]
    parts += ["## False positives", *(_bullets(rule.get("falsepositives")) or ["Not stated."])]
    named = [*techniques, *cves]
    status = f"Severity level {rule.get('level', 'not stated')}, status {rule.get('status', 'not stated')}."
    parts += ["## Rule", status + (f" Tagged {', '.join(named)}." if named else "")]
    labels = technique_labels(techniques) + tuple(f"cve:{cve}" for cve in cves)
    labels += tuple(f"logsource:{fact}" for fact in facts) + ("kind:sigma",)
    if rule.get("author"):  # the Detection Rule License asks for the author's name with the rule
        labels += (f"attribution:{_paragraph(rule['author'])[:200]}",)
    return Draft(
        key=str(rule.get("id") or f"rule-{number}"),
        title=f"Sigma rule: {_paragraph(rule.get('title'))}"[:200],
        text="\n\n".join(parts) + "\n",
        labels=labels,
        position=position,
        record_id=str(rule.get("id") or ""),
    )


def _atomic(file: Mapping[str, Any], position: str) -> Draft:
    technique = str(file.get("attack_technique") or "").upper()
    parts = []
    for test in file.get("atomic_tests") or []:
        if not isinstance(test, dict):
            continue
        parts += [f"## {_paragraph(test.get('name'))}", _paragraph(test.get("description"))]
        platforms = ", ".join(map(str, test.get("supported_platforms") or []))
        parts.append(f"Runs on {platforms or 'no stated platform'}.")
        executor = test.get("executor") or {}
        command = str(executor.get("command") or executor.get("steps") or "").strip()
        if command:
            parts.append(fenced(_filled(command, test.get("input_arguments") or {})))
    return Draft(
        key=technique or "atomic",
        title=f"Atomic tests for {technique} {_paragraph(file.get('display_name'))}"[:200],
        text="\n\n".join(part for part in parts if part) + "\n",
        labels=(*technique_labels([technique] if technique else []), "kind:atomic"),
        position=position,
        record_id=technique.lower(),
    )


def _filled(command: str, arguments: Mapping[str, Any]) -> str:
    """The command with its default arguments, as it would stand in a log."""
    for name, spec in arguments.items():
        default = spec.get("default") if isinstance(spec, dict) else None
        command = command.replace(f"#{{{name}}}", str(default if default is not None else f"<{name}>"))
    return command


def _paragraph(value: object) -> str:
    return " ".join(str(value or "").split())


def _bullets(values: object) -> list[str]:
    listed = values if isinstance(values, list) else [values] if values else []
    return ["\n".join(f"- {_paragraph(one)}" for one in listed if _paragraph(one))] if listed else []
