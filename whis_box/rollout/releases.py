"""What can be rolled out: a release is one adapter and one index, each by name@version.

Invariant: a file is known by its sha256; an adapter or index in the state folder is only offered with its
gate file beside it, or as what the box itself was built with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from whis_box.config import describe_validation
from whis_box.errors import ConfigError, InputError, NotReadyError
from whis_box.paths import file_sha256, read_text
from whis_box.schemas import Frozen

REFERENCE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*@[A-Za-z0-9][A-Za-z0-9._-]*$")
BASE = "base@box"
BOX_INDEX = "index@box"
GATE_NAME = "gate.json"


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
    gate: dict[str, Any] | None = None


class Shelf:
    """The adapters and indexes of one box and one state folder."""

    def __init__(self, adapters: list[Artifact], indexes: list[Artifact]) -> None:
        self.adapters = {one.reference: one for one in adapters}
        self.indexes = {one.reference: one for one in indexes}

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
        """Why `release` may not become stable, or "" when a passed gate names exactly these files."""
        self.check(release)
        adapter, index = self.adapters[release.adapter], self.indexes[release.index]
        if release == Release():
            return ""
        carrier = adapter if release.adapter != BASE else index
        gate = carrier.gate
        where = f"{carrier.reference}: {GATE_NAME}"
        if gate is None:
            return f"{where} is missing; run `whis eval gate` on the build host and bring it along"
        if gate.get("passed") is not True:
            return f"{where}: passed is {gate.get('passed')!r}; only a passed gate promotes"
        for field, artifact in (("adapter_sha256", adapter), ("index_sha256", index)):
            if gate.get(field) != artifact.sha256:
                named = str(gate.get(field))[:12]
                return f"{where}: {field} is {named}, this host holds {artifact.sha256[:12]}; gate this pair"
        return ""


def read_shelf(box: Path, state: Path, index_path: Path, index_sha256: str) -> Shelf:
    """Everything below `box/adapters`, `state/adapters` and `state/indexes`, with its digests.

    Raises: StorageError, ConfigError for a gate file that is not JSON.
    """
    adapters = [Artifact(reference=BASE, path="", sha256="none", origin="box")]
    adapters += [*_found(box / "adapters", "*.gguf", "box"), *_found(state / "adapters", "*.gguf", "state")]
    indexes = [Artifact(reference=BOX_INDEX, path=str(index_path), sha256=index_sha256, origin="box")]
    indexes += _found(state / "indexes", "*.sqlite", "state")
    return Shelf(adapters, indexes)


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
                gate=_gate(path.parent / GATE_NAME),
            )


def _gate(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        gate = json.loads(read_text(path))
        return Artifact(reference="x@y", path="", sha256="", origin="", gate=gate).gate
    except ValidationError as cause:
        raise ConfigError(describe_validation(str(path), cause)) from None
    except ValueError as cause:
        raise ConfigError(f"{path}: not valid JSON ({cause}); copy the pack again") from None
