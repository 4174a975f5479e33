"""Bounded looks at files whose hash already fits, before a large parser reads them.

Invariant: at most a fixed number of bytes is read, and no count or length from a file is trusted.
Source: SQLite file format, section 1.3 (database header), https://www.sqlite.org/fileformat2.html.
"""

from __future__ import annotations

import struct
from pathlib import Path

from whis_box.box.manifest import Manifest
from whis_box.engine.gguf_header import read_header
from whis_box.errors import VerificationError, storage_error

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "mistral3")
_SQLITE = struct.Struct(">16sHBBBBBBIIIIIIIIIII")


def check_headers(folder: Path, manifest: Manifest) -> None:
    """Check each GGUF and SQLite file of a box.

    Raises: VerificationError, StorageError.
    """
    for entry in manifest.files:
        path = folder / entry.path
        if path.suffix == ".gguf":
            architecture = read_header(path).architecture
            if architecture not in ARCHITECTURES:
                raise VerificationError(
                    f"{path}: architecture {architecture!r} is none of {', '.join(ARCHITECTURES)}; "
                    "no such model is served"
                )
        elif path.suffix == ".sqlite":
            check_sqlite(path)


def check_sqlite(path: Path) -> None:
    """The 100 bytes at the start of a database file.

    Raises: VerificationError, StorageError.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(100)
        size = path.stat().st_size
    except OSError as cause:
        raise storage_error("read", path, cause) from cause
    if why := _sqlite_problem(head, size):
        raise VerificationError(f"{path}: not a usable SQLite file: {why}; copy the box again")


def _sqlite_problem(head: bytes, size: int) -> str:
    if len(head) < 100:
        return "it is shorter than its header"
    fields = _SQLITE.unpack_from(head)
    magic, page, write_version, read_version, _reserved, largest, smallest, leaf = fields[:8]
    page_bytes = 65536 if page == 1 else page
    if magic != b"SQLite format 3\0":
        return "it does not start with the SQLite magic"
    if page_bytes < 512 or page_bytes & (page_bytes - 1):
        return f"a page of {page_bytes} bytes is no power of two from 512 to 65536"
    if (largest, smallest, leaf) != (64, 32, 32):
        return "its payload fractions are not 64, 32, 32"
    if (write_version, read_version) != (1, 1):
        return "it is in write-ahead mode, and a box is read-only"
    n_pages, schema_format, encoding = fields[9], fields[13], fields[16]
    if n_pages * page_bytes != size:
        return f"{n_pages} pages of {page_bytes} bytes are not its {size} bytes"
    if schema_format not in (1, 2, 3, 4) or encoding != 1:
        return f"schema format {schema_format} and text encoding {encoding} are not what a box holds"
    return ""
