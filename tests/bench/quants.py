"""Quantizations of a base beside each other: size, perplexity on our own text, tokens per second.

    python -m tests.bench.quants SOURCE.gguf [--imatrix FILE] [--tokens 8192]

The text is the field guide of data/raw. Source of the measure: llama.cpp, tools/perplexity (the second half
of each window counts). Speed is measured in turns, so that what else the machine does falls on all.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convert.base import quantize
from whis_box.engine import cpu
from whis_box.engine.context import Context
from whis_box.engine.model import Model
from whis_box.engine.protocol import EngineSpec, LaneSpec
from whis_box.paths import repository_root, source_commit

QUANTS = ("Q4_0", "Q4_1", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "F16")
N_CTX = 512
N_GENERATED = 24
ROUNDS = 3


def main() -> None:
    """Print one line for each quantization."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("--imatrix", type=Path, help="adds a Q4_0 made with it")
    parser.add_argument("--tokens", type=int, default=8192)
    options = parser.parse_args()
    from train.base import gguf_tokenizer
    from whis_box.engine import native

    gguf_tokenizer(options.source)  # registers the backend
    binding = native.load()
    text = "\n\n".join(
        path.read_text() for path in sorted((repository_root() / "data" / "raw").rglob("*.md"))
    )
    print(f"{cpu.cpu_model()} · {cpu.thread_count()} threads · commit {source_commit()[:12]}")
    with tempfile.TemporaryDirectory() as scratch:
        files = {"as published": options.source}
        for quant in QUANTS:
            files[quant] = Path(scratch) / f"{quant}.gguf"
            quantize(options.source, files[quant], quant)
        if options.imatrix:
            files["Q4_0 with importance"] = Path(scratch) / "imatrix.gguf"
            quantize(options.source, files["Q4_0 with importance"], "Q4_0", options.imatrix)
        measured = {name: Measured(binding, path) for name, path in files.items()}
        for _ in range(ROUNDS):
            for one in measured.values():
                one.time()
        for name, one in measured.items():
            perplexity = one.perplexity(one.model.tokenize([(text, False)])[: options.tokens])
            print(
                f"{name:<22} {files[name].stat().st_size / 1e6:7.1f} MB  perplexity {perplexity:8.3f}  "
                f"prompt {statistics.median(one.prompt_rates):6.0f}  generation "
                f"{statistics.median(one.generation_rates):6.1f} tokens/s",
                flush=True,
            )
    sys.stdout.flush()


class Measured:
    """One quantization, loaded."""

    def __init__(self, binding: Any, path: Path) -> None:
        self.model = Model(binding, path)
        threads = cpu.thread_count()
        # Drafted tokens are what the engine keeps room for logits for; perplexity wants all of a window.
        spec = EngineSpec(str(path), "", threads, n_ctx=2 * N_CTX, n_batch=N_CTX, n_draft=N_CTX)
        self.context = Context(self.model, spec, LaneSpec("bench", n_slots=1))
        self.prompt_rates: list[float] = []
        self.generation_rates: list[float] = []

    def time(self) -> None:
        """One prompt of 256 tokens, then N_GENERATED single tokens."""
        self.context.clear()
        started = time.perf_counter()
        self._decode([1 + n for n in range(256)], 0, 1)
        self.prompt_rates.append(256 / (time.perf_counter() - started))
        started = time.perf_counter()
        for n in range(N_GENERATED):
            self._decode([1], 256 + n, 1)
        self.generation_rates.append(N_GENERATED / (time.perf_counter() - started))

    def _decode(self, tokens: list[int], position: int, n_logits: int) -> int:
        self.context.batch.reset()
        row = self.context.batch.add(0, tokens, position, n_logits)
        self.context.decode()
        return row

    def perplexity(self, ids: Sequence[int]) -> float:
        """Over the second half of every window of N_CTX tokens."""
        losses = []
        for at in range(0, len(ids) - N_CTX + 1, N_CTX):
            window = list(ids[at : at + N_CTX])
            losses += self._losses(window)
        return math.exp(statistics.fmean(losses))

    def _losses(self, window: list[int]) -> list[float]:
        """Negative log-likelihood of the tokens of the second half, from one decode that keeps all logits."""
        self.context.clear()
        first = self._decode(window, 0, len(window))
        losses = []
        for position in range(N_CTX // 2 - 1, N_CTX - 1):
            row = self.context.logits(first + position).astype(np.float64)
            top = row.max()
            losses.append(float(np.log(np.exp(row - top).sum()) + top - row[window[position + 1]]))
        return losses


if __name__ == "__main__":
    main()
