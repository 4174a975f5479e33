"""The held-out half of the training dataset: its samples, their decisions, and what a GGUF makes of them.

Invariant: the test split only, the same samples for base and adapter, so that their numbers can be paired.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from whis_box import prompts
from whis_box.config import read_lines
from whis_box.engine import cpu
from whis_box.engine.protocol import EngineSpec, GenerateRequest
from whis_box.engine.supervisor import Engine
from whis_box.errors import EngineError
from whis_box.schemas import Frozen
from whis_box.show import progress

MAX_NUMBERS = 3
_FACT = re.compile(r"^\[(\d+)\] ", re.MULTILINE)
_CHOICES = re.compile(r"Techniques:\n(?P<listed>.*?)\n?none\n\nAlert:", re.DOTALL)


class Sample(Frozen):
    """One line of a dataset: a prompt, and what should follow."""

    id: str
    task: str
    split: str
    record_ids: list[str]
    segments: list[tuple[str, bool]]
    completion: str

    @property
    def decision(self) -> str:
        """What the completion decides: a fact's number, `none`, `refuse`, or a technique."""
        return decision(self.completion)


@dataclass(frozen=True)
class Scored:
    """One sample under one set of weights."""

    id: str
    task: str
    expected: str
    predicted: str
    nll: float
    n_tokens: int


def decision(completion: str) -> str:
    """The first line without its label."""
    return completion.partition("\n")[0].removeprefix("Technique: ").strip()


def read_samples(path: Path, sample: int, seed: int) -> list[Sample]:
    """The test split, or `sample` of it.

    Raises: NotReadyError, StorageError; InputError listing every bad line.
    """
    found = read_lines(path, Sample, "run `make dataset`")
    if sample and sample < len(found):
        found = random.Random(seed).sample(found, sample)
    return found


def score(spec: EngineSpec, samples: Sequence[Sample], what: str) -> list[Scored]:
    """Likelihood and decision of each sample under the spec's weights and adapter.

    Raises: EngineError, InputError.
    """
    likelihoods = list(_likelihoods(spec, samples, what))
    scored = []
    with Engine(spec) as engine:
        for done, (sample, (nll, n_tokens)) in enumerate(zip(samples, likelihoods, strict=True), start=1):
            said = decision(engine.generate(_request(sample)).text)
            scored.append(Scored(sample.id, sample.task, sample.decision, said, nll, n_tokens))
            progress(done, len(samples), f"{what}: decisions")
    return scored


def _likelihoods(spec: EngineSpec, samples: Sequence[Sample], what: str) -> Iterator[tuple[float, int]]:
    command = [sys.executable, "-m", "whis_box.evaluation.likelihood", json.dumps(asdict(spec))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=cpu.child_environment()
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        for done, sample in enumerate(samples, start=1):
            fields = {"segments": sample.segments, "completion": sample.completion}
            try:
                child.stdin.write(json.dumps(fields) + "\n")
                child.stdin.flush()
            except BrokenPipeError:
                raise EngineError("the likelihood process ended early; its message is above") from None
            line = child.stdout.readline()
            if not line:
                raise EngineError(f"the likelihood process ended at sample {sample.id}; its message is above")
            result = json.loads(line)
            yield float(result["nll"]), int(result["n_tokens"])
            progress(done, len(samples), f"{what}: likelihood")
        child.stdin.close()


def _request(sample: Sample) -> GenerateRequest:
    """The sample's prompt under a grammar of the decisions that it offers, as serving would have it."""
    text = "".join(part for part, _ in sample.segments)
    if choices := _CHOICES.search(text):
        names = [line.split(" ", 1)[0] for line in choices["listed"].splitlines() if line]
        quoted = " | ".join(json.dumps(name) for name in [*names, "none"])
        grammar = f'start: "Technique: " ({quoted}) "\\n"\n'
    else:
        grammar = prompts.select_grammar(len(_FACT.findall(text)), MAX_NUMBERS, may_decline=True)
    return GenerateRequest(
        tuple((part, trusted) for part, trusted in sample.segments), grammar, max_tokens=40
    )
