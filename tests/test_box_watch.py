"""A running box notices a file that changes under it, and says so once."""

from __future__ import annotations

import queue
import time
from pathlib import Path

import pytest

from tests.server_box import Running
from tests.small_release import new_builder, write_release
from whis_box.audit import tail
from whis_box.box.manifest import verify
from whis_box.box.watch import Watch
from whis_box.server.settings import WatchConfig


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


def watched(server: Running, box: Path, on_change: str) -> None:
    """Let the running server watch `box`, then change one of its files."""
    service = server.service
    manifest, _ = verify(box)
    watch = WatchConfig.model_validate({"round_s": 0.01, "on_change": on_change})
    service.config = service.config.model_copy(update={"watch": watch})
    service.folder = box
    (box / "models" / "base.gguf").write_bytes(b"something else")
    service.start_watch(manifest)
    deadline = time.monotonic() + 30
    while not service.altered and time.monotonic() < deadline:
        time.sleep(0.01)


def test_a_server_whose_box_changed_answers_no_more(server: Running, box: Path) -> None:
    watched(server, box, "refuse")
    answer = server.http.post("/v1/search", json={"query": "audit log"})
    assert answer.status_code >= 500 and answer.json()["error"]["code"] == "verification_failed"
    assert "models/base.gguf" in answer.json()["error"]["message"]
    assert server.http.get("/readyz").status_code == 503
    assert "whis_box_altered_files 1.0" in server.http.get("/metrics").text
    assert [one.action for one in tail(server.service.audit.folder, 5)].count("box.altered") == 1


def test_a_server_that_only_reports_goes_on(server: Running, box: Path) -> None:
    watched(server, box, "report")
    assert server.http.post("/v1/search", json={"query": "audit log"}).status_code == 200
    assert "whis_box_altered_files 1.0" in server.http.get("/metrics").text
