"""Cross-entropy on answer tokens only: the head sees their rows alone, and few logits exist at once.

Invariant: memory for logits is chunk * vocabulary, whatever the row's length; the value is the plain sum.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint


def answer_loss(hidden: Tensor, head: Any, targets: Tensor, chunk: int) -> Tensor:
    """Per-token loss (A,) in float32 of `hidden` (A, H) against `targets` (A,).

    Each chunk is computed again in the backward pass instead of keeping its logits.
    Source: the chunked cross-entropy of torchtune (CEWithChunkedOutputLoss), with recomputation.
    """
    parts = [
        checkpoint(_chunk_loss, rows, head, wanted, use_reentrant=False)
        if hidden.requires_grad
        else _chunk_loss(rows, head, wanted)
        for rows, wanted in zip(torch.split(hidden, chunk), torch.split(targets, chunk), strict=True)
    ]
    return torch.cat(parts)


def _chunk_loss(rows: Tensor, head: Any, targets: Tensor) -> Tensor:
    logits = head(rows).float()  # (chunk, V)
    return cross_entropy(logits, targets, reduction="none")


@torch.no_grad()
def predictions(hidden: Tensor, head: Any, chunk: int) -> Tensor:
    """The likeliest token of each row, (A,)."""
    return torch.cat([head(rows).argmax(dim=-1) for rows in torch.split(hidden, chunk)])
