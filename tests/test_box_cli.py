"""`whis box` end to end on small boxes: keys, root, sign, verify, trust, list, packs; errors by exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.small_release import new_builder, write_first_root, write_release
from whis_box.box.trust import fingerprint
from whis_box.paths import repository_root


def whis(*arguments: str | Path, home: Path | None = None) -> tuple[int, Any, str]:
    """Exit code, the JSON on stdout, stderr."""
    command = [sys.executable, "-m", "whis_box.cli", *map(str, arguments), "--json"]
    environment = os.environ | ({"WHIS_HOME": str(home)} if home else {})
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=repository_root(), env=environment, timeout=120
    )
    return done.returncode, json.loads(done.stdout or "null"), done.stderr


def test_keys_root_signature_and_trust_go_together(tmp_path: Path) -> None:
    for name in ("root", "release"):
        assert whis("box", "key", tmp_path / name, "--no-passphrase")[0] == 0
    assert (tmp_path / "root").stat().st_mode & 0o077 == 0, "a secret key is its owner's"
    code, root, _ = whis(
        *("box", "root", tmp_path / "trust", "--root-key", tmp_path / "root.pub"),
        *("--release-key", tmp_path / "release.pub", "--expires-at", "2099-01-01T00:00:00Z"),
        *("--signer", tmp_path / "root"),
    )
    assert code == 0 and root["version"] == 1
    write_release(tmp_path / "usb", 1, new_builder().release_key)
    for path in (tmp_path / "usb").glob("*.minisig"):
        path.unlink()
    assert whis("box", "sign", "--box", tmp_path / "usb", "--secret-key", tmp_path / "release")[0] == 0
    code, told, _ = whis("box", "verify", "--box", tmp_path / "usb", "--key", tmp_path / "release.pub")
    assert code == 0 and told["signature"] == "valid" and told["sequence"] == 1
    home = tmp_path / "home"
    trust = ("box", "trust", tmp_path / "trust" / "root.1.json", "--fingerprint")
    assert whis(*trust, "0" * 64, home=home)[0] == 5
    assert whis(*trust, root["fingerprint"], home=home)[0] == 0
    code, told, _ = whis("box", "verify", "--box", tmp_path / "usb", home=home)
    assert code == 0 and told["signature"] == "valid", "the pinned root's keys are used by themselves"
    code, told, _ = whis("box", "list", home=home)
    assert code == 0 and told["installed"] == [] and told["active"] is None


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    assert whis("box", "key", tmp_path / "k", "--no-passphrase")[0] == 0
    before = (tmp_path / "k").read_bytes()
    assert whis("box", "key", tmp_path / "k", "--no-passphrase")[0] == 2
    assert (tmp_path / "k").read_bytes() == before


def test_an_unsigned_box_is_told_apart_from_a_signed_one(tmp_path: Path) -> None:
    builder = new_builder()
    write_release(tmp_path / "usb", 1, builder.release_key)
    code, told, _ = whis("box", "verify", "--box", tmp_path / "usb", home=tmp_path / "none")
    assert code == 0 and told["signature"].startswith("not checked")
    (tmp_path / "usb" / "manifest.json.minisig").unlink()
    code, _, error = whis(
        "box", "verify", "--box", tmp_path / "usb", "--key", builder.release_key.public.text()
    )
    assert code == 5 and "not signed" in error


def test_a_box_that_cannot_answer_is_not_installed(tmp_path: Path) -> None:
    """The real health check runs the medium's own program, which here answers nothing."""
    builder = new_builder()
    raw = write_first_root(tmp_path / "trust", builder)
    write_release(tmp_path / "usb", 1, builder.release_key)
    home = tmp_path / "home"
    assert (
        whis(
            "box", "trust", tmp_path / "trust" / "root.1.json", "--fingerprint", fingerprint(raw), home=home
        )[0]
        == 0
    )
    (tmp_path / "usb" / "whis").write_text("#!/bin/sh\necho no such command >&2; exit 1\n")
    write_release_again(tmp_path / "usb", builder)
    code, _, error = whis("box", "install", tmp_path / "usb", home=home)
    assert code == 5 and "did not pass its health check" in error and "no such command" in error
    assert whis("box", "list", home=home)[1]["installed"] == []


def write_release_again(folder: Path, builder: Any) -> None:
    from whis_box.box.manifest import describe_folder, read_manifest, write_manifest

    manifest, _ = read_manifest(folder)
    write_manifest(
        folder, manifest.model_copy(update={"files": describe_folder(folder)}), builder.release_key
    )
