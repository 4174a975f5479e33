"""Operations with gradients written out: autograd's own cost more than the matmuls on a CPU.

`attend` works sample by sample and allocates no gradient of a whole row for each; `adapted` is a frozen
linear layer with its adapter, without the three full-width temporaries of a plain LoRA forward; `normed`
goes through a row in blocks that stay in the processor's cache.
Invariant: values and gradients are those of the plain formulas (tests compare them).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


@functools.lru_cache(maxsize=1024)
def _future(n: int, dtype: torch.dtype) -> Tensor:
    """(n, n): -inf where a query would look ahead."""
    return torch.full((n, n), float("-inf"), dtype=dtype).triu_(1)


def _probabilities(query: Tensor, key: Tensor, n: int) -> Tensor:
    """softmax of query (K, G*n, D), scaled already, against key (K, n, D): (K, G*n, n)."""
    scores = torch.bmm(query, key.transpose(1, 2))
    scores.view(-1, n, n).add_(_future(n, scores.dtype))
    return torch.softmax(scores, dim=-1)  # ATen sums in float32; asking for float32 costs seven times as much


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float, lengths: Sequence[int]
    ) -> Tensor:
        heads, total, depth = query.shape
        groups = key.shape[0]
        grouped = query.view(groups, heads // groups, total, depth)
        output = torch.empty_like(grouped)
        kept, start = [], 0
        for n in lengths:
            part = slice(start, start + n)
            scaled = (grouped[:, :, part] * scale).reshape(groups, -1, depth)  # (K, G*n, D)
            weights = _probabilities(scaled, key[:, part], n)
            output[:, :, part] = torch.bmm(weights, value[:, part]).view(groups, -1, n, depth)
            kept.append(weights)
            start += n
        ctx.save_for_backward(query, key, value, *kept)
        ctx.scale, ctx.lengths = scale, lengths
        return output.view(heads, total, depth)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        heads, total, depth = query.shape
        groups = key.shape[0]
        grouped = query.view(groups, heads // groups, total, depth)
        above = gradient.reshape(groups, heads // groups, total, depth)
        d_query, d_key, d_value = torch.empty_like(grouped), torch.empty_like(key), torch.empty_like(value)
        start = 0
        for n, weights in zip(ctx.lengths, kept, strict=True):
            part = slice(start, start + n)
            scaled = (grouped[:, :, part] * ctx.scale).reshape(groups, -1, depth)
            d_out = above[:, :, part].reshape(groups, -1, depth)
            d_value[:, part] = torch.bmm(weights.transpose(1, 2), d_out)
            d_weights = torch.bmm(d_out, value[:, part].transpose(1, 2))
            d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype)
            d_query[:, :, part] = (torch.bmm(d_scores, key[:, part]) * ctx.scale).view(groups, -1, n, depth)
            d_key[:, part] = torch.bmm(d_scores.transpose(1, 2), scaled)
            start += n
        return d_query.view(heads, total, depth), d_key, d_value, None, None


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float, lengths: Sequence[int]) -> Tensor:
    """Causal attention within each of `lengths`; query (H, T, D), key and value (K, T, D), K divides H."""
    made: Tensor = _Attend.apply(  # type: ignore[no-untyped-call]
        query.contiguous(), key.contiguous(), value.contiguous(), scale, tuple(lengths)
    )
    return made


class _Adapted(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scale: float,
        kept: Tensor | None,
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])  # (T, in)
        inner = (rows @ a.t()).mul_(scale)  # (T, r)
        if kept is not None:
            inner.mul_(kept)
        output = rows @ weight.t() if bias is None else torch.addmm(bias, rows, weight.t())
        output.addmm_(inner, b.t())
        ctx.save_for_backward(rows, weight, a, b, inner, kept)
        ctx.scale = scale
        return output.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, a, b, inner, kept = ctx.saved_tensors
        above = gradient.reshape(-1, gradient.shape[-1])  # (T, out)
        d_b = above.t() @ inner
        d_inner = (above @ b).mul_(ctx.scale)
        if kept is not None:
            d_inner.mul_(kept)
        d_a = d_inner.t() @ rows
        d_x = None
        if ctx.needs_input_grad[0]:
            d_x = (above @ weight).addmm_(d_inner, a).view(*gradient.shape[:-1], -1)
        return d_x, None, None, d_a, d_b, None, None


def adapted(
    x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float, dropout: float = 0.0
) -> Tensor:
    """x (..., in) through a frozen layer (out, in) and its adapter b (out, r), a (r, in).

    `dropout` drops inner activations (T, r): a few per token, where PEFT would drop inputs, hundreds of them.
    """
    kept = None
    if dropout > 0:
        kept = torch.empty(x.numel() // x.shape[-1], a.shape[0], dtype=x.dtype, device=x.device)
        kept.bernoulli_(1 - dropout).div_(1 - dropout)
    made: Tensor = _Adapted.apply(x, weight, bias, a, b, scale, kept)  # type: ignore[no-untyped-call]
    return made


BLOCK = 256  # rows; with 576 columns in float32, 0.6 MB


def _blocks(rows: Tensor) -> list[slice]:
    return [slice(at, at + BLOCK) for at in range(0, rows.shape[0], BLOCK)]


class _Normed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        output = torch.empty_like(x)
        inverse = torch.empty(x.shape[0], 1, dtype=torch.promote_types(x.dtype, torch.float32))
        for part in _blocks(x):
            wide = x[part].to(inverse.dtype)
            inverse[part] = torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
            torch.mul((wide * inverse[part]).to(x.dtype), weight, out=output[part])
        ctx.save_for_backward(x, weight, inverse)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, inverse = ctx.saved_tensors
        d_x = torch.empty_like(x)
        for part in _blocks(x):
            unit = x[part].to(inverse.dtype) * inverse[part]
            above = gradient[part].to(inverse.dtype) * weight
            shared = (above * unit).mean(-1, keepdim=True)
            d_x[part] = above.sub_(unit.mul_(shared)).mul_(inverse[part])
        return d_x, None, None


def normed(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """x (T, H) over its root mean square, times a frozen weight (H,). Source: Zhang and Sennrich 2019."""
    made: Tensor = _Normed.apply(x, weight, epsilon)  # type: ignore[no-untyped-call]
    return made


def use_normed(model: torch.nn.Module) -> int:
    """Give the norms of a Llama-like model `normed` as their forward; how many there were.

    Gemma's have another formula and are left as they are.
    """
    count = 0
    for module in model.modules():
        kind = type(module).__name__
        if kind.endswith("RMSNorm") and not kind.startswith("Gemma"):
            module.forward = functools.partial(_norm_forward, module)
            count += 1
    return count


def _norm_forward(module: Any, x: Tensor) -> Tensor:
    return normed(x.reshape(-1, x.shape[-1]), module.weight, module.variance_epsilon).view(x.shape)


def use_adapted(model: torch.nn.Module) -> int:
    """Give every LoRA layer of a PEFT model `adapted` as its forward; how many there were."""
    from peft.tuners.lora import Linear

    count = 0
    for module in model.modules():
        if isinstance(module, Linear):
            module.forward = functools.partial(_forward, module)
            count += 1
    return count


def _forward(module: Any, x: Tensor) -> Tensor:
    [name] = module.active_adapters
    dropout = module.lora_dropout[name]
    share = dropout.p if module.training and isinstance(dropout, torch.nn.Dropout) else 0.0
    base = module.get_base_layer()
    a, b = module.lora_A[name].weight, module.lora_B[name].weight
    return adapted(x, base.weight, base.bias, a, b, module.scaling[name], share)
