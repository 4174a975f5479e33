"""From samples to a served adapter on the real default base: trained, converted, and the answer changes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from gguf import GGUFReader

from convert import lora as convert_lora
from tests import training_run
from train import lora
from whis_box import prompts
from whis_box.box.opening import engine_spec
from whis_box.config import ModelConfig
from whis_box.engine.protocol import GenerateRequest, LaneSpec
from whis_box.engine.supervisor import Engine
from whis_box.paths import file_sha256

pytestmark = pytest.mark.e2e


def test_one_epoch_on_64_samples_changes_what_is_served(box: Path, tmp_path: Path) -> None:
    base = box / "models" / "base.gguf"
    data = training_run.write_dataset(tmp_path / "data", n_train=64)
    config = training_run.config(
        tmp_path,
        "smoke",
        base={"path": str(base)},
        adapter={"name": "smoke", "r": 8, "lora_alpha": 16},
        optimizer={"epochs": 1, "max_steps": None, "rows_per_step": 1, "learning_rate": 2e-3},
        validation={"every_steps": 100},
        runtime={"dtype": "auto", "checkpoint_every_s": 3600},
        dataset={"path": str(data)},
    )
    figures = lora.train(config, lora.Processes())
    assert figures["best_val_loss"] < 1.0
    run, adapter = tmp_path / "smoke" / "smoke" / "1.0.0", tmp_path / "adapter.gguf"
    convert_lora.convert(run, base, adapter)
    fields = GGUFReader(adapter).fields
    assert fields["whis.base_sha256"].contents() == file_sha256(base)
    assert fields["whis.run"].contents() == json.loads((run / "lineage.json").read_text())["run"]

    prompt = prompts.answer_prompt("7: which is 4?", [f"fact {n}." for n in range(1, 5)], "select", 1)
    spec = engine_spec(base, ModelConfig())
    lanes = (LaneSpec("base"), LaneSpec("adapter", str(adapter)))
    with Engine(dataclasses.replace(spec, lanes=lanes)) as engine:
        texts = {
            lane: engine.generate(GenerateRequest(prompt.segments, lane=lane, max_tokens=12)).text
            for lane in ("base", "adapter")
        }
    assert texts["adapter"] != texts["base"]
    assert prompts.parse_answer(texts["adapter"], "select"), texts
