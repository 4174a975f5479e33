"""The plan: what is predicted, chosen and refused."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import training_run
from tests.tiny_models import tiny_model
from train import budget, lora
from train.config import RuntimeSection
from train.packing import Row, pack
from train.samples import Sample
from whis_box.errors import InputError, NotReadyError


def rows(length: int = 50) -> list[Row]:
    listed = [Sample(str(n), "grounded_qa", [1] * length, 40) for n in range(40)]
    return pack(listed, 1024, random.Random(0))


def planned(tmp_path: Path, **runtime: Any) -> budget.Plan:
    config = training_run.config(tmp_path, "x", runtime=runtime)
    return budget.plan(tiny_model("llama").config, config, "cpu", torch.float32, rows())


def test_counts_of_parameters_are_those_of_the_model(tmp_path: Path) -> None:
    model, config = tiny_model("qwen3"), training_run.config(tmp_path, "x")
    expected = sum(p.numel() for n, p in model.named_parameters() if n.endswith("proj.weight"))
    assert budget.n_matmul_parameters(model.config) == expected
    adapted = lora.get_peft_model(
        model, lora.LoraConfig(r=4, target_modules=list(config.adapter.target_modules), task_type="CAUSAL_LM")
    )
    assert budget.n_adapter_parameters(model.config, config.adapter) == sum(
        p.numel() for p in adapted.parameters() if p.requires_grad
    )


def test_activations_are_recomputed_only_when_they_would_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roomy = planned(tmp_path)
    assert not roomy.gradient_checkpointing
    monkeypatch.setattr(budget, "free_bytes", lambda _: roomy.predicted)
    tight = planned(tmp_path)
    assert tight.gradient_checkpointing and tight.predicted < roomy.predicted
    monkeypatch.setattr(budget, "free_bytes", lambda _: tight.predicted // 4)
    with pytest.raises(InputError, match="activations"):
        planned(tmp_path)


def test_longer_samples_keep_more_attention(tmp_path: Path) -> None:
    config = training_run.config(tmp_path, "x")
    short, long = (
        budget.components(
            tiny_model("llama").config, config, "cpu", 4, False, budget.Largest.of(rows(length))
        )["activations"]
        for length in (50, 500)
    )
    assert long > short


def test_a_cuda_device_that_is_not_there_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(NotReadyError, match="no CUDA device"):
        budget.device_and_dtype(RuntimeSection(device="cuda"))


def test_the_time_estimate_is_linear_in_tokens_and_mfu_is_counted_at_four_n(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    assert plan.predicted_s(2000) == pytest.approx(2 * plan.predicted_s(1000))
    assert plan.mfu(plan.peak_flops / plan.flops_per_token) == pytest.approx(1.0)
    assert plan.flops_per_token == 4 * budget.n_matmul_parameters(tiny_model("llama").config)
