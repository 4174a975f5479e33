"""What can be rolled out: a release is one adapter and one index, each by name@version.

Invariant: a file is known by its sha256; an adapter or index in the state folder is only offered with its
gate file beside it, or as what the box itself was built with.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from whis_box.errors import InputError, NotReadyError, WhisError
from whis_box.gates import GATE_FILE, GateFile, read_gate, require_gate
from whis_box.paths import file_sha256
from whis_box.schemas import Frozen, Lineage

REFERENCE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*@[A-Za-z0-9][A-Za-z0-9._-]*$")
BASE = "base@box"
BOX_INDEX = "index@box"


class Release(Frozen):
    """One adapter and one index that answer together."""

    adapter: str = Field(BASE, pattern=REFERENCE.pattern)
    index: str = Field(BOX_INDEX, pattern=REFERENCE.pattern)

    def __str__(self) -> str:
        return f"{self.adapter} on {self.index}"


class Artifact(Frozen):
    """One adapter or index on this host; `path` is empty for the base without adapter."""

    reference: str
    path: str
    sha256: str
    origin: str
    """`box` or `state`."""
    gate_path: str = ""
    """Where its gate file is, or would be."""


class Shelf:
    """The adapters and indexes of one box and one state folder; `lineage` is the box's own."""

    def __init__(self, adapters: list[Artifact], indexes: list[Artifact], lineage: Lineage) -> None:
        self.adapters = {one.reference: one for one in adapters}
        self.indexes = {one.reference: one for one in indexes}
        self._lineage = lineage

    def lineage_of(self, release: Release) -> Lineage:
        """What an answer of `release` carries, and what its gate must name.

        Raises: NotReadyError.
        """
        self.check(release)
        adapter, index = self.adapters[release.adapter], self.indexes[release.index]
        return self._lineage.model_copy(update={"adapter": adapter.sha256, "index": index.sha256})

    def check(self, release: Release) -> None:
        """Refuse a release that this host does not hold.

        Raises: NotReadyError naming what it does hold.
        """
        for kind, wanted, held in (
            ("adapter", release.adapter, self.adapters),
            ("index", release.index, self.indexes),
        ):
            if wanted not in held:
                raise NotReadyError(
                    f"{kind} {wanted} is not on this host; it holds {', '.join(sorted(held))}: "
                    "install its pack first"
                )

    def gate_problem(self, release: Release) -> str:
        """Why `release` may not become stable, or "" when a passed gate names exactly these files.

        The box as it was built needs none: it was gated before it was signed.
        """
        if release == Release():
            return ""
        held = self.adapters[release.adapter] if release.adapter != BASE else self.indexes[release.index]
        try:
            require_gate(Path(held.gate_path), self.lineage_of(release))
        except WhisError as error:
            return str(error)
        return ""


def gate_of(artifact: Artifact) -> GateFile | None:
    """The artifact's gate file, None if there is none or it was altered."""
    try:
        return read_gate(Path(artifact.gate_path)) if artifact.gate_path else None
    except WhisError:
        return None


def read_shelf(box: Path, state: Path, index_path: Path, lineage: Lineage) -> Shelf:
    """Everything below `box/adapters`, `state/adapters` and `state/indexes`, with its digests.

    Raises: StorageError.
    """
    adapters = [Artifact(reference=BASE, path="", sha256="none", origin="box")]
    adapters += [*_found(box / "adapters", "*.gguf", "box"), *_found(state / "adapters", "*.gguf", "state")]
    indexes = [Artifact(reference=BOX_INDEX, path=str(index_path), sha256=lineage.index, origin="box")]
    indexes += _found(state / "indexes", "*.sqlite", "state")
    return Shelf(adapters, indexes, lineage)


def parse_reference(text: str, what: str) -> str:
    """`name@version`, checked.

    Raises: InputError.
    """
    if not REFERENCE.match(text):
        raise InputError(f"{what} {text[:80]!r} is not name@version, like soc-triage@3")
    return text


def _found(folder: Path, pattern: str, origin: str) -> Iterator[Artifact]:
    """`folder/NAME/VERSION/*.gguf`, one file a version."""
    for path in sorted(folder.glob(f"*/*/{pattern}")):
        reference = f"{path.parent.parent.name}@{path.parent.name}"
        if REFERENCE.match(reference):
            yield Artifact(
                reference=reference,
                path=str(path),
                sha256=file_sha256(path),
                origin=origin,
                gate_path=str(path.parent / GATE_FILE),
            )
