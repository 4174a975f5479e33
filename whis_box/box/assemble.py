"""Putting a box together from its parts.

Invariant: the folder appears under its name only when it is complete; an unchanged box is left alone.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from whis_box import __version__
from whis_box.box.install import this_platform
from whis_box.box.lineage import CARD_NAME, LINEAGE_NAME, lineage
from whis_box.box.manifest import (
    FORMAT_VERSION,
    FileEntry,
    Manifest,
    describe_file,
    describe_folder,
    verify,
    write_manifest,
)
from whis_box.box.sbom import write_sbom
from whis_box.box.selftest import SELF_TEST_NAME
from whis_box.box.trust import TRUST_FOLDER
from whis_box.config import BoxConfig
from whis_box.errors import InputError, NotReadyError, WhisError, storage_error
from whis_box.gates import GATE_FILE
from whis_box.guards.gate import FILES as GUARD_FILES
from whis_box.guards.output import MAKE_LEAKS, leak_file
from whis_box.knowledge.codes import SUFFIX
from whis_box.paths import source_commit

CONFIG_NAMES = ("box.yaml", "model.whis.yaml", "rag.yaml", "policy.yaml", "server.yaml", "rollout.yaml")
PROGRAM_NAME = "whis"


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
    self_test: Path
    program: Path | None = None
    """Folder of the frozen program; without it the box needs a Python with Whis Box."""
    trust: Path | None = None
    """Folder of root files, so that an installed box learns newer keys."""
    adapters: tuple[Path, ...] = ()
    """Folders NAME/VERSION: one GGUF, its list of leaks; its gate, lineage and card where it has them."""


@dataclass(frozen=True)
class Release:
    """A box's place in time; sequence 0 is a box for this machine only."""

    sequence: int = 0
    issued_at: str = ""
    valid_days: int = 365

    def expires_at(self) -> str:
        """Empty for an unreleased box.

        Raises: InputError if `issued_at` is not a UTC time.
        """
        if not self.sequence:
            return ""
        try:
            issued_at = datetime.fromisoformat(self.issued_at)
        except ValueError:
            raise InputError(f"issued at {self.issued_at!r}: not a time like 2026-01-31T00:00:00Z") from None
        return (issued_at + timedelta(days=self.valid_days)).strftime("%Y-%m-%dT%H:%M:%SZ")


def assemble(
    parts: BoxParts, target: Path, config: BoxConfig, release: Release | None = None
) -> tuple[Manifest, bool]:
    """Copy the parts into `target` with a manifest; True when something changed.

    Raises: NotReadyError if a part is missing; InputError; StorageError.
    """
    release = release or Release()
    layout = _layout(parts, config)
    for source in layout.values():
        if not source.exists():
            raise NotReadyError(f"{source}: a part of the box is missing; run `make demo`")
    building = target.with_name(f".{target.name}.building")
    try:
        present = _verified(target)
        if not release.sequence and present is not None and present.files == _describe(layout):
            return present, False
        shutil.rmtree(building, ignore_errors=True)
        for place, source in layout.items():
            _copy(source, building / place)
        manifest = _manifest(building, parts, config, release)
        write_manifest(building, manifest)
        _swap(building, target)
    except OSError as cause:
        raise storage_error("assemble the box", target, cause) from cause
    return manifest, True


def _manifest(building: Path, parts: BoxParts, config: BoxConfig, release: Release) -> Manifest:
    made_from = lineage(building, parts.configs / "models.lock.yaml", config) if release.sequence else []
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        name="whis-box",
        version=__version__,
        source_commit=source_commit(),
        sequence=release.sequence,
        issued_at=release.issued_at if release.sequence else "",
        expires_at=release.expires_at(),
        platform=this_platform() if parts.program else "",
        lineage=made_from,
        files=describe_folder(building),
    )
    if release.sequence:  # a released box says what is inside; the inventory itself is then one more file
        write_sbom(building, manifest)
        manifest = manifest.model_copy(update={"files": describe_folder(building)})
    return manifest


def _layout(parts: BoxParts, config: BoxConfig) -> dict[Path, Path]:
    layout = {
        config.base_model: parts.base_model,
        config.embedder: parts.embedder,
        config.index: parts.index,
        config.catalogue: parts.catalogue,
        Path("LICENSE"): parts.license,
        Path(SELF_TEST_NAME): parts.self_test,
    }
    codes = parts.index.parent.glob(f"{parts.index.name}.*{SUFFIX}")
    layout |= {
        config.index.parent / one.name.replace(parts.index.name, config.index.name): one for one in codes
    }
    layout |= {config.guards / name: parts.guards / name for name in GUARD_FILES}
    for folder in parts.adapters:
        place = Path("adapters") / folder.absolute().parent.name / folder.name
        layout |= {place / one.name: one for one in _adapter_files(folder)}
    if parts.program is not None:
        layout |= {Path(one.name): one for one in sorted(parts.program.iterdir())}
        layout |= {Path(PROGRAM_NAME): parts.program / PROGRAM_NAME}
    if parts.trust is not None:
        layout |= {Path(TRUST_FOLDER): parts.trust}
    return layout | {Path("configs") / name: parts.configs / name for name in CONFIG_NAMES}


def _adapter_files(folder: Path) -> list[Path]:
    """What goes into the box of a published adapter.

    Raises: NotReadyError when a file is missing; an adapter without its list would not be opened.
    """
    weights = sorted(folder.absolute().glob("*.gguf"))
    if len(weights) != 1:
        raise NotReadyError(
            f"{folder}: holds {len(weights)} GGUF files, must hold one; run `python -m train.publish`"
        )
    leaks = leak_file(weights[0])
    if not leaks.exists():
        raise NotReadyError(
            f"{leaks}: missing, so nothing would keep the adapter from reciting; {MAKE_LEAKS}"
        )
    about = [folder.absolute() / name for name in (GATE_FILE, LINEAGE_NAME, CARD_NAME)]
    return [weights[0], leaks, *(one for one in about if one.exists())]


def _copy(source: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, place)
    else:
        shutil.copy(source, place)


def _describe(layout: dict[Path, Path]) -> list[FileEntry]:
    """What the box would hold, without copying it."""
    entries = []
    for place, source in layout.items():
        if source.is_dir():
            inside = describe_folder(source)
            entries += [one.model_copy(update={"path": f"{place.as_posix()}/{one.path}"}) for one in inside]
        else:
            entries.append(describe_file(source, place.as_posix()))
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
