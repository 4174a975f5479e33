"""Kept vectors: a killed build goes on, a purged passage leaves nothing, a damaged file is refused."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import HashingEmbedder
from whis_box.errors import VerificationError
from whis_box.ingest.vectors import SLICE, KeptVectors

TEXTS = [f"event {number} on host {number % 7}" for number in range(SLICE + 40)]


class Killed(Exception):
    """What a kill in the middle of a build looks like from inside."""


class Mortal(HashingEmbedder):
    """Dies after so many texts."""

    def __init__(self, lives: int) -> None:
        self.lives = lives

    def embed(self, texts: Iterable[str]) -> Any:
        """Unit vectors."""
        listed = list(texts)
        self.lives -= len(listed)
        if self.lives < 0:
            raise Killed
        return super().embed(listed)


def kept(path: Path, embedder: Any, sha256: str = "a" * 64) -> KeptVectors:
    """In this process."""
    return KeptVectors(path, path.parent, embedder, sha256, workers=1)


def test_a_killed_build_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "v.sqlite"
    with pytest.raises(Killed), kept(path, Mortal(SLICE + 10)) as vectors:
        vectors.embed(TEXTS)
    with kept(path, HashingEmbedder()) as vectors:
        found = vectors.embed(TEXTS)
        assert (vectors.n_kept, vectors.n_computed) == (SLICE, 40)
    assert np.array_equal(found, HashingEmbedder().embed(TEXTS))


def test_repeated_texts_are_computed_once_and_another_embedder_shares_nothing(tmp_path: Path) -> None:
    path = tmp_path / "v.sqlite"
    with kept(path, HashingEmbedder()) as vectors:
        vectors.embed(["one", "two", "one"])
        assert vectors.n_computed == 2
    with kept(path, HashingEmbedder(), "b" * 64) as vectors:
        vectors.embed(["one"])
        assert vectors.n_computed == 1


def test_what_a_build_does_not_use_is_forgotten_to_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "v.sqlite"
    gone = HashingEmbedder().embed(["a passage that was purged"])[0].tobytes()
    with kept(path, HashingEmbedder()) as vectors:
        vectors.embed(["a passage that was purged", "another"])
        vectors.forget_unused()
    assert gone in path.read_bytes()
    with kept(path, HashingEmbedder()) as vectors:
        vectors.embed(["another"])
        vectors.forget_unused()
    assert gone not in b"".join(one.read_bytes() for one in tmp_path.iterdir())


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "v.sqlite").write_bytes(b"not a database at all, but long enough to look like one" * 20)
    with pytest.raises(VerificationError, match="delete it"), kept(tmp_path / "v.sqlite", HashingEmbedder()):
        pass
