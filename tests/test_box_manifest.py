"""The manifest finds every change of a box, and assembling never leaves half of one."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from whis_box.box import assemble as assemble_module
from whis_box.box.assemble import BoxParts, assemble
from whis_box.box.manifest import verify
from whis_box.config import BoxConfig
from whis_box.errors import NotReadyError, StorageError, VerificationError
from whis_box.paths import repository_root


@pytest.fixture
def parts(tmp_path: Path) -> BoxParts:
    folder = tmp_path / "parts"
    (folder / "embedder").mkdir(parents=True)
    for name in (
        "base.gguf",
        "embedder/model.onnx",
        "whis.sqlite",
        "attack.tsv",
        "LICENSE",
        "selftest.ndjson",
    ):
        (folder / name).write_bytes(name.encode() * 100)
    return BoxParts(
        folder / "base.gguf",
        folder / "embedder",
        folder / "whis.sqlite",
        repository_root() / "configs",
        folder / "attack.tsv",
        folder / "LICENSE",
        repository_root() / "data" / "guards",
        folder / "selftest.ndjson",
    )


@pytest.fixture
def small_box(parts: BoxParts, tmp_path: Path) -> Path:
    assemble(parts, tmp_path / "box", BoxConfig())
    return tmp_path / "box"


def test_a_fresh_box_verifies_also_with_sha256sum(small_box: Path) -> None:
    manifest, digest = verify(small_box)
    assert len(manifest.files) == 15 and len(digest) == 64
    subprocess.run(["sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS"], cwd=small_box, check=True)


def test_assembling_again_changes_nothing(parts: BoxParts, small_box: Path) -> None:
    before = os.stat(small_box).st_ino
    assert assemble(parts, small_box, BoxConfig())[1] is False
    assert os.stat(small_box).st_ino == before
    parts.license.write_text("other")
    assert assemble(parts, small_box, BoxConfig())[1] is True
    verify(small_box)


def test_an_adapter_comes_with_its_list_of_leaks_or_not_at_all(parts: BoxParts, tmp_path: Path) -> None:
    folder = tmp_path / "soc" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "adapter.gguf").write_bytes(b"weights")
    with_adapter = replace(parts, adapters=(folder,))
    with pytest.raises(NotReadyError, match=r"leaks.txt.*train\.leaks"):
        assemble(with_adapter, tmp_path / "other", BoxConfig())
    (folder / "leaks.txt").write_text("1\t00000000000000ff\n")
    (folder / "lineage.json").write_text("{}")
    assemble(with_adapter, tmp_path / "other", BoxConfig())
    held = {one.path for one in verify(tmp_path / "other")[0].files}
    names = ("adapter.gguf", "leaks.txt", "lineage.json")
    assert {f"adapters/soc/1.0.0/{name}" for name in names} <= held


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("models/base.gguf", flip, "models/base.gguf.*sha256"),
        ("index/whis.sqlite", lambda path: path.write_bytes(path.read_bytes()[:-1]), "whis.sqlite.*bytes"),
        ("embedder/model.onnx", lambda path: path.unlink(), "model.onnx.*missing"),
        ("extra.txt", lambda path: path.write_text("x"), "extra.txt.*not in the manifest"),
        (
            "LICENSE",
            lambda path: (path.rename(path.parent.parent / "l"), path.symlink_to(path.parent.parent / "l")),
            "link",
        ),
    ],
    ids=["flipped bit", "truncated", "missing", "extra", "symlink"],
)
def test_every_change_is_named(small_box: Path, name: str, change: Any, message: str) -> None:
    change(small_box / name)
    with pytest.raises(VerificationError, match=message):
        verify(small_box)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": []}', "\x00"])
def test_a_bad_manifest_is_refused(small_box: Path, text: str) -> None:
    (small_box / "manifest.json").write_text(text)
    with pytest.raises(VerificationError, match="manifest.json"):
        verify(small_box)


def test_a_manifest_that_points_outside_is_refused(small_box: Path) -> None:
    path = small_box / "manifest.json"
    path.write_text(path.read_text().replace('"LICENSE"', '"../LICENSE"'))
    with pytest.raises(VerificationError, match="leaves the box"):
        verify(small_box)


def test_no_box_is_not_ready(tmp_path: Path) -> None:
    with pytest.raises(NotReadyError, match="no box here"):
        verify(tmp_path)


def test_a_missing_part_stops_before_anything_is_touched(parts: BoxParts, small_box: Path) -> None:
    parts.base_model.unlink()
    with pytest.raises(NotReadyError, match="base.gguf"):
        assemble(parts, small_box, BoxConfig())
    verify(small_box)


def test_a_full_disk_leaves_the_old_box(
    parts: BoxParts, small_box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(assemble_module.shutil, "copy", full)
    parts.license.write_text("a change, or nothing would be copied")
    with pytest.raises(StorageError, match="disk is full"):
        assemble(parts, small_box, BoxConfig())
    verify(small_box)
