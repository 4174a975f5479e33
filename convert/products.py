"""Whether a product of the build host is still current.

Invariant: a product is current only if its inputs and its outputs both have the hashes its note recorded.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from whis_box.paths import file_sha256, written_beside

BUILD_DIR = Path(__file__).resolve().parent.parent / "build"


def make_product(name: str, inputs: dict[str, str], outputs: list[Path], make: Callable[[], None]) -> bool:
    """Run `make` unless the product is current; whether it ran.

    `inputs` are digests of everything that shapes the product, its code version among them.
    """
    note = BUILD_DIR / f"{name}.product.json"
    if _recorded(note) == {"inputs": inputs, "outputs": _hashes(outputs)}:
        return False
    make()
    with written_beside(note) as beside:
        beside.write_text(json.dumps({"inputs": inputs, "outputs": _hashes(outputs)}, indent=1))
    return True


def _hashes(outputs: list[Path]) -> dict[str, str]:
    return {path.name: file_sha256(path) if path.is_file() else "missing" for path in outputs}


def _recorded(note: Path) -> object:
    try:
        return json.loads(note.read_text())
    except (OSError, ValueError):
        return None  # no note, or not one of ours: make the product again
