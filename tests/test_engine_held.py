"""What is loaded is what was hashed, also when the name leads elsewhere by then."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from whis_box.engine.held import held
from whis_box.errors import NotReadyError, StorageError, VerificationError

GOOD = hashlib.sha256(b"weights").hexdigest()


def test_a_file_that_is_exchanged_after_hashing_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "base.gguf"
    path.write_bytes(b"weights")
    with held(path, GOOD) as opened:
        path.with_name("other").write_bytes(b"another")
        path.with_name("other").rename(path)
        assert path.read_bytes() == b"another"
        assert opened.read_bytes() == b"weights"


def test_another_hash_is_refused_before_anything_reads_the_file(tmp_path: Path) -> None:
    path = tmp_path / "base.gguf"
    path.write_bytes(b"changed")
    with (
        pytest.raises(VerificationError, match=r"base\.gguf: sha256 is .* the file changed"),
        held(path, GOOD),
    ):
        raise AssertionError("the block must not run")
    with pytest.raises(NotReadyError), held(tmp_path / "none", GOOD):
        pass
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(StorageError), held(tmp_path / "link", GOOD):
        pass


def test_without_a_hash_the_path_itself_is_used(tmp_path: Path) -> None:
    with held(tmp_path / "base.gguf", "") as opened:
        assert opened == tmp_path / "base.gguf"
