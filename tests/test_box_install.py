"""Installing, switching and going back; every way a medium can be wrong is refused by its name."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faulty_disk import FaultyDisk
from tests.small_release import Builder, new_builder, write_first_root, write_release
from whis_box.box import install as install_module
from whis_box.box import trust
from whis_box.box.install import (
    MediumSource,
    Options,
    Outcome,
    install,
    pin,
    signature_state,
    trusted_root,
)
from whis_box.box.manifest import FileEntry, describe_folder, verify, write_manifest
from whis_box.box.slots import Home, begin_switch, locked, rollback, settle_at_start
from whis_box.durable import Disk
from whis_box.errors import InputError, NotReadyError, StorageError, VerificationError


@pytest.fixture
def builder() -> Builder:
    return new_builder()


@pytest.fixture
def home(builder: Builder, tmp_path: Path) -> Home:
    raw = write_first_root(tmp_path / "root", builder)
    home = Home(tmp_path / "home", Disk())
    with locked(home):
        pin(home, tmp_path / "root" / "root.1.json", hashlib.sha256(raw).hexdigest())
    return home


@pytest.fixture
def medium(builder: Builder, tmp_path: Path) -> Path:
    write_release(tmp_path / "usb", 1, builder.release_key)
    return tmp_path / "usb"


def bring(home: Home, medium: Path, problems: list[str] | None = None, **allowed: bool) -> Outcome:
    with locked(home):
        return install(medium, home, Options(**allowed), lambda _: problems or [], lambda *_: None)


def release(builder: Builder, folder: Path, sequence: int, **changed: Any) -> Path:
    write_release(folder, sequence, builder.release_key, **changed)
    return folder


def test_the_first_install_is_whole_and_in_use(home: Home, medium: Path) -> None:
    outcome = bring(home, medium)
    assert outcome.changed and home.active() == 1
    assert os.readlink(home.current) == "releases/1"
    assert verify(home.current.resolve())[0].sequence == 1
    assert os.access(home.current / "whis", os.X_OK)


def test_installing_it_again_changes_nothing(home: Home, medium: Path) -> None:
    bring(home, medium)
    assert not bring(home, medium).changed


def test_three_releases_are_kept_and_the_state_is_not_touched(
    home: Home, builder: Builder, tmp_path: Path
) -> None:
    for sequence in range(1, 6):
        bring(home, release(builder, tmp_path / f"usb{sequence}", sequence))
        with (home.state / "audit.ndjson").open("a") as stream:
            stream.write(f"{sequence}\n")
    assert home.installed() == [3, 4, 5] and home.active() == 5
    assert (home.state / "audit.ndjson").read_text() == "1\n2\n3\n4\n5\n"


def test_rollback_goes_one_back_or_to_a_named_release(home: Home, builder: Builder, tmp_path: Path) -> None:
    for sequence in (1, 2, 3):
        bring(home, release(builder, tmp_path / f"usb{sequence}", sequence))
    with locked(home):
        assert rollback(home) == 2 and home.active() == 2
        assert rollback(home, 3) == 3
        assert rollback(home, 1) == 1
        with pytest.raises(NotReadyError, match="no release older than 1"):
            rollback(home)
        with pytest.raises(InputError, match="release 9 is not on this disk"):
            rollback(home, 9)
    assert home.record().last_seen == 3


def test_an_unhealthy_release_is_never_in_use(
    home: Home, builder: Builder, medium: Path, tmp_path: Path
) -> None:
    bring(home, medium)
    newer = release(builder, tmp_path / "usb2", 2)
    with pytest.raises(VerificationError, match=r"2 did not pass .*engine is silent.*release 1 stays"):
        bring(home, newer, ["engine is silent"])
    assert home.active() == 1 and home.installed() == [1]
    assert [event.action for event in home.record().history] == ["install", "refused"]


def test_a_release_that_fails_only_after_the_switch_goes_back(
    home: Home, builder: Builder, medium: Path, tmp_path: Path
) -> None:
    bring(home, medium)
    newer = release(builder, tmp_path / "usb2", 2)

    def gate(folder: Path) -> list[str]:
        return ["does not start from its place"] if folder.name == "current" else []

    with locked(home), pytest.raises(VerificationError, match="release 1 stays in use"):
        install(newer, home, Options(), gate, lambda *_: None)
    assert home.active() == 1 and home.installed() == [1]


def test_a_switch_that_nobody_confirmed_goes_back_at_the_next_start(
    home: Home, builder: Builder, medium: Path, tmp_path: Path
) -> None:
    bring(home, medium)
    bring(home, release(builder, tmp_path / "usb2", 2))
    begin_switch(home, 1, "install")
    with locked(home):
        assert settle_at_start(home.folder) == "", "an installer at work is left alone"
    assert home.active() == 1
    assert "was not confirmed; back to release 2" in settle_at_start(home.folder)
    assert home.active() == 2 and settle_at_start(home.folder) == ""


def test_an_older_release_needs_the_explicit_flag(
    home: Home, builder: Builder, medium: Path, tmp_path: Path
) -> None:
    bring(home, release(builder, tmp_path / "usb7", 7))
    with pytest.raises(VerificationError, match="release 1 is older than 7.*--allow-downgrade"):
        bring(home, medium)
    assert bring(home, medium, allow_downgrade=True).changed
    assert home.active() == 1 and home.record().last_seen == 7


def test_a_removed_release_does_not_reset_the_sequence(
    home: Home, builder: Builder, medium: Path, tmp_path: Path
) -> None:
    bring(home, release(builder, tmp_path / "usb7", 7))
    home.current.unlink()
    shutil.rmtree(home.release(7))
    with pytest.raises(VerificationError, match="older than 7"):
        bring(home, medium)


def test_one_sequence_names_one_box(home: Home, builder: Builder, medium: Path, tmp_path: Path) -> None:
    bring(home, medium)
    other = release(builder, tmp_path / "other", 1, version="9.9.9")
    with pytest.raises(VerificationError, match="a sequence is used only once"):
        bring(home, other)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"expires_at": "2025-07-01T00:00:00Z"}, "release 2 has expired"),
        ({"platform": "linux-aarch64"}, "made for linux-aarch64"),
    ],
)
def test_a_signed_box_can_still_be_the_wrong_one(
    home: Home, builder: Builder, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(VerificationError, match=message):
        bring(home, release(builder, tmp_path / "usb2", 2, **changed))
    assert home.active() is None and home.installed() == []


def test_an_unreleased_box_is_not_installed(home: Home, builder: Builder, tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="sequence 0, it was never released"):
        bring(home, release(builder, tmp_path / "usb0", 0))


def test_an_expired_box_may_be_allowed(home: Home, builder: Builder, tmp_path: Path) -> None:
    old = release(builder, tmp_path / "usb2", 2, expires_at="2025-07-01T00:00:00Z")
    assert bring(home, old, allow_expired=True).changed


def test_a_clock_in_1970_warns_and_installs(
    home: Home, medium: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Epoch(install_module.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return install_module.datetime.fromtimestamp(0, tz)

    monkeypatch.setattr(install_module, "datetime", Epoch)
    [warning, _] = bring(home, medium).warnings
    assert "the clock says 1970-01-01" in warning


def test_no_trusted_key_stops_before_anything_is_read(medium: Path, tmp_path: Path) -> None:
    with pytest.raises(NotReadyError, match="no key is trusted yet"):
        bring(Home(tmp_path / "bare", Disk()), medium)


def test_a_second_root_is_not_pinned_over_the_first(home: Home, tmp_path: Path) -> None:
    raw = write_first_root(tmp_path / "root2", new_builder())
    with locked(home), pytest.raises(InputError, match="another root is trusted here"):
        pin(home, tmp_path / "root2" / "root.1.json", hashlib.sha256(raw).hexdigest())


def test_a_box_may_bring_newer_keys(home: Home, builder: Builder, medium: Path, tmp_path: Path) -> None:
    fresh = new_builder()
    (tmp_path / "usb2" / "trust").mkdir(parents=True)
    trust.write_root(tmp_path / "usb2" / "trust", fresh.root(2), [fresh.root_key, builder.root_key])
    write_release(tmp_path / "usb2", 2, fresh.release_key)
    bring(home, tmp_path / "usb2")
    assert trusted_root(home).version == 2
    with pytest.raises(VerificationError, match="not trusted here"):
        bring(home, medium, allow_downgrade=True)


def test_another_builder_is_refused(home: Home, tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="not trusted here"):
        bring(home, release(new_builder(), tmp_path / "usb2", 2))


def test_two_installers_do_not_meet(home: Home, medium: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from whis_box.box.slots import *\n"
        "with locked(Home(Path(sys.argv[1]), Disk())): print('in', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(home.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None and first.stdout.readline() == b"in\n"
        with pytest.raises(NotReadyError, match="another installer is at work"):
            bring(home, medium)
        first.kill()
    assert bring(home, medium).changed, "the lock of a killed installer is free"


class PulledOut(MediumSource):
    """The medium goes away after the second file."""

    n_read = 0

    def blocks(self, entry: FileEntry) -> Iterator[bytes]:
        type(self).n_read += 1
        if self.n_read == 3:
            raise StorageError(f"{entry.path}: cannot read from the medium: Input/output error")
        return super().blocks(entry)


def test_a_medium_that_is_pulled_out_is_resumed(
    home: Home, medium: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    PulledOut.n_read = 0
    with monkeypatch.context() as patched:
        patched.setattr(install_module, "MediumSource", PulledOut)
        with pytest.raises(StorageError, match="from the medium"):
            bring(home, medium)
    assert home.active() is None and home.installed() == []
    outcome = bring(home, medium)
    assert outcome.resumed_bytes > 0 and outcome.copied_bytes > 0
    verify(home.current.resolve())


def test_what_lies_in_a_staged_copy_is_not_believed(home: Home, medium: Path) -> None:
    staged = home.releases / ".staging-1"
    (staged / "models").mkdir(parents=True)
    (staged / "models" / "base.gguf").write_bytes(b"planted")
    (staged / "planted.so").write_bytes(b"planted")
    (staged / "whis").symlink_to("/bin/sh")
    bring(home, medium)
    verify(home.current.resolve())
    assert not (home.release(1) / "planted.so").exists()


def test_a_full_disk_is_noticed_before_copying(home: Home, medium: Path) -> None:
    class Full(Disk):
        def free_bytes(self, folder: Path) -> int:
            return 1000

    with pytest.raises(StorageError, match="MB are free, the box needs 67 MB"):
        bring(Home(home.folder, Full()), medium)
    assert list(home.releases.iterdir()) == []


def test_a_read_only_target_is_named(home: Home, medium: Path) -> None:
    disk = FaultyDisk(home.folder, "EIO for good", 1)
    with pytest.raises(StorageError, match="home"):
        bring(Home(home.folder, disk), medium)
    assert home.active() is None


def test_a_damaged_release_that_is_not_in_use_is_installed_again(
    home: Home, builder: Builder, medium: Path, tmp_path: Path
) -> None:
    bring(home, medium)
    newer = release(builder, tmp_path / "usb2", 2)
    bring(home, newer)
    (home.release(2) / "models" / "base.gguf").write_bytes(b"rotten")
    with pytest.raises(VerificationError, match="whis box rollback"):
        bring(home, newer)
    with locked(home):
        rollback(home)
    bring(home, newer)
    verify(home.release(2))


@pytest.mark.parametrize("name", ["models/base.gguf", "index/whis.sqlite"])
def test_a_signed_file_that_its_parser_should_not_see_is_refused(
    home: Home, builder: Builder, medium: Path, name: str
) -> None:
    (medium / name).write_bytes(b"\xff" * 4096)
    manifest, _ = verify_unsigned(medium)
    write_manifest(medium, manifest, builder.release_key)
    with pytest.raises(VerificationError, match="not a usable"):
        bring(home, medium)
    assert home.installed() == []


def verify_unsigned(folder: Path) -> Any:
    fields = json.loads((folder / "manifest.json").read_text())
    fields["files"] = [entry.model_dump() for entry in describe_folder(folder)]
    return install_module.Manifest.model_validate(fields), ""


def test_the_state_of_a_signature_is_said_in_words(home: Home, medium: Path, tmp_path: Path) -> None:
    assert signature_state(medium, home) == "valid, release 1"
    assert signature_state(medium, Home(tmp_path / "elsewhere", Disk())).startswith("signed, not checked")
    (medium / "manifest.json").write_bytes((medium / "manifest.json").read_bytes() + b" ")
    assert signature_state(medium, home).startswith("not valid: ")
    (medium / "manifest.json.minisig").unlink()
    assert signature_state(medium, home) == "not signed"
