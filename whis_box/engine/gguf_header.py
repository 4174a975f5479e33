"""A bounded look at a GGUF file before libllama parses it.

Invariant: reads at most HEADER_LIMIT_BYTES and never trusts a count or a length from the file.
Source: GGUF specification, version 3.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from whis_box.errors import NotReadyError, VerificationError, storage_error

HEADER_LIMIT_BYTES = 64 * 1024 * 1024
MAX_KEYS = 4096
MAX_TENSORS = 65536
MAX_STRING_BYTES = 16 * 1024 * 1024
MAX_ARRAY_ITEMS = 4_000_000
SCALAR_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING_TYPE, ARRAY_TYPE = 8, 9


@dataclass(frozen=True)
class GgufHeader:
    """What the engine needs to know before it loads a file."""

    architecture: str
    n_tensors: int
    n_ctx_train: int
    n_vocab: int
    file_size_bytes: int
    n_layers: int = 0
    n_head_kv: int = 0
    head_dim: int = 0
    base_sha256: str = ""
    """Of an adapter: the base it was converted for, as our converter writes it."""


def read_header(path: Path, opened: Path | None = None) -> GgufHeader:
    """Check magic, version, counts and metadata of a GGUF file; `opened` is another way to the same file.

    Raises: NotReadyError if it is missing; VerificationError if it is not a sound GGUF; StorageError.
    """
    try:
        with (opened or path).open("rb") as stream:
            return _read(stream, path)
    except FileNotFoundError:
        raise NotReadyError(
            f"{path}: the model file is missing; run `make demo` or copy the box again"
        ) from None
    except OSError as cause:
        raise storage_error("read the model file", path, cause) from cause


def _read(stream: BinaryIO, path: Path) -> GgufHeader:
    reader = _Reader(stream, path)
    if reader.take(4) != b"GGUF":
        raise reader.corrupt("it does not start with the GGUF magic")
    version = reader.unpack("I")
    if version not in (2, 3):
        raise reader.corrupt(f"GGUF version {version} is not 2 or 3")
    n_tensors, n_keys = reader.unpack("Q"), reader.unpack("Q")
    if not 0 < n_tensors <= MAX_TENSORS or not 0 < n_keys <= MAX_KEYS:
        raise reader.corrupt(f"{n_tensors} tensors and {n_keys} keys are outside the limits")
    values = dict(reader.key_value() for _ in range(int(n_keys)))
    architecture = values.get("general.architecture")
    if not isinstance(architecture, str):
        raise reader.corrupt("general.architecture is missing")

    def number(key: str) -> int:
        return _count(values.get(f"{architecture}.{key}"))

    n_head = number("attention.head_count")
    base = values.get("whis.base_sha256")
    return GgufHeader(
        architecture=architecture,
        n_tensors=int(n_tensors),
        n_ctx_train=number("context_length"),
        n_vocab=_count(values.get("tokenizer.ggml.tokens")),
        file_size_bytes=path.stat().st_size,
        n_layers=number("block_count"),
        n_head_kv=number("attention.head_count_kv") or n_head,
        head_dim=number("attention.key_length") or number("embedding_length") // max(1, n_head),
        base_sha256=base if isinstance(base, str) else "",
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0


class _Reader:
    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self._stream, self._path, self._left = stream, path, HEADER_LIMIT_BYTES

    def corrupt(self, why: str) -> VerificationError:
        return VerificationError(
            f"{self._path}: not a usable GGUF file: {why} (byte {self._stream.tell()}); "
            "copy it again or run `make demo`"
        )

    def take(self, n_bytes: int) -> bytes:
        if n_bytes > self._left:
            raise self.corrupt(f"its header is larger than {HEADER_LIMIT_BYTES} bytes")
        block = self._stream.read(n_bytes)
        if len(block) != n_bytes:
            raise self.corrupt("it ends inside the header")
        self._left -= n_bytes
        return block

    def unpack(self, code: str) -> int:
        return int(struct.unpack("<" + code, self.take(struct.calcsize(code)))[0])

    def string(self) -> str:
        length = self.unpack("Q")
        if length > MAX_STRING_BYTES:
            raise self.corrupt(f"a string of {length} bytes is longer than {MAX_STRING_BYTES}")
        return self.take(length).decode("utf-8", "replace")

    def key_value(self) -> tuple[str, str | int]:
        """A key and its value; for an array, the number of its items."""
        key = self.string()
        return key, self._value(self.unpack("I"), depth=0)

    def _value(self, kind: int, depth: int) -> str | int:
        if kind == STRING_TYPE:
            return self.string()
        if kind in SCALAR_FORMATS:
            code = SCALAR_FORMATS[kind]
            block = self.take(struct.calcsize(code))
            return 0 if code in "fd" else int(struct.unpack("<" + code, block)[0])  # no float is needed here
        if kind != ARRAY_TYPE or depth > 2:
            raise self.corrupt(f"value type {kind} is unknown")
        item_kind, n_items = self.unpack("I"), self.unpack("Q")
        if n_items > MAX_ARRAY_ITEMS:
            raise self.corrupt(f"an array of {n_items} items is longer than {MAX_ARRAY_ITEMS}")
        if item_kind in SCALAR_FORMATS:
            self.take(n_items * struct.calcsize(SCALAR_FORMATS[item_kind]))
        else:
            for _ in range(n_items):
                self._value(item_kind, depth + 1)
        return n_items
