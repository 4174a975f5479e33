"""Converted adapters: libllama computes what PEFT computed, and what cannot be expressed is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from convert import lora
from tests.tiny_models import KINDS, N_VOCAB, libllama_logits, tiny_model, write_gguf
from train.config import TARGETS
from whis_box.errors import ConfigError, InputError, VerificationError

MAX_DIFFERENCE = 2e-2
N_PROMPTS = 200


def trained(kind: str, folder: Path, seed: int = 0, **settings: Any) -> tuple[Any, Path, Path]:
    """A tiny PEFT model with a random adapter, its base GGUF and its saved adapter."""
    model = tiny_model(kind, seed)
    base = folder / f"{kind}-{seed}.gguf"
    write_gguf(model, base)
    wanted = {"r": 4, "lora_alpha": 8, "target_modules": list(TARGETS)} | settings
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **wanted)).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_((torch.randn_like(parameter) * 0.15).half().float())
    saved = folder / f"{kind}-{seed}-peft"
    adapted.save_pretrained(saved)
    return adapted, base, saved


def prompts(seed: int) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(N_VOCAB) for _ in range(rng.randint(3, 24))] for _ in range(N_PROMPTS)]


def reference_logits(model: Any, wanted: list[list[int]]) -> Any:
    with torch.no_grad():
        return np.array([model(torch.tensor([one])).logits[0, -1].numpy() for one in wanted])


def assert_same_logits(
    adapted: Any, base: Path, saved: Path, out: Path, limit: float = MAX_DIFFERENCE
) -> None:
    lora.convert(saved, base, out, "f32")
    wanted = prompts(1)
    ours, theirs = libllama_logits(base, out, wanted), reference_logits(adapted, wanted)
    without = libllama_logits(base, None, wanted)
    assert np.abs(without - theirs).max() > 0.2, "the adapter changes nothing, so this shows nothing"
    assert np.abs(ours - theirs).max() <= limit
    # Random logits are often closer to each other than f16 activations can tell; those are ties.
    best, second = np.sort(theirs, axis=1)[:, [-1, -2]].T
    clear = best - second > 2 * MAX_DIFFERENCE
    assert clear.mean() > 0.8
    assert (ours.argmax(axis=1) == theirs.argmax(axis=1))[clear].all()


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_computes_in_libllama_what_it_computes_in_peft(kind: str, tmp_path: Path) -> None:
    adapted, base, saved = trained(kind, tmp_path)
    assert_same_logits(adapted, base, saved, tmp_path / "adapter.gguf")


@pytest.mark.parametrize(
    "settings",
    [
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 2, "layers.1.mlp.down_proj": 8}},
        {"alpha_pattern": {"v_proj": 3}, "use_rslora": True, "rank_pattern": {"o_proj": 2}},
    ],
    ids=["rslora", "rank pattern", "alpha pattern with rslora"],
)
def test_scales_that_libllama_does_not_know_are_folded(settings: dict[str, Any], tmp_path: Path) -> None:
    adapted, base, saved = trained("llama", tmp_path, **settings)
    # These scales make the adapter several times as strong, and f16 activations round in proportion.
    assert_same_logits(adapted, base, saved, tmp_path / "adapter.gguf", 2 * MAX_DIFFERENCE)


def test_without_the_permutation_the_logits_would_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapted, base, saved = trained("llama", tmp_path)
    monkeypatch.setattr(lora, "PERMUTED_ARCHITECTURES", ())
    lora.convert(saved, base, tmp_path / "adapter.gguf", "f32")
    wanted = prompts(1)
    ours = libllama_logits(base, tmp_path / "adapter.gguf", wanted)
    assert np.abs(ours - reference_logits(adapted, wanted)).max() > MAX_DIFFERENCE


@pytest.mark.parametrize(
    "change",
    [
        {"use_dora": True},
        {"modules_to_save": ["lm_head"]},
        {"bias": "all"},
        {"lora_bias": True},
        {"fan_in_fan_out": True},
        {"lora_alpha": 0},
        {"peft_type": "LOHA"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_a_gguf_adapter_cannot_hold_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    _, base, saved = trained("llama", tmp_path)
    path = saved / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError, match=next(iter(change))):
        lora.convert(saved, base, tmp_path / "adapter.gguf")
    assert not (tmp_path / "adapter.gguf").exists()


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.model.embed_tokens.lora_embedding_A",
        "base_model.model.lm_head.lora_A.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector",
        "base_model.model.model.layers.0.input_layernorm.weight",
    ],
)
def test_tensors_without_a_place_are_refused(name: str, tmp_path: Path) -> None:
    _, base, saved = trained("llama", tmp_path)
    tensors = load_file(saved / "adapter_model.safetensors")
    save_file(tensors | {name: torch.zeros(4, 4)}, saved / "adapter_model.safetensors")
    with pytest.raises(ConfigError, match=name):
        lora.convert(saved, base, tmp_path / "adapter.gguf")


def test_an_adapter_of_another_shape_of_base_is_refused(tmp_path: Path) -> None:
    _, _, saved = trained("llama", tmp_path)
    other = tiny_model("llama")
    other.config.num_hidden_layers = 1
    del other.model.layers[1]
    write_gguf(other, tmp_path / "other.gguf")
    with pytest.raises(VerificationError, match="another base"):
        lora.convert(saved, tmp_path / "other.gguf", tmp_path / "adapter.gguf")


def test_an_adapter_whose_lineage_names_another_base_is_refused(tmp_path: Path) -> None:
    _, base, saved = trained("llama", tmp_path)
    names = ("dataset", "dataset_sha256", "samples_sha256", "prompt_sha256", "run", "commit")
    lineage = dict.fromkeys(names, "x") | {"base_sha256": "0" * 64, "environment": {"peft": "0"}}
    (saved / "lineage.json").write_text(json.dumps(lineage))
    with pytest.raises(VerificationError, match="0000"):
        lora.convert(saved, base, tmp_path / "adapter.gguf")
    lora.convert(saved, base, tmp_path / "adapter.gguf", trained_on="0" * 64)
    fields = GGUFReader(tmp_path / "adapter.gguf").fields
    assert fields["whis.trained_on_sha256"].contents() == "0" * 64


def test_a_weight_outside_f16_is_refused(tmp_path: Path) -> None:
    _, base, saved = trained("llama", tmp_path)
    tensors = load_file(saved / "adapter_model.safetensors")
    next(iter(tensors.values()))[0, 0] = 1e6
    save_file(tensors, saved / "adapter_model.safetensors")
    with pytest.raises(InputError, match="f16"):
        lora.convert(saved, base, tmp_path / "adapter.gguf")


def test_a_damaged_adapter_file_is_refused(tmp_path: Path) -> None:
    _, base, saved = trained("llama", tmp_path)
    path = saved / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(VerificationError, match="safetensors"):
        lora.convert(saved, base, tmp_path / "adapter.gguf")
