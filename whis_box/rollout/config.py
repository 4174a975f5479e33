"""configs/rollout.yaml: the environments, and when a release comes back by itself.

Invariant: it says the rules and where each environment begins; what is active now stands in the state folder.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from whis_box.config import Section
from whis_box.rollout.releases import BASE, BOX_INDEX, REFERENCE


class RollbackRules(Section):
    """When a canary, or a stable release that has just been promoted, comes back by itself."""

    enabled: bool = True
    """Whether it does."""
    min_requests: int = Field(20, ge=1)
    """Answers within the window before anything is judged."""
    max_error_rate: float = Field(0.1, ge=0, le=1)
    """Share of requests that ended in an error."""
    max_latency_ratio: float = Field(1.5, ge=1)
    """p95 beside that of the release it is compared with."""
    max_finding_rate: float = Field(0.2, ge=0, le=1)
    """Share of answers with a guard finding of severity warning or error, above the other release's."""


class EnvironmentConfig(Section):
    """One environment."""

    adapter: str = Field(BASE, pattern=REFERENCE.pattern)
    """Adapter that answers before anything was rolled out."""
    index: str = Field(BOX_INDEX, pattern=REFERENCE.pattern)
    """Index that answers before anything was rolled out."""
    needs_gate: bool = True
    """Promote and activate only with a passed gate file for exactly this adapter and index."""
    window_s: float = Field(3600.0, ge=10)
    """How far back the figures look."""
    rollback: RollbackRules = RollbackRules()
    """When a release comes back by itself."""


class RolloutConfig(Section):
    """configs/rollout.yaml."""

    environment: str = "prod"
    """The one that this server is."""
    environments: dict[str, EnvironmentConfig] = Field(
        default_factory=lambda: {"staging": EnvironmentConfig(needs_gate=False), "prod": EnvironmentConfig()}
    )
    """All of them."""
    shadow_queue: int = Field(1000, ge=1)
    """Copies that wait for a free moment; more are dropped and counted."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.environment not in self.environments:
            raise ValueError(f"environment {self.environment!r} is none of {sorted(self.environments)}")
        return self

    @property
    def active(self) -> EnvironmentConfig:
        """The rules of this server's environment."""
        return self.environments[self.environment]
