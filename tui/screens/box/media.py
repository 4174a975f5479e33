"""Boxes and packs on mounted media, as far as they say of themselves; nothing here is believed or verified.

Invariant: what is read here is shown and measures a bar; `whis box install` checks every byte itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tui.safe_text import safe_line
from tui.widgets.rows import Column
from tui.words import size

MOUNTS = (Path("/media"), Path("/run/media"), Path("/mnt"))
PACK_NAME, MANIFEST_NAME = "pack.json", "manifest.json"
DEPTH = 4  # /run/media/USER/LABEL/BOX
MAX_FOLDERS, MAX_JSON_BYTES = 2000, 20_000_000


@dataclass(frozen=True)
class Medium:
    """A folder that may be installed, or None for one that the operator types."""

    path: Path | None
    kind: str
    says: str = ""
    size_bytes: int = 0


COLUMNS: list[Column[Medium]] = [
    Column("kind", 6, lambda one: one.kind),
    Column("folder", 0, lambda one: safe_line(str(one.path), 200) if one.path else "another folder…"),
    Column("says of itself", 26, lambda one: one.says, from_width=70),
    Column("size", 9, lambda one: size(one.size_bytes) if one.size_bytes else ""),
]


def find_media(mounts: Sequence[Path] = MOUNTS) -> list[Medium]:
    """What lies on mounted media, in order of path; a folder that cannot be read is passed over."""
    looked_at = map(describe, islice(_folders(mounts), MAX_FOLDERS))
    return [medium for medium in looked_at if medium is not None]


def describe(folder: Path) -> Medium | None:
    """What a folder says of itself; None for one that is neither a box nor a pack."""
    manifest = _read(folder / MANIFEST_NAME)
    if (folder / PACK_NAME).is_file():
        pack = _read(folder / PACK_NAME)
        return Medium(
            folder, "pack", f"from release {_text(pack, 'base_sequence')}", _bytes(pack, "payloads")
        )
    if not manifest:
        return None
    says = f"{_text(manifest, 'name')} {_text(manifest, 'version')}, release {_text(manifest, 'sequence')}"
    return Medium(folder, "box", says, _bytes(manifest, "files"))


def _folders(mounts: Sequence[Path]) -> Iterator[Path]:
    level = [one for one in mounts if one.is_dir()]
    for _ in range(DEPTH):
        below: list[Path] = []
        for folder in level:
            try:
                below += sorted(one for one in folder.iterdir() if one.is_dir() and not one.is_symlink())
            except OSError:
                continue  # not ours to look into
        yield from below
        level = [one for one in below if not (one / MANIFEST_NAME).exists()]


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            return {}
        held = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return held if isinstance(held, dict) else {}


def _text(fields: dict[str, Any], name: str) -> str:
    return safe_line(str(fields.get(name, "?")), 40)


def _bytes(fields: dict[str, Any], name: str) -> int:
    entries = fields.get(name)
    sizes = (
        [one.get("size_bytes") for one in entries if isinstance(one, dict)]
        if isinstance(entries, list)
        else []
    )
    return sum(one for one in sizes if isinstance(one, int))
