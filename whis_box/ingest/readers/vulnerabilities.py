"""CVE JSON 5 records and CISA's catalogue of known exploited vulnerabilities (KEV).

Source: CVE Record Format 5.1; KEV JSON schema of cisa.gov.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from whis_box.ingest.readers.draft import Draft, Item, Limits, RawFile, Skip

MAX_PRODUCTS = 50


def read_cve(record: Mapping[str, Any], file: RawFile, limits: Limits) -> Iterator[Item]:
    """One CVE record; rejected ones are skipped by name."""
    meta = record.get("cveMetadata") or {}
    code = str(meta.get("cveId") or "")
    containers = record.get("containers")
    cna = containers.get("cna") if isinstance(containers, dict) else None
    if not code or not isinstance(containers, dict) or not isinstance(cna, dict):
        yield Skip(file.name, "a CVE record without cveMetadata.cveId or containers.cna")
        return
    if meta.get("state") == "REJECTED":
        yield Skip(f"{file.name}, {code}", "the record is rejected")
        return
    said = [_words(one.get("value")) for one in _list(cna, "descriptions") if _english(one)]
    parts = ["## What it is", "\n\n".join(said) or f"{code} has no description."]
    products = [_product(code, one) for one in _list(cna, "affected")[:MAX_PRODUCTS]]
    if products:
        parts += ["## Affected products", "\n".join(f"- {one}" for one in products)]
    ratings = list(_ratings(code, cna, containers))
    if ratings:
        parts += ["## Severity", "\n".join(f"- {one}" for one in dict.fromkeys(ratings))]
    weaknesses = [
        _words(one.get("description"))
        for kind in _list(cna, "problemTypes")
        for one in _list(kind, "descriptions")
    ]
    if weaknesses:
        parts += ["## Weakness", "\n".join(f"- {code} is a case of {one}." for one in weaknesses)]
    for heading, key in (("Workarounds", "workarounds"), ("Solutions", "solutions")):
        words = [_words(one.get("value")) for one in _list(cna, key) if _english(one)]
        if words:
            parts += [f"## {heading}", "\n\n".join(words)]
    title = f"{code} {_words(cna.get('title'))}".strip()[:200]
    yield Draft(code, title, "\n\n".join(parts) + "\n", (f"cve:{code}", "kind:cve"), code, code.lower())


def read_kev(catalog: Mapping[str, Any], file: RawFile, limits: Limits) -> Iterator[Item]:
    """One document for each vulnerability of the catalogue."""
    for number, one in enumerate(_list(catalog, "vulnerabilities"), start=1):
        code = str(one.get("cveID") or "")
        if not code:
            yield Skip(f"{file.name}, vulnerability {number}", "without a cveID")
            continue
        ransomware = one.get("knownRansomwareCampaignUse", "Unknown")
        product = f"{_words(one.get('vendorProject'))} {_words(one.get('product'))}"
        lines = [
            _words(one.get("shortDescription")),
            f"{code} entered the catalogue of known exploited vulnerabilities on {one.get('dateAdded')}.",
            f"Federal agencies had to remediate {code} in {product} by {one.get('dueDate')}.",
            f"Required action for {code}: {_words(one.get('requiredAction'))}",
            f"Known use of {code} in ransomware campaigns: {ransomware}.",
        ]
        title = f"{code} {_words(one.get('vulnerabilityName'))} (known exploited)"[:200]
        text = "## Known exploitation\n\n" + "\n\n".join(line for line in lines if line) + "\n"
        yield Draft(code, title, text, (f"cve:{code}", "kind:kev"), f"vulnerability {number}", code.lower())


def _product(code: str, one: Mapping[str, Any]) -> str:
    name = f"{_words(one.get('vendor'))} {_words(one.get('product'))}".strip()
    ranges = []
    for version in _list(one, "versions")[:20]:
        if version.get("status", "affected") != "affected":
            continue
        end = version.get("lessThan") or version.get("lessThanOrEqual")
        word = "before" if version.get("lessThan") else "up to"
        ranges.append(f"{version.get('version')} {word} {end}" if end else str(version.get("version")))
    return f"{code} affects {name or 'an unnamed product'}" + (f" {', '.join(ranges)}." if ranges else ".")


def _ratings(code: str, cna: Mapping[str, Any], containers: Mapping[str, Any]) -> Iterator[str]:
    for container in (cna, *_list(containers, "adp")):
        for metric in _list(container, "metrics"):
            for key, value in metric.items():
                if key.startswith("cvss") and isinstance(value, dict) and "baseScore" in value:
                    severity = str(value.get("baseSeverity", "")).lower()
                    vector = value.get("vectorString", "")
                    score = f"{value['baseScore']} {severity} ({vector})"
                    yield f"{code} has a CVSS {value.get('version', key)} base score of {score}."


def _english(one: Mapping[str, Any]) -> bool:
    return str(one.get("lang", "en")).lower().startswith("en")


def _list(value: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    found = value.get(key)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _words(value: object) -> str:
    return " ".join(str(value or "").split())
