"""The weights, loaded once and shared by every lane.

Invariant: untrusted text is tokenized with special tokens off, so `<|im_start|>` in an alert stays plain
text.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

from whis_box.engine.gguf_header import GgufHeader, read_header
from whis_box.errors import EngineError, VerificationError

MAX_ADAPTER_BYTES = 2 * 1024**3


class Model:
    """A loaded GGUF. Not thread-safe: one thread of the engine's child owns it."""

    def __init__(self, binding: Any, path: Path, on_gpu: bool = False, opened: Path | None = None) -> None:
        """Load `path` with the backends that are already registered; `opened` is another way to that file.

        Raises: NotReadyError, VerificationError.
        """
        self.binding = binding
        self.path = path
        self.header: GgufHeader = read_header(path, opened)
        self.on_gpu = on_gpu
        params = binding.llama_model_default_params()
        params.n_gpu_layers = -1 if on_gpu else 0
        self._pointer = binding.llama_model_load_from_file(os.fsencode(opened or path), params)
        if not self._pointer:
            raise VerificationError(
                f"{path}: libllama cannot load this GGUF; copy it again or run `make demo`"
            )
        self.vocab = binding.llama_model_get_vocab(self._pointer)
        self.n_vocab = int(binding.llama_vocab_n_tokens(self.vocab))
        self._pieces: dict[int, bytes] = {}
        self.n_ctx_train = int(binding.llama_model_n_ctx_train(self._pointer))

    @property
    def pointer(self) -> Any:
        """The `llama_model *`."""
        return self._pointer

    def tokenize(self, segments: list[tuple[str, bool]]) -> list[int]:
        """Token ids of (text, trusted) segments; special tokens are recognised in trusted ones only."""
        tokens: list[int] = []
        for text, trusted in segments:
            tokens.extend(self._tokenize(text.encode("utf-8", "replace"), trusted))
        return tokens

    def _tokenize(self, text: bytes, trusted: bool) -> list[int]:
        if not text:
            return []
        capacity = len(text) + 8  # a token is at least one byte
        buffer = (self.binding.llama_token * capacity)()
        count = self.binding.llama_tokenize(self.vocab, text, len(text), buffer, capacity, False, trusted)
        if count < 0:
            raise EngineError(f"a text of {len(text)} bytes needs {-count} tokens, more than {capacity}")
        return list(buffer[:count])

    def piece(self, token: int) -> bytes:
        """UTF-8 bytes of one token, possibly an incomplete character; empty for special tokens."""
        known = self._pieces.get(token)
        if known is None:
            buffer = ctypes.create_string_buffer(512)
            count = self.binding.llama_token_to_piece(self.vocab, token, buffer, 512, 0, False)
            known = self._pieces[token] = buffer.raw[: max(count, 0)]
        return known

    def is_end(self, token: int) -> bool:
        """Whether `token` ends a generation."""
        return bool(self.binding.llama_vocab_is_eog(self.vocab, token))

    def load_adapter(self, path: Path, base_sha256: str = "") -> Any:
        """A LoRA adapter for this model, whose own digest is `base_sha256`.

        Raises: VerificationError when it is damaged or made for another base.
        """
        wanted = read_header(path).base_sha256
        if wanted and base_sha256 and wanted != base_sha256:
            raise VerificationError(
                f"{path}: made for the base {wanted[:16]}, but {self.path.name} is {base_sha256[:16]}; "
                "convert the adapter for this base"
            )
        adapter = self.binding.llama_adapter_lora_init(self._pointer, os.fsencode(path))
        if not adapter:
            raise VerificationError(f"{path}: not a LoRA adapter for {self.path.name}; convert it again")
        return adapter

    def close(self) -> None:
        """Free the weights; every lane must be closed before."""
        if self._pointer:
            self.binding.llama_model_free(self._pointer)
            self._pointer = None
