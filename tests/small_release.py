"""Small signed releases for the tests of installing: every file class of a real box, few bytes of each."""

from __future__ import annotations

import sqlite3
import struct
from dataclasses import dataclass
from pathlib import Path

from whis_box.box.manifest import FORMAT_VERSION, Manifest, describe_folder, write_manifest
from whis_box.box.minisign import SecretKey, create_key
from whis_box.box.trust import Root, write_root

ISSUED_AT, EXPIRES_AT = "2025-06-01T00:00:00Z", "2099-01-01T00:00:00Z"


def gguf(architecture: str = "llama", n_tensors: int = 1) -> bytes:
    """A GGUF header with one key, and some weights."""
    key, value = b"general.architecture", architecture.encode()
    head = b"GGUF" + struct.pack("<IQQ", 3, n_tensors, 1)
    pair = struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(value)) + value
    return head + pair + bytes(range(200))


@dataclass(frozen=True)
class Builder:
    """One builder with a root key and a release key."""

    root_key: SecretKey
    release_key: SecretKey

    def root(self, version: int = 1) -> Root:
        """A root that trusts this builder alone."""
        return Root(
            format_version=1,
            version=version,
            expires_at=EXPIRES_AT,
            threshold=1,
            root_keys=[self.root_key.public.text()],
            release_keys=[self.release_key.public.text()],
        )


def new_builder() -> Builder:
    return Builder(create_key(), create_key())


def write_release(folder: Path, sequence: int, key: SecretKey, **changed: object) -> Manifest:
    """A small box in `folder`, signed."""
    for name in ("models", "index", "configs", "embedder", "catalogue"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "models" / "base.gguf").write_bytes(gguf())
    with sqlite3.connect(folder / "index" / "whis.sqlite") as connection:
        connection.execute("create table if not exists records (id text)")
        connection.execute("insert into records values (?)", (f"of release {sequence}",))
    connection.close()
    (folder / "configs" / "box.yaml").write_text(f"# release {sequence}\n")
    (folder / "embedder" / "model.onnx").write_bytes(b"onnx" * 50)
    (folder / "catalogue" / "attack.tsv").write_text("T1003\tOS Credential Dumping\n")
    (folder / "whis").write_text(f"#!/bin/sh\necho release {sequence}\n")
    (folder / "whis").chmod(0o755)
    (folder / "selftest.ndjson").write_text(f'{{"sequence": {sequence}}}\n')
    fields: dict[str, object] = {
        "format_version": FORMAT_VERSION,
        "name": "whis-box",
        "version": "0.1.0",
        "source_commit": "unknown",
        "sequence": sequence,
        "issued_at": ISSUED_AT,
        "expires_at": EXPIRES_AT,
        "files": describe_folder(folder),
    }
    manifest = Manifest.model_validate(fields | changed)
    write_manifest(folder, manifest, key)
    return manifest


def write_first_root(folder: Path, builder: Builder) -> bytes:
    """root.1.json in `folder`; its bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    return write_root(folder, builder.root(), [builder.root_key])
