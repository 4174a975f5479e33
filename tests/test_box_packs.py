"""A content pack results in exactly the release it was made from, or in nothing."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from tests.small_release import Builder, new_builder, write_first_root, write_release
from whis_box.box.changes import changes
from whis_box.box.install import Options, Outcome, install, pin, trusted_root
from whis_box.box.manifest import verify
from whis_box.box.packs import OpenPack, apply_pack, base_release, build_pack, open_pack
from whis_box.box.slots import Home, locked, rollback
from whis_box.durable import Disk
from whis_box.errors import InputError, NotReadyError, VerificationError

BIG = os.urandom(300_000)


@pytest.fixture
def builder() -> Builder:
    return new_builder()


@pytest.fixture
def boxes(builder: Builder, tmp_path: Path) -> Path:
    """Releases 1, 2 and 3; between them only a few bytes of a large file differ."""
    for sequence in (1, 2, 3):
        folder = tmp_path / str(sequence)
        (folder / "adapters").mkdir(parents=True)
        changed = bytearray(BIG)
        changed[1000:1004] = sequence.to_bytes(4, "big")
        (folder / "adapters" / "soc.gguf.bin").write_bytes(changed)
        (folder / "adapters" / f"named-by-{sequence}.codes").write_bytes(changed)
        write_release(folder, sequence, builder.release_key)
    return tmp_path


@pytest.fixture
def pack(builder: Builder, boxes: Path) -> Path:
    build_pack(boxes / "1", boxes / "2", boxes / "pack", builder.release_key)
    return boxes / "pack"


@pytest.fixture
def home(builder: Builder, boxes: Path) -> Home:
    home = Home(boxes / "home", Disk())
    raw = write_first_root(boxes / "root", builder)
    with locked(home):
        pin(home, boxes / "root" / "root.1.json", hashlib.sha256(raw).hexdigest())
        install(boxes / "1", home, Options(), lambda _: [], lambda *_: None)
    return home


def apply(home: Home, pack: Path) -> Outcome:
    with locked(home):
        return apply_pack(pack, home, Options(), lambda _: [], lambda *_: None)


def opened(home: Home, pack: Path) -> OpenPack:
    return open_pack(pack, trusted_root(home), Options())


def test_it_results_in_the_very_release(home: Home, boxes: Path, pack: Path) -> None:
    outcome = apply(home, pack)
    assert home.active() == 2 and outcome.changed
    assert verify(home.current.resolve()) == verify(boxes / "2")
    assert not apply(home, pack).changed
    with locked(home):
        assert rollback(home) == 1


def test_it_is_small(home: Home, pack: Path) -> None:
    """Also where a changed file has a new name, as one that is named by its digest."""
    size = sum(path.stat().st_size for path in pack.rglob("*") if path.is_file())
    assert size < len(BIG) / 10
    [renamed] = [one for one in opened(home, pack).pack.payloads if one.base]
    assert (renamed.path, renamed.base) == ("adapters/named-by-2.codes", "adapters/named-by-1.codes")
    same = ("embedder", "model.onnx")
    apply(home, pack)
    assert home.release(1).joinpath(*same).stat().st_ino == home.release(2).joinpath(*same).stat().st_ino


def test_what_lies_in_a_staged_copy_is_not_believed(home: Home, boxes: Path, pack: Path) -> None:
    staged = home.releases / ".staging-2" / "embedder"
    staged.mkdir(parents=True)
    (staged / "model.onnx").write_bytes(b"planted")
    apply(home, pack)
    assert verify(home.current.resolve()) == verify(boxes / "2")


def test_what_it_would_change_is_told_from_the_files(home: Home, pack: Path) -> None:
    told = opened(home, pack)
    # A small release's index is no real one, so its records are not compared here.
    manifest = told.manifest.model_copy(
        update={"files": [one for one in told.manifest.files if not one.path.endswith(".sqlite")]}
    )
    report = changes(OpenPack(told.folder, told.pack, manifest, told.newest, []), base_release(home, told))
    assert report["from"] == 1 and report["to"] == 2
    assert "configs/box.yaml" in report["changed"] and "embedder/model.onnx" not in report["changed"]
    assert report["texts"]["configs/box.yaml"][-2:] == ["-# release 1", "+# release 2"]


def test_a_pack_for_another_release_is_refused(home: Home, builder: Builder, boxes: Path) -> None:
    build_pack(boxes / "2", boxes / "3", boxes / "late", builder.release_key)
    with pytest.raises(NotReadyError, match="leads from release 2 to 3, in use is 1"):
        apply(home, boxes / "late")


def test_packs_only_go_forward(builder: Builder, boxes: Path) -> None:
    with pytest.raises(InputError, match="release 1 newer than 2"):
        build_pack(boxes / "2", boxes / "1", boxes / "back", builder.release_key)


def test_every_changed_file_of_a_pack_is_found(home: Home, pack: Path) -> None:
    for path in sorted(one for one in pack.rglob("*") if one.is_file()):
        raw = path.read_bytes()
        for at in range(0, len(raw), max(1, len(raw) // 20)):
            path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
            with pytest.raises(VerificationError):
                opened(home, pack)
        path.write_bytes(raw)
    (pack / "payload" / "extra.zst").write_bytes(b"x")
    with pytest.raises(VerificationError, match="extra.zst: is not part of the pack"):
        opened(home, pack)


def test_a_payload_that_unpacks_to_too_much_is_stopped(home: Home, builder: Builder, pack: Path) -> None:
    import zstandard

    path = pack / "payload" / "0.zst"
    path.write_bytes(zstandard.ZstdCompressor().compress(bytes(50_000_000)))
    fields = json.loads((pack / "pack.json").read_text())
    fields["payloads"][0] |= {
        "kind": "whole",
        "size_bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    raw = json.dumps(fields).encode()
    (pack / "pack.json").write_bytes(raw)
    (pack / "pack.json.minisig").write_text(builder.release_key.sign(raw, "bomb", "pack.json"))
    with pytest.raises(VerificationError, match="does not hold what the manifest says"):
        apply(home, pack)
    staged = home.releases / ".staging-2"
    assert sum(path.stat().st_size for path in staged.rglob("*") if path.is_file()) < 2_000_000
    assert home.active() == 1


def test_what_moved_inside_a_file_is_found_again(builder: Builder, boxes: Path) -> None:
    """Rows that are taken out of an index shift all that follow: a megabyte of them in another order."""
    blocks = [os.urandom(500) for _ in range(2000)]
    for sequence, order in ((4, blocks), (5, blocks[1000:] + blocks[3:1000])):
        (boxes / str(sequence) / "adapters").mkdir(parents=True)
        (boxes / str(sequence) / "adapters" / "moved.bin").write_bytes(b"".join(order))
        write_release(boxes / str(sequence), sequence, builder.release_key)
    made = build_pack(boxes / "4", boxes / "5", boxes / "moved", builder.release_key)
    [moved] = [one for one in made.payloads if one.path == "adapters/moved.bin"]
    assert moved.kind == "delta" and moved.size_bytes < 10_000
