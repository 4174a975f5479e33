"""The throw-away child's work: does a backend really decode?"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from whis_box.engine import cpu, native
from whis_box.engine.context import Context
from whis_box.engine.model import Model
from whis_box.engine.protocol import EngineSpec, LaneSpec
from whis_box.errors import EngineError

PROBE_TOKENS = 64


def probe(backend_path: str, model_path: str) -> None:
    """Load one backend and really decode with it: a batch, then a single token.

    Raises: EngineError when the logits are not finite. A bad backend may also simply crash; that is the
    point.
    """
    binding = native.load()
    on_gpu = not Path(backend_path).name.startswith("libggml-cpu")
    cpu.load_backend(binding, backend_path)
    binding.llama_backend_init()
    model = Model(binding, Path(model_path), on_gpu)
    spec = EngineSpec(
        model_path, backend_path, n_threads=cpu.thread_count(), n_ctx=256, n_batch=PROBE_TOKENS, n_slots=1
    )
    context = Context(model, spec, LaneSpec("probe"))
    position = 0
    for tokens in ([1 + i for i in range(PROBE_TOKENS)], [1]):
        context.batch.reset()
        row = context.batch.add(0, tokens, position, 1)
        context.decode()
        if not np.isfinite(context.logits(row)).all():
            raise EngineError(f"{backend_path}: logits are not finite")
        position += len(tokens)
    context.close()
    model.close()
