"""How likely the held-out completions are to the GGUF that is served, in a process of its own.

    python -m whis_box.evaluation.likelihood SPEC_JSON      one sample per line on stdin, one result on stdout

A sample is {"segments": [[text, trusted], ...], "completion": text}; a result {"nll": nats, "n_tokens": n},
summed over the completion's tokens alone. Training is not asked: the numbers are those of the served weights.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whis_box.engine import cpu, native
from whis_box.engine.model import Model
from whis_box.errors import InputError


def main(spec: dict[str, Any]) -> int:
    """Load the base and the adapter of an EngineSpec, then answer each line."""
    binding = native.load()
    cpu.load_backend(binding, spec["backend_path"])
    binding.llama_backend_init()
    model = Model(binding, Path(spec["model_path"]))
    context = _context(binding, model, spec)
    for line in sys.stdin:
        sample = json.loads(line)
        prompt = model.tokenize([(text, trusted) for text, trusted in sample["segments"]])
        completion = model.tokenize([(sample["completion"], False)])
        print(json.dumps(_score(binding, model, context, prompt, completion)), flush=True)
    os._exit(0)  # the process owns nothing that needs an orderly end


def _context(binding: Any, model: Model, spec: dict[str, Any]) -> Any:
    params = binding.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = spec["n_ctx"]
    params.n_threads = params.n_threads_batch = spec["n_threads"]
    context = binding.llama_init_from_model(model.pointer, params)
    adapter = spec["lanes"][0]["adapter_path"]
    if adapter:
        adapters = (binding.llama_adapter_lora_p_ctypes * 1)(model.load_adapter(Path(adapter)))
        binding.llama_set_adapters_lora(context, adapters, 1, (ctypes.c_float * 1)(1.0))
    return context


def _score(
    binding: Any, model: Model, context: Any, prompt: list[int], completion: list[int]
) -> dict[str, float]:
    tokens = prompt + completion
    if len(tokens) > binding.llama_n_ctx(context) or not prompt or not completion:
        raise InputError(f"a sample has {len(tokens)} tokens, the context {binding.llama_n_ctx(context)}")
    binding.llama_memory_clear(binding.llama_get_memory(context), True)
    batch = binding.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for place, token in enumerate(tokens):
        batch.token[place], batch.pos[place] = token, place
        batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
        batch.logits[place] = int(place >= len(prompt) - 1)
    try:
        if binding.llama_decode(context, batch) != 0:
            raise InputError(f"libllama could not decode a sample of {len(tokens)} tokens")
        nll = sum(
            _surprise(_logits(binding, model, context, len(prompt) - 1 + place), token)
            for place, token in enumerate(completion)
        )
    finally:
        binding.llama_batch_free(batch)
    return {"nll": nll, "n_tokens": len(completion)}


def _logits(binding: Any, model: Model, context: Any, place: int) -> NDArray[np.float32]:
    return np.ctypeslib.as_array(binding.llama_get_logits_ith(context, place), (model.n_vocab,))


def _surprise(logits: NDArray[np.float32], token: int) -> float:
    """Negative log-probability in nats, by a stable log-sum-exp."""
    values = logits.astype(np.float64)
    top = values.max()
    return float(top + np.log(np.exp(values - top).sum()) - values[token])


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
