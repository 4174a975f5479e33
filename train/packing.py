"""Samples packed into rows without padding between them, and attention that keeps them apart.

Invariant: a sample in a row computes what it would compute alone; its positions start at 0.
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import AttentionMaskInterface
from transformers.modeling_utils import AttentionInterface

from train.kernels import attend
from train.samples import Sample

SEGMENTS = "whis_segments"


@dataclass(frozen=True)
class Row:
    """Some samples behind each other; T is their tokens together."""

    input_ids: Tensor  # (1, T)
    position_ids: Tensor  # (1, T), restarts at 0 with each sample
    lengths: tuple[int, ...]
    tasks: tuple[str, ...]
    answer_rows: Tensor  # (A,): positions before a token of an answer, and ends of judged options
    targets: Tensor  # (A,): the token wanted behind each
    sample_of: Tensor  # (A,): which sample of the row each belongs to
    chooses: Tensor  # (A,): whether it belongs to the first line of an answer
    weights: Tensor  # (A,): share of each in the loss of its sample; those of an answer's tokens sum to 1

    @property
    def n_tokens(self) -> int:
        """Tokens of the row."""
        return int(self.input_ids.shape[1])

    @property
    def n_answer_tokens(self) -> int:
        """Tokens that count in the loss."""
        return int(self.targets.shape[0])


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Bins of indices of at most `capacity` together: longest first, each into the fullest bin with room.

    Source: best-fit decreasing, Johnson 1973; as packing in Ding et al. 2024, "Fewer Truncations Improve
    Language Modeling".
    """
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free, bin), sorted
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        at = bisect.bisect_left(room, (lengths[index], -1))
        if at < len(room):
            free, number = room.pop(at)
        else:
            free, number = capacity, len(bins)
            bins.append([])
        bins[number].append(index)
        bisect.insort(room, (free - lengths[index], number))
    return bins


def pack(samples: Sequence[Sample], capacity: int, rng: random.Random) -> list[Row]:
    """All samples in rows of at most `capacity` tokens, in an order drawn from `rng`."""
    shuffled = list(samples)
    rng.shuffle(shuffled)  # equal lengths would otherwise meet in every epoch
    bins = best_fit([len(one.ids) for one in shuffled], capacity)
    rng.shuffle(bins)
    return [make_row([shuffled[i] for i in members]) for members in bins]


def make_row(samples: Sequence[Sample]) -> Row:
    """One row of these samples."""
    ids: list[int] = []
    positions: list[int] = []
    answers: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    chooses: list[bool] = []
    weights: list[float] = []
    for number, sample in enumerate(samples):
        start, length = len(ids), len(sample.ids)
        answers += range(start + sample.n_prompt - 1, start + length - 1)
        answer = sample.ids[sample.n_prompt :]
        answers += [start + one.position for one in sample.judged]
        targets += answer + [one.target for one in sample.judged]
        n_choice = min(sample.n_choice, len(answer) - 1)
        chooses += [n < n_choice for n in range(len(answer))] + [False] * len(sample.judged)
        weights += _shares(n_choice, len(answer)) + [one.weight for one in sample.judged]
        owners += [number] * (len(answer) + len(sample.judged))
        ids += sample.ids
        positions += range(length)
    return Row(
        torch.tensor([ids]),
        torch.tensor([positions]),
        tuple(len(one.ids) for one in samples),
        tuple(one.task for one in samples),
        torch.tensor(answers),
        torch.tensor(targets),
        torch.tensor(owners),
        torch.tensor(chooses),
        torch.tensor(weights),
    )


def _shares(n_choice: int, n_answer: int) -> list[float]:
    """Weights of an answer's tokens, 1 together: half for the choice, half for what follows it.

    A summary of forty tokens would otherwise outweigh the technique it is about.
    """
    if not n_choice:
        return [1 / n_answer] * n_answer
    rest = n_answer - n_choice
    return [0.5 / n_choice] * n_choice + [0.5 / rest] * rest


def use_segments(model: Any) -> None:
    """Make `model` attend within samples only, one after the other, instead of over a row with a mask.

    On a CPU this saves the masked part, which is most of a row's attention. The calls pass
    `segment_lengths`, which transformers hands through to attention.
    """
    AttentionInterface.register(SEGMENTS, _attend)
    AttentionMaskInterface.register(SEGMENTS, _no_mask)
    model.set_attn_implementation(SEGMENTS)


def _no_mask(*_: Any, **__: Any) -> None:
    """The mask is in the segments."""


def _attend(
    module: torch.nn.Module,
    query: Tensor,  # (1, H, T, D)
    key: Tensor,  # (1, K, T, D)
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    segment_lengths: Sequence[int] = (),
    **_: Any,
) -> tuple[Tensor, None]:
    lengths = segment_lengths or (query.shape[2],)
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    output = attend(query[0], key[0], value[0], scale, lengths)  # (H, T, D)
    return output.transpose(0, 1).unsqueeze(0), None  # (1, T, H, D)
