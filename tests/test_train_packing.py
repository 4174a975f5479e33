"""Packing and the loss: a sample in a row computes what it computes alone, and only answers count."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from tests.tiny_models import N_VOCAB, tiny_model
from train.loss import answer_loss, predictions
from train.packing import Row, best_fit, make_row, pack, use_segments
from train.samples import Sample


def samples(count: int, seed: int = 0) -> list[Sample]:
    rng = random.Random(seed)
    made = []
    for number in range(count):
        length = rng.randint(6, 40)
        ids = [rng.randrange(N_VOCAB) for _ in range(length)]
        made.append(Sample(str(number), "grounded_qa", ids, rng.randint(1, length - 1)))
    return made


def losses(model: Any, row: Row, chunk: int = 512, segments: bool = True) -> torch.Tensor:
    extra = {"segment_lengths": row.lengths} if segments else {}
    hidden = model.model(
        input_ids=row.input_ids, position_ids=row.position_ids, use_cache=False, **extra
    ).last_hidden_state
    return answer_loss(hidden[0, row.answer_rows], model.lm_head, row.targets, chunk)


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize("segments", [True, False], ids=["segments", "mask from positions"])
def test_a_packed_sample_has_the_loss_per_token_that_it_has_alone(kind: str, segments: bool) -> None:
    model = tiny_model(kind)
    listed = samples(7)
    alone = torch.cat([losses(model, make_row([one]), segments=False) for one in listed])
    if segments:
        use_segments(model)
    packed = losses(model, make_row(listed), segments=segments)
    assert torch.allclose(alone, packed, atol=1e-5)


def test_without_restarting_positions_the_loss_would_differ() -> None:
    model = tiny_model("llama")
    row = make_row(samples(4))
    right = losses(model, row, segments=False)
    hidden = model.model(input_ids=row.input_ids, use_cache=False).last_hidden_state
    wrong = answer_loss(hidden[0, row.answer_rows], model.lm_head, row.targets, 512)
    assert (right - wrong).abs().max() > 1e-2


def test_the_loss_is_the_plain_cross_entropy_over_answer_tokens_whatever_the_chunk() -> None:
    model = tiny_model("llama")
    [sample] = samples(1, seed=3)
    logits = model(torch.tensor([sample.ids])).logits[0]
    expected = cross_entropy(
        logits[sample.n_prompt - 1 : -1], torch.tensor(sample.ids[sample.n_prompt :]), reduction="none"
    )
    for chunk in (1, 3, 512):
        assert torch.allclose(losses(model, make_row([sample]), chunk, segments=False), expected, atol=1e-5)


def test_gradients_are_those_of_the_unchunked_loss() -> None:
    model = tiny_model("llama")
    row = make_row(samples(3))
    gradients = []
    for chunk in (2, 512):
        model.zero_grad()
        losses(model, row, chunk, segments=False).sum().backward()
        gradients.append(model.model.layers[0].self_attn.q_proj.weight.grad.clone())
    assert torch.allclose(*gradients, atol=1e-5)


def test_predictions_are_the_likeliest_tokens() -> None:
    model = tiny_model("llama")
    hidden = torch.randn(5, model.config.hidden_size)
    assert predictions(hidden, model.lm_head, 2).tolist() == model.lm_head(hidden).argmax(-1).tolist()


@given(st.lists(st.integers(1, 64), max_size=60))
def test_best_fit_places_each_sample_once_and_overfills_nothing(lengths: list[int]) -> None:
    bins = best_fit(lengths, 64)
    assert sorted(index for members in bins for index in members) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in members) <= 64 for members in bins)
    # Any two bins together hold more than one bin takes, or one would have been enough.
    fills = sorted(sum(lengths[index] for index in members) for members in bins)
    assert len(fills) < 2 or fills[0] + fills[1] > 64


def test_rows_are_the_same_for_the_same_seed_and_others_for_another() -> None:
    listed = samples(40)
    first, again, other = (pack(listed, 128, random.Random(seed)) for seed in (1, 1, 2))
    assert [row.input_ids.tolist() for row in first] == [row.input_ids.tolist() for row in again]
    assert [row.lengths for row in first] != [row.lengths for row in other]
    assert sum(row.n_tokens for row in first) == sum(len(one.ids) for one in listed)
