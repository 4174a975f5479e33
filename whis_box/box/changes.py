"""What a content pack would change, for the person who decides.

Invariant: nothing the pack says about itself is believed; the resulting files are made in a temporary folder,
compared with the signed manifest, and read side by side with the installed ones.
"""

from __future__ import annotations

import difflib
import hashlib
import tempfile
from pathlib import Path
from typing import Any

from whis_box.box.headers import check_headers
from whis_box.box.manifest import FileEntry
from whis_box.box.packs import OpenPack, PackSource
from whis_box.errors import VerificationError
from whis_box.knowledge.store import connect

TEXT_SUFFIXES = (".yaml", ".tsv", ".json", ".ndjson", ".md", ".txt")
MAX_DIFF_LINES = 200
MAX_TEXT_BYTES = 4 * 1024 * 1024


def changes(opened: OpenPack, base: Path) -> dict[str, Any]:
    """Files, text differences and records that differ between `base` and the pack's result.

    Raises: VerificationError, StorageError.
    """
    source = PackSource(opened, base)
    changed = [entry for entry in opened.manifest.files if source.twin(entry) is None]
    listed = {entry.path for entry in opened.manifest.files}
    removed = [
        path.relative_to(base).as_posix()
        for path in sorted(base.rglob("*"))
        if path.is_file() and path.relative_to(base).as_posix() not in listed
    ]
    result: dict[str, Any] = {
        "from": opened.pack.base_sequence,
        "to": opened.manifest.sequence,
        "pack_bytes": opened.pack.size_bytes,
        "changed": [entry.path for entry in changed if (base / entry.path).exists()],
        "added": [entry.path for entry in changed if not (base / entry.path).exists()],
        "removed": [one for one in removed if not one.startswith(("manifest.json", "SHA256SUMS"))],
        "texts": {},
        "records": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for entry in changed:
            made = _make(source, entry, Path(folder))
            if made.suffix in TEXT_SUFFIXES and entry.size_bytes <= MAX_TEXT_BYTES:
                result["texts"][entry.path] = _text_difference(base / entry.path, made)
            elif made.suffix == ".sqlite":
                check_headers(Path(folder), opened.manifest.model_copy(update={"files": [entry]}))
                result["records"] = _record_difference(base / entry.path, made)
    return result


def _make(source: PackSource, entry: FileEntry, folder: Path) -> Path:
    made = folder / entry.path
    made.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with made.open("wb") as stream:
        for block in source.blocks(entry):
            digest.update(block)
            stream.write(block)
            if stream.tell() > entry.size_bytes:
                break
    if digest.hexdigest() != entry.sha256:
        raise VerificationError(f"{entry.path}: the pack does not give what its manifest says; get it again")
    return made


def _text_difference(old: Path, new: Path) -> list[str]:
    before = old.read_text(errors="replace").splitlines() if old.is_file() else []
    after = new.read_text(errors="replace").splitlines()
    lines = list(difflib.unified_diff(before, after, lineterm="", n=1))
    if len(lines) > MAX_DIFF_LINES:
        lines = [*lines[:MAX_DIFF_LINES], f"… {len(lines) - MAX_DIFF_LINES} more lines"]
    return lines


def _record_difference(old: Path, new: Path) -> dict[str, list[str]]:
    before, after = (_records(path) if path.is_file() else {} for path in (old, new))
    return {
        "added": [f"{one}: {after[one][1]}" for one in sorted(after.keys() - before.keys())],
        "removed": [f"{one}: {before[one][1]}" for one in sorted(before.keys() - after.keys())],
        "changed": [
            f"{one}: {after[one][1]}"
            for one in sorted(before.keys() & after.keys())
            if before[one][0] != after[one][0]
        ],
    }


def _records(path: Path) -> dict[str, tuple[str, str]]:
    """Record id to its text's hash and a line about it."""
    connection = connect(path)
    rows = connection.execute(
        "select id, body ->> 'sha256_text', body ->> 'title' || ' (' || (body ->> 'license')"
        " || ', TLP:' || (body ->> 'tlp') || ')' from records"
    )
    found = {str(identity): (str(digest), str(about)) for identity, digest, about in rows}
    connection.close()
    return found
