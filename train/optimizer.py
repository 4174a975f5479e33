"""AdamW on float32 copies of the adapter's weights; the forward pass reads the model's own, in its dtype.

On a CPU bfloat16 is about ten times as fast as float32, but steps of 1e-4 vanish in it: so it computes in
bfloat16 and accumulates, steps and stores in float32.
Invariant: gradients are summed in float32 over micro-batches and processes before the one step.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from train.config import OptimizerSection


class MasterWeights:
    """The trainable parameters of a model by name, their float32 copies, and the optimizer over those."""

    def __init__(self, model: torch.nn.Module, section: OptimizerSection) -> None:
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._section = section
        self._live = list(named.values())
        self.weights: dict[str, Tensor] = {
            name: p.detach().clone().float().requires_grad_() for name, p in named.items()
        }
        self._masters = list(self.weights.values())
        self._adamw = torch.optim.AdamW(
            self._masters, lr=section.learning_rate, weight_decay=section.weight_decay, fused=True
        )
        self.publish()

    @property
    def n_parameters(self) -> int:
        """Trainable parameters."""
        return sum(one.numel() for one in self._masters)

    def accumulate(self) -> None:
        """Move the gradients of one backward pass into the float32 sums."""
        for master, live in zip(self._masters, self._live, strict=True):
            if live.grad is None:
                continue
            gradient = live.grad.float()
            master.grad = gradient if master.grad is None else master.grad.add_(gradient)
            live.grad = None

    def step(self, learning_rate: float) -> float:
        """One AdamW step over the sums of all processes; gives the gradient's norm before clipping."""
        for master in self._masters:
            if master.grad is None:  # this process had no row in this step
                master.grad = torch.zeros_like(master)
        if dist.is_initialized():
            flat = torch.cat([master.grad.flatten() for master in self._masters])  # type: ignore[union-attr]
            dist.all_reduce(flat)
            for master, part in zip(
                self._masters, torch.split(flat, [m.numel() for m in self._masters]), strict=True
            ):
                master.grad = part.view_as(master)
        norm = torch.nn.utils.clip_grad_norm_(self._masters, self._section.max_grad_norm)
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate
        self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)
        self.publish()
        return float(norm)

    @torch.no_grad()
    def publish(self) -> None:
        """Write the float32 weights into the model."""
        for master, live in zip(self._masters, self._live, strict=True):
            live.copy_(master)

    def state(self) -> dict[str, Tensor]:
        """Everything a resumed run needs, as named tensors."""
        tensors = {f"weight/{name}": one.detach() for name, one in self.weights.items()}
        for name, master in self.weights.items():
            for key, value in self._adamw.state.get(master, {}).items():
                tensors[f"{key}/{name}"] = value
        return tensors

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take up a saved state, moments included when it has them."""
        for name, master in self.weights.items():
            master.copy_(tensors[f"weight/{name}"])
            moments: dict[str, Any] = {
                key: tensors[f"{key}/{name}"].clone().to(master.device if key != "step" else "cpu")
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"{key}/{name}" in tensors
            }
            if moments:
                self._adamw.state[master] = moments
        self.publish()


def learning_rate_at(step: int, n_steps: int, section: OptimizerSection) -> float:
    """The rate of step 0 .. n_steps-1: a rise over warmup_share, then a line down to zero."""
    warmup = max(1, round(section.warmup_share * n_steps))
    if step < warmup:
        return section.learning_rate * (step + 1) / warmup
    return section.learning_rate * (n_steps - step) / max(1, n_steps - warmup)
