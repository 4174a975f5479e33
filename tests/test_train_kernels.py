"""The written-out gradients are those of the plain formulas."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from tests.tiny_models import tiny_model
from train.kernels import adapted, attend, normed, use_normed

LENGTHS = (5, 1, 9)


def leaves(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("n_key_heads", [4, 2, 1])
def test_attention_and_its_gradients_are_those_of_each_sample_alone(n_key_heads: int) -> None:
    total = sum(LENGTHS)
    query, key, value = leaves((4, total, 8), (n_key_heads, total, 8), (n_key_heads, total, 8))
    ours = attend(query, key, value, 0.3, LENGTHS)
    parts = [
        scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True, scale=0.3, enable_gqa=True)[0]
        for q, k, v in zip(*(one.split(LENGTHS, dim=1) for one in (query, key, value)), strict=True)
    ]
    plain = torch.cat(parts, dim=1)
    assert torch.allclose(ours, plain, atol=1e-6)
    above = torch.randn_like(plain)
    for mine, theirs in zip(
        torch.autograd.grad(ours, (query, key, value), above),
        torch.autograd.grad(plain, (query, key, value), above),
        strict=True,
    ):
        assert torch.allclose(mine, theirs, atol=1e-6)


@pytest.mark.parametrize("with_bias", [True, False])
def test_an_adapted_layer_and_its_gradients_are_those_of_the_plain_sum(with_bias: bool) -> None:
    x, weight, bias, a, b = leaves((2, 7, 6), (5, 6), (5,), (3, 6), (5, 3))
    used = bias if with_bias else None
    ours = adapted(x, weight.detach(), used, a, b, 2.0)
    plain = torch.nn.functional.linear(x, weight.detach(), used) + 2.0 * (x @ a.T @ b.T)
    assert torch.allclose(ours, plain)
    above = torch.randn_like(plain)
    for mine, theirs in zip(
        torch.autograd.grad(ours, (x, a, b), above), torch.autograd.grad(plain, (x, a, b), above), strict=True
    ):
        assert torch.allclose(mine, theirs)


def test_dropout_keeps_the_mean_and_its_gradient_is_that_of_what_was_kept() -> None:
    x, weight, a, b = leaves((4000, 6), (5, 6), (3, 6), (5, 3))
    torch.manual_seed(1)
    dropped = adapted(x, weight, None, a, b, 1.0, dropout=0.25)
    whole = adapted(x, weight, None, a, b, 1.0)
    assert not torch.allclose(dropped, whole)
    assert torch.allclose((dropped - whole).mean(0), torch.zeros(5, dtype=torch.float64), atol=0.15)
    # The adapter's part is linear in b, so its derivative along b is the part itself.
    [d_b] = torch.autograd.grad(dropped.sum(), b)
    assert float((d_b * b).sum().detach()) == pytest.approx(float((dropped - x @ weight.T).sum().detach()))


def assert_same(ours: torch.Tensor, plain: torch.Tensor, inputs: list[torch.Tensor]) -> None:
    """Values and the gradients of `inputs` agree."""
    assert torch.allclose(ours, plain)
    above = torch.randn_like(plain)
    for mine, theirs in zip(
        torch.autograd.grad(ours, inputs, above), torch.autograd.grad(plain, inputs, above), strict=True
    ):
        assert torch.allclose(mine, theirs)


def test_a_norm_divides_by_the_root_mean_square() -> None:
    x, weight = leaves((600, 5), (5,))
    plain = torch.nn.functional.rms_norm(x, (5,), weight.detach(), 1e-5)
    assert_same(normed(x, weight.detach(), 1e-5), plain, [x])


@pytest.mark.parametrize(("kind", "expected"), [("llama", 5), ("qwen3", 9), ("gemma", 0)])
def test_a_model_with_these_norms_gives_the_same_logits(kind: str, expected: int) -> None:
    model = tiny_model(kind)
    ids = torch.arange(40)[None]
    with torch.no_grad():
        before = model(ids).logits
        assert use_normed(model) == expected
        assert torch.allclose(model(ids).logits, before, atol=1e-5)
