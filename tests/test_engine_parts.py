"""Frames, GGUF headers, samplers and CPU choice, without a model."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whis_box.engine import cpu
from whis_box.engine.gguf_header import read_header
from whis_box.engine.protocol import MAX_FRAME_BYTES, read_frame, write_frame
from whis_box.engine.sampler import make_sampler
from whis_box.errors import NotReadyError, VerificationError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3),
)


@given(st.lists(st.dictionaries(st.text(), json_values, max_size=4), max_size=4))
def test_frames_come_back_as_they_went(messages: list[dict[str, Any]]) -> None:
    stream = io.BytesIO()
    for message in messages:
        write_frame(stream, message)
    stream.seek(0)
    assert [read_frame(stream) for _ in messages] == messages
    assert read_frame(stream) is None


def test_a_stream_that_ends_inside_a_frame_is_an_error() -> None:
    stream = io.BytesIO()
    write_frame(stream, {"a": 1})
    for length in range(1, len(stream.getvalue())):
        with pytest.raises(EOFError):
            read_frame(io.BytesIO(stream.getvalue()[:length]))


def test_an_oversized_frame_is_refused_before_it_is_read() -> None:
    with pytest.raises(ValueError, match="larger than"):
        read_frame(io.BytesIO(struct.pack(">I", MAX_FRAME_BYTES + 1)))


def gguf(
    n_tensors: int = 1, keys: list[bytes] | None = None, magic: bytes = b"GGUF", version: int = 3
) -> bytes:
    listed = [_string_key("general.architecture", "llama")] if keys is None else keys
    return magic + struct.pack("<IQQ", version, n_tensors, len(listed)) + b"".join(listed)


def _string_key(name: str, value: str) -> bytes:
    return _text(name) + struct.pack("<I", 8) + _text(value)


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def test_a_sound_header_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    number = _text("llama.context_length") + struct.pack("<II", 4, 4096)
    path.write_bytes(gguf(keys=[_string_key("general.architecture", "llama"), number]))
    header = read_header(path)
    assert (header.architecture, header.n_ctx_train, header.n_tensors) == ("llama", 4096, 1)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GGU",
        gguf(magic=b"PK\x03\x04"),
        gguf(version=99),
        gguf(n_tensors=2**63),
        gguf()[:-3],
        gguf(keys=[]),
        gguf(keys=[struct.pack("<Q", 2**62) + b"x"]),
        gguf(keys=[_text("a") + struct.pack("<IIQ", 9, 4, 2**60)]),
        gguf(keys=[_text("a") + struct.pack("<I", 77)]),
    ],
    ids=[
        "empty",
        "short",
        "zip",
        "version",
        "tensors",
        "cut",
        "no keys",
        "long string",
        "long array",
        "type",
    ],
)
def test_a_damaged_header_is_refused_with_the_file_and_a_remedy(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(VerificationError, match=r"bad\.gguf.*copy it again"):
        read_header(path)


def test_a_missing_model_is_not_ready(tmp_path: Path) -> None:
    with pytest.raises(NotReadyError, match="none.gguf"):
        read_header(tmp_path / "none.gguf")


def test_greedy_takes_the_maximum_and_a_seed_repeats_a_draw() -> None:
    logits = np.array([0.1, 2.0, 1.9, -5.0], dtype=np.float32)
    assert make_sampler(0.0, 0)(logits) == 1
    draws = [[make_sampler(1.0, seed)(logits) for _ in range(3)] for seed in range(50)]
    assert draws == [[make_sampler(1.0, seed)(logits) for _ in range(3)] for seed in range(50)]
    assert {draw[0] for draw in draws} > {1}


def test_masked_tokens_are_never_drawn() -> None:
    logits = np.array([-np.inf, 0.0, -np.inf, 0.0], dtype=np.float32)
    sampler = make_sampler(2.0, 7)
    assert {sampler(logits) for _ in range(200)} <= {1, 3}


def test_threads_follow_affinity_and_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(8)))
    monkeypatch.setattr(cpu, "_cgroup_v1_cpus", lambda: None)
    for quota, expected in ((None, 8), (2.9, 2), (0.5, 1), (32.0, 8)):
        monkeypatch.setattr(cpu, "_cgroup_v2_cpus", lambda quota=quota: quota)
        assert cpu.thread_count() == expected


def test_a_backend_that_fails_its_probe_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "libggml-cpu-x.so"
    library.write_bytes(b"")
    found = [
        cpu.Variant(name, library, score)
        for name, score in (("sapphirerapids", 9), ("zen4", 5), ("x64", 1), ("no", 0))
    ]
    monkeypatch.setattr(cpu, "variants", lambda _folder: found)
    monkeypatch.setattr(cpu.native, "library_dir", lambda: tmp_path)
    monkeypatch.setattr(cpu, "probe", lambda variant, _model: "crashed" if variant.name == "zen4" else None)
    choice = cpu.choose(tmp_path / "m.gguf", tmp_path / "cache.json")
    assert choice.variant == "x64"
    assert choice.refused["zen4"] == "crashed" and "AMX" in choice.refused["sapphirerapids"]
    monkeypatch.setattr(cpu, "probe", lambda *_: "must not be asked again")
    assert cpu.choose(tmp_path / "m.gguf", tmp_path / "cache.json") == choice


def test_no_working_backend_is_an_error_that_lists_the_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "variants", lambda _folder: [])
    monkeypatch.setattr(cpu.native, "library_dir", lambda: tmp_path)
    with pytest.raises(NotReadyError, match="no CPU backend works"):
        cpu.choose(tmp_path / "m.gguf", None)
