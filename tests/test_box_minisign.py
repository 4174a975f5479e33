"""Signatures that the real minisign accepts, and nothing else that looks like one."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

import pytest

from whis_box.box import minisign
from whis_box.box.minisign import create_key, parse_public_key, parse_secret_key
from whis_box.errors import InputError, VerificationError

needs_minisign = pytest.mark.skipif(
    shutil.which("minisign") is None, reason="the minisign program is not installed (Debian: minisign)"
)


@pytest.fixture
def signed(tmp_path: Path) -> tuple[minisign.SecretKey, Path]:
    key = create_key()
    (tmp_path / "data").write_bytes(b"every byte counts")
    (tmp_path / "data.minisig").write_text(key.sign(b"every byte counts", "sequence 3", "data"))
    return key, tmp_path / "data.minisig"


def check(key: minisign.SecretKey, signature: Path, raw: bytes = b"every byte counts") -> tuple[str, str]:
    return minisign.verify(raw, signature.read_bytes(), [key.public], signature)


def test_it_gives_back_the_signed_comment_and_the_key(signed: tuple[minisign.SecretKey, Path]) -> None:
    key, signature = signed
    assert check(key, signature) == ("sequence 3", key.public.key_id)


@needs_minisign
def test_the_real_program_accepts_our_signature(signed: tuple[minisign.SecretKey, Path]) -> None:
    key, signature = signed
    command = ["minisign", "-V", "-m", "data", "-P", key.public.text()]
    done = subprocess.run(command, cwd=signature.parent, capture_output=True, text=True)
    assert done.returncode == 0 and "Trusted comment: sequence 3" in done.stdout, done.stderr
    (signature.parent / "data").write_bytes(b"every byte count5")
    assert subprocess.run(command, cwd=signature.parent, capture_output=True).returncode != 0


@needs_minisign
def test_we_accept_a_signature_that_the_real_program_made_with_our_key(tmp_path: Path) -> None:
    key = create_key()
    (tmp_path / "k").write_text(key.file_text(""))
    (tmp_path / "data").write_bytes(b"x")
    comment = f"data, signed with key {key.public.key_id}"
    command = ["minisign", "-S", "-W", "-s", "k", "-m", "data", "-t", "theirs", "-c", comment]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert check(key, tmp_path / "data.minisig", b"x")[0] == "theirs"


def test_every_single_bit_of_a_signature_file_counts(signed: tuple[minisign.SecretKey, Path]) -> None:
    key, signature = signed
    raw = signature.read_bytes()
    for at in range(len(raw)):
        for bit in range(8):
            changed = bytearray(raw)
            changed[at] ^= 1 << bit
            with pytest.raises(VerificationError):
                minisign.verify(b"every byte counts", bytes(changed), [key.public], signature)


def test_another_key_is_refused_by_its_name(signed: tuple[minisign.SecretKey, Path]) -> None:
    key, signature = signed
    other = create_key()
    with pytest.raises(VerificationError, match=f"key {key.public.key_id}, which is not trusted"):
        check(other, signature)
    same_id = minisign.SecretKey(minisign.PublicKey(key.public.key_id, other.public.raw), other.seed)
    with pytest.raises(VerificationError, match="does not fit data"):
        check(same_id, signature)


def test_the_kind_without_prehash_is_refused(signed: tuple[minisign.SecretKey, Path]) -> None:
    key, signature = signed
    lines = signature.read_text().split("\n")
    raw = bytearray(base64.b64decode(lines[1]))
    raw[:2] = b"Ed"
    lines[1] = base64.b64encode(raw).decode()
    signature.write_text("\n".join(lines))
    with pytest.raises(VerificationError, match="prehashed"):
        check(key, signature)


@pytest.mark.parametrize("raw", [b"", b"\n\n\n\n", b"\xff" * 100, b"a" * 10_000, b"untrusted comment: x\n"])
def test_what_is_no_signature_is_refused(raw: bytes, tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="not a minisign signature"):
        minisign.verify(b"", raw, [create_key().public], tmp_path / "data.minisig")


def test_keys_survive_their_files() -> None:
    key = create_key()
    assert parse_public_key(key.public.file_text(), "k.pub") == key.public
    assert parse_public_key(key.public.text(), "k.pub") == key.public
    assert parse_secret_key(key.file_text(""), "", "k") == key


def test_a_passphrase_is_needed_and_checked() -> None:
    key = create_key()
    text = key.file_text("long passphrase")
    assert parse_secret_key(text, "long passphrase", "k") == key
    with pytest.raises(InputError, match="passphrase is wrong"):
        parse_secret_key(text, "another one", "k")


@pytest.mark.parametrize("text", ["", "x", "RW" + "A" * 54, "a\nb\nc"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="minisign"):
        parse_public_key(text, "k.pub")
    with pytest.raises(InputError, match="minisign secret key"):
        parse_secret_key(text, "", "k")


@pytest.mark.parametrize("comment", ["two\nlines", "x" * 2000, "tab\there"])
def test_a_comment_is_one_short_line(comment: str) -> None:
    with pytest.raises(InputError, match="one line"):
        create_key().sign(b"", comment, "data")
