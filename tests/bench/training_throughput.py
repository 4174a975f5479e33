"""Our training step beside the plain peft loop on the same base, samples and machine.

    python -m tests.bench.training_throughput [--config configs/train.yaml] [--steps 3]

The plain loop is what a first script does: samples padded to the longest of a batch, the whole row through
the head, PEFT's float32 adapters, transformers' own loss. Counted are the tokens of samples, not padding.
The two take turns, so that what else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from train import budget, lora
from train.base import load_base
from train.config import TrainConfig
from train.loss import answer_loss
from train.optimizer import MasterWeights
from train.packing import pack
from train.samples import Sample, read_examples, to_samples
from whis_box.config import load_config
from whis_box.paths import repository_root, source_commit

PLAIN_BATCH = 4


def main() -> None:
    """Print tokens/s and MFU of both, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=repository_root() / "configs" / "train.yaml")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each, after one to warm up")
    options = parser.parse_args()
    config = load_config(options.config, TrainConfig)
    device, dtype = budget.device_and_dtype(config.runtime)
    base = load_base(config.base, dtype)
    examples = random.Random(3).sample(read_examples(config.dataset.path / "train.ndjson"), 80)
    samples = to_samples(examples, base.tokenize, config.optimizer.row_tokens)
    rows = pack(samples, config.optimizer.row_tokens, random.Random(0))
    plan = budget.plan(base.model.config, config, device, dtype, rows)
    ours, plain = Ours(config, plan, samples, dtype), Plain(config, plan, samples, dtype)
    rates: dict[str, list[float]] = {"ours": [], "plain": []}
    for turn in range(options.steps + 1):
        for name, loop in (("ours", ours), ("plain", plain)):
            started = time.process_time() if device == "cpu" else time.perf_counter()
            n_tokens = loop.step()
            ended = time.process_time() if device == "cpu" else time.perf_counter()
            if turn:
                rates[name].append(n_tokens / (ended - started))
    clock = "second of processor time" if device == "cpu" else "second"
    print(
        f"{budget.environment()['processor']} · {torch.get_num_threads()} threads · {plan.dtype} · "
        f"commit {source_commit()[:12]} · {options.steps} steps each"
    )
    for name, listed in rates.items():
        print(
            f"{name}: {statistics.median(listed):.0f} tokens per {clock} "
            f"({min(listed):.0f} to {max(listed):.0f}), MFU {plan.mfu(statistics.median(listed)):.3f}"
        )
    print(f"ratio of the medians {statistics.median(rates['ours']) / statistics.median(rates['plain']):.2f}")


class Ours:
    """Packed rows, answer rows through the head, adapters in the base's dtype with float32 copies."""

    def __init__(
        self, config: TrainConfig, plan: budget.Plan, samples: Sequence[Sample], dtype: torch.dtype
    ) -> None:
        self._plan = plan
        self._model = lora.with_adapter(load_base(config.base, dtype), config.adapter, 0, dtype).to(
            plan.device
        )
        lora.prepare(self._model, plan)
        self._model.train()
        self._master = MasterWeights(self._model, config.optimizer)
        rows = pack(samples, config.optimizer.row_tokens, random.Random(0))
        self._rows = sorted(rows, key=lambda row: -row.n_tokens)
        self._next = 0

    def step(self) -> int:
        """One row."""
        row = self._rows[self._next % len(self._rows)]
        self._next += 1
        core = self._model.get_base_model()
        extra = {"segment_lengths": row.lengths} if self._plan.device == "cpu" else {}
        hidden = core.model(
            input_ids=row.input_ids.to(self._plan.device),
            position_ids=row.position_ids.to(self._plan.device),
            use_cache=False,
            **extra,
        ).last_hidden_state[0, row.answer_rows.to(self._plan.device)]
        losses = answer_loss(hidden, core.lm_head, row.targets.to(self._plan.device), self._plan.loss_chunk)
        losses.mean().backward()
        self._master.accumulate()
        self._master.step(1e-4)
        return row.n_tokens


class Plain:
    """The loop that a tutorial shows."""

    def __init__(
        self, config: TrainConfig, plan: budget.Plan, samples: Sequence[Sample], dtype: torch.dtype
    ) -> None:
        self._plan, self._samples, self._next = plan, samples, 0
        section = config.adapter
        wanted: dict[str, Any] = {
            "r": section.r,
            "lora_alpha": section.lora_alpha,
            "lora_dropout": section.lora_dropout,
            "target_modules": list(section.target_modules),
        }
        model = load_base(config.base, dtype).model.to(plan.device)
        self._model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **wanted)).train()
        trainable = [one for one in self._model.parameters() if one.requires_grad]
        self._optimizer = torch.optim.AdamW(trainable, lr=1e-4)

    def step(self) -> int:
        """One padded batch."""
        batch = [self._samples[(self._next + n) % len(self._samples)] for n in range(PLAIN_BATCH)]
        self._next += PLAIN_BATCH
        longest = max(len(one.ids) for one in batch)
        ids = torch.zeros(len(batch), longest, dtype=torch.long)
        labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
        for row, one in enumerate(batch):
            length = len(one.ids)
            ids[row, :length], mask[row, :length] = torch.tensor(one.ids), 1
            labels[row, one.n_prompt : length] = torch.tensor(one.ids[one.n_prompt :])
        device = self._plan.device
        loss = self._model(
            input_ids=ids.to(device), attention_mask=mask.to(device), labels=labels.to(device)
        ).loss
        loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
        return sum(len(one.ids) for one in batch)


if __name__ == "__main__":
    main()
