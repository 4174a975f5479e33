"""The rules of the rollout: who gets which release, what may change, and when it changes back by itself.

Invariant: a request's arm depends on its key and the state alone; no change skips its checks or the record.
"""

from __future__ import annotations

import hashlib

from whis_box.errors import InputError, NotReadyError
from whis_box.rollout.compare import agreement, arm_figures
from whis_box.rollout.config import RolloutConfig
from whis_box.rollout.releases import Release, Shelf, parse_reference
from whis_box.rollout.state import Action, Arm, ArmFigures, RolloutReport, RolloutRequest, RolloutState
from whis_box.rollout.store import RolloutStore

AUTO = "auto"


class Control:
    """Reads and changes one environment's state."""

    def __init__(self, config: RolloutConfig, store: RolloutStore) -> None:
        self.config, self.store = config, store

    def state(self) -> RolloutState:
        """What holds now."""
        name, start = self.config.environment, self.config.active
        first = RolloutState(environment=name, stable=Release(adapter=start.adapter, index=start.index))
        return self.store.state(name) or first

    def act(self, action: Action, asked: RolloutRequest, shelf: Shelf | None, actor: str) -> RolloutState:
        """Change the state; `rollback` and `stop` need no shelf.

        Raises: InputError, NotReadyError for what is not on this host or has no gate.
        """
        before = self.state()
        after = getattr(self, f"_{action}")(before, asked, shelf)
        after = after.model_copy(update={"reason": asked.reason})
        done = self.store.change(before, after, actor, action)
        if done is None:
            raise InputError(
                f"{action}: the rollout was changed by somebody else just now; look and try again"
            )
        return done

    def back(self, asked: RolloutRequest, actor: str) -> RolloutState:
        """Roll back without looking at what this host holds: what it goes back to is loaded.

        Raises: InputError when there is nothing to go back to.
        """
        return self.act("rollback", asked, None, actor)

    def _activate(self, before: RolloutState, asked: RolloutRequest, shelf: Shelf) -> RolloutState:
        wanted = _release(before.stable, asked)
        self._check_gate(wanted, shelf)
        if wanted == before.stable:
            raise InputError(f"{wanted} is stable already")
        return before.model_copy(
            update={"stable": wanted, "previous": before.stable, "canary": None, "canary_percent": 0}
        )

    def _canary(self, before: RolloutState, asked: RolloutRequest, shelf: Shelf) -> RolloutState:
        wanted = _release(before.canary or before.stable, asked)
        shelf.check(wanted)
        if wanted == before.stable:
            raise InputError(f"{wanted} is stable already; a canary must be another release")
        return before.model_copy(
            update={"canary": wanted, "canary_percent": asked.percent, "sticky": asked.sticky}
        )

    def _shadow(self, before: RolloutState, asked: RolloutRequest, shelf: Shelf) -> RolloutState:
        wanted = _release(before.stable, asked)
        shelf.check(wanted)
        return before.model_copy(update={"shadow": wanted})

    def _promote(self, before: RolloutState, asked: RolloutRequest, shelf: Shelf) -> RolloutState:
        candidate = before.canary or before.shadow
        if candidate is None:
            raise InputError("there is no canary and no shadow to promote; start one first")
        self._check_gate(candidate, shelf)
        return before.model_copy(
            update={
                "stable": candidate,
                "previous": before.stable,
                "canary": None,
                "canary_percent": 0,
                "shadow": None,
            }
        )

    def _rollback(self, before: RolloutState, asked: RolloutRequest, shelf: Shelf | None) -> RolloutState:
        """A canary goes first; without one, stable goes back."""
        if before.canary is not None:
            return before.model_copy(update={"canary": None, "canary_percent": 0})
        if before.previous is None:
            raise InputError("there is nothing to roll back to: no canary, and stable was never changed")
        return before.model_copy(update={"stable": before.previous, "previous": before.stable})

    def _stop(self, before: RolloutState, asked: RolloutRequest, shelf: Shelf | None) -> RolloutState:
        return before.model_copy(update={"canary": None, "canary_percent": 0, "shadow": None})

    def _check_gate(self, release: Release, shelf: Shelf) -> None:
        shelf.check(release)
        problem = shelf.gate_problem(release)
        if problem and self.config.active.needs_gate:
            raise NotReadyError(problem)

    # --------------------------------------------------------------- report

    def report(self, shelf: Shelf, dropped: int = 0) -> RolloutReport:
        """Figures of each arm, and the other arm beside stable."""
        state, rules = self.state(), self.config.active
        other = state.shadow or state.canary
        candidate = state.canary or state.shadow
        return RolloutReport(
            state=state,
            window_s=rules.window_s,
            arms=self._figures(state),
            comparison=None
            if other is None
            else agreement(
                self.store.pairs(state.environment, str(state.stable), str(other), rules.window_s)
            ),
            gate_problem=shelf.gate_problem(candidate) if candidate else "",
            dropped_shadows=dropped,
        )

    def _figures(self, state: RolloutState) -> list[ArmFigures]:
        seen = self.store.observations(state.environment, self.config.active.window_s)
        arms: list[tuple[Arm, Release | None]] = [
            ("stable", state.stable),
            ("canary", state.canary),
            ("shadow", state.shadow),
        ]
        return [arm_figures(arm, release, seen) for arm, release in arms if release is not None]

    def breach(self) -> str:
        """Why the canary, or the release that was just promoted, has to go back; "" when it may stay."""
        state, rules = self.state(), self.config.active.rollback
        if not rules.enabled:
            return ""
        seen = self.store.observations(state.environment, self.config.active.window_s)
        if state.canary is not None:
            judged, beside = (
                arm_figures("canary", state.canary, seen),
                arm_figures("stable", state.stable, seen),
            )
        elif state.previous is not None and state.previous != state.stable:
            judged = arm_figures("stable", state.stable, seen)
            beside = arm_figures("stable", state.previous, seen)
        else:
            return ""
        return _breach(judged, beside, rules.min_requests, rules.max_error_rate, rules.max_latency_ratio,
                       rules.max_finding_rate)  # fmt: skip


def arm_of(state: RolloutState, key: str) -> tuple[Arm, Release]:
    """The same key always gets the same arm while the canary lasts."""
    if state.canary is not None and share_of(key, str(state.canary)) < state.canary_percent * 100:
        return "canary", state.canary
    return "stable", state.stable


def share_of(key: str, salt: str) -> int:
    """A place in 0..9999 that depends on the key and the canary."""
    return (
        int.from_bytes(hashlib.sha256(f"{salt}\0{key}".encode("utf-8", "surrogatepass")).digest()[:8])
        % 10_000
    )


def _release(start: Release, asked: RolloutRequest) -> Release:
    """`start`, with what was named instead."""
    if not asked.adapter and not asked.index:
        raise InputError("name an adapter or an index, like soc-triage@3")
    return Release(
        adapter=parse_reference(asked.adapter, "adapter") if asked.adapter else start.adapter,
        index=parse_reference(asked.index, "index") if asked.index else start.index,
    )


def _breach(
    judged: ArmFigures, beside: ArmFigures, min_requests: int, max_error_rate: float, max_ratio: float,
    max_findings: float,
) -> str:  # fmt: skip
    if judged.errors.denominator < min_requests:
        return ""
    if (errors := judged.errors.value) is not None and errors > max_error_rate:
        return f"error rate {judged.errors} of {judged.release} is above {max_error_rate:g}"
    if beside.errors.denominator < min_requests:
        return ""
    if judged.p95_ms is not None and beside.p95_ms and judged.p95_ms > max_ratio * beside.p95_ms:
        ratio = judged.p95_ms / beside.p95_ms
        return f"p95 {judged.p95_ms:.0f} ms is {ratio:.2f} times {beside.p95_ms:.0f} ms, above {max_ratio:g}"
    if (found := judged.findings.value) is not None and found > (beside.findings.value or 0) + max_findings:
        return f"guard findings {judged.findings}, beside {beside.findings}, more than {max_findings:g} above"
    return ""
