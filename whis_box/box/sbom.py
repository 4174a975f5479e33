"""What is inside a box, for auditors: CycloneDX 1.6 of libraries, models and data; licences; known flaws.

Invariant: everything is taken from the box's own files and checked against the official schema before it is
written; the time in it is the release's, so two builds of one release say the same.
Source: CycloneDX 1.6 (ECMA-424), https://cyclonedx.org/docs/1.6/json/.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from pathlib import Path
from typing import Any

import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.spdx import is_expression, is_supported_id
from cyclonedx.validation.json import JsonStrictValidator

from whis_box.box.libraries import (
    Library,
    frozen_libraries,
    license_texts,
    required_libraries,
)
from whis_box.box.manifest import LineagePart, Manifest
from whis_box.box.natives import native_license_text
from whis_box.errors import VerificationError
from whis_box.paths import read_text, repository_root

SBOM_FOLDER = "sbom"
SBOM_NAME = "whis-box.cdx.json"
VEX_NAME = "vex.cdx.json"
STATEMENTS = repository_root() / "data" / "vex.yaml"

Json = dict[str, Any]


def write_sbom(folder: Path, manifest: Manifest) -> None:
    """Write the inventory, the licences and the flaw report into `folder`/sbom.

    Raises: NotReadyError, VerificationError if a document does not fit its schema, StorageError.
    """
    target = folder / SBOM_FOLDER
    target.mkdir(exist_ok=True)
    libraries = frozen_libraries(folder) if manifest.platform else required_libraries()
    inventory = bill_of_materials(manifest, libraries)
    documents = {SBOM_NAME: inventory, VEX_NAME: flaw_report(manifest, inventory)}
    for name, document in documents.items():
        validate(document, name)
        (target / name).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    (target / "licenses.tsv").write_text(license_report(inventory))
    (target / "license-texts.txt").write_text(_all_license_texts(libraries))


def _all_license_texts(libraries: list[Library]) -> str:
    texts = [license_texts([one.name for one in libraries if not one.purl])]
    texts += [
        f"===== {one.name} =====\n\n{text}\n"
        for one in libraries
        if one.purl and (text := native_license_text(one))
    ]
    return "\n".join(texts)


def bill_of_materials(manifest: Manifest, libraries: list[Library]) -> Json:
    """The inventory as a CycloneDX document."""
    components = [_library(one) for one in libraries]
    components += [_native(entry.path, entry.sha256) for entry in manifest.files if _is_native(entry.path)]
    components += [_made_from(one, manifest) for one in manifest.lineage]
    refs = [component["bom-ref"] for component in components]
    return _document(manifest, "inventory") | {
        "components": components,
        "dependencies": [{"ref": "whis-box", "dependsOn": refs}],
    }


def flaw_report(manifest: Manifest, inventory: Json) -> Json:
    """Known flaws of what is inside, and why each does or does not matter here (VEX)."""
    known = {component["name"] for component in inventory["components"]}
    statements = yaml.safe_load(read_text(STATEMENTS))
    vulnerabilities = []
    for one in statements["flaws"]:
        analysis = {"state": one["state"], "detail": one["detail"]}
        if one["state"] == "not_affected":
            analysis["justification"] = one["justification"]
        inside = one["component"] in known
        vulnerabilities.append(
            {
                "id": one["id"],
                "description": one["about"],
                "analysis": analysis,
                "affects": [{"ref": f"library:{one['component']}" if inside else "whis-box"}],
            }
        )
    report = _document(manifest, "flaws")
    affected = {item["ref"] for one in vulnerabilities for item in one["affects"]} - {"whis-box"}
    report["components"] = [one for one in inventory["components"] if one["bom-ref"] in affected]
    report["metadata"]["properties"] = [{"name": "whis:method", "value": statements["method"]}]
    return report | {"vulnerabilities": vulnerabilities}


def license_report(inventory: Json) -> str:
    """One line per component: kind, name, version, licence."""
    lines = ["kind\tname\tversion\tlicense"]
    for one in inventory["components"]:
        stated = one.get("licenses", [{}])[0]
        license_ = stated.get("expression") or next(
            iter(stated.get("license", {"": "see its package"}).values())
        )
        lines.append("\t".join((one["type"], one["name"], one.get("version", ""), license_)))
    return "\n".join(lines) + "\n"


def validate(document: Json, name: str) -> None:
    """Check a document against the official JSON schema.

    Raises: VerificationError.
    """
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document))
    if error is not None:
        raise VerificationError(f"{name}: does not fit the CycloneDX 1.6 schema: {error.data.message[:300]}")


def _document(manifest: Manifest, kind: str) -> Json:
    seed = hashlib.sha256("".join(f"{one.sha256}{one.path}" for one in manifest.files).encode()).hexdigest()
    box = {
        "type": "application",
        "bom-ref": "whis-box",
        "name": manifest.name,
        "version": manifest.version,
        "licenses": [{"license": {"id": "Apache-2.0"}}],
        "properties": [
            {"name": "whis:sequence", "value": str(manifest.sequence)},
            {"name": "whis:source-commit", "value": manifest.source_commit},
        ],
    }
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, kind + seed)}",
        "version": 1,
        "metadata": {"timestamp": manifest.issued_at, "component": box},
    }


def _library(library: Library) -> Json:
    component: Json = {
        "type": "library",
        "bom-ref": f"library:{library.name}",
        "name": library.name,
        "version": library.version,
        "purl": library.purl or f"pkg:pypi/{library.name}@{library.version}",
        "licenses": _licenses(library.license),
    }
    if library.homepage.startswith("http"):
        component["externalReferences"] = [{"type": "website", "url": library.homepage}]
    return component


def _native(path: str, sha256: str) -> Json:
    return {
        "type": "file",
        "bom-ref": f"file:{path}",
        "name": path,
        "hashes": [{"alg": "SHA-256", "content": sha256}],
    }


def _is_native(path: str) -> bool:
    return path.startswith("_internal/") and ".so" in path.rsplit("/", 1)[-1] or path == "whis"


def _made_from(part: LineagePart, manifest: Manifest) -> Json:
    is_model = part.role in ("base", "embedder", "adapter")
    component: Json = {
        "type": "machine-learning-model" if is_model else "data",
        "bom-ref": _reference(part),
        "name": part.name,
        "description": f"{part.role}: {part.note or part.origin}",
        "licenses": _licenses(part.license),
        "properties": [{"name": "whis:origin", "value": part.origin}],
    }
    if part.sha256:
        component["hashes"] = [{"alg": "SHA-256", "content": part.sha256}]
    if not is_model:
        component["data"] = [{"type": "dataset", "name": part.name, "classification": part.role}]
        return component
    component["modelCard"] = card = _model_card(part)
    if part.role == "adapter":
        trained_on = [one for one in manifest.lineage if one.role == "dataset" and one.name in part.origin]
        card["modelParameters"]["datasets"] = [{"ref": _reference(one)} for one in trained_on]
        base = next(one for one in manifest.lineage if one.role == "base")
        component["pedigree"] = {"ancestors": [{"type": "machine-learning-model", "name": base.name}]}
    return component


def _reference(part: LineagePart) -> str:
    return f"{part.role}:{part.name}:{part.license}"


def _model_card(part: LineagePart) -> Json:
    is_embedder = part.role == "embedder"
    return {
        "modelParameters": {
            "task": "sentence-similarity" if is_embedder else "text-generation",
            "inputs": [{"format": "text"}],
            "outputs": [{"format": "vector" if is_embedder else "text"}],
        },
        "considerations": {
            "useCases": ["finding passages" if is_embedder else "choosing among quoted sentences"],
            "technicalLimitations": [
                "small: every sentence it gives is checked against the passage it cites"
            ],
        },
    }


def _licenses(stated: str) -> list[Json]:
    if is_supported_id(stated):
        return [{"license": {"id": stated}}]
    return [{"expression": stated}] if is_expression(stated) else [{"license": {"name": stated}}]
