"""A model that judges: a GGUF through our own engine, or an OpenAI-compatible server on this network.

Invariant: a judge answers with JSON of the schema it was given or has failed; a failure is counted and never
becomes a score. A judge that does not pass its calibration set judges nothing.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field

from whis_box import prompts
from whis_box.config import read_lines
from whis_box.engine.protocol import EngineSpec, GenerateRequest
from whis_box.engine.supervisor import Engine
from whis_box.errors import ConfigError, EngineError, InputError, WhisError
from whis_box.evaluation.settings import JudgeConfig
from whis_box.schemas import Frozen

SYSTEM = "You are a careful judge. You answer with JSON only."
MAX_REPLY_BYTES = 1_000_000
VERDICT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"verdict": {"type": "integer", "enum": [0, 1]}},
    "required": ["verdict"],
    "additionalProperties": False,
}
PAIR_PROMPT = (
    "Is the claim fully supported by the context alone? Every name, number and identifier must agree. "
    'Answer {{"verdict": 1}} if it is and {{"verdict": 0}} if it is not.'
    "\n\nContext: {context}\n\nClaim: {claim}"
)


class JudgeFailedError(WhisError):
    """The judge did not answer, or answered nonsense."""

    code = "judge_failed"


class Judge(Protocol):
    """Anything that answers a prompt with JSON of a schema."""

    def judge(self, prompt: str, schema: dict[str, Any]) -> str:
        """JSON text that was parsed; Raises: JudgeFailedError."""
        ...


class EngineJudge:
    """A GGUF, its output held to the schema while it is decoded."""

    def __init__(self, engine: Engine, config: JudgeConfig) -> None:
        self._engine, self._config = engine, config

    def judge(self, prompt: str, schema: dict[str, Any]) -> str:
        """Decode under the schema. Raises: JudgeFailedError."""
        request = GenerateRequest(
            prompt=prompts.chat(SYSTEM, prompt),
            grammar=f"start: %json {json.dumps(schema)}\n",
            max_tokens=self._config.max_tokens,
            deadline_s=self._config.deadline_s,
        )
        try:
            return _parsed(self._engine.generate(request).text)
        except (EngineError, InputError) as cause:
            raise JudgeFailedError(f"the judge did not answer: {cause}") from None


def judge_spec(box_spec: EngineSpec, model: Path, config: JudgeConfig) -> EngineSpec:
    """How to start a GGUF judge on this machine: like the box's engine, with its own weights and context."""
    return EngineSpec(
        str(model.absolute()), box_spec.backend_path, box_spec.n_threads, config.n_ctx, box_spec.n_batch
    )


class ServerJudge:
    """An OpenAI-compatible chat endpoint; only loopback and private addresses are called."""

    def __init__(self, url: str, config: JudgeConfig) -> None:
        """Raises: ConfigError for a URL that leaves the machine and its network."""
        self._url, self._config = f"{url.rstrip('/')}/chat/completions", config
        _check_is_local(url)

    def judge(self, prompt: str, schema: dict[str, Any]) -> str:
        """Ask the server. Raises: JudgeFailedError."""
        response_format = {"type": "json_schema", "json_schema": {"name": "judgement", "schema": schema}}
        body = {
            "model": self._config.name,
            "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": prompt}],
            "temperature": 0,
            "seed": 0,
            "max_tokens": self._config.max_tokens,
            "response_format": response_format,
        }
        request = urllib.request.Request(
            self._url, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=self._config.deadline_s) as reply:
                said = json.loads(reply.read(MAX_REPLY_BYTES))
            return _parsed(str(said["choices"][0]["message"]["content"]))
        except (OSError, urllib.error.URLError, ValueError, KeyError, IndexError, TypeError) as cause:
            raise JudgeFailedError(f"{self._url}: {type(cause).__name__}: {cause}") from None


def _check_is_local(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"configs/eval.yaml: judge.model is {url!r}; must be a GGUF file or an http URL")
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(parts.hostname, parts.port or 80)}
    except OSError as cause:
        raise ConfigError(f"configs/eval.yaml: judge.model: {parts.hostname} is not known: {cause}") from None
    outside = [one for one in found if not ipaddress.ip_address(one).is_private]
    if outside:
        raise ConfigError(
            f"configs/eval.yaml: judge.model {parts.hostname} is {outside[0]}, outside this network; "
            "questions and evidence must not leave it"
        )


def _parsed(text: str) -> str:
    try:
        json.loads(text)
    except ValueError as cause:
        raise JudgeFailedError(f"the judge answered no JSON: {cause}: {text[:120]!r}") from None
    return text


# ------------------------------------------------------------ calibration


class JudgePair(Frozen):
    """One labelled pair of data/golden/judge.ndjson; half of the claims are false in one small thing."""

    id: str
    record_id: str
    context: str = Field(min_length=20)
    claim: str = Field(min_length=10)
    supported: bool
    change: str
    """What was changed in a false claim: identifier, number, tool, platform, role, negation, addition."""


@dataclass(frozen=True)
class PairVerdict:
    """One pair as it was judged; None is a failure, which counts as wrong."""

    id: str
    supported: bool
    verdict: bool | None


def read_pairs(path: Path) -> list[JudgePair]:
    """The calibration set.

    Raises: NotReadyError, StorageError; InputError listing every bad line.
    """
    return read_lines(path, JudgePair)


def judge_pair(judge: Judge, pair: JudgePair) -> PairVerdict:
    """Ask about one pair."""
    prompt = PAIR_PROMPT.format(context=pair.context, claim=pair.claim)
    try:
        verdict = json.loads(judge.judge(prompt, VERDICT_SCHEMA)).get("verdict")
    except (JudgeFailedError, AttributeError):
        return PairVerdict(pair.id, pair.supported, None)
    return PairVerdict(pair.id, pair.supported, bool(verdict) if verdict in (0, 1) else None)


def balanced_accuracy(verdicts: Sequence[PairVerdict]) -> float:
    """Mean of the shares of true and of false claims that were judged right."""
    shares = []
    for truth in (True, False):
        right = [one.verdict is truth for one in verdicts if one.supported is truth]
        shares.append(sum(right) / len(right) if right else 0.0)
    return sum(shares) / 2
