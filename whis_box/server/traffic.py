"""The rollout at work: which release a request gets, what it did, the shadow's copy, and going back.

Invariant: nothing here delays or changes an answer: figures are written later, and the shadow only works
while nobody waits.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from whis_box.audit import AuditLog
from whis_box.copilot import Copilot
from whis_box.errors import RequestCancelledError, StorageError, WhisError
from whis_box.rollout.compare import flagged, outcome_of, same
from whis_box.rollout.control import AUTO, Control, arm_of
from whis_box.rollout.releases import Release
from whis_box.rollout.state import Arm, RolloutRequest, RolloutState
from whis_box.schemas import Answer, Triage
from whis_box.server.metrics import Metrics
from whis_box.server.opened import OpenedBox
from whis_box.server.seats import SHADOW, Seats

TICK_S = 0.2  # how soon a change by another process is seen
JUDGE_EVERY_S = 2.0
SHADOW_IDLE_S = 0.25
MAX_RECENT = 2000
Result = Answer | Triage
Work = Callable[[Copilot], Result]
log = logging.getLogger("whis.rollout")


@dataclass(frozen=True)
class Served:
    """A result that was given, kept for feedback for a while."""

    result: Result
    text: str
    release: Release


class Traffic(Collector):
    """Routes, observes, shadows. `attach` and `run` belong to the event loop."""

    def __init__(self, control: Control, audit: AuditLog, metrics: Metrics) -> None:
        self.control, self._audit, self._metrics = control, audit, metrics
        self._lock = threading.Lock()
        self.state = control.state()
        """What holds for the next request: the stored state, once everything it names is loaded."""
        self._notes: list[tuple[str, str, str, bool, float, bool]] = []
        self._shadows: deque[tuple[Work, Result, Release]] = deque()
        self.dropped = 0
        self._recent: OrderedDict[str, Served] = OrderedDict()
        self._judged_at, self._unjudged = 0.0, False
        self._following = threading.Lock()
        self._failed_revision = -1
        metrics.collect_with(self)

    # ------------------------------------------------------------ requests

    def choose(self, key: str, caller: str) -> tuple[Arm, Release]:
        """The arm of a request that left the model to us."""
        state = self.state
        return arm_of(state, caller if state.sticky == "key" else key)

    def failed(self, arm: Arm | None, release: Release, milliseconds: float) -> None:
        """A request of an arm ended in an error that is not the caller's."""
        self._note(arm, release, False, milliseconds, False)

    def served(self, arm: Arm | None, release: Release, result: Result, text: str, work: Work) -> None:
        """A request of an arm was answered."""
        self._note(arm, release, True, result.timings.total_ms, flagged(result))
        with self._lock:
            self._recent[result.id] = Served(result, text, release)
            if len(self._recent) > MAX_RECENT:
                self._recent.popitem(last=False)
        shadow = self.state.shadow
        if arm == "stable" and shadow is not None and shadow != release:
            if len(self._shadows) >= self.control.config.shadow_queue:
                self.dropped += 1
            else:
                self._shadows.append((work, result, shadow))

    def recent(self, answer_id: str) -> Served | None:
        """A result that was given a while ago, if it is still known."""
        with self._lock:
            return self._recent.get(answer_id)

    def _note(self, arm: Arm | None, release: Release, ok: bool, ms: float, found: bool) -> None:
        if arm is not None:
            with self._lock:
                self._notes.append((self.state.environment, arm, str(release), ok, ms, found))

    # --------------------------------------------------------------- loops

    async def run(self, seats: Callable[[], Seats | None], prepare: Callable[[RolloutState], None]) -> None:
        """Until cancelled: write what was observed, follow the stored state, judge, and shadow.

        `prepare` loads what a state names, on a thread.
        """
        shadowing = asyncio.create_task(self._shadow_loop(seats))
        try:
            while True:
                await asyncio.sleep(TICK_S)
                if seats() is None:
                    continue
                try:
                    await asyncio.to_thread(self._tick, prepare)
                except StorageError as error:
                    log.error("rollout store", extra={"fields": {"problem": str(error)}})
        finally:
            shadowing.cancel()

    def _tick(self, prepare: Callable[[RolloutState], None]) -> None:
        with self._lock:
            notes, self._notes = self._notes, []
        if notes:
            self.control.store.observe(notes)
        stored = self.control.state()
        if stored.revision not in (self.state.revision, self._failed_revision):
            self.follow(stored, prepare)
        self._unjudged = self._unjudged or bool(notes)
        if self._unjudged and time.monotonic() - self._judged_at > JUDGE_EVERY_S:
            self._judged_at, self._unjudged = time.monotonic(), False
            self._judge(prepare)

    def follow(self, stored: RolloutState, prepare: Callable[[RolloutState], None]) -> None:
        """Let `stored` hold from the next request on, once it is loaded; an older state changes nothing."""
        with self._following:
            if stored.revision > self.state.revision:
                self._follow(stored, prepare)

    def _follow(self, stored: RolloutState, prepare: Callable[[RolloutState], None]) -> None:
        try:
            prepare(stored)
        except WhisError as error:
            self._failed_revision = stored.revision
            log.error("rollout refused", extra={"fields": {"problem": str(error)}})
            self._audit.append("rollout.refused", AUTO, detail={"problem": str(error)})
            return
        self.state = stored
        self._shadows.clear()
        fields = {"revision": stored.revision, "stable": str(stored.stable), "canary": str(stored.canary)}
        self._audit.append("rollout.active", AUTO, detail={**fields, "shadow": str(stored.shadow)})
        log.info("rollout", extra={"fields": fields})

    def _judge(self, prepare: Callable[[RolloutState], None]) -> None:
        reason = self.control.breach()
        if not reason:
            return
        shelf_free = RolloutRequest(reason=f"automatic: {reason}")
        after = self.control.back(shelf_free, AUTO)
        self._audit.append("rollout.rollback", AUTO, detail={"reason": reason, "revision": after.revision})
        log.warning("rolled back", extra={"fields": {"reason": reason}})
        self.follow(after, prepare)

    async def _shadow_loop(self, seats: Callable[[], Seats | None]) -> None:
        while True:
            found = seats()
            if not self._shadows or found is None or found.urgent:
                await asyncio.sleep(SHADOW_IDLE_S)
                continue
            await asyncio.sleep(SHADOW_IDLE_S)
            if self._shadows and not found.urgent:
                await self._shadow(found, *self._shadows.popleft())

    async def _shadow(self, seats: Seats, work: Work, stable: Result, release: Release) -> None:
        started = time.perf_counter()
        try:
            ticket = seats.submit(SHADOW, release, work)
            other = await asyncio.wrap_future(ticket.future)
        except RequestCancelledError:  # somebody came; later again
            if self.state.shadow == release:
                self._shadows.appendleft((work, stable, release))
            return
        except WhisError as error:
            self._note("shadow", release, False, (time.perf_counter() - started) * 1000, False)
            log.warning("shadow failed", extra={"fields": {"problem": error.code}})
            return
        self._note("shadow", release, True, other.timings.total_ms, flagged(other))
        agreed = same(stable, other)
        label = "abstained" if agreed is None else ("same" if agreed else "different")
        self._metrics.shadow.labels(label).inc()
        kind = "ask" if isinstance(stable, Answer) else "triage"
        state = self.state
        await asyncio.to_thread(
            self.control.store.pair,
            state.environment,
            str(state.stable),
            str(release),
            stable.id,
            kind,
            (outcome_of(stable), outcome_of(other)),
            agreed,
        )

    def collect(self) -> list[GaugeMetricFamily]:
        """Agreement with its counts, for Prometheus; nothing where nothing was measured."""
        state = self.state
        gauge = GaugeMetricFamily(
            "whis_rollout_pairs", "Pairs of the window by what came out.", labels=["other", "outcome"]
        )
        other = state.shadow or state.canary
        if other is not None:
            pairs = self.control.store.pairs(
                state.environment, str(state.stable), str(other), self.control.config.active.window_s
            )
            for label, wanted in (("same", 1), ("different", 0), ("abstained", None)):
                gauge.add_metric([str(other), label], sum(one["same"] == wanted for one in pairs))
        dropped = GaugeMetricFamily("whis_rollout_shadows_dropped", "Copies that found no room.")
        dropped.add_metric([], self.dropped)
        return [gauge, dropped]


def prepare_box(seats: Seats, opened: Callable[[set[Release]], OpenedBox]) -> Callable[[RolloutState], None]:
    """What `Traffic.run` calls: load a state's releases, beside the old ones until they are done.

    Adapters that are loaded already need nothing; others need an engine of their own, opened before the
    exchange, so that no request waits for it.
    """

    def prepare(state: RolloutState) -> None:
        wanted = state.releases()
        if seats.box.extend(wanted):
            return
        before = seats.exchange(opened(wanted))
        threading.Thread(target=_close_later, args=(seats, before), name="whis-old-box", daemon=True).start()

    return prepare


def _close_later(seats: Seats, box: OpenedBox) -> None:
    """End the old engine when the requests that began on it have ended."""
    give_up_at = time.monotonic() + 60.0
    while time.monotonic() < give_up_at and seats.uses(box):
        time.sleep(0.1)
    box.close()
