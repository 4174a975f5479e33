"""What is evaluated: a box as it is, or the same box with another adapter, index, base or configs.

    box                     the box itself, with its base alone (also: base)
    adapter:FILE.gguf       the box with that LoRA adapter; NAME@VERSION finds it in train/adapters
    index:FILE.sqlite       the box with another index; base:FILE.gguf another base; configs:DIR other configs
    box:DIR                 another box

Invariant: a variant is a box of its own, assembled and verified like any other, so its digests are real.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from whis_box.box.assemble import BoxParts, assemble
from whis_box.box.selftest import SELF_TEST_NAME
from whis_box.config import BoxConfig, load_config
from whis_box.errors import InputError, NotReadyError
from whis_box.paths import repository_root

_NAMED = re.compile(r"^(?P<name>[\w.-]+)@(?P<version>[\w.-]+)$")
KINDS = ("adapter", "index", "base", "configs", "box")


@dataclass(frozen=True)
class Subject:
    """A box folder and the adapter over its base."""

    name: str
    box: Path
    adapter: Path | None = None


def parse_subject(text: str, box: Path, work: Path) -> Subject:
    """The subject that `text` names; a variant is assembled below `work`.

    Raises: InputError for an unknown form; NotReadyError for a missing file; as `assemble`.
    """
    if text in ("box", "base"):
        return Subject(text, box)
    if named := _NAMED.match(text):
        return Subject(text, box, _adapter_file(named["name"], named["version"]))
    kind, separator, rest = text.partition(":")
    if not separator or kind not in KINDS:
        raise InputError(f"{text!r} is no subject; say base, NAME@VERSION or one of {', '.join(KINDS)}:PATH")
    path = Path(rest)
    if not path.exists():
        raise NotReadyError(f"{path}: missing; name a file or folder that exists after {kind}:")
    if kind == "box":
        return Subject(text, path)
    if kind == "adapter":
        return Subject(text, box, path)
    return Subject(text, _variant(kind, path, box, work))


def _adapter_file(name: str, version: str) -> Path:
    folder = repository_root() / "train" / "adapters" / name / version
    found = sorted(folder.glob("*.gguf"))
    if len(found) != 1:
        raise NotReadyError(f"{folder}: holds {len(found)} GGUF files, must hold one; convert the adapter")
    return found[0]


def _variant(kind: str, path: Path, box: Path, work: Path) -> Path:
    """The box with one part replaced, in a folder named after what it was made from."""
    config = load_config(box / "configs" / "box.yaml", BoxConfig)
    parts = BoxParts(
        base_model=path if kind == "base" else box / config.base_model,
        embedder=box / config.embedder,
        index=path if kind == "index" else box / config.index,
        configs=path if kind == "configs" else box / "configs",
        catalogue=box / config.catalogue,
        license=box / "LICENSE",
        guards=box / config.guards,
        self_test=box / SELF_TEST_NAME,
    )
    name = hashlib.sha256(f"{box.resolve()}\0{kind}\0{path.resolve()}".encode()).hexdigest()[:12]
    target = work / f"{kind}-{name}"
    assemble(parts, target, config)
    return target
