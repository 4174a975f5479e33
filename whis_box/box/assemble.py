"""Putting a box together from its parts.

Invariant: the folder appears under its name only when it is complete; an unchanged box is left alone.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from whis_box import __version__
from whis_box.box.manifest import FORMAT_VERSION, FileEntry, Manifest, describe_folder, verify, write_manifest
from whis_box.config import BoxConfig
from whis_box.errors import NotReadyError, WhisError, storage_error
from whis_box.guards.gate import FILES as GUARD_FILES
from whis_box.knowledge.codes import SUFFIX
from whis_box.paths import file_sha256, source_commit

CONFIG_NAMES = ("box.yaml", "model.whis.yaml", "rag.yaml", "policy.yaml")


@dataclass(frozen=True)
class BoxParts:
    """Where the parts of a box come from."""

    base_model: Path
    embedder: Path
    index: Path
    configs: Path
    catalogue: Path
    license: Path
    guards: Path


def assemble(parts: BoxParts, target: Path, config: BoxConfig) -> tuple[Manifest, bool]:
    """Copy the parts into `target` with a manifest; True when something changed.

    Raises: NotReadyError if a part is missing; StorageError.
    """
    layout = _layout(parts, config)
    for source in layout.values():
        if not source.exists():
            raise NotReadyError(f"{source}: a part of the box is missing; run `make demo`")
    building = target.with_name(f".{target.name}.building")
    try:
        present = _verified(target)
        if present is not None and present.files == _describe(layout):
            return present, False
        shutil.rmtree(building, ignore_errors=True)
        for place, source in layout.items():
            _copy(source, building / place)
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            name="whis-box",
            version=__version__,
            source_commit=source_commit(),
            files=describe_folder(building),
        )
        write_manifest(building, manifest)
        _swap(building, target)
    except OSError as cause:
        raise storage_error("assemble the box", target, cause) from cause
    return manifest, True


def _layout(parts: BoxParts, config: BoxConfig) -> dict[Path, Path]:
    layout = {
        config.base_model: parts.base_model,
        config.embedder: parts.embedder,
        config.index: parts.index,
        config.catalogue: parts.catalogue,
        Path("LICENSE"): parts.license,
    }
    codes = parts.index.parent.glob(f"{parts.index.name}.*{SUFFIX}")
    layout |= {
        config.index.parent / one.name.replace(parts.index.name, config.index.name): one for one in codes
    }
    layout |= {config.guards / name: parts.guards / name for name in GUARD_FILES}
    return layout | {Path("configs") / name: parts.configs / name for name in CONFIG_NAMES}


def _copy(source: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, place)
    else:
        shutil.copyfile(source, place)


def _describe(layout: dict[Path, Path]) -> list[FileEntry]:
    """What the box would hold, without copying it."""
    entries = []
    for place, source in layout.items():
        if source.is_dir():
            inside = describe_folder(source)
            entries += [one.model_copy(update={"path": f"{place.as_posix()}/{one.path}"}) for one in inside]
        else:
            size, digest = source.stat().st_size, file_sha256(source)
            entries.append(FileEntry(path=place.as_posix(), size_bytes=size, sha256=digest))
    return sorted(entries, key=lambda one: Path(one.path))


def _verified(target: Path) -> Manifest | None:
    """The box that is there, None if there is none or it is damaged: then it is built anew."""
    try:
        return verify(target)[0]
    except WhisError:
        return None


def _swap(building: Path, target: Path) -> None:
    retired = target.with_name(f".{target.name}.retired")
    shutil.rmtree(retired, ignore_errors=True)
    if target.exists():
        target.rename(retired)
    building.rename(target)
    shutil.rmtree(retired, ignore_errors=True)
