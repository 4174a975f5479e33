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
from whis_box.knowledge.store import describe
from whis_box.paths import file_sha256, read_text


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
    """Each adapter's own manifest.json, as training wrote it."""
    parts = []
    for path in sorted(folder.glob("**/manifest.json")):
        fields = json.loads(read_text(path))
        gate = fields.get("gate", "not run")
        parts.append(
            LineagePart(
                role="adapter",
                name=f"{fields.get('name', path.parent.name)}/{fields.get('version', '')}",
                license=str(fields.get("license", "Apache-2.0")),
                origin=f"dataset {fields.get('dataset', 'unknown')}",
                sha256=file_sha256(path),
                note=f"gate: {gate}",
            )
        )
    return parts


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
