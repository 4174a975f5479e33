"""The frozen base: weights and tokenizer from a GGUF, dequantized, or from a Hugging Face folder.

Invariant: from a GGUF, tokens come from libllama itself, so training reads text exactly as serving does.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from train.config import BaseSection
from train.options import Tokenize
from train.samples import END_OF_TURN
from whis_box.engine import cpu, native
from whis_box.engine.gguf_header import read_header
from whis_box.engine.model import Model
from whis_box.errors import InputError, NotReadyError, VerificationError
from whis_box.paths import file_sha256

# Architectures whose adapters convert.lora can write; the loss knows no logit scaling or capping.
ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3", "gemma")


@dataclass(frozen=True)
class Base:
    """A loaded base; `model` is transformers' causal LM in evaluation mode."""

    model: Any
    tokenize: Tokenize
    sha256: str
    n_ctx: int


def load_base(section: BaseSection, dtype: torch.dtype) -> Base:
    """Load what `base` names.

    Raises: NotReadyError if it is missing; VerificationError when the hash or the tokenizer does not fit;
    InputError for an architecture that cannot be converted afterwards.
    """
    path = section.path
    if not path.exists():
        raise NotReadyError(f"{path}: missing; run `python -m convert.quantize`, or name another base")
    sha256 = file_sha256(path) if path.is_file() else folder_sha256(path)
    if section.sha256 not in (None, sha256):
        raise VerificationError(
            f"{path}: sha256 is {sha256}, the config says {section.sha256}; "
            "an adapter fits the base it was trained on, so take that base or change base.sha256"
        )
    model, tokenize = _from_gguf(path, dtype) if path.is_file() else _from_folder(path, dtype)
    kind = model.config.model_type
    if kind not in ARCHITECTURES:
        raise InputError(f"{path}: architecture {kind!r} is not one of {', '.join(ARCHITECTURES)}")
    _check_tokenizer(path, model, tokenize)
    return Base(model.requires_grad_(False).eval(), tokenize, sha256, model.config.max_position_embeddings)


def _from_gguf(path: Path, dtype: torch.dtype) -> tuple[Any, Tokenize]:
    from transformers import AutoModelForCausalLM, GgufConfig

    header = read_header(path)
    if header.architecture not in ARCHITECTURES:
        raise InputError(
            f"{path}: architecture {header.architecture!r} is not one of {', '.join(ARCHITECTURES)}"
        )
    logging.getLogger("transformers").setLevel(logging.ERROR)
    model = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=dtype, quantization_config=GgufConfig(dequantize=True)
    )
    return model, gguf_tokenizer(path)


def gguf_tokenizer(path: Path) -> Tokenize:
    """libllama's tokenizer for a GGUF."""
    binding = native.load()
    usable = [
        one for one in cpu.variants(native.library_dir()) if one.score > 0 and one.name not in cpu.EXCLUDED
    ]
    cpu.load_backend(binding, str(usable[0].path))
    binding.llama_backend_init()
    vocabulary = Model(binding, path)  # mapped, not copied
    return lambda segments: vocabulary.tokenize(list(segments))


def _from_folder(path: Path, dtype: torch.dtype) -> tuple[Any, Tokenize]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)

    def tokenize(segments: Sequence[tuple[str, bool]]) -> list[int]:
        ids: list[int] = []
        for text, trusted in segments:
            ids += tokenizer(text, add_special_tokens=False, split_special_tokens=not trusted)["input_ids"]
        return ids

    return model, tokenize


def _check_tokenizer(path: Path, model: Any, tokenize: Tokenize) -> None:
    """The chat markers must be single tokens when trusted, and must not be when they are not."""
    text = END_OF_TURN[0]
    trusted, plain = tokenize([(text, True)]), tokenize([(text, False)])
    n_vocab = model.get_input_embeddings().weight.shape[0]
    if len(trusted) != 1 or len(plain) == 1:
        raise VerificationError(
            f"{path}: {text} is {len(trusted)} tokens when trusted and {len(plain)} when not; "
            "the prompts of whis_box/prompts.py need a tokenizer where it is one special token"
        )
    if trusted[0] >= n_vocab:
        raise VerificationError(
            f"{path}: token {trusted[0]} lies outside the {n_vocab} rows of the embedding; "
            "tokenizer and weights are of different models"
        )


def folder_sha256(folder: Path) -> str:
    """Digest over a Hugging Face folder's config and weights."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("config.json"), *folder.glob("*.safetensors")]):
        digest.update(f"{path.name}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()
