"""A whole training run on a tiny model: it learns, resumes exactly, and refuses what it must."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import ValidationError
from safetensors.torch import load_file

from tests import training_run
from train import checkpoint, lora
from train.config import TrainConfig
from train.earlier import read_earlier
from whis_box.config import load_config
from whis_box.errors import EngineError, InputError, NotReadyError, StorageError, VerificationError
from whis_box.paths import repository_root


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a tiny base and dataset."""
    folder = tmp_path_factory.mktemp("workshop")
    training_run.write_base(folder / "base")
    training_run.write_dataset(folder / "data")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield folder
    torch.set_num_threads(threads)


def run(folder: Path, out: str, **changes: dict[str, Any]) -> tuple[dict[str, Any], Path]:
    figures = lora.train(training_run.config(folder, out, **changes), lora.Processes())
    return figures, folder / out / "tiny" / "1.0.0"


def weights(made: Path) -> dict[str, torch.Tensor]:
    return load_file(made / "adapter" / "adapter_model.safetensors")


def curve(made: Path) -> list[dict[str, float]]:
    lines = (made / "curve.ndjson").read_text().splitlines()
    timed = ("tokens_per_s", "mfu")
    return [{k: v for k, v in json.loads(line).items() if k not in timed} for line in lines]


def assert_same_run(one: Path, other: Path) -> None:
    assert curve(one) == curve(other)
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_learns_and_leaves_adapter_curve_lineage_and_config(workshop: Path) -> None:
    figures, made = run(workshop, "learns", optimizer={"max_steps": 30})
    losses = [point["loss"] for point in curve(made)]
    assert losses[-1] < 0.5 * losses[0]
    assert figures["best_val_loss"] < losses[0]
    lineage = json.loads((made / "lineage.json").read_text())
    assert lineage["n_samples"] == 64 and len(lineage["base_sha256"]) == 64
    assert load_config(made / "config.yaml", TrainConfig).adapter.name == "tiny"


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(workshop: Path) -> None:
    _, first = run(workshop, "once")
    _, second = run(workshop, "twice")
    assert_same_run(first, second)
    _, other = run(workshop, "other-seed", optimizer={"seed": 21})
    assert not torch.equal(next(iter(weights(first).values())), next(iter(weights(other).values())))


def test_a_run_killed_in_the_middle_ends_with_the_same_curve_and_weights(workshop: Path) -> None:
    changes = {"optimizer": {"max_steps": 40}}
    _, whole = run(workshop, "whole", **changes)
    path = training_run.write_config(workshop, "killed", **changes)
    made = workshop / "killed" / "tiny" / "1.0.0"
    child = subprocess.Popen(
        [sys.executable, "-m", "train.lora", "--config", str(path)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=repository_root(),
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 300
    while not list(made.glob("checkpoints/step-00000[3-9].safetensors")):
        assert child.poll() is None, child.stderr.read().decode() if child.stderr else ""
        assert time.monotonic() < deadline, "no checkpoint appeared"
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    if child.stderr:
        child.stderr.close()
    assert not (made / "curve.ndjson").exists(), "it ended before it was killed"
    run(workshop, "killed", **changes)
    assert_same_run(whole, made)


def test_accumulation_over_processes_gives_the_same_steps(workshop: Path) -> None:
    changes = {"adapter": {"lora_dropout": 0.0}}
    _, alone = run(workshop, "alone", **changes)
    path = training_run.write_config(workshop, "pair", **changes)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "-m", "train.lora", "--config", str(path)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=repository_root(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    pair = workshop / "pair" / "tiny" / "1.0.0"
    for one, other in zip(curve(alone), curve(pair), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
    for name, tensor in weights(alone).items():
        assert torch.allclose(tensor, weights(pair)[name], atol=2e-3), name


def test_training_stops_early_and_keeps_the_best_weights(workshop: Path) -> None:
    figures, _ = run(
        workshop,
        "early",
        optimizer={"learning_rate": 0.3, "max_steps": 60, "max_grad_norm": 100.0},
        validation={"every_steps": 1, "patience": 2},
    )
    assert figures["steps"] < 60
    assert figures["best_step"] <= figures["steps"] - 2


@pytest.mark.parametrize("store", ["sqlite", "file"])
def test_a_run_is_recorded_in_local_files(store: str, workshop: Path) -> None:
    folder = workshop / f"mlflow-{store}"
    _, made = run(workshop, f"tracked-{store}", tracking={"store": store, "folder": str(folder)})
    from train.tracking import client

    section = training_run.config(workshop, "x", tracking={"store": store, "folder": str(folder)}).tracking
    opened = client(section)
    experiment = opened.get_experiment_by_name("adapters")
    [recorded] = opened.search_runs([experiment.experiment_id])
    assert recorded.info.status == "FINISHED"
    assert recorded.data.params["lineage.base_sha256"]
    assert recorded.data.params["optimizer.learning_rate"] == "0.01"
    points = opened.get_metric_history(recorded.info.run_id, "loss")
    assert [point.value for point in points] == pytest.approx([one["loss"] for one in curve(made)])
    stored = {path.name for path in folder.rglob("*") if path.is_file()}
    assert {"adapter_model.safetensors", "lineage.json", "curve.ndjson"} <= stored


# ------------------------------------------------------------------ bad input


def test_a_checkpoint_of_another_configuration_is_refused(workshop: Path) -> None:
    run(workshop, "changed")
    with pytest.raises(VerificationError, match="another configuration"):
        run(workshop, "changed", optimizer={"learning_rate": 0.02})


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(workshop: Path) -> None:
    _, whole = run(workshop, "torn")
    newest = sorted(whole.glob("checkpoints/step-*.safetensors"))[-1]
    newest.write_bytes(newest.read_bytes()[:200])
    before = curve(whole), weights(whole)
    run(workshop, "torn")
    assert curve(whole) == before[0]
    assert all(torch.equal(before[1][name], tensor) for name, tensor in weights(whole).items())


def test_a_full_disk_is_named_and_leaves_the_last_checkpoint(
    workshop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = checkpoint.save_file, []

    def full(*arguments: Any, **named: Any) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*arguments, **named)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(StorageError, match="disk is full"):
        run(workshop, "full")
    made = workshop / "full" / "tiny" / "1.0.0"
    kept = sorted(made.glob("checkpoints/step-*.safetensors"))
    assert kept and checkpoint.read(kept[-1])[1]["progress"]["step"] == len(kept)
    monkeypatch.undo()
    run(workshop, "full")
    _, whole = run(workshop, "not-full")
    assert_same_run(whole, made)


def test_a_loss_that_is_not_finite_stops_with_the_last_checkpoint_intact(
    workshop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, calls = lora.answer_loss, []

    def poisoned(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        return loss(*arguments) * (float("nan") if len(calls) > 7 else 1.0)

    monkeypatch.setattr(lora, "answer_loss", poisoned)
    with pytest.raises(EngineError, match="nan"):
        run(workshop, "poisoned", validation={"every_steps": 100})
    made = workshop / "poisoned" / "tiny" / "1.0.0"
    tensors, _ = checkpoint.read(sorted(made.glob("checkpoints/step-*.safetensors"))[-1])
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base": {"sha256": "0" * 64}}, "an adapter fits the base it was trained on"),
        ({"dataset": {"sha256": "0" * 64}}, "the manifest says"),
    ],
    ids=["base", "dataset"],
)
def test_a_hash_that_differs_is_refused(change: dict[str, Any], message: str, workshop: Path) -> None:
    with pytest.raises(VerificationError, match=message):
        run(workshop, "hash", **change)


def test_a_dataset_that_changed_since_its_manifest_is_refused(tmp_path: Path, workshop: Path) -> None:
    data = training_run.write_dataset(tmp_path / "data")
    (data / "train.ndjson").write_text((data / "train.ndjson").read_text() + "\n")
    with pytest.raises(VerificationError, match="train.ndjson"):
        run(workshop, "altered", dataset={"path": str(data)})


@pytest.mark.parametrize(
    ("made", "message"),
    [({"tlp": "amber"}, "TLP amber"), ({"license_id": "CC-BY-NC-4.0"}, "licence CC-BY-NC-4.0")],
    ids=["marking", "licence"],
)
def test_records_that_may_not_be_trained_on_refuse_the_dataset(
    made: dict[str, str], message: str, tmp_path: Path, workshop: Path
) -> None:
    data = training_run.write_dataset(tmp_path / "data", **made)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        run(workshop, "forbidden", dataset={"path": str(data)})


def test_an_empty_dataset_and_a_wrong_line_are_named(tmp_path: Path, workshop: Path) -> None:
    data = training_run.write_dataset(tmp_path / "data", n_train=0)
    with pytest.raises(InputError, match="holds no example"):
        run(workshop, "empty", dataset={"path": str(data)})
    (data / "train.ndjson").write_text('{"id": "x"}\n')
    training_run.sign(data)
    with pytest.raises(InputError, match="line 1.*completion"):
        run(workshop, "wrong", dataset={"path": str(data)})


def test_a_sample_longer_than_a_row_is_named(workshop: Path) -> None:
    with pytest.raises(InputError, match="train-0: .* tokens, the limit is 64"):
        run(workshop, "long", optimizer={"row_tokens": 64})


def test_an_unknown_architecture_is_named(tmp_path: Path, workshop: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    training_run.write_base(tmp_path / "base")
    GPT2LMHeadModel(GPT2Config(vocab_size=259, n_embd=16, n_layer=1, n_head=2)).save_pretrained(
        tmp_path / "base"
    )
    with pytest.raises(InputError, match="gpt2"):
        run(workshop, "unknown", base={"path": str(tmp_path / "base")})


def test_a_tokenizer_without_the_chat_markers_is_refused(tmp_path: Path, workshop: Path) -> None:
    base = training_run.write_base(tmp_path / "base")
    path = base / "tokenizer.json"
    path.write_text(path.read_text().replace("<|im_end|>", "<|other|>"))
    with pytest.raises(VerificationError, match="outside the 259 rows"):
        run(workshop, "tokenizer", base={"path": str(base)})
    path = base / "tokenizer_config.json"
    path.write_text(path.read_text().replace("<|im_end|>", "<|other|>"))
    with pytest.raises(VerificationError, match="im_end"):
        run(workshop, "tokenizer", base={"path": str(base)})


def test_a_run_that_cannot_fit_is_refused_with_its_components(workshop: Path) -> None:
    with pytest.raises(InputError, match="activations"):
        run(workshop, "memory", runtime={"memory_share": 1e-9})


def test_settings_that_nobody_knows_are_refused(workshop: Path) -> None:
    with pytest.raises(ValidationError, match="learning_rte"):
        training_run.config(workshop, "typo", optimizer={"learning_rte": 1.0})


def test_the_shipped_config_is_valid_and_names_every_key() -> None:
    path = repository_root() / "configs" / "train.yaml"
    written = yaml.safe_load(path.read_text())
    full = load_config(path, TrainConfig).model_dump(mode="json")
    for section, values in full.items():
        if isinstance(values, dict):
            assert set(written[section]) == set(values), section


def test_a_run_goes_on_from_an_earlier_one_with_what_that_has_not_seen(workshop: Path) -> None:
    few = {"dataset": {"max_examples": {"grounded_qa": 24}}, "optimizer": {"max_steps": 20}}
    first, made = run(workshop, "first", **few)
    changes = {"adapter": {"start": str(made)}, "optimizer": {"max_steps": 4, "learning_rate": 1e-3}}
    second, again = run(workshop, "second", **changes)
    lineage = json.loads((again / "lineage.json").read_text())
    assert lineage["n_samples"] == 64 - 24
    assert lineage["start"] == json.loads((made / "lineage.json").read_text())["run"]
    assert curve(again)[0]["loss"] < 0.7 * curve(made)[0]["loss"]
    before, after = weights(made), weights(again)
    assert all((before[name] - after[name]).abs().max() < 0.01 for name in before)
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_an_earlier_run_of_another_shape_or_base_is_refused(workshop: Path) -> None:
    _, made = run(workshop, "shape", optimizer={"max_steps": 2})
    with pytest.raises(InputError, match=r"adapter\.r is 4 there and 8 here"):
        run(workshop, "wider", adapter={"start": str(made), "r": 8})
    with pytest.raises(NotReadyError, match=r"adapter\.start"):
        run(workshop, "nowhere", adapter={"start": str(workshop / "nowhere")})
    with pytest.raises(VerificationError, match="trained on base"):
        read_earlier(made, training_run.config(workshop, "x").adapter, "0" * 64)
