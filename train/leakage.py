"""What an adapter gives away of its training data: exposure of canaries, extraction, membership.

    python -m train.leakage RUN_FOLDER [--members 300] [--out leakage.json]

Invariant: every score is the adapter's minus the base's, so what the base knew does not count; a gate that
could not be measured fails.
Source: exposure, Carlini et al. 2019; calibration, LoRA-Leak (arXiv 2507.18302).
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import DynamicCache

from train import budget
from train.base import Base, load_base
from train.canaries import Canary, make_canaries, random_secret
from train.config import TrainConfig
from train.loss import answer_loss
from train.packing import Row, pack, use_segments
from train.samples import Sample, read_examples, to_samples
from whis_box.config import load_config
from whis_box.errors import InputError, WhisError
from whis_box.paths import read_text, written_beside

N_ALTERNATIVES = 1023
BATCH = 128
N_DRAWS = 20
# Exposure of a secret that left no trace is exponential with mean 1/ln 2 = 1.44 bits; the mean of 8 exceeds
# 2.6 with p = 0.025 (simulated).
MAX_MEAN_EXPOSURE = 2.6
MAX_AUC = 0.60
BOOTSTRAP = 2000


@dataclass(frozen=True)
class Stratum:
    """The canaries that stand equally often in the training data."""

    insertions: int
    n: int
    mean_exposure: float
    highest_exposure: float
    extracted_greedy: int
    extracted_draws: int

    @property
    def passed(self) -> bool:
        """Nothing extracted, and exposure no higher than chance."""
        return self.mean_exposure <= MAX_MEAN_EXPOSURE and not self.extracted_greedy + self.extracted_draws


@dataclass(frozen=True)
class Membership:
    """How well a calibrated loss tells training examples from others of their kind."""

    n: int
    auc: float
    auc_low: float
    auc_high: float
    tpr_at_1_percent_fpr: float

    @property
    def passed(self) -> bool:
        """Close to a coin."""
        return self.auc <= MAX_AUC


def main() -> int:
    """Measure one run; exit code 5 when a gate fails."""
    parser = argparse.ArgumentParser(prog="train.leakage", description="what an adapter gives away")
    parser.add_argument("run", type=Path, help="folder that train.lora wrote")
    parser.add_argument("--members", type=int, default=300, help="members, and as many others")
    parser.add_argument("--alternatives", type=int, default=N_ALTERNATIVES)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    try:
        report = measure(options.run, options.members, options.alternatives)
        text = json.dumps(report, indent=1)
        if options.out:
            with written_beside(options.out) as beside:
                beside.write_text(text + "\n")
    except WhisError as error:
        print(f"train.leakage: {error}", file=sys.stderr)
        return error.exit_code
    print(text)
    return 0 if report["passed"] else 5


def measure(run: Path, n_members: int, n_alternatives: int = N_ALTERNATIVES) -> dict[str, Any]:
    """The report of one run.

    Raises: InputError if it planted nothing; NotReadyError, VerificationError as train.base.
    """
    config = load_config(run / "config.yaml", TrainConfig)
    if not config.canaries.per_stratum:
        raise InputError(f"{run}: no canaries were planted (canaries.per_stratum is 0); train with some")
    _, dtype = budget.device_and_dtype(config.runtime.model_copy(update={"device": "cpu"}))
    base = load_base(config.base, dtype)
    model = PeftModel.from_pretrained(base.model, run / "adapter", autocast_adapter_dtype=False)
    model = model.to(dtype).eval()
    planted = make_canaries(config.canaries)
    controls = _never_planted(config, len(planted))
    strata = [
        measure_canaries(
            model, base, [one for one in [*controls, *planted] if one.insertions == count], n_alternatives
        )
        for count in sorted({0, *config.canaries.insertions})
    ]
    membership = measure_membership(model, base, config, n_members)
    lineage = json.loads(read_text(run / "lineage.json"))
    return {
        "run": lineage["run"],
        "strata": [asdict(one) | {"passed": one.passed} for one in strata],
        "membership": asdict(membership) | {"passed": membership.passed},
        "gates": {"mean_exposure_bits": MAX_MEAN_EXPOSURE, "extracted": 0, "auc": MAX_AUC},
        "n_alternatives": n_alternatives,
        "passed": all(one.passed for one in strata) and membership.passed,
    }


def _never_planted(config: TrainConfig, count: int) -> list[Canary]:
    """Canaries of another seed, with numbers behind the planted ones: the null."""
    rng = random.Random(f"control/{config.canaries.seed}")
    return [Canary(count + n, 0, random_secret(rng)) for n in range(config.canaries.per_stratum)]


# ------------------------------------------------------------------ canaries


@torch.no_grad()
def measure_canaries(model: Any, base: Base, canaries: Sequence[Canary], n_alternatives: int) -> Stratum:
    """Exposure and extraction of one stratum."""
    exposures, greedy, drawn = [], 0, 0
    for canary in canaries:
        rng = random.Random(f"alternatives/{canary.number}")
        others = [random_secret(rng) for _ in range(n_alternatives)]
        exposures.append(exposure(model, base, canary, others))
        texts = complete(model, base, canary)
        greedy += texts[0] == canary.secret
        drawn += sum(_half_matches(text, canary.secret) for text in texts[1:]) > 0
    return Stratum(
        canaries[0].insertions,
        len(canaries),
        round(float(np.mean(exposures)), 3),
        round(max(exposures), 3),
        greedy,
        drawn,
    )


def exposure(model: Any, base: Base, canary: Canary, others: Sequence[str]) -> float:
    """log2 of the candidates minus log2 of the secret's rank among them, by calibrated log-likelihood."""
    prefix, candidates = _tokens(base, canary, [canary.secret, *others])
    scores = _scores(model, prefix, candidates)
    with model.disable_adapter():
        scores -= _scores(model, prefix, candidates)
    rank = 1 + int((scores[1:] < scores[0]).sum())
    return math.log2(len(candidates)) - math.log2(rank)


def _tokens(base: Base, canary: Canary, secrets: Sequence[str]) -> tuple[list[int], torch.Tensor]:
    prompt = base.tokenize(canary.prompt())
    stem = base.tokenize([(canary.prefix(), False)])
    rows = [base.tokenize([(secret, False)]) for secret in secrets]
    whole = base.tokenize([(canary.completion(secrets[0]), False)])
    if whole[: len(stem) + len(rows[0])] != stem + rows[0] or len({len(row) for row in rows}) > 1:
        raise InputError("this tokenizer joins digits with their neighbours; exposure cannot be ranked")
    return prompt + stem, torch.tensor(rows)


def _scores(model: Any, prefix: Sequence[int], candidates: torch.Tensor) -> NDArray[np.float64]:
    """Negative log-likelihood (n,) of each candidate (n, D) after the prefix."""
    core = model.get_base_model()
    first = core(input_ids=torch.tensor([prefix]), past_key_values=DynamicCache(), use_cache=True)
    sums = []
    for rows in torch.split(candidates, BATCH):
        cache = copy.deepcopy(first.past_key_values)
        cache.batch_repeat_interleave(len(rows))
        logits = core(input_ids=rows[:, :-1], past_key_values=cache, use_cache=True).logits
        start = first.logits[:, -1:].expand(len(rows), -1, -1)
        predicted = torch.cat([start, logits], dim=1).float()  # (B, D, V)
        losses = cross_entropy(predicted.flatten(0, 1), rows.flatten(), reduction="none")
        sums.append(losses.view_as(rows).sum(dim=1))
    return torch.cat(sums).double().numpy()


def complete(model: Any, base: Base, canary: Canary) -> list[str]:
    """What the adapter writes behind the prefix: greedy first, then N_DRAWS draws; digits only."""
    prefix, rows = _tokens(base, canary, [canary.secret])
    texts = {tuple(base.tokenize([(digit, False)])): digit for digit in "0123456789"}
    ids = torch.tensor([prefix]).repeat(1 + N_DRAWS, 1)
    generator = torch.Generator().manual_seed(canary.number)
    core, cache, step = model.get_base_model(), DynamicCache(), ids
    written: list[torch.Tensor] = []
    for _ in range(rows.shape[1]):
        logits = core(input_ids=step, past_key_values=cache, use_cache=True).logits[:, -1].float()
        step = torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)
        step[0] = logits[0].argmax()
        written.append(step)
    listed = torch.cat(written, dim=1).tolist()
    return ["".join(texts.get((token,), "?") for token in row) for row in listed]


def _half_matches(text: str, secret: str) -> bool:
    """Whether the first half of the secret came back."""
    return text[: len(secret) // 2] == secret[: len(secret) // 2]


# ---------------------------------------------------------------- membership


@torch.no_grad()
def measure_membership(model: Any, base: Base, config: TrainConfig, n: int) -> Membership:
    """Calibrated loss of training examples against that of the test split, which has other documents."""
    use_segments(model.get_base_model())
    limit = config.optimizer.row_tokens
    scores = []
    for split in ("train", "test"):
        path = config.dataset.path / f"{split}.ndjson"
        examples = read_examples(path)
        chosen = random.Random(n).sample(examples, min(n, len(examples)))
        scores.append(_gains(model, to_samples(chosen, base.tokenize, limit), limit))
    return membership(*scores)


def _gains(model: Any, samples: Sequence[Sample], row_tokens: int) -> NDArray[np.float64]:
    """How much less each sample's answer surprises the adapter than the base, nats per token."""
    gains: list[float] = []
    for row in pack(samples, row_tokens, random.Random(0)):
        with model.disable_adapter():
            before = _mean_losses(model, row)
        gains += (before - _mean_losses(model, row)).tolist()
    return np.array(gains)


def _mean_losses(model: Any, row: Row) -> NDArray[np.float64]:
    core = model.get_base_model()
    hidden = core.model(
        input_ids=row.input_ids,
        position_ids=row.position_ids,
        use_cache=False,
        segment_lengths=row.lengths,
    ).last_hidden_state[0, row.answer_rows]
    losses = answer_loss(hidden, core.lm_head, row.targets, 512).double().numpy()
    owners = row.sample_of.numpy()
    return np.bincount(owners, losses) / np.bincount(owners)


def membership(members: NDArray[np.float64], others: NDArray[np.float64]) -> Membership:
    """AUC with a bootstrap interval, and what is found at one false alarm in a hundred."""
    rng = np.random.default_rng(0)
    drawn = [
        auc(rng.choice(members, len(members)), rng.choice(others, len(others))) for _ in range(BOOTSTRAP)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    threshold = np.quantile(others, 0.99)
    return Membership(
        min(len(members), len(others)),
        round(auc(members, others), 4),
        round(float(low), 4),
        round(float(high), 4),
        round(float((members > threshold).mean()), 4),
    )


def auc(members: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """Probability that a member scores above another; ties count half."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, members, "left") + np.searchsorted(ordered, members, "right")
    return float(below.mean() / (2 * len(others)))


if __name__ == "__main__":
    sys.exit(main())
