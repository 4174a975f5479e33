"""Tiny random models of each architecture, as transformers' model and as the GGUF of the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModelForCausalLM

from whis_box.engine import cpu, native
from whis_box.engine.context import Context
from whis_box.engine.model import Model
from whis_box.engine.protocol import EngineSpec, LaneSpec

KINDS = ("llama", "mistral", "qwen2", "qwen3", "gemma")
N_VOCAB, N_LAYERS, HEAD_DIM = 128, 2, 16
N_HEAD, N_HEAD_KV = 4, 2


def tiny_model(kind: str, seed: int = 0, n_vocab: int = N_VOCAB) -> Any:
    """A random model whose matrices are exactly representable in f16."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        kind,
        vocab_size=n_vocab,
        hidden_size=N_HEAD * HEAD_DIM,
        intermediate_size=96,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=N_HEAD,
        num_key_value_heads=N_HEAD_KV,
        head_dim=HEAD_DIM,
        max_position_embeddings=256,
        tie_word_embeddings=kind in ("qwen3", "gemma"),
        sliding_window=None,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.3 if "norm" in name else 1.0 / parameter.shape[-1] ** 0.5
            noise = torch.randn_like(parameter) * scale
            parameter.copy_((parameter + noise if "norm" in name else noise).half().float())
    return model


def write_gguf(model: Any, path: Path, matrices: type = np.float16) -> None:
    """The model as a GGUF without a vocabulary; f16 holds its matrices exactly."""
    config = model.config
    architecture = "llama" if config.model_type == "mistral" else config.model_type
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("no_vocab")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = tensor.float().numpy()
        if architecture == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = N_HEAD if "q_proj" in name else N_HEAD_KV
            values = values.reshape(heads, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
        if architecture == "gemma" and name.endswith("norm.weight"):
            values = values + 1
        kind = matrices if values.ndim == 2 else np.float32
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        writer.add_tensor(target, np.ascontiguousarray(values, dtype=kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def save_folder(model: Any, folder: Path) -> None:
    """The model as a Hugging Face folder, with a tokenizer of bytes and the chat markers."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    markers = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {text: n for n, text in enumerate([*markers, *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(markers)
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>").save_pretrained(folder)


def libllama_logits(base: Path, adapter: Path | None, prompts: list[list[int]]) -> NDArray[np.float32]:
    """Logits behind the last token of each prompt, (n, V), from libllama."""
    binding = native.load()
    usable = [
        one for one in cpu.variants(native.library_dir()) if one.score > 0 and one.name not in cpu.EXCLUDED
    ]
    cpu.load_backend(binding, str(usable[0].path))
    binding.llama_backend_init()
    model = Model(binding, base)
    spec = EngineSpec(
        str(base), str(usable[0].path), n_threads=1, n_ctx=256, n_batch=256, flash_attention=False
    )
    context = Context(model, spec, LaneSpec("tested", str(adapter) if adapter else "", n_slots=1))
    rows = []
    for prompt in prompts:
        context.clear()  # forget the prompt before
        context.batch.reset()
        last = context.batch.add(0, prompt, 0, 1)
        context.decode()
        rows.append(context.logits(last).copy())
    context.close()
    model.close()
    return np.array(rows)
