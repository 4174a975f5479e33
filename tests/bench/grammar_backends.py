"""Which automaton constrains better: llguidance, or libllama's own GBNF sampler?

    python -m tests.bench.grammar_backends [--box DIR] [--runs N]

The same prompts, the same language, the same model in one process, in turn. "check first" asks the
automaton about the greedy token and masks the whole vocabulary only when it is refused; "mask always" masks
before every choice.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.engine_parts import generate, open_lane, open_model
from whis_box.box.opening import engine_spec
from whis_box.config import ModelConfig
from whis_box.engine.grammar import GrammarCompiler
from whis_box.engine.model import Model
from whis_box.engine.protocol import GenerateRequest
from whis_box.evaluation.bench import environment
from whis_box.paths import repository_root
from whis_box.prompts import answer_prompt

N_TOKENS = 96
FACTS = [
    "Event 1102 is written to the Security log when the audit log is cleared.",
    "Event 104 is written to the System log when another log is cleared.",
    "Clearing logs is technique T1070.001, Clear Windows Event Logs.",
    "Event 4624 with logon type 10 is a RemoteInteractive logon, which RDP produces.",
]
QUESTIONS = [
    "Which event tells that the audit log was cleared?",
    "What is logon type 10?",
    "Which technique is it?",
]
GBNF = """root ::= line{1,3}
line ::= "[" [1-4] "] " [A-Z`] item{12,240} "." "\\n"
item ::= plain | number plain
plain ::= [^\\[\\]<>0-9\\x00-\\x1f\\x7f]
number ::= "1102" | "104" | "1070.001" | "4624" | "10"
"""


class GbnfConstraint:
    """libllama's grammar sampler behind the same interface as `whis_box.engine.grammar.Constraint`."""

    def __init__(self, binding: Any, model: Model, grammar: str, always_mask: bool) -> None:
        self._binding, self._n_vocab, self._always = binding, model.n_vocab, always_mask
        self._sampler = binding.llama_sampler_init_grammar(model.vocab, grammar.encode(), b"root")
        if not self._sampler:
            raise SystemExit("the GBNF grammar does not compile")
        self._rows = (binding.llama_token_data * model.n_vocab)()
        self._view = np.ctypeslib.as_array(self._rows)
        self.finished = False

    def allows(self, token: int) -> bool:
        """Whether `token` may come next."""
        if self._always:
            return False
        one = (self._binding.llama_token_data * 1)()
        one[0].id, one[0].logit = token, 0.0
        self._apply(one, 1)
        return bool(np.isfinite(one[0].logit))

    def mask(self) -> Any:
        """Which tokens may come next, shape (n_vocab,)."""
        self._view["id"] = np.arange(self._n_vocab)
        self._view["logit"] = 0.0
        self._apply(self._rows, self._n_vocab)
        return np.isfinite(self._view["logit"])

    def _apply(self, rows: Any, count: int) -> None:
        array = self._binding.llama_token_data_array(rows, count, -1, False)
        self._binding.llama_sampler_apply(self._sampler, ctypes.byref(array))

    def accept(self, token: int) -> list[int]:
        """Advance by `token`."""
        self._binding.llama_sampler_accept(self._sampler, token)
        return []


class AlwaysMask:
    """llguidance without the check-first shortcut."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def allows(self, _token: int) -> bool:
        """Never without a mask."""
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def main() -> None:
    """Print tokens per second and compile times of each way, as medians beside free decoding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--box", type=Path, default=repository_root() / "build" / "box")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0 takes what the machine has")
    options = parser.parse_args()
    spec = engine_spec(options.box / "models" / "base.gguf", ModelConfig())
    spec = replace(spec, n_threads=options.threads or spec.n_threads)
    binding, model = open_model(spec)
    lane = open_lane(model, spec)
    compiler = GrammarCompiler(binding, model.vocab)
    prompts = [answer_prompt(question, FACTS, "compose", 3) for question in QUESTIONS]
    ways: dict[str, Callable[[Any], Any]] = {
        "free": lambda _prompt: None,
        "llguidance, check first": lambda prompt: compiler.compile(prompt.grammar),
        "llguidance, mask always": lambda prompt: AlwaysMask(compiler.compile(prompt.grammar)),
        "GBNF, check first": lambda _prompt: GbnfConstraint(binding, model, GBNF, always_mask=False),
        "GBNF, mask always": lambda _prompt: GbnfConstraint(binding, model, GBNF, always_mask=True),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    compile_ms: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.runs):
        for prompt in prompts:
            request = GenerateRequest(prompt.segments, max_tokens=N_TOKENS, deadline_s=600)
            for name, make in ways.items():
                compiler.forget()
                started = time.perf_counter()
                constraint = make(prompt)
                compile_ms[name].append((time.perf_counter() - started) * 1000)
                rates[name].append(generate(lane, model, request, constraint, spec.n_threads)[1])
    for key, value in environment(options.box).items():
        print(f"{key}: {value}")
    free = statistics.median(rates["free"])
    for name in ways:
        median = statistics.median(rates[name])
        print(
            f"{name:<26} {median:7.1f} tokens/s  {100 * (median / free - 1):+6.1f} %  "
            f"compile {statistics.median(compile_ms[name]):6.2f} ms"
        )


if __name__ == "__main__":
    main()
