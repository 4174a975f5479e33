"""Folders, files, zip and gz archives and mail attachments as one stream of files, unpacked in memory.

Invariant: nothing is unpacked to disk, no link is followed, and no archive grows past the limits.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from whis_box.errors import InputError, storage_error
from whis_box.ingest.readers.draft import Limits, RawFile, Skip

_BOMB_FLOOR_BYTES = 1_000_000
_BLOCK_BYTES = 1 << 20


def paths_of(root: Path) -> list[Path]:
    """The file itself, or every file below a folder in path order, without hidden ones and links.

    Raises: InputError if there is nothing.
    """
    if root.is_file():
        return [root]
    found = sorted(
        path
        for path in root.rglob("*")
        if path.is_file()
        and not path.is_symlink()
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )
    if not found:
        raise InputError(f"{root}: no such file, or a folder without files; check the path")
    return found


def open_file(path: Path, name: str, limits: Limits) -> RawFile | Skip:
    """A file's bytes, or why they are not read.

    Raises: StorageError.
    """
    try:
        size = path.stat().st_size
        if size > limits.max_file_bytes:
            return Skip(name, f"{size} bytes are more than {limits.max_file_bytes}; split the file")
        return RawFile(name, path.read_bytes())
    except OSError as cause:
        raise storage_error("read", path, cause) from cause


def unpack(file: RawFile, limits: Limits, nesting: int = 0) -> Iterator[RawFile | Skip]:
    """`file` itself, or what it holds if it is an archive; a mail is followed by its attachments."""
    if is_zip(file) and not is_docx(file):
        inner: Iterator[RawFile | Skip] = _zip_members(file, limits)
    elif file.data.startswith(b"\x1f\x8b"):
        inner = _gz_member(file, limits)
    elif file.name.lower().endswith(".eml"):
        from whis_box.ingest.readers.mail import attachments  # brings the HTML parser along

        yield file
        inner = attachments(file, limits)
    else:
        yield file
        return
    for one in inner:
        if isinstance(one, Skip):
            yield one
        elif nesting >= limits.max_nesting and (is_zip(one) or one.data.startswith(b"\x1f\x8b")):
            yield Skip(one.name, f"archives are nested deeper than {limits.max_nesting}; unpack it first")
        else:
            yield from unpack(one, limits, nesting + 1)


def is_zip(file: RawFile) -> bool:
    """Whether the bytes begin as a ZIP archive does."""
    return file.data.startswith(b"PK\x03\x04")


def is_docx(file: RawFile) -> bool:
    """Whether a ZIP archive is a Word document."""
    if not is_zip(file):
        return False
    try:
        with zipfile.ZipFile(io.BytesIO(file.data)) as archive:
            return "word/document.xml" in archive.namelist()
    except (zipfile.BadZipFile, ValueError, OSError):
        return False


def _zip_members(file: RawFile, limits: Limits) -> Iterator[RawFile | Skip]:
    try:
        archive = zipfile.ZipFile(io.BytesIO(file.data))
        members = sorted(archive.infolist(), key=lambda one: one.filename)
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as cause:
        yield Skip(file.name, f"not a readable ZIP archive ({cause}); get it again")
        return
    if len(members) > limits.max_members:
        yield Skip(file.name, f"{len(members)} members are more than {limits.max_members}; split it")
        return
    total = 0
    with archive:
        for member in members:
            if member.is_dir():
                continue
            name = f"{file.name}!{member.filename}"
            if _escapes(member.filename):
                yield Skip(name, "its path leaves the archive; it was not read")
                continue
            one = _zip_member(archive, member, name, limits)
            total += len(one.data) if isinstance(one, RawFile) else 0
            if total > limits.max_total_bytes:
                yield Skip(name, f"the archive unpacks to more than {limits.max_total_bytes} bytes; split it")
                return
            yield one


def _zip_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, limits: Limits
) -> RawFile | Skip:
    if member.flag_bits & 1:
        return Skip(name, "encrypted; unpack it first")
    try:
        with archive.open(member) as stream:
            data = stream.read(limits.max_file_bytes + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError, NotImplementedError) as cause:
        return Skip(name, f"damaged in the archive ({cause}); get it again")
    return _bounded(name, data, member.compress_size, limits)


def _gz_member(file: RawFile, limits: Limits) -> Iterator[RawFile | Skip]:
    name = f"{file.name}!{PurePosixPath(file.name.rpartition('!')[2]).name.removesuffix('.gz')}"
    unpacked = bytearray()
    rest = file.data
    try:
        while rest:  # a gz file may be several in a row
            stream = zlib.decompressobj(wbits=31)
            unpacked += stream.decompress(rest, limits.max_file_bytes + 1 - len(unpacked))
            if len(unpacked) > limits.max_file_bytes:
                break
            if not stream.eof:
                yield Skip(name, "the archive ends too early; get it again")
                return
            rest = stream.unused_data.lstrip(b"\x00")
    except zlib.error as cause:
        yield Skip(name, f"damaged ({cause}); get it again")
        return
    yield _bounded(name, bytes(unpacked), len(file.data), limits)


def _bounded(name: str, data: bytes, packed_bytes: int, limits: Limits) -> RawFile | Skip:
    if len(data) > limits.max_file_bytes:
        return Skip(name, f"unpacks to more than {limits.max_file_bytes} bytes; split it")
    if len(data) > _BOMB_FLOOR_BYTES and len(data) > limits.max_ratio * max(1, packed_bytes):
        return Skip(name, f"unpacks to more than {limits.max_ratio} times its size, as a zip bomb does")
    return RawFile(name, data)


def _escapes(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or "\x00" in name or ":" in path.parts[0]
