"""Slots, context and KV type against memory; GPU choice without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from whis_box.engine import cpu, gpu
from whis_box.engine.gguf_header import GgufHeader
from whis_box.engine.sizing import kv_bytes_per_token, plan

MB = 1_000_000
SMALL = GgufHeader("llama", 272, 8192, 49152, 92 * MB, n_layers=30, n_head_kv=3, head_dim=64)
LARGE = GgufHeader("qwen3", 400, 40960, 151936, 2500 * MB, n_layers=36, n_head_kv=8, head_dim=128)


def test_bytes_per_token_are_those_of_the_caches() -> None:
    assert kv_bytes_per_token(SMALL, "f16") == 23_040
    assert kv_bytes_per_token(LARGE, "f16") == 147_456
    assert kv_bytes_per_token(LARGE, "q8_0") == 78_336


@pytest.mark.parametrize(
    ("available_mb", "chosen"),
    [
        (24_000, (2048, 4, "f16")),
        (1_000, (2048, 4, "f16")),
        (600, (2048, 4, "q8_0")),
        (400, (2048, 2, "q8_0")),
    ],
)
def test_the_small_base_gets_what_fits(available_mb: int, chosen: tuple[int, int, str]) -> None:
    sizing = plan(SMALL, 2048, 1, available_mb * MB)
    assert (sizing.n_ctx, sizing.n_slots, sizing.kv_type) == chosen
    assert sizing.notes == () and sizing.kv_bytes <= 0.25 * (available_mb - 92) * MB


def test_three_lanes_share_the_budget() -> None:
    assert plan(LARGE, 8192, 3, 24_000 * MB).kv_bytes <= 0.25 * (24_000 - 2500) * MB


def test_a_context_that_does_not_fit_is_shortened_and_said() -> None:
    sizing = plan(LARGE, 8192, 1, 4_000 * MB)
    assert sizing.n_ctx < 8192 and "engine.n_ctx is 8192" in sizing.notes[0]


def test_more_than_the_model_was_trained_for_is_not_given() -> None:
    sizing = plan(SMALL, 100_000, 1, 64_000 * MB)
    assert sizing.n_ctx == 8192 and "trained" in sizing.notes[0]


def test_what_was_asked_for_is_given_even_when_it_is_large_and_said() -> None:
    sizing = plan(SMALL, 512, 1, 200 * MB, n_slots=16, kv_type="f16")
    assert (sizing.n_slots, sizing.kv_type) == (16, "f16")
    assert any("more than" in note for note in sizing.notes)


def test_without_a_gpu_library_nothing_is_probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu.native, "library_dir", lambda: tmp_path)
    monkeypatch.setattr(cpu, "probe", lambda *_: pytest.fail("must not be asked"))
    assert gpu.choose(tmp_path / "m.gguf") == gpu.GpuChoice("", {})


def test_a_gpu_backend_that_fails_its_probe_is_refused_with_the_reason_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("cuda", "vulkan"):
        (tmp_path / f"libggml-{kind}.so").write_bytes(b"x")
    monkeypatch.setattr(gpu.native, "library_dir", lambda: tmp_path)
    monkeypatch.setattr(cpu, "probe", lambda one, _model: "no driver" if one.name == "cuda" else None)
    choice = gpu.choose(tmp_path / "m.gguf", tmp_path / "cache.json")
    assert choice.path.endswith("libggml-vulkan.so") and choice.refused == {"libggml-cuda.so": "no driver"}
    monkeypatch.setattr(cpu, "probe", lambda *_: pytest.fail("must not be asked again"))
    assert gpu.choose(tmp_path / "m.gguf", tmp_path / "cache.json") == choice
