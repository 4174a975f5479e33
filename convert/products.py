"""Hashes, safe writes, and whether a product is still current.

Invariant: a product is current only if its inputs and its outputs both have the hashes its note recorded.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from whis_box.errors import NotReadyError, storage_error

BUILD_DIR = Path(__file__).resolve().parent.parent / "build"


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file, streamed.

    Raises: NotReadyError if it is missing; StorageError.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        raise NotReadyError(f"{path}: missing; run `make models`") from None
    except OSError as cause:
        raise storage_error("read", path, cause) from cause


@contextmanager
def written_beside(target: Path) -> Iterator[Path]:
    """A temporary path in `target`'s folder that is renamed onto `target` when the block succeeds.

    Raises: StorageError for anything the file system refuses.
    """
    beside: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
        beside = Path(name)
        yield beside
        with beside.open("rb+") as stream:
            os.fsync(stream.fileno())
        beside.chmod(0o644)
        beside.replace(target)
    except OSError as cause:
        raise storage_error("write", target, cause) from cause
    finally:
        if beside is not None:
            beside.unlink(missing_ok=True)


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
