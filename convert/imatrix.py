"""How much each input of a layer matters on our own text: the mean square of what flows into it.

    python -m convert.imatrix BASE --text FILE... --out imatrix.safetensors

Quantization weighs its rounding errors by it. Source: llama.cpp, tools/imatrix.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from convert.lora import TENSOR_NAMES
from whis_box.errors import InputError, WhisError
from whis_box.paths import read_text, written_beside

N_CTX = 512


def main() -> int:
    """Measure one base."""
    from train.base import load_base
    from train.config import BaseSection

    parser = argparse.ArgumentParser(prog="convert.imatrix", description="importance of inputs on our text")
    parser.add_argument("base", type=Path, help="a GGUF or a Hugging Face folder")
    parser.add_argument("--text", type=Path, nargs="+", required=True)
    parser.add_argument("--tokens", type=int, default=20_000)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    try:
        base = load_base(BaseSection(path=options.base), torch.float32)
        text = "\n\n".join(read_text(path) for path in sorted(options.text))
        ids = base.tokenize([(text, False)])[: options.tokens]
        importance = measure(base.model, ids)
        with written_beside(options.out) as beside:
            save_file(importance, beside)
    except WhisError as error:
        print(f"convert.imatrix: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{options.out} {len(importance)} tensors, {len(ids)} tokens")
    return 0


@torch.no_grad()
def measure(model: Any, ids: Sequence[int]) -> dict[str, NDArray[np.float32]]:
    """Mean square of every input column by GGUF tensor name, float32.

    Raises: InputError without text.
    """
    if len(ids) < 2:
        raise InputError("there is no text to measure on; give files with --text")
    sums: dict[str, torch.Tensor] = {}
    counts: dict[str, int] = {}

    def watch(name: str) -> Any:
        def hook(_module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
            rows = inputs[0].reshape(-1, inputs[0].shape[-1]).double()
            sums[name] = sums.get(name, torch.zeros(rows.shape[1], dtype=torch.float64)) + rows.square().sum(
                0
            )
            counts[name] = counts.get(name, 0) + len(rows)

        return hook

    hooks = [
        module.register_forward_pre_hook(watch(name))
        for number, layer in enumerate(model.model.layers)
        for kind, gguf_kind in TENSOR_NAMES.items()
        for module, name in [(layer.get_submodule(kind), f"blk.{number}.{gguf_kind}.weight")]
    ]
    for at in range(0, len(ids), N_CTX):
        model.model(input_ids=torch.tensor([list(ids[at : at + N_CTX])]), use_cache=False)
    for hook in hooks:
        hook.remove()
    return {name: (sums[name] / counts[name]).float().numpy() for name in sums}


if __name__ == "__main__":
    sys.exit(main())
