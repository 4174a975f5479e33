"""Codes of vectors: as good as an exact scan, refused when they belong to other vectors, never half-made."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conftest import FAKE_SHA256, HashingEmbedder, write_document
from whis_box.config import RagConfig
from whis_box.errors import ConfigError, NotReadyError, VerificationError
from whis_box.ingest.pipeline import build_index, read_folder
from whis_box.knowledge import codes
from whis_box.knowledge.codes import Codes, codes_path, eight_bit_copies, write_codes
from whis_box.knowledge.retriever import Retriever
from whis_box.knowledge.store import verify_index

DIM = 128


def clustered(n: int, seed: int) -> NDArray[np.float32]:
    """Unit vectors around a few hundred centres, as texts on the same subjects are."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(200, DIM))
    vectors = centres[rng.integers(0, 200, n)] + 0.7 * rng.normal(size=(n, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def write(index: Path, vectors: NDArray[np.float32]) -> str:
    """The codes of `vectors`; their digest."""
    digest = hashlib.sha256(vectors.tobytes()).hexdigest()

    def blocks() -> Iterator[NDArray[np.float32]]:
        for at in range(0, len(vectors), codes.BLOCK):
            yield vectors[at : at + codes.BLOCK]

    write_codes(codes_path(index, "chunk_vectors", digest), blocks, *vectors.shape, digest)
    return digest


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes already for a handful of vectors, with blocks and candidates to match."""
    for module in ("codes", "store", "writer"):
        monkeypatch.setattr(f"whis_box.knowledge.{module}.EXACT_ROWS", 2)
    monkeypatch.setattr(codes, "BLOCK", 512)
    monkeypatch.setattr("whis_box.knowledge.store.BLOCK", 512)
    monkeypatch.setattr(codes, "BITS_CANDIDATES", 300)


@pytest.mark.usefixtures("small_limit")
@pytest.mark.parametrize("n", [3, 512, 4000])
def test_the_nearest_are_those_of_an_exact_scan(tmp_path: Path, n: int) -> None:
    vectors = clustered(n, 1)
    queries = vectors[:40] + 0.3 * clustered(40, 2)[: len(vectors)]
    opened = Codes(
        codes_path(tmp_path / "i", "chunk_vectors", digest := write(tmp_path / "i", vectors)), DIM, n, digest
    )
    common = 0
    for query in queries:
        exact = np.argsort(-(vectors @ query), kind="stable")[:10] + 1
        common += len(set(exact.tolist()) & set(opened.nearest(query, 10 + 24)))
    opened.close()
    assert common >= 0.99 * len(queries) * min(10, n)


def test_eight_bit_copies_give_the_vectors_back() -> None:
    vectors = clustered(50, 3)
    copies = eight_bit_copies(vectors)
    assert copies.shape == (50, DIM + 4)
    scales = np.ascontiguousarray(copies[:, DIM:]).view(np.float32)
    assert np.abs(copies[:, :DIM].view(np.int8) * scales - vectors).max() <= np.abs(vectors).max() / 127


@pytest.mark.usefixtures("small_limit")
def test_other_cut_or_missing_codes_are_refused(tmp_path: Path) -> None:
    vectors = clustered(1000, 1)
    digest = write(tmp_path / "i", vectors)
    place = codes_path(tmp_path / "i", "chunk_vectors", digest)
    with pytest.raises(VerificationError, match="not the codes of this index"):
        Codes(place, DIM, 1000, "0" * 64)
    with pytest.raises(VerificationError, match="not the codes of this index"):
        Codes(place, DIM, 999, digest)
    place.write_bytes(place.read_bytes()[:-1])
    with pytest.raises(VerificationError, match="cut off"):
        Codes(place, DIM, 1000, digest)
    place.unlink()
    with pytest.raises(NotReadyError, match="missing"):
        Codes(place, DIM, 1000, digest)
    with pytest.raises(ConfigError, match="64 must divide"):
        write(tmp_path / "i", np.ones((3, 100), dtype=np.float32))


@pytest.mark.usefixtures("small_limit")
def test_a_search_by_codes_finds_what_a_full_scan_finds(
    guide: Path, tmp_path: Path, retriever: Retriever
) -> None:
    path = tmp_path / "coded.sqlite"
    build(guide, path)
    embedder: Any = HashingEmbedder()
    coded = Retriever(path, embedder, FAKE_SHA256, RagConfig().retriever)
    for query in ("audit log cleared", "password in memory of lsass", "jndi string"):
        for hit, expected in zip(coded.search(query), retriever.search(query), strict=True):
            assert hit.chunk.id == expected.chunk.id
            assert hit.score == pytest.approx(expected.score, rel=1e-4)
    coded.close()


@pytest.mark.usefixtures("small_limit")
def test_a_changed_byte_in_codes_or_index_is_found_by_verify(guide: Path, tmp_path: Path) -> None:
    path = tmp_path / "i.sqlite"
    build(guide, path)
    assert verify_index(path)["verified"] is True
    place = next(tmp_path.glob("*chunk_vectors-*.codes"))
    data = bytearray(place.read_bytes())
    data[-1] ^= 1
    place.write_bytes(bytes(data))
    with pytest.raises(VerificationError, match="codes differ"):
        verify_index(path)


@pytest.mark.usefixtures("small_limit")
def test_a_build_that_is_killed_leaves_the_old_index_or_the_new_one(guide: Path, tmp_path: Path) -> None:
    """200 kills at times that cover the whole build; after each the index opens, is sound, answers."""
    path = tmp_path / "i.sqlite"
    build(guide, path)
    write_document(
        guide, "extra", "Event 7045: a service was installed", "## What it is\n\nEvent 7045 is new.\n"
    )
    started = time.perf_counter()
    build(guide, tmp_path / "timed.sqlite")
    length = time.perf_counter() - started
    seen = set()
    for number in range(200):
        child = os.fork()
        if child == 0:
            build(guide, path)
            os._exit(0)
        time.sleep(3 * length * (number % 100) / 100)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        opened = Retriever(path, HashingEmbedder(), FAKE_SHA256, RagConfig().retriever)  # type: ignore[arg-type]
        assert opened.search("audit log cleared")[0].chunk.record_id == "win-1102"
        seen.add(opened.meta["n_records"])
        opened.close()
        verify_index(path)
        if number == 100:  # back to the old one, so that the second half can be caught in between too
            build_old(guide, path)
    assert seen == {3, 4}
    build(guide, path)
    assert not list(tmp_path.glob(".*building*"))


def build(guide: Path, path: Path) -> None:
    """An index with the hashing embedder."""
    embedder: Any = HashingEmbedder()
    records = read_folder(guide)
    build_index(records, path, embedder, FAKE_SHA256, RagConfig(), lambda *_: None, len(records))


def build_old(guide: Path, path: Path) -> None:
    """The index without the extra document."""
    embedder: Any = HashingEmbedder()
    records = [one for one in read_folder(guide) if one.id != "extra"]
    build_index(records, path, embedder, FAKE_SHA256, RagConfig(), lambda *_: None, len(records))
