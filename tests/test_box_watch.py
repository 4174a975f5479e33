"""A running box notices a file that changes under it, and says so once."""

from __future__ import annotations

import queue
import time
from pathlib import Path

import pytest

from tests.small_release import new_builder, write_release
from whis_box.box.manifest import verify
from whis_box.box.watch import Watch


@pytest.fixture
def box(tmp_path: Path) -> Path:
    write_release(tmp_path / "box", 1, new_builder().release_key)
    return tmp_path / "box"


def wait_for(watch: Watch, rounds: int) -> None:
    while watch.rounds < rounds:
        time.sleep(0.01)


def test_a_change_is_reported_once_by_its_name(box: Path) -> None:
    manifest, _ = verify(box)
    problems: queue.Queue[str] = queue.Queue()
    with Watch(box, manifest, problems.put, round_s=0.01) as watch:
        wait_for(watch, 1)
        assert problems.empty()
        raw = bytearray((box / "embedder" / "model.onnx").read_bytes())
        raw[0] ^= 1
        (box / "embedder" / "model.onnx").write_bytes(raw)
        assert "embedder/model.onnx: sha256 is" in problems.get(timeout=60)
        wait_for(watch, watch.rounds + 2)
        assert problems.empty()


def test_a_file_that_is_gone_is_reported(box: Path) -> None:
    manifest, _ = verify(box)
    problems: queue.Queue[str] = queue.Queue()
    (box / "whis").unlink()
    with Watch(box, manifest, problems.put, round_s=0.01):
        assert "whis: is missing" in problems.get(timeout=60)
