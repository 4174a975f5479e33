"""Constrained decoding: which token may come next.

Invariant: a grammar that does not compile, or a matcher in an error state, raises; it is never silently
skipped. The automaton is llguidance's: measured against libllama's own GBNF sampler in
`tests/bench/grammar_backends.py`.
"""

from __future__ import annotations

import collections
import ctypes
from typing import Any

import llguidance
import numpy as np
from numpy.typing import NDArray

from whis_box.errors import EngineError

PIECE_BYTES = 512
KEPT_GRAMMARS = 64


class GrammarCompiler:
    """Compiles Lark grammars for one vocabulary; about 0.2 s to build, so one per model."""

    def __init__(self, binding: Any, vocab: Any) -> None:
        self.n_vocab = int(binding.llama_vocab_n_tokens(vocab))
        tokenize = ctypes.cast(binding._lib.llama_tokenize, ctypes.c_void_p).value
        self._tokenizer = llguidance.LLTokenizer.from_llamacpp(  # type: ignore[attr-defined]
            tokens=_vocabulary(binding, vocab, self.n_vocab),
            vocab_ptr=vocab,
            tokenize_fptr=tokenize,
            eos_token=binding.llama_vocab_eos(vocab),
            slices=None,
        )
        self._compiled: collections.OrderedDict[str, llguidance.LLMatcher] = collections.OrderedDict()

    def compile(self, grammar: str) -> Constraint:
        """Compile `grammar`, or copy what an earlier request compiled.

        Raises: EngineError with llguidance's message when it does not compile.
        """
        matcher = self._compiled.pop(grammar, None)
        if matcher is None:
            matcher = llguidance.LLMatcher(self._tokenizer, grammar, log_level=0)
            if matcher.is_error():
                raise EngineError(f"the output grammar does not compile: {matcher.get_error()}")
        self._compiled[grammar] = matcher
        if len(self._compiled) > KEPT_GRAMMARS:
            self._compiled.popitem(last=False)
        return Constraint(matcher.deep_copy(), self.n_vocab)

    def forget(self) -> None:
        """Drop the compiled grammars."""
        self._compiled.clear()


class Constraint:
    """The state of one grammar along one generation."""

    def __init__(self, matcher: llguidance.LLMatcher, n_vocab: int) -> None:
        self._matcher = matcher
        self._words = np.zeros((n_vocab + 31) // 32, dtype=np.int32)
        self._n_vocab = n_vocab

    def allows(self, token: int) -> bool:
        """Whether `token` may come next; costs one automaton step."""
        return bool(self._matcher.validate_tokens([token]) == 1)

    def allowed_prefix(self, tokens: list[int]) -> int:
        """How many of `tokens` may come next, one after the other."""
        return int(self._matcher.validate_tokens(tokens))

    def mask(self) -> NDArray[np.bool_]:
        """Which tokens may come next, shape (n_vocab,)."""
        self._matcher.unsafe_compute_mask_ptr(self._words.ctypes.data, self._words.nbytes)
        self._check()
        bits = np.unpackbits(self._words.view(np.uint8), bitorder="little", count=self._n_vocab)
        return bits.view(np.bool_)

    def accept(self, token: int) -> list[int]:
        """Advance by `token`; the tokens that are forced after it (already accepted), often none."""
        self._matcher.consume_token(token)
        self._check()
        if self._matcher.is_stopped():
            return []
        forced = self._matcher.compute_ff_tokens()
        if forced:
            self._matcher.consume_tokens(forced)
            self._check()
        return list(forced)

    @property
    def finished(self) -> bool:
        """Whether the output is complete and nothing may follow."""
        return bool(self._matcher.is_stopped())

    def _check(self) -> None:
        if self._matcher.is_error():
            raise EngineError(f"constrained decoding failed: {self._matcher.get_error()}")


def _vocabulary(binding: Any, vocab: Any, n_vocab: int) -> list[bytes]:
    """Bytes of every token; special ones carry llguidance's 0xFF mark."""
    special_attributes = binding.LLAMA_TOKEN_ATTR_CONTROL | binding.LLAMA_TOKEN_ATTR_USER_DEFINED
    buffer = ctypes.create_string_buffer(PIECE_BYTES)
    pieces = []
    for token in range(n_vocab):
        n_bytes = binding.llama_token_to_piece(vocab, token, buffer, PIECE_BYTES, 0, True)
        if n_bytes < 0:
            raise EngineError(f"token {token} of the model is longer than {PIECE_BYTES} bytes")
        piece = buffer.raw[:n_bytes]
        is_special = bool(binding.llama_token_get_attr(vocab, token) & special_attributes)
        pieces.append(b"\xff" + piece if is_special else piece)
    return pieces
