"""No byte of a signed box can change unseen, whatever file it is in, and nothing is parsed before that."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from tests.small_release import new_builder, write_first_root, write_release
from whis_box.box import headers
from whis_box.box.manifest import verify
from whis_box.box.minisign import PublicKey
from whis_box.errors import VerificationError

FLIPS = 5000


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[PublicKey]]:
    folder = tmp_path_factory.mktemp("box") / "box"
    builder = new_builder()
    write_first_root(folder / "trust", builder)
    write_release(folder, 3, builder.release_key)
    return folder, [builder.release_key.public]


def test_every_flipped_byte_is_found(
    signed: tuple[Path, list[PublicKey]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, keys = signed

    def parsed(*_: object) -> None:
        raise AssertionError("a parser saw a file that was not verified")

    monkeypatch.setattr(headers, "read_header", parsed)
    monkeypatch.setattr(headers, "check_sqlite", parsed)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    chance, found = random.Random(20261125), dict.fromkeys(files, 0)
    for number in range(FLIPS):
        path = files[number % len(files)]
        raw = path.read_bytes()
        at, mask = chance.randrange(len(raw)), chance.randrange(1, 256)
        path.write_bytes(raw[:at] + bytes([raw[at] ^ mask]) + raw[at + 1 :])
        try:
            with pytest.raises(VerificationError, match=_name_of(path)):
                verify(folder, keys)
            found[path] += 1
        finally:
            path.write_bytes(raw)
    verify(folder, keys)
    assert sum(found.values()) == FLIPS and min(found.values()) > 200
    print({path.relative_to(folder).as_posix(): count for path, count in found.items()})


def _name_of(path: Path) -> str:
    return path.name.removesuffix(".minisig").split(".")[0]


@pytest.fixture
def box(signed: tuple[Path, list[PublicKey]], tmp_path: Path) -> tuple[Path, list[PublicKey]]:
    shutil.copytree(signed[0], tmp_path / "copy")
    return tmp_path / "copy", signed[1]


def swap(folder: Path) -> None:
    (folder / "whis").rename(folder / "t")
    (folder / "embedder" / "model.onnx").rename(folder / "whis")
    (folder / "t").rename(folder / "embedder" / "model.onnx")


def truncate(folder: Path) -> None:
    os.truncate(folder / "models" / "base.gguf", 10)


def add_file(folder: Path) -> None:
    (folder / "configs" / "extra.yaml").write_text("x: 1\n")


def add_folder(folder: Path) -> None:
    (folder / "adapters").mkdir()


def link_file(folder: Path) -> None:
    path = folder / "configs" / "box.yaml"
    shutil.move(path, folder.parent / "box.yaml")
    path.symlink_to(folder.parent / "box.yaml")


def link_folder(folder: Path) -> None:
    shutil.move(folder / "configs", folder.parent / "configs")
    (folder / "configs").symlink_to(folder.parent / "configs")


def pipe(folder: Path) -> None:
    (folder / "whis").unlink()
    os.mkfifo(folder / "whis")


def unsign(folder: Path) -> None:
    (folder / "manifest.json.minisig").unlink()


def unsign_sums(folder: Path) -> None:
    (folder / "SHA256SUMS.minisig").unlink()


def link_manifest(folder: Path) -> None:
    shutil.move(folder / "manifest.json", folder.parent / "m")
    (folder / "manifest.json").symlink_to(folder.parent / "m")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (swap, "model.onnx.*has .* bytes"),
        (truncate, "base.gguf: has 10 bytes"),
        (add_file, "extra.yaml: is not in the manifest"),
        (add_folder, "adapters: is not in the manifest"),
        (link_file, "box.yaml: is a link"),
        (link_folder, "is a link"),
        (pipe, "whis: is not a plain file"),
        (unsign, "manifest.json.minisig: the box is not signed"),
        (unsign_sums, "SHA256SUMS.minisig: the box is not signed"),
        (link_manifest, "manifest.json: is a link"),
    ],
)
def test_every_other_change_is_named(box: tuple[Path, list[PublicKey]], change: object, message: str) -> None:
    folder, keys = box
    assert callable(change)
    change(folder)
    with pytest.raises(VerificationError, match=message):
        verify(folder, keys)


def test_signatures_of_two_releases_do_not_mix(box: tuple[Path, list[PublicKey]], tmp_path: Path) -> None:
    folder, _ = box
    builder = new_builder()
    for sequence in (1, 2):
        write_release(tmp_path / str(sequence), sequence, builder.release_key)
    for name in ("SHA256SUMS", "SHA256SUMS.minisig"):
        shutil.copy(tmp_path / "1" / name, tmp_path / "2" / name)
    with pytest.raises(VerificationError, match="its signature says|does not say"):
        verify(tmp_path / "2", [builder.release_key.public])
