"""The manifest: every file of a box by path, size and sha256, what it was made from, and its place in time.

Invariant: a box with a missing, altered, extra or linked file is refused before any of its files is parsed;
where a key is known, before the manifest itself is parsed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError

from whis_box.box import minisign
from whis_box.box.minisign import SIGNATURE_SUFFIX, PublicKey, SecretKey
from whis_box.config import describe_validation
from whis_box.durable import Disk, write_file
from whis_box.errors import NotReadyError, VerificationError, storage_error
from whis_box.paths import file_sha256
from whis_box.schemas import Frozen, Sha256

MANIFEST_NAME = "manifest.json"
SUMS_NAME = "SHA256SUMS"
UNLISTED = tuple(name + end for name in (MANIFEST_NAME, SUMS_NAME) for end in ("", SIGNATURE_SUFFIX))
FORMAT_VERSION = 2
MAX_MANIFEST_BYTES = 16 * 1024 * 1024
MAX_FILES = 100_000
MAX_FILE_BYTES = 1 << 46
MAX_PATH_CHARS = 1024
_WINDOWS_LIKE = re.compile(r"[\\\x00-\x1f\x7f]")

Progress = Callable[[str, int], None]


def _safe_path(path: str) -> str:
    parts = PurePosixPath(path).parts
    if _WINDOWS_LIKE.search(path) or path.startswith("/") or ".." in parts:
        raise ValueError(f"{path!r} leaves the box or cannot be a file name; the manifest is not trustworthy")
    if "/".join(parts) != path or path in UNLISTED:
        raise ValueError(f"{path!r} is not the plain form of a path inside the box")
    return path


def _utc(text: str) -> str:
    if text and not text.endswith("Z"):
        raise ValueError(f"{text!r} is not a time in UTC, like 2026-01-31T00:00:00Z")
    if text:
        datetime.fromisoformat(text)
    return text


SafePath = Annotated[str, Field(min_length=1, max_length=MAX_PATH_CHARS), AfterValidator(_safe_path)]
UtcTime = Annotated[str, AfterValidator(_utc)]


class FileEntry(Frozen):
    """One file; `path` is relative, with forward slashes."""

    path: SafePath
    size_bytes: int = Field(ge=0, le=MAX_FILE_BYTES)
    sha256: Sha256
    executable: bool = False


class LineagePart(Frozen):
    """One thing the box was made from: a model, an adapter, a source of the index, a policy."""

    role: str
    """base, embedder, adapter, dataset, source, catalogue or policy."""
    name: str
    license: str
    origin: str
    """Where it came from: a requirement, a revision, an address."""
    sha256: str = ""
    """Hash at its origin, where one file is meant."""
    note: str = ""
    """Counts, gates and what else an auditor asks for."""


class Manifest(Frozen):
    """What a box holds, what it was made from, and which box it replaces."""

    format_version: int
    name: str
    version: str
    source_commit: str
    sequence: int = Field(0, ge=0, le=2**53)
    """Grows with every release; an installed box never goes back by itself. 0 is an unreleased box."""
    issued_at: UtcTime = ""
    expires_at: UtcTime = ""
    platform: str = ""
    """Operating system and CPU family of the program inside, empty when there is none."""
    lineage: list[LineagePart] = Field(default_factory=list)
    files: list[FileEntry] = Field(max_length=MAX_FILES)

    def sha256_of(self, path: str) -> str:
        """Hash of one listed file.

        Raises: VerificationError if it is not listed.
        """
        return self.entry(path).sha256

    def entry(self, path: str) -> FileEntry:
        """One listed file.

        Raises: VerificationError if it is not listed.
        """
        for entry in self.files:
            if entry.path == path:
                return entry
        raise VerificationError(f"{MANIFEST_NAME}: {path} is not listed; build the box again")

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(entry.size_bytes for entry in self.files)


def describe_folder(folder: Path) -> list[FileEntry]:
    """Entries for every file of `folder` but the manifest, the sums and their signatures, in path order."""
    return [describe_file(path, path.relative_to(folder).as_posix()) for path in _files(folder)]


def describe_file(source: Path, path: str) -> FileEntry:
    """The entry of one file that lies at `source`."""
    status = source.stat()
    return FileEntry(
        path=path,
        size_bytes=status.st_size,
        sha256=file_sha256(source),
        executable=bool(status.st_mode & stat.S_IXUSR),
    )


def manifest_bytes(manifest: Manifest) -> bytes:
    """The file's bytes."""
    return (manifest.model_dump_json(indent=1) + "\n").encode()


def sums_bytes(manifest: Manifest, digest: str) -> bytes:
    """What `sha256sum -c` reads: every file and the manifest."""
    lines = [f"{entry.sha256}  {entry.path}\n" for entry in manifest.files]
    return "".join([*lines, f"{digest}  {MANIFEST_NAME}\n"]).encode()


def write_manifest(
    folder: Path, manifest: Manifest, key: SecretKey | None = None, disk: Disk | None = None
) -> None:
    """Write manifest.json and SHA256SUMS into `folder`, each with its signature when a key is given.

    Raises: StorageError.
    """
    disk = disk or Disk()
    raw = manifest_bytes(manifest)
    digest = hashlib.sha256(raw).hexdigest()
    for name, content in ((SUMS_NAME, sums_bytes(manifest, digest)), (MANIFEST_NAME, raw)):
        write_file(disk, folder / name, [content])
        if key is not None:
            signature = key.sign(content, signed_comment(manifest, digest), name)
            write_file(disk, folder / (name + SIGNATURE_SUFFIX), [signature.encode()])


def signed_comment(manifest: Manifest, digest: str) -> str:
    """What both signatures say beside the bytes they cover."""
    return f"{manifest.name} {manifest.version} sequence {manifest.sequence} manifest sha256 {digest}"


def read_manifest(folder: Path, keys: list[PublicKey] | None = None) -> tuple[Manifest, str]:
    """The manifest and its own sha256; with `keys`, its signature is checked before it is parsed.

    Raises: NotReadyError if there is no box; VerificationError if it does not validate; StorageError.
    """
    path = folder / MANIFEST_NAME
    raw = read_bounded(path, MAX_MANIFEST_BYTES)
    if raw is None:
        raise NotReadyError(
            f"{folder}: no box here ({MANIFEST_NAME} is missing); run `make demo` or name one with --box"
        )
    comment = _checked_comment(path, raw, keys) if keys is not None else None
    manifest = parse_manifest(raw, path)
    digest = hashlib.sha256(raw).hexdigest()
    if keys is not None:
        expected = signed_comment(manifest, digest)
        sums = read_bounded(folder / SUMS_NAME, MAX_MANIFEST_BYTES) or b""
        if {comment, _checked_comment(folder / SUMS_NAME, sums, keys)} != {expected}:
            raise VerificationError(
                f"{path}: its signature says {comment!r}, it should say {expected!r}; get the box again"
            )
    return manifest, digest


def parse_manifest(raw: bytes, path: Path) -> Manifest:
    """Bounded, strict JSON: no duplicate key, no unknown key, no path twice.

    Raises: VerificationError.
    """
    try:
        fields = json.loads(raw, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
        manifest = Manifest.model_validate(fields, strict=True)
    except ValidationError as cause:
        version = fields.get("format_version") if isinstance(fields, dict) else None
        if isinstance(version, int) and version != FORMAT_VERSION:
            raise VerificationError(
                f"{path}: format {version} is not {FORMAT_VERSION}; use its own program"
            ) from None
        raise VerificationError(describe_validation(str(path), cause)) from None
    except (ValueError, RecursionError) as cause:
        raise VerificationError(f"{path}: not valid JSON: {cause}; copy the box again") from None
    if manifest.format_version != FORMAT_VERSION:
        raise VerificationError(
            f"{path}: format {manifest.format_version} is not {FORMAT_VERSION}; use its own program"
        )
    paths = [entry.path for entry in manifest.files]
    if len({one.casefold() for one in paths}) != len(paths):
        raise VerificationError(f"{path}: a path is listed twice; the manifest is not trustworthy")
    return manifest


def verify(
    folder: Path, keys: list[PublicKey] | None = None, progress: Progress | None = None
) -> tuple[Manifest, str]:
    """Check every file of a box; the manifest and its sha256.

    Raises: NotReadyError, StorageError; VerificationError naming every file that is wrong.
    """
    manifest, digest = read_manifest(folder, keys)
    problems = []
    if read_bounded(folder / SUMS_NAME, MAX_MANIFEST_BYTES) != sums_bytes(manifest, digest):
        problems.append(f"{folder / SUMS_NAME}: does not say what the manifest says; copy the box again")
    for entry in manifest.files:
        if problem := check_file(folder, entry):
            problems.append(problem)
        if progress is not None:
            progress(entry.path, entry.size_bytes)
    problems += _extras(folder, manifest, signed=keys is not None)
    if problems:
        raise VerificationError("\n".join(problems))
    return manifest, digest


def check_file(folder: Path, entry: FileEntry) -> str:
    """What is wrong with one listed file, empty when nothing is; it is opened once, never through a link."""
    path = folder / entry.path
    if any(step.is_symlink() for step in (path, *path.parents) if folder in step.parents or step == path):
        return f"{path}: is a link; copy the box again"
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return f"{path}: is missing; copy the box again"
    except OSError as cause:
        raise storage_error("read", path, cause) from cause
    with os.fdopen(handle, "rb") as stream:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            return f"{path}: is not a plain file; copy the box again"
        if status.st_size != entry.size_bytes:
            sizes = f"has {status.st_size} bytes, the manifest says {entry.size_bytes}"
            return f"{path}: {sizes}; copy the box again"
        try:
            actual = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as cause:
            raise storage_error("read", path, cause) from cause
    if actual != entry.sha256:
        return f"{path}: sha256 is {actual[:16]}…, the manifest says {entry.sha256[:16]}…; copy the box again"
    return ""


def _extras(folder: Path, manifest: Manifest, signed: bool) -> list[str]:
    listed = {entry.path for entry in manifest.files}
    extras = [path for path in _files(folder) if path.relative_to(folder).as_posix() not in listed]
    expected = UNLISTED if signed else (MANIFEST_NAME, SUMS_NAME)
    missing = [name for name in expected if (folder / name).is_symlink() or not (folder / name).is_file()]
    return [f"{path}: is not in the manifest; remove it" for path in extras] + [
        f"{folder / name}: is missing or a link; copy the box again" for name in missing
    ]


def _checked_comment(path: Path, raw: bytes, keys: list[PublicKey] | None) -> str:
    where = path.with_name(path.name + SIGNATURE_SUFFIX)
    signature = read_bounded(where, minisign.MAX_SIGNATURE_BYTES)
    if signature is None:
        raise VerificationError(f"{where}: the box is not signed, and a signature is asked for; sign it")
    return minisign.verify(raw, signature, keys or [], where)[0]


def read_bounded(path: Path, limit: int) -> bytes | None:
    """The file's bytes, None if it is missing.

    Raises: VerificationError if it is longer than `limit` or a link; StorageError.
    """
    if path.is_symlink():
        raise VerificationError(f"{path}: is a link; copy the box again")
    try:
        with path.open("rb") as stream:
            raw = stream.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as cause:
        raise storage_error("read", path, cause) from cause
    if len(raw) > limit:
        raise VerificationError(f"{path}: is longer than {limit} bytes; get the box again")
    return raw


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return fields


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no value of a manifest")


def _files(folder: Path) -> list[Path]:
    """Everything that is not a folder, and folders with nothing in them: both would be strangers in a box."""
    found = (
        path
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir() or not any(path.iterdir())
    )
    return sorted(path for path in found if path.relative_to(folder).as_posix() not in UNLISTED)
