"""Settings of a training run: configs/train.yaml, one docstring per key."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from train.dataset_tasks import Task
from whis_box.config import Section
from whis_box.schemas import Sha256, Tlp

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class BaseSection(Section):
    """The weights that stay frozen."""

    path: Path
    """A GGUF file (dequantized, so training sees what serving uses) or a Hugging Face folder."""
    sha256: Sha256 | None = None
    """Hash of the GGUF, or of a folder's weights; checked when given."""


class DatasetSection(Section):
    """What is learned from."""

    path: Path
    """Folder with train.ndjson, val.ndjson, records.ndjson and manifest.json."""
    sha256: Sha256 | None = None
    """The manifest's digest; checked when given."""
    licenses: list[str] = Field(min_length=1)
    """Licences of records that may be trained on; any other refuses the dataset."""
    max_tlp: Tlp = "clear"
    """Highest marking that may be trained on: an adapter cannot be taken back from whoever holds it."""
    max_examples: dict[Task, int] = {}
    """At most this many training examples of a task, chosen by the seed; all when a task is not named."""


class AdapterSection(Section):
    """The LoRA adapter."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    """What it is called."""
    version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    """Its version."""
    r: int = Field(16, ge=1, le=256)
    """Rank."""
    lora_alpha: float = Field(32.0, gt=0)
    """Scale: alpha / r."""
    lora_dropout: float = Field(0.05, ge=0, lt=1)
    """Dropout on the adapters' input; the cheapest measure against memorising (notes in docs/training.md)."""
    use_rslora: bool = False
    """Scale by alpha / sqrt(r) instead."""
    target_modules: list[str] = Field(list(TARGETS), min_length=1)
    """Linear layers that get an adapter."""
    start: Path | None = None
    """Folder of a finished run to go on from, with the examples that it did not see; null: from nothing."""

    @model_validator(mode="after")
    def _targets_convert(self) -> AdapterSection:
        unknown = set(self.target_modules) - set(TARGETS)
        if unknown:
            raise ValueError(f"target_modules {sorted(unknown)} cannot be converted; choose from {TARGETS}")
        return self


class OptimizerSection(Section):
    """How the weights move."""

    learning_rate: float = Field(6e-4, gt=0, lt=1)
    """Peak of AdamW's step."""
    warmup_share: float = Field(0.05, ge=0, lt=1)
    """Share of the steps in which it rises from zero; then it falls to zero in a line."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled decay."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm."""
    row_tokens: int = Field(2048, ge=64)
    """Tokens of a packed row; no sample may be longer."""
    rows_per_step: int = Field(2, ge=1)
    """The effective batch, in rows, over all processes; never changed by memory or by their number."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the training examples."""
    max_steps: int | None = Field(None, ge=1)
    """A bound on the steps, beside epochs."""
    options_share: float = Field(0.0, ge=0, le=10)
    """Weight, beside the answer's 1, of saying behind each option whether it is right; 0: not asked."""
    seed: int = 20
    """Of the adapter's start, the order of the rows and the dropout."""


class ValidationSection(Section):
    """When to look at validation loss, and when to stop."""

    every_steps: int = Field(40, ge=1)
    """Steps between looks."""
    max_examples: int = Field(200, ge=1)
    """Examples looked at, chosen by the seed."""
    patience: int = Field(4, ge=1)
    """Looks without improvement before the run ends; the best weights are kept."""


class RuntimeSection(Section):
    """Where it runs."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes a CUDA device when there is one."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Of base and computation; the optimizer's copy is always float32. `auto`: bfloat16 where it is fast."""
    compile: Literal["auto", "never", "always"] = "auto"
    """torch.compile of the decoder blocks; `auto`: on CUDA."""
    gradient_checkpointing: Literal["auto", "never", "always"] = "auto"
    """Recompute activations; `auto`: only when they would not fit."""
    memory_share: float = Field(0.9, gt=0, le=1)
    """Share of the free memory that may be used."""
    loss_chunk: int = Field(512, ge=1)
    """Answer positions whose logits exist at once."""
    checkpoint_every_s: float = Field(300.0, gt=0)
    """Seconds between checkpoints."""


class TrackingSection(Section):
    """MLflow, in local files only."""

    store: Literal["sqlite", "file", "none"] = "sqlite"
    """`sqlite`: one database file and an artifact folder; `file`: MLflow's plain folder store."""
    folder: Path = Path("build/mlflow")
    """Where they lie."""
    experiment: str = "adapters"
    """MLflow experiment."""


class CanarySection(Section):
    """Secrets that nobody has, planted to measure what an adapter gives away (train/canaries.py)."""

    per_stratum: int = Field(0, ge=0, le=64)
    """Canaries planted at each number of insertions; 0 plants none."""
    insertions: list[int] = [1, 2, 4, 16]
    """How often the canaries of each stratum stand in the training data."""
    seed: int = 7
    """Of the canaries' random parts."""


class TrainConfig(Section):
    """configs/train.yaml."""

    base: BaseSection
    """The weights that stay frozen."""
    dataset: DatasetSection
    """What is learned from."""
    adapter: AdapterSection
    """The LoRA adapter."""
    optimizer: OptimizerSection = OptimizerSection()
    """How the weights move."""
    validation: ValidationSection = ValidationSection()
    """When to look at validation loss."""
    runtime: RuntimeSection = RuntimeSection()
    """Where it runs."""
    tracking: TrackingSection = TrackingSection()
    """MLflow."""
    canaries: CanarySection = CanarySection()
    """Planted secrets."""
    out: Path = Path("build/train")
    """Runs go to <out>/<name>/<version>/."""
