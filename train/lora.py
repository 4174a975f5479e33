"""Train one LoRA adapter: read it from top to bottom.

    python -m train.lora --config configs/train.yaml
    torchrun --nproc-per-node 2 -m train.lora --config configs/train.yaml

Writes <out>/<name>/<version>/: adapter/ (PEFT), curve.ndjson, lineage.json, config.yaml, checkpoints/.
Started again after a kill, it goes on from the last checkpoint and ends with the same weights.
Invariant: the loss of a step is the mean over the samples of its rows, on whichever process they are, and a
sample's loss that of its choice and of what follows it in equal parts: a summary must not outweigh decisions.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
import torch.distributed as dist
import yaml
from peft import LoraConfig, get_peft_model
from torch import Tensor
from tqdm import tqdm

from train import budget, checkpoint
from train.base import Base, load_base
from train.canaries import plant
from train.config import AdapterSection, TrainConfig
from train.dataset_tasks import Task
from train.earlier import Earlier, read_earlier
from train.kernels import use_adapted, use_normed
from train.loss import answer_loss, predictions
from train.optimizer import MasterWeights, learning_rate_at
from train.packing import Row, pack, use_segments
from train.samples import Sample, check_dataset, choose, read_examples, samples_sha256, to_samples
from train.tracking import Tracker
from whis_box.config import load_config
from whis_box.errors import EngineError, InputError, WhisError
from whis_box.paths import source_commit, written_beside

TASKS: tuple[Task, ...] = get_args(Task)
STEPS_BETWEEN_RETURNS = 4
"""Of freed memory; each costs the page faults of a step."""


def main() -> int:
    """Train what a config names."""
    parser = argparse.ArgumentParser(prog="train.lora", description="train a LoRA adapter")
    parser.add_argument("--config", type=Path, default=Path("configs/train.yaml"))
    try:
        with Processes() as processes:
            print(json.dumps(train(load_config(parser.parse_args().config, TrainConfig), processes)))
    except WhisError as error:
        print(f"train.lora: {error}", file=sys.stderr)
        return error.exit_code
    return 0


class Processes:
    """This process among those that torchrun started; one alone without it."""

    def __init__(self) -> None:
        self.rank, self.count = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))

    def __enter__(self) -> Processes:
        if self.count > 1:
            dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        return self

    def __exit__(self, *_: object) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if dist.is_initialized():
            dist.all_reduce(values)
        return values


def train(config: TrainConfig, processes: Processes) -> dict[str, Any]:
    """One run, from the checks to the exported adapter; gives its last figures.

    Raises: InputError, NotReadyError, VerificationError, StorageError; EngineError for a loss that is not
    finite.
    """
    # What is learned from, checked before anything heavy is loaded.
    manifest = check_dataset(config.dataset)
    device, dtype = budget.device_and_dtype(config.runtime)
    base = load_base(config.base, dtype)
    seed, row_tokens = config.optimizer.seed, config.optimizer.row_tokens
    examples = read_examples(config.dataset.path / "train.ndjson")
    start = config.adapter.start
    earlier = read_earlier(start, config.adapter, base.sha256) if start else None
    if earlier:
        examples = earlier.unseen(examples, manifest["sha256"])
    planted = plant(choose(examples, dict(config.dataset.max_examples), seed), config.canaries)
    validation = choose_validation(config)
    limit = min(row_tokens, base.n_ctx)
    samples = to_samples(planted, base.tokenize, limit, config.optimizer.options_share)
    held_out = pack(to_samples(validation, base.tokenize, limit), row_tokens, random.Random(seed))

    # What is trained, and whether it fits.
    rows = pack(samples, row_tokens, random.Random(f"{seed}/0"))
    plan = budget.plan(base.model.config, config, device, dtype, rows)
    report_plan(plan, samples, config)
    model = with_adapter(base, config.adapter, seed, dtype).to(device)
    prepare(model, plan)
    master = MasterWeights(model, config.optimizer)
    if earlier:
        master.restore(earlier.weights)
    n_steps = count_steps(len(rows), config)
    lineage = make_lineage(config, base, manifest, samples, n_steps, plan, earlier)
    folder = config.out / config.adapter.name / config.adapter.version

    # Where an earlier start of this run ended.
    state = RunState()
    found = checkpoint.newest(folder / "checkpoints", lineage["run"])
    if found:
        master.restore(found[0])
        state = RunState(**found[1]["progress"])

    tracker = Tracker(config, lineage, state.tracking_id, active=processes.rank == 0)
    state.tracking_id = tracker.run_id
    plan.start_measuring()
    run = Run(config, model, master, plan, processes, folder, lineage, state, tracker)
    run.loop(samples, held_out, n_steps)
    return run.export()


def report_plan(plan: budget.Plan, samples: Sequence[Sample], config: TrainConfig) -> None:
    """The plan in two lines on stderr."""
    n_tokens = int(sum(len(one.ids) for one in samples) * config.optimizer.epochs)
    parts = ", ".join(f"{name} {size / 2**20:.0f}" for name, size in plan.components.items())
    print(
        f"{plan.device}, {plan.dtype}, {plan.peak_flops / 1e12:.2f} TFLOP/s at best; "
        f"{len(samples)} samples, {n_tokens} tokens, about {plan.predicted_s(n_tokens) / 60:.0f} minutes\n"
        f"memory {plan.predicted / 2**20:.0f} of {plan.available / 2**20:.0f} MiB ({parts})",
        file=sys.stderr,
        flush=True,
    )


def choose_validation(config: TrainConfig) -> list[Any]:
    """The same share of each task, at most validation.max_examples together."""
    examples = read_examples(config.dataset.path / "val.ndjson")
    share = min(1.0, config.validation.max_examples / len(examples))
    counts: dict[str, int] = defaultdict(int)
    for one in examples:
        counts[one.task] += 1
    return choose(examples, {t: max(1, round(n * share)) for t, n in counts.items()}, config.optimizer.seed)


def with_adapter(base: Base, section: AdapterSection, seed: int, dtype: torch.dtype) -> Any:
    """The base with a fresh adapter of `seed`, whose weights have the base's dtype."""
    torch.manual_seed(seed)
    lora = LoraConfig(
        r=section.r,
        lora_alpha=section.lora_alpha,
        lora_dropout=section.lora_dropout,
        use_rslora=section.use_rslora,
        target_modules=list(section.target_modules),
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(base.model, lora, autocast_adapter_dtype=False)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)
    return model


def prepare(model: Any, plan: budget.Plan) -> None:
    """Attention within samples, activation checkpointing and compilation as planned."""
    core = model.get_base_model()
    use_adapted(model)
    if plan.device == "cpu":
        use_segments(core)
        use_normed(core)
    if plan.gradient_checkpointing:
        core.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        core.enable_input_require_grads()
    if plan.compile:
        for layer in core.model.layers:
            layer.compile(dynamic=True)


def count_steps(n_rows: int, config: TrainConfig) -> int:
    """Steps of the whole run; the rows of the first epoch stand for all."""
    section = config.optimizer
    n_steps = max(1, round(section.epochs * n_rows / section.rows_per_step))
    return min(n_steps, section.max_steps or n_steps)


def make_lineage(
    config: TrainConfig,
    base: Base,
    manifest: dict[str, Any],
    samples: Sequence[Sample],
    n_steps: int,
    plan: budget.Plan,
    earlier: Earlier | None,
) -> dict[str, Any]:
    """What the adapter comes from; `run` is a digest of everything that shapes its weights."""
    sections = {"adapter": {"start": True}}  # the folder's name shapes nothing; its run is in the facts
    shaping = config.model_dump(
        mode="json", include={"adapter", "optimizer", "validation", "canaries"}, exclude=sections
    ) | {
        "dtype": plan.dtype,
        "device": plan.device,
        "loss_chunk": config.runtime.loss_chunk,
    }
    facts = {
        "base_sha256": base.sha256,
        "dataset": f"{manifest['name']}/{manifest['version']}",
        "dataset_sha256": manifest["sha256"],
        "samples_sha256": samples_sha256(samples),
        "prompt_sha256": manifest["prompt_sha256"],
        "n_samples": len(samples),
        "n_tokens": sum(len(one.ids) for one in samples),
        "n_steps": n_steps,
    }
    if earlier:
        facts["start"] = earlier.lineage["run"]
    return facts | {
        "run": checkpoint.digest([shaping, facts]),
        "commit": source_commit(),
        "environment": budget.environment(),
    }


@dataclass
class RunState:
    """How far a run is; stored in every checkpoint."""

    step: int = 0
    tokens: int = 0
    train_s: float = 0.0
    best_loss: float = math.inf
    looks_without_gain: int = 0
    stopped: bool = False
    tracking_id: str = ""
    curve: list[dict[str, float]] = field(default_factory=list)


class Run:
    """The loop and what it holds."""

    def __init__(
        self,
        config: TrainConfig,
        model: Any,
        master: MasterWeights,
        plan: budget.Plan,
        processes: Processes,
        folder: Path,
        lineage: dict[str, Any],
        state: RunState,
        tracker: Tracker,
    ) -> None:
        self.config, self.model, self.master, self.plan = config, model, master, plan
        self.processes, self.folder, self.lineage = processes, folder, lineage
        self.state, self.tracker = state, tracker
        self.core = model.get_base_model()

    def loop(self, samples: Sequence[Sample], held_out: Sequence[Row], n_steps: int) -> None:
        """All steps that are left."""
        state, config = self.state, self.config
        saved_at = time.monotonic()
        with tqdm(
            total=n_steps,
            initial=state.step,
            disable=self.processes.rank > 0,
            mininterval=1.0 if sys.stderr.isatty() else 60.0,
            unit="step",
        ) as bar:
            while state.step < n_steps and not state.stopped:
                started = time.perf_counter()
                rows = self.rows_of(state.step, samples)
                loss, norm = self.step(rows, learning_rate_at(state.step, n_steps, config.optimizer))
                state.step += 1
                state.tokens += sum(row.n_tokens for row in rows)
                state.train_s += time.perf_counter() - started
                self.record(bar, {"loss": loss, "grad_norm": norm})
                if state.step % STEPS_BETWEEN_RETURNS == 0:
                    budget.return_memory(self.plan.device)
                if state.step % config.validation.every_steps == 0 or state.step == n_steps:
                    self.validate(held_out)
                if time.monotonic() - saved_at >= config.runtime.checkpoint_every_s:
                    self.save()
                    saved_at = time.monotonic()

    def rows_of(self, step: int, samples: Sequence[Sample]) -> list[Row]:
        """The rows of one step; a function of the seed and the step alone, so a resumed run sees the same."""
        section, wanted = self.config.optimizer, []
        for at in range(step * section.rows_per_step, (step + 1) * section.rows_per_step):
            first = self.epoch_rows(0, samples)
            epoch, index = divmod(at, len(first))
            rows = self.epoch_rows(epoch, samples)
            wanted.append(rows[index % len(rows)])
        return wanted

    def epoch_rows(self, epoch: int, samples: Sequence[Sample]) -> list[Row]:
        """The packed rows of an epoch; the last two used are kept."""
        kept: dict[int, list[Row]] = self.__dict__.setdefault("_epoch_rows", {})
        if epoch not in kept:
            for old in [one for one in kept if one not in (0, epoch - 1)]:
                del kept[old]
            section = self.config.optimizer
            kept[epoch] = pack(samples, section.row_tokens, random.Random(f"{section.seed}/{epoch}"))
        return kept[epoch]

    def step(self, rows: Sequence[Row], learning_rate: float) -> tuple[float, float]:
        """Forward and backward over the rows, then one move; gives the mean loss and the gradient's norm.

        Raises: EngineError for a loss that is not finite.
        """
        self.model.train()
        n_samples = sum(len(row.lengths) for row in rows)
        total = torch.zeros((), dtype=torch.float64)
        for number, row in enumerate(rows):
            if number % self.processes.count != self.processes.rank:
                continue
            torch.manual_seed(hash((self.config.optimizer.seed, self.state.step, number)) % 2**63)  # dropout
            losses = answer_loss(
                self.hidden(row), self.core.lm_head, row.targets.to(self.plan.device), self.plan.loss_chunk
            )
            loss = (losses * row.weights.to(losses.device)).sum() / n_samples
            loss.backward()  # type: ignore[no-untyped-call]
            self.master.accumulate()
            total += loss.detach().cpu()
        mean = float(self.processes.sum(total))
        if not math.isfinite(mean):
            raise EngineError(
                f"the loss of step {self.state.step} is {mean}; the last checkpoint in "
                f"{self.folder / 'checkpoints'} is intact: lower optimizer.learning_rate or use float32"
            )
        return mean, self.master.step(learning_rate)

    def hidden(self, row: Row) -> Tensor:
        """Last hidden states at the answer positions, (A, H)."""
        extra = {"segment_lengths": row.lengths} if self.plan.device == "cpu" else {}
        states = self.core.model(
            input_ids=row.input_ids.to(self.plan.device),
            position_ids=row.position_ids.to(self.plan.device),
            use_cache=False,
            **extra,
        ).last_hidden_state  # (1, T, H)
        return states[0, row.answer_rows.to(self.plan.device)]  # type: ignore[no-any-return]

    @torch.no_grad()
    def validate(self, held_out: Sequence[Row]) -> None:
        """Loss, and share of right choices by task, on held-out rows; keeps the best weights, may stop."""
        self.model.eval()
        sums = torch.zeros(len(TASKS), 3, dtype=torch.float64)  # loss, right choices, samples
        for row in held_out[self.processes.rank :: self.processes.count]:
            hidden, targets = self.hidden(row), row.targets.to(self.plan.device)
            losses = answer_loss(hidden, self.core.lm_head, targets, self.plan.loss_chunk).cpu() * row.weights
            wrong = (predictions(hidden, self.core.lm_head, self.plan.loss_chunk) != targets).cpu()
            n = len(row.tasks)
            of_sample = torch.zeros(2, n).index_add_(
                1, row.sample_of, torch.stack((losses, wrong & row.chooses))
            )
            figures = torch.stack((of_sample[0], of_sample[1] == 0, torch.ones(n)), dim=1).double()
            sums.index_add_(0, torch.tensor([TASKS.index(task) for task in row.tasks]), figures)
        self.processes.sum(sums)
        loss, right, counted = sums.sum(dim=0).tolist()
        look = {"val_loss": loss / counted, "val_right": right / counted}
        shares = {
            f"val_right_{t}": one[1] / one[2] for t, one in zip(TASKS, sums.tolist(), strict=True) if one[2]
        }
        state = self.state
        state.curve[-1].update(look | shares)
        told = ", ".join(f"{name.removeprefix('val_right_')} {share:.2f}" for name, share in shares.items())
        self.say(f"step {state.step}: loss {look['val_loss']:.4f}, right {look['val_right']:.3f} ({told})")
        self.tracker.metrics(look | shares, state.step)
        if look["val_loss"] < state.best_loss:
            state.best_loss, state.looks_without_gain = look["val_loss"], 0
            if self.processes.rank == 0:
                checkpoint.write(self.best_path, self.master.state(), {"step": state.step, **look})
        else:
            state.looks_without_gain += 1
            state.stopped = state.looks_without_gain >= self.config.validation.patience

    def say(self, text: str) -> None:
        """A line for people, above the bar."""
        if self.processes.rank == 0:
            tqdm.write(text, file=sys.stderr)

    @property
    def best_path(self) -> Path:
        """Weights with the least validation loss."""
        return self.folder / "checkpoints" / "best.safetensors"

    def record(self, bar: Any, figures: dict[str, float]) -> None:
        """One step's figures to the curve, the bar and the tracker."""
        state = self.state
        rate = state.tokens / max(state.train_s, 1e-9)
        figures = figures | {"step": state.step, "tokens_per_s": rate, "mfu": self.plan.mfu(rate)}
        state.curve.append(figures)
        bar.set_postfix_str(f"loss {figures['loss']:.3f}, {rate:.0f} tok/s, MFU {figures['mfu']:.2f}", False)
        bar.update(1)
        self.tracker.metrics(figures, state.step)

    def save(self) -> None:
        """A checkpoint from which the run goes on exactly."""
        if self.processes.rank == 0:
            progress = {"run": self.lineage["run"], "progress": self.state.__dict__}
            checkpoint.save(self.folder / "checkpoints", self.state.step, self.master.state(), progress)

    def export(self) -> dict[str, Any]:
        """The best weights as a PEFT adapter, with curve, lineage and config beside it."""
        if self.state.step == 0:
            raise InputError("the run has no steps; give more examples or epochs")
        self.save()
        figures = {"steps": self.state.step, "best_val_loss": self.state.best_loss} | self.plan.residuals()
        if self.processes.rank > 0:
            return figures
        best, best_state = checkpoint.read(self.best_path)
        self.master.restore(best)
        self.model.peft_config["default"].base_model_name_or_path = self.config.base.path.name
        self.model.float().save_pretrained(self.folder / "adapter", save_embedding_layers=False)
        figures |= {"best_step": best_state["step"], "best_val_right": best_state["val_right"]}
        self.write("curve.ndjson", "".join(json.dumps(one) + "\n" for one in self.state.curve))
        self.write("lineage.json", json.dumps(self.lineage | figures, indent=1) + "\n")
        self.write("config.yaml", yaml.safe_dump(self.config.model_dump(mode="json"), sort_keys=False))
        self.tracker.finish(self.folder, figures)
        return figures

    def write(self, name: str, text: str) -> None:
        """One file of the run's folder."""
        with written_beside(self.folder / name) as beside:
            beside.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
