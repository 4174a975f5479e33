"""A tiny dataset, base and configuration for training tests."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

from tests.tiny_models import save_folder, tiny_model
from train.config import TrainConfig
from whis_box import prompts

N_VOCAB = 259  # bytes and three markers


def example(number: int, split: str) -> dict[str, Any]:
    """A question whose answer is the fact that names its number."""
    digit = number % 4 + 1
    facts = [f"fact {n}." for n in range(1, 5)]
    prompt = prompts.answer_prompt(f"{number}: which is {digit}?", facts, "select", 1)
    return {
        "id": f"{split}-{number}",
        "task": "grounded_qa",
        "split": split,
        "record_ids": ["r1"],
        "segments": prompt.segments,
        "completion": f"[{digit}]\n",
    }


def write_dataset(folder: Path, n_train: int = 64, tlp: str = "clear", license_id: str = "CC-BY-4.0") -> Path:
    """A dataset folder with its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", n_train), ("val", 8)):
        lines = [json.dumps(example(number, split)) + "\n" for number in range(count)]
        (folder / f"{split}.ndjson").write_text("".join(lines))
    (folder / "records.ndjson").write_text(json.dumps({"id": "r1", "license": license_id, "tlp": tlp}) + "\n")
    sign(folder)
    return folder


def sign(folder: Path) -> None:
    """Write the manifest of what the folder holds now."""
    files = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.ndjson"))
    }
    manifest = {
        "name": "tiny",
        "version": "1",
        "files": files,
        "sha256": hashlib.sha256(json.dumps(files).encode()).hexdigest(),
        "prompt_sha256": prompts.prompt_sha256(),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def write_base(folder: Path) -> Path:
    """A tiny random Llama as a Hugging Face folder."""
    save_folder(tiny_model("llama", n_vocab=N_VOCAB), folder)
    return folder


def settings(folder: Path, out: str, **changes: dict[str, Any]) -> dict[str, Any]:
    """A configuration of a short run on `folder`/base and `folder`/data."""
    fields: dict[str, Any] = {
        "base": {"path": str(folder / "base")},
        "dataset": {"path": str(folder / "data"), "licenses": ["CC-BY-4.0"]},
        "adapter": {"name": "tiny", "version": "1.0.0", "r": 4, "lora_alpha": 8},
        "optimizer": {
            "row_tokens": 1024,
            "rows_per_step": 2,
            "epochs": 20,
            "max_steps": 8,
            "learning_rate": 0.01,
        },
        "validation": {"every_steps": 3},
        "runtime": {"dtype": "float32", "device": "cpu", "checkpoint_every_s": 1e-9},
        "tracking": {"store": "none"},
        "out": str(folder / out),
    }
    for section, values in changes.items():
        fields[section] = fields.get(section, {}) | values
    return fields


def config(folder: Path, out: str, **changes: dict[str, Any]) -> TrainConfig:
    """The same, validated."""
    return TrainConfig.model_validate(settings(folder, out, **changes))


def write_config(folder: Path, out: str, **changes: dict[str, Any]) -> Path:
    """The same, as a file."""
    path = folder / f"{out}.yaml"
    path.write_text(yaml.safe_dump(settings(folder, out, **changes)))
    return path
