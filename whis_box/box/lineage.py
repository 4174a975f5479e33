"""What a box was made from: models from the lock file, sources from the index, adapters, catalogue, policy.

Invariant: each line is read from the file it speaks of, at the moment the box is put together.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from whis_box.box.manifest import LineagePart
from whis_box.config import BoxConfig
from whis_box.errors import ConfigError
from whis_box.gates import GATE_FILE, read_gate
from whis_box.knowledge.store import describe
from whis_box.paths import file_sha256, read_text, repository_root

LINEAGE_NAME = "lineage.json"
CARD_NAME = "README.md"
DATASETS = repository_root() / "data" / "datasets"


def lineage(folder: Path, models_lock: Path, config: BoxConfig) -> list[LineagePart]:
    """The parts of the box that lies in `folder`.

    Raises: NotReadyError, ConfigError, StorageError, VerificationError.
    """
    catalogue = folder / config.catalogue
    parts = [*_models(models_lock), *_adapters(folder / "adapters"), *_sources(folder / config.index)]
    parts.append(
        LineagePart(
            role="catalogue",
            name=config.catalogue.name,
            license="LicenseRef-MITRE-ATTACK",
            origin="MITRE ATT&CK Enterprise, identifiers and names",
            sha256=file_sha256(catalogue),
        )
    )
    policy = folder / "configs" / "policy.yaml"
    if policy.is_file():
        parts.append(
            LineagePart(
                role="policy",
                name=policy.name,
                license="Apache-2.0",
                origin="configs/policy.yaml",
                sha256=file_sha256(policy),
            )
        )
    return parts


def _models(path: Path) -> list[LineagePart]:
    """The default base and embedder of configs/models.lock.yaml."""
    try:
        lock = yaml.safe_load(read_text(path))
        wanted = {lock["default_base"]: "base", lock["default_embedder"]: "embedder"}
        listed = {model["name"]: model for model in lock["models"]}
        return [_model(role, listed[name]) for name, role in wanted.items()]
    except (yaml.YAMLError, KeyError, TypeError, IndexError) as cause:
        raise ConfigError(f"{path}: the default models cannot be read from it: {cause}") from None


def _model(role: str, fields: dict[str, Any]) -> LineagePart:
    weights, source = fields["files"][0], fields["source"]
    made_to = f"quantized to {fields['quantize']}" if fields.get("quantize") else "exported to int8 ONNX"
    return LineagePart(
        role=role,
        name=fields["name"],
        license=fields["license"],
        origin=_origin(source),
        sha256=weights["sha256"],
        note=f"{weights['name']}, {made_to}, context {fields['n_ctx']} tokens",
    )


def _origin(source: dict[str, Any]) -> str:
    if source["kind"] == "wheel":
        return str(source["requirement"])
    return str(source["path"] if source["kind"] == "folder" else f"{source['id']}@{source['revision']}")


def _adapters(folder: Path) -> list[LineagePart]:
    """Each adapter with its gate, and the dataset it says it was trained on."""
    parts: dict[str, LineagePart] = {}
    for weights in sorted(folder.glob("*/*/*.gguf")):
        fields = _fields(weights.parent / LINEAGE_NAME)
        name = f"{weights.parent.parent.name}/{weights.parent.name}"
        parts[f"adapter {name}"] = LineagePart(
            role="adapter",
            name=name,
            license=str(fields.get("license", "Apache-2.0")),
            origin=f"dataset {_said(fields, 'dataset')}, base {_said(fields, 'base_sha256')}",
            sha256=file_sha256(weights),
            note=f"gate: {_gate(weights.parent / GATE_FILE)}",
        )
        if "dataset" in fields:
            parts[f"dataset {fields['dataset_sha256']}"] = _dataset(fields)
    return list(parts.values())


def _gate(path: Path) -> str:
    """What the adapter's gate file says.

    Raises: VerificationError for a damaged one.
    """
    if not path.is_file():
        return "none, so it may not be promoted"
    gate = read_gate(path)
    return f"{'passed' if gate.passed else 'refused'} {gate.created_at}, {len(gate.rows)} rules"


def _dataset(fields: dict[str, Any]) -> LineagePart:
    """The dataset behind an adapter; its licences where it is still here under the same hash."""
    name, sha256 = str(fields["dataset"]), str(fields["dataset_sha256"])
    present = _fields(DATASETS / name / "manifest.json")
    licenses = sorted(present["records_by_license"]) if present.get("sha256") == sha256 else []
    counts = f"{fields['n_samples']} samples, {fields['n_tokens']} tokens"
    stated = " AND ".join(licenses) or "not stated"
    return LineagePart(
        role="dataset", name=name, license=stated, origin="train.dataset", sha256=sha256, note=counts
    )


def _said(fields: dict[str, Any], name: str) -> str:
    return str(fields.get(name, "not stated"))


def _fields(path: Path) -> dict[str, Any]:
    """A JSON object, empty where there is no file."""
    found: dict[str, Any] = json.loads(read_text(path)) if path.is_file() else {}
    return found


def _sources(index: Path) -> list[LineagePart]:
    sources: Any = describe(index)["sources"]
    return [
        LineagePart(
            role="source",
            name=one["name"],
            license=one["license"],
            origin=one["pipeline"],
            note=f"{one['records']} records, {one['characters']} characters",
        )
        for one in sources
    ]
