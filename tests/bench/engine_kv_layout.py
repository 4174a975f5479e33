"""One pool of KV cells for all sequences, or a stream for each? CPU time on one thread.

    python -m tests.bench.engine_kv_layout [--gguf FILE] [--prompt 512] [--threads 1]

With one pool a prefix can be shared without copying, but every row walks over every other sequence's cells.
With streams it does not, and a prefix is copied; libllama then batches neighbouring streams only, and rows of
equal count. The engine uses streams; this is why.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.engine_parts import open_model
from whis_box.box.opening import engine_spec
from whis_box.config import ModelConfig
from whis_box.engine.context import Batch
from whis_box.evaluation.bench import environment
from whis_box.paths import repository_root

N_SEQUENCES = 8
N_BATCH = 256
SHAPES = {
    "1 row": {0: 1},
    "8 rows": dict.fromkeys(range(8), 1),
    "4 rows": dict.fromkeys(range(4), 1),
    "4 rows, every other stream": dict.fromkeys(range(0, 8, 2), 1),
    "14 rows, two of them runs of forced tokens": {**dict.fromkeys(range(8), 1), 3: 5, 6: 3},
    "7 rows and 100 prompt tokens": {**dict.fromkeys(range(8), 1), 3: 100},
}


class Layout:
    """A raw context of one layout."""

    def __init__(self, binding: Any, model: Any, n_ctx: int, threads: int, unified: bool) -> None:
        params = binding.llama_context_default_params()
        params.n_ctx, params.n_seq_max, params.kv_unified = n_ctx * N_SEQUENCES, N_SEQUENCES, unified
        params.n_batch = params.n_ubatch = N_BATCH
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = binding.LLAMA_FLASH_ATTN_TYPE_ENABLED
        params.no_perf = True
        self.binding, self.context = binding, binding.llama_init_from_model(model.pointer, params)
        self.batch = Batch(binding, N_BATCH)
        self.at = dict.fromkeys(range(N_SEQUENCES), 0)
        self._random = np.random.default_rng(0)

    def decode(self, counts: dict[int, int]) -> None:
        """Add `counts[sequence]` random tokens to each sequence."""
        self.batch.reset()
        for sequence, count in counts.items():
            tokens = self._random.integers(100, 40_000, count).astype(np.int32)
            self.batch.add(sequence, tokens, self.at[sequence], 1)
            self.at[sequence] += count
        status = self.binding.llama_decode(self.context, self.batch.struct)
        if status:
            raise SystemExit(f"llama_decode returned {status}")

    def copy_ms(self) -> float:
        """Reading one sequence's state and writing it to another."""
        size = self.binding.llama_state_seq_get_size(self.context, 0)
        buffer = (ctypes.c_uint8 * size)()
        return timed(lambda: self._copy(buffer, size))

    def _copy(self, buffer: Any, size: int) -> None:
        self.binding.llama_state_seq_get_data(self.context, buffer, size, 0)
        self.binding.llama_state_seq_set_data(self.context, buffer, size, 1)


def timed(run: Callable[[], None]) -> float:
    """CPU milliseconds of all threads, which other processes disturb less than the clock."""
    started = time.process_time()
    run()
    return 1000 * (time.process_time() - started)


def measure(layout: Layout, n_prompt: int, runs: int) -> dict[str, float]:
    """CPU milliseconds by what was decoded."""
    whole, rest = divmod(n_prompt, N_BATCH)
    chunks = [N_BATCH] * whole + [rest] * bool(rest)
    prompts = [
        sum(timed(partial(layout.decode, {sequence: count})) for count in chunks)
        for sequence in range(N_SEQUENCES)
    ]
    taken = {f"prompt of {n_prompt}, mean of 8": statistics.mean(prompts)}
    for name, counts in SHAPES.items():
        taken[name] = statistics.median(timed(partial(layout.decode, counts)) for _ in range(runs))
    taken["copy of a sequence"] = layout.copy_ms()
    return taken


def main() -> None:
    """Print both layouts side by side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--box", type=Path, default=repository_root() / "build" / "box")
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    spec = engine_spec(options.gguf or options.box / "models" / "base.gguf", ModelConfig())
    binding, model = open_model(spec)
    columns: dict[str, list[float]] = {}
    for unified in (False, True):
        layout = Layout(binding, model, options.prompt + 1024, options.threads, unified)
        for name, milliseconds in measure(layout, options.prompt, options.runs).items():
            columns.setdefault(name, []).append(milliseconds)
        binding.llama_free(layout.context)
    for key, value in environment(options.box).items():
        print(f"{key}: {value}")
    print(f"{'CPU ms':<46} {'streams':>9} {'one pool':>9}")
    for name, (streams, pool) in columns.items():
        print(f"{name:<46} {streams:9.1f} {pool:9.1f}")


if __name__ == "__main__":
    main()
