"""configs/eval.yaml: what is measured, and what a box must reach before it goes to analysts."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from whis_box.config import Section

UNBOUNDED = ("_s", "_mb", "_ratio", "_n", "perplexity", "_loss", "exposure")
MetricName = Annotated[str, StringConstraints(pattern=r"^[a-z_]+\.[a-z0-9_@]+$")]


class GateRule(Section):
    """One row of the gate: a figure and the limit it must keep."""

    metric: MetricName
    """`suite.figure`, as `whis eval run` prints it."""
    at_least: float | None = None
    """The figure must not be below this."""
    at_most: float | None = None
    """The figure must not be above this."""
    judged_by: Literal["value", "interval"] = "value"
    """`interval`: the worse end of the 95 % interval must keep the limit too."""
    not_measured: Literal["fail", "pass", "pass_without_adapter"] = "fail"
    """What it means that there is no figure."""

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("give one of at_least and at_most")
        limit = self.at_least if self.at_least is not None else self.at_most
        if limit is None or not 0 <= limit < math.inf:  # also what is not a number
            raise ValueError(f"a limit is a finite number from 0 up, not {limit}")
        if self.is_share and limit > 1:
            raise ValueError(f"{self.metric} is a share: its limit must be 0..1")
        return self

    @property
    def is_share(self) -> bool:
        """Whether the figure lies in 0..1; times, sizes and ratios do not."""
        return not self.metric.endswith(UNBOUNDED)


class CompositeConfig(Section):
    """The ragas composite: a harmonic mean, which ragas itself does not define."""

    floor: float = Field(0.6, ge=0, le=1)
    """No part may be below this; a composite with such a part is 0."""


class JudgeConfig(Section):
    """The model that judges faithfulness, relevancy and contexts."""

    model: str = "box"
    """`box` (its base), a GGUF file, the URL of an OpenAI-compatible server in this network, or `none`."""
    name: str = "judge"
    """The model's name at that server."""
    questions: int = Field(50, ge=1, le=10_000)
    """How many golden questions are judged."""
    deadline_s: float = Field(120.0, gt=0, le=3600)
    """Longest time for one judgement."""
    n_ctx: int = Field(8192, ge=2048, le=131072)
    """Context of a GGUF judge; ragas' prompts take up to 6,000 tokens."""
    max_tokens: int = Field(1024, ge=64, le=8192)
    """Tokens of one judgement."""
    min_balanced_accuracy: float = Field(0.8, ge=0.5, le=1)
    """What a judge must reach on its calibration set before any of its scores is shown."""


class EvalConfig(Section):
    """configs/eval.yaml."""

    seed: int = Field(0, ge=0)
    """Of samples and bootstraps."""
    suites: list[str] = [
        "retrieval",
        "answers",
        "triage",
        "ragas",
        "guards",
        "leakage",
        "latency",
        "calibration",
        "fine_tune",
    ]
    """What `whis eval run` measures when no suite is named."""
    heldout_samples: int = Field(200, ge=1)
    """Samples of the dataset's test split that `fine_tune` scores."""
    ragas_samples: int = Field(40, ge=1)
    """Answers that ragas itself scores, beside ours."""
    worst_cases: int = Field(20, ge=0, le=1000)
    """Cases shown in the report, for each suite."""
    composite: CompositeConfig = CompositeConfig()
    """The ragas composite."""
    judge: JudgeConfig = JudgeConfig()
    """The model that judges."""
    gates: list[GateRule] = []
    """Every row must hold."""
