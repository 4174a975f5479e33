"""An earlier run that a new one goes on from: its weights, and the examples it has not seen.

Invariant: what differs from the earlier adapter in shape or base is refused, never converted in silence.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from train.config import AdapterSection, TrainConfig
from train.dataset_tasks import Example
from train.samples import choose
from whis_box.config import load_config
from whis_box.errors import InputError, VerificationError
from whis_box.paths import read_text

SHAPE = ("r", "lora_alpha", "use_rslora", "target_modules")


@dataclass(frozen=True)
class Earlier:
    """A finished run."""

    config: TrainConfig
    lineage: dict[str, Any]
    weights: dict[str, Tensor]
    """By the names that `train.optimizer.MasterWeights.state` gives."""

    def unseen(self, examples: Sequence[Example], dataset_sha256: str) -> list[Example]:
        """Those that the earlier run did not learn from; all when it had another dataset."""
        if self.lineage["dataset_sha256"] != dataset_sha256:
            return list(examples)
        section = self.config.dataset
        chosen = choose(examples, dict(section.max_examples), self.config.optimizer.seed)
        seen = {one.id for one in chosen}
        return [one for one in examples if one.id not in seen]


def read_earlier(folder: Path, section: AdapterSection, base_sha256: str) -> Earlier:
    """The run in `folder`, whose adapter must have the shape of `section` and this base.

    Raises: InputError for another shape; VerificationError for another base; NotReadyError; StorageError.
    """
    remedy = "adapter.start names the folder of a finished run of train.lora"
    lineage: dict[str, Any] = json.loads(read_text(folder / "lineage.json", remedy))
    config = load_config(folder / "config.yaml", TrainConfig)
    for name in SHAPE:
        before, now = getattr(config.adapter, name), getattr(section, name)
        if before != now:
            raise InputError(f"{folder}: adapter.{name} is {before} there and {now} here; take the same")
    if lineage["base_sha256"] != base_sha256:
        raise VerificationError(
            f"{folder}: trained on base {lineage['base_sha256'][:12]}, this run's is {base_sha256[:12]}"
        )
    saved = load_file(folder / "adapter" / "adapter_model.safetensors")
    named = {name.replace(".weight", ".default.weight"): tensor for name, tensor in saved.items()}
    return Earlier(config, lineage, {f"weight/{name}": tensor for name, tensor in named.items()})
