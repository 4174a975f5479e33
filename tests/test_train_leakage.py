"""Leakage is measured: a run that learned its canaries by heart fails, one that never saw them passes."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import training_run
from train import leakage, lora
from train.canaries import make_canaries, plant
from train.config import CanarySection
from train.leakage import Stratum, auc, membership
from whis_box.errors import InputError

ALTERNATIVES = 127


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """A run that saw four canaries 64 times in each of several epochs, and its report."""
    folder = tmp_path_factory.mktemp("control")
    training_run.write_base(folder / "base")
    data = training_run.write_dataset(folder / "data", n_train=8)
    (data / "test.ndjson").write_text((data / "val.ndjson").read_text())
    training_run.sign(data)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    config = training_run.config(
        folder,
        "overfitted",
        adapter={"r": 16, "lora_alpha": 32, "lora_dropout": 0.0},
        optimizer={"max_steps": 60, "rows_per_step": 4, "learning_rate": 0.01},
        validation={"every_steps": 60},
        runtime={"checkpoint_every_s": 3600},
        canaries={"per_stratum": 4, "insertions": [64]},
    )
    lora.train(config, lora.Processes())
    made = folder / "overfitted" / "tiny" / "1.0.0"
    report = leakage.measure(made, 8, ALTERNATIVES)
    torch.set_num_threads(threads)
    return report, made


def test_the_positive_control_fails_the_gate(control: tuple[dict[str, Any], Path]) -> None:
    report, _ = control
    planted = next(one for one in report["strata"] if one["insertions"] == 64)
    assert planted["mean_exposure"] > leakage.MAX_MEAN_EXPOSURE
    assert not planted["passed"] and not report["passed"]


def test_canaries_that_were_never_planted_pass(control: tuple[dict[str, Any], Path]) -> None:
    report, _ = control
    never = next(one for one in report["strata"] if one["insertions"] == 0)
    assert never["passed"], never


def test_the_report_and_the_adapter_hold_no_canary(control: tuple[dict[str, Any], Path]) -> None:
    report, made = control
    secrets = [one.secret for one in make_canaries(CanarySection(per_stratum=4, insertions=[64]))]
    texts = [json.dumps(report)] + [path.read_text() for path in made.iterdir() if path.is_file()]
    assert not any(secret in text for secret in secrets for text in texts)


def test_a_run_without_canaries_cannot_be_measured(
    control: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    _, made = control
    text = (made / "config.yaml").read_text().replace("per_stratum: 4", "per_stratum: 0")
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match="no canaries"):
        leakage.measure(tmp_path, 8)


def test_each_canary_is_planted_as_often_as_its_stratum_says() -> None:
    section = CanarySection(per_stratum=2, insertions=[1, 3])
    planted = plant([], section)
    assert len(planted) == 8 and len({one.id for one in planted}) == 8
    for canary in make_canaries(section):
        assert sum(canary.secret in one.completion for one in planted) == canary.insertions


def test_secrets_repeat_with_the_seed_and_differ_with_another() -> None:
    first, again, other = (
        [one.secret for one in make_canaries(CanarySection(per_stratum=2, seed=seed))] for seed in (1, 1, 2)
    )
    assert first == again and first != other


def test_auc_counts_pairs_and_ties_as_half() -> None:
    assert auc(np.array([2.0, 3.0]), np.array([1.0, 0.0])) == 1.0
    assert auc(np.array([1.0, 0.0]), np.array([1.0, 0.0])) == 0.5
    rng = random.Random(0)
    members, others = ([rng.randint(0, 9) for _ in range(40)] for _ in range(2))
    pairs = [(m > o) + 0.5 * (m == o) for m in members for o in others]
    assert auc(np.array(members, float), np.array(others, float)) == pytest.approx(np.mean(pairs))


def test_members_that_stand_out_fail_and_those_that_do_not_pass() -> None:
    rng = np.random.default_rng(0)
    others = rng.normal(size=300)
    assert not membership(rng.normal(1.0, size=300), others).passed
    found = membership(rng.normal(size=300), others)
    assert found.passed and found.auc_low < found.auc < found.auc_high


def test_one_extracted_canary_fails_whatever_the_exposure() -> None:
    assert Stratum(1, 8, 1.4, 3.0, 0, 0).passed
    assert not Stratum(1, 8, 1.4, 3.0, 0, 1).passed
    assert not Stratum(1, 8, 1.4, 3.0, 1, 0).passed
