"""The manifest: every file of a box by path, size and sha256, and the plain SHA256SUMS beside it.

Invariant: a box with a missing, altered, extra or linked file is refused before any of its files is parsed.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path, PurePosixPath

from pydantic import Field, ValidationError

from whis_box.config import describe_validation
from whis_box.errors import NotReadyError, VerificationError, storage_error
from whis_box.paths import file_sha256
from whis_box.schemas import Frozen, Sha256

MANIFEST_NAME = "manifest.json"
SUMS_NAME = "SHA256SUMS"
FORMAT_VERSION = 1
MAX_MANIFEST_BYTES = 16 * 1024 * 1024
_BLOCK_BYTES = 1 << 20


class FileEntry(Frozen):
    """One file; `path` is relative, with forward slashes."""

    path: str = Field(pattern=r"^[^/\\\x00][^\\\x00]*$")
    size_bytes: int = Field(ge=0)
    sha256: Sha256


class Manifest(Frozen):
    """What a box holds and what it was made from."""

    format_version: int
    name: str
    version: str
    source_commit: str
    files: list[FileEntry]

    def sha256_of(self, path: str) -> str:
        """Hash of one listed file.

        Raises: VerificationError if it is not listed.
        """
        for entry in self.files:
            if entry.path == path:
                return entry.sha256
        raise VerificationError(f"{MANIFEST_NAME}: {path} is not listed; build the box again")


def describe_folder(folder: Path) -> list[FileEntry]:
    """Entries for every file of `folder` but the manifest and the sums, in path order."""
    return [
        FileEntry(
            path=path.relative_to(folder).as_posix(), size_bytes=path.stat().st_size, sha256=file_sha256(path)
        )
        for path in _files(folder)
    ]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json and SHA256SUMS into `folder`."""
    sums = "".join(f"{entry.sha256}  {entry.path}\n" for entry in manifest.files)
    for name, text in ((SUMS_NAME, sums), (MANIFEST_NAME, manifest.model_dump_json(indent=1) + "\n")):
        path = folder / name
        try:
            with path.open("w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as cause:
            raise storage_error("write", path, cause) from cause


def read_manifest(folder: Path) -> tuple[Manifest, str]:
    """The manifest and its own sha256.

    Raises: NotReadyError if there is no box; VerificationError if it does not validate; StorageError.
    """
    path = folder / MANIFEST_NAME
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise NotReadyError(
            f"{folder}: no box here ({MANIFEST_NAME} is missing); run `make demo` or name one with --box"
        ) from None
    except OSError as cause:
        raise storage_error("read", path, cause) from cause
    try:
        manifest = Manifest.model_validate_json(raw[:MAX_MANIFEST_BYTES])
    except ValidationError as cause:
        raise VerificationError(describe_validation(str(path), cause)) from None
    if manifest.format_version != FORMAT_VERSION:
        raise VerificationError(
            f"{path}: format {manifest.format_version} is not {FORMAT_VERSION}; use its own program"
        )
    return manifest, hashlib.sha256(raw).hexdigest()


def verify(folder: Path) -> tuple[Manifest, str]:
    """Check every file of a box; the manifest and its sha256.

    Raises: NotReadyError, StorageError; VerificationError naming every file that is wrong.
    """
    manifest, digest = read_manifest(folder)
    problems = [problem for entry in manifest.files if (problem := _check(folder, entry))]
    listed = {entry.path for entry in manifest.files}
    problems += [
        f"{path}: is not in the manifest; remove it"
        for path in _files(folder)
        if path.relative_to(folder).as_posix() not in listed
    ]
    if problems:
        raise VerificationError("\n".join(problems))
    return manifest, digest


def _check(folder: Path, entry: FileEntry) -> str:
    parts = PurePosixPath(entry.path)
    if parts.is_absolute() or ".." in parts.parts:
        return f"{entry.path}: leaves the box; the manifest is not trustworthy"
    path = folder / parts
    if any(step.is_symlink() for step in (path, *path.parents) if folder in step.parents or step == path):
        return f"{path}: is a link; copy the box again"
    if not path.is_file():
        return f"{path}: is missing; copy the box again"
    size = path.stat().st_size
    if size != entry.size_bytes:
        return f"{path}: has {size} bytes, the manifest says {entry.size_bytes}; copy the box again"
    if (actual := file_sha256(path)) != entry.sha256:
        return f"{path}: sha256 is {actual[:16]}…, the manifest says {entry.sha256[:16]}…; copy the box again"
    return ""


def _files(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.is_symlink() or path.is_file())
    return sorted(
        path for path in found if path.relative_to(folder).as_posix() not in (MANIFEST_NAME, SUMS_NAME)
    )
