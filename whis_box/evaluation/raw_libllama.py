"""The peer of the engine benchmark: the shortest possible loop over libllama, in its own process.

    python -m whis_box.evaluation.raw_libllama SPEC_JSON      one run per line on stdin, tokens/s on stdout

No supervisor, no frames, no numpy: libllama's own greedy sampler, one decode per token.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from whis_box.engine import cpu, native


def main(spec: dict[str, Any]) -> int:
    """Time a generation of `n_tokens` after `prompt` for every line that arrives."""
    binding = native.load()
    cpu.load_backend(binding, spec["backend_path"])
    binding.llama_backend_init()
    params = binding.llama_model_default_params()
    params.n_gpu_layers = 0
    model = binding.llama_model_load_from_file(os.fsencode(spec["model_path"]), params)
    context_params = binding.llama_context_default_params()
    context_params.n_ctx, context_params.n_batch, context_params.n_ubatch = (
        spec["n_ctx"],
        spec["n_batch"],
        spec["n_batch"],
    )
    context_params.n_threads = context_params.n_threads_batch = spec["n_threads"]
    context_params.flash_attn_type = binding.LLAMA_FLASH_ATTN_TYPE_ENABLED
    context = binding.llama_init_from_model(model, context_params)
    sampler = binding.llama_sampler_init_greedy()
    for _ in sys.stdin:
        print(json.dumps(_run(binding, model, context, sampler, spec)), flush=True)
    os._exit(0)  # the process owns nothing that needs an orderly end


def _run(binding: Any, model: Any, context: Any, sampler: Any, spec: dict[str, Any]) -> float:
    vocab = binding.llama_model_get_vocab(model)
    prompt = spec["prompt"].encode()
    tokens = (binding.llama_token * 4096)()
    count = binding.llama_tokenize(vocab, prompt, len(prompt), tokens, 4096, False, True)
    binding.llama_memory_clear(binding.llama_get_memory(context), True)
    one = (binding.llama_token * 1)()
    for at in range(0, count, spec["n_batch"]):
        part = (binding.llama_token * min(spec["n_batch"], count - at))(
            *tokens[at : min(count, at + spec["n_batch"])]
        )
        binding.llama_decode(context, binding.llama_batch_get_one(part, len(part)))
    started = time.perf_counter()
    for _ in range(spec["n_tokens"]):
        one[0] = binding.llama_sampler_sample(sampler, context, -1)
        binding.llama_decode(context, binding.llama_batch_get_one(one, 1))
    return float(spec["n_tokens"] / (time.perf_counter() - started))


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
