"""What the rollout says at one moment, and what it has measured; plain values.

Invariant: a rate carries its counts, and is None, which reads "not measured", without a denominator.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from whis_box.rollout.releases import Release
from whis_box.schemas import Frozen

Arm = Literal["stable", "canary", "shadow"]
Sticky = Literal["alert", "key"]
Action = Literal["activate", "canary", "shadow", "promote", "rollback", "stop"]


class RolloutState(Frozen):
    """Which release answers in one environment."""

    environment: str
    revision: int = 0
    stable: Release = Release()
    previous: Release | None = None
    """What `rollback` goes back to."""
    canary: Release | None = None
    canary_percent: int = Field(0, ge=0, le=100)
    sticky: Sticky = "alert"
    """What keeps its arm: the alert (or question), or the caller's key."""
    shadow: Release | None = None
    changed_at: str = ""
    reason: str = ""

    def releases(self) -> set[Release]:
        """Everything that must be loaded, the way back included."""
        return {one for one in (self.stable, self.previous, self.canary, self.shadow) if one is not None}


class Rate(Frozen):
    """A share with its counts."""

    value: float | None
    numerator: int
    denominator: int

    @classmethod
    def of(cls, numerator: int, denominator: int) -> Rate:
        """None without a denominator."""
        value = round(numerator / denominator, 4) if denominator else None
        return cls(value=value, numerator=numerator, denominator=denominator)

    def __str__(self) -> str:
        if self.value is None:
            return "not measured"
        return f"{self.value:.3f} ({self.numerator}/{self.denominator})"


class ArmFigures(Frozen):
    """What one arm did within the window."""

    arm: Arm
    release: Release
    errors: Rate
    findings: Rate
    """Answers with a guard finding of severity warning or error."""
    p50_ms: float | None
    p95_ms: float | None


class Agreement(Frozen):
    """The other arm beside stable; abstentions count in neither half of `agreement`."""

    pairs: int
    agreement: Rate
    agreement_trailing_50: Rate
    abstained: Rate
    """Of the other arm."""
    recall_on_malicious: Rate
    """Of the alerts that stable (or an analyst) called malicious; an abstention is a miss."""
    analyst_agreement: Rate
    """With the analysts' own verdicts or thumbs."""


class RolloutReport(Frozen):
    """GET /v1/rollout/report."""

    state: RolloutState
    window_s: float
    arms: list[ArmFigures]
    comparison: Agreement | None
    gate_problem: str
    """Why the canary may not be promoted yet; empty when it may."""
    dropped_shadows: int


class RolloutEvent(Frozen):
    """One change, by whom and why."""

    seq: int
    at: str
    actor: str
    action: str
    reason: str
    state: dict[str, Any]


class RolloutRequest(Frozen):
    """POST /v1/rollout/{action}; what an action does not need may be left out."""

    adapter: str = Field("", max_length=130)
    index: str = Field("", max_length=130)
    percent: int = Field(10, ge=0, le=100)
    sticky: Sticky = "alert"
    reason: str = Field("", max_length=500)


class AdapterState(Frozen):
    """One adapter or index on this host and what it does."""

    kind: Literal["adapter", "index"]
    reference: str
    sha256: str
    origin: str
    roles: list[str]
    gate_passed: bool | None
    """None without a sound gate file; GET /v1/gates has them whole."""


class AdapterList(Frozen):
    """GET /v1/adapters."""

    adapters: list[AdapterState]
    indexes: list[AdapterState]
