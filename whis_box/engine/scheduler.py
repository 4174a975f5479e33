"""Which lane decodes next, who may still join, and how long the queue is.

Invariant: every generation that was accepted comes out of `step` exactly once, finished or with an error.
"""

from __future__ import annotations

from collections.abc import Sequence

from whis_box.engine.generation import Generation
from whis_box.engine.lane import Lane, StepWork
from whis_box.errors import BusyError, EngineError, InputError, RequestCancelledError

INTERACTIVE_SHARE = 4
"""A lane with a person waiting gets this many times its weight."""
MIN_WEIGHT = 1e-3
SMOOTHING = 0.1
MAX_RETRY_AFTER_S = 120.0


class Rates:
    """Measured speed: seconds per prompt token and per decoded row, smoothed."""

    def __init__(self) -> None:
        self.prompt_token_s = 0.0
        self.row_s = 0.0
        self.filled = 0.5
        """Share of `max_tokens` that generations really write."""

    def note(self, work: StepWork) -> None:
        """Learn from one step."""
        if work.n_rows and not work.n_prompt_tokens:
            self.row_s = _smooth(self.row_s, work.seconds / work.n_rows)
        elif work.n_prompt_tokens >= 16:
            rest = max(0.0, work.seconds - work.n_rows * self.row_s)
            self.prompt_token_s = _smooth(self.prompt_token_s, rest / work.n_prompt_tokens)

    def note_end(self, generation: Generation) -> None:
        """Learn how much of its limit a generation used."""
        if generation.error is None:
            self.filled = _smooth(self.filled, len(generation.output) / generation.request.max_tokens)

    def work_s(self, generation: Generation) -> float:
        """Estimated time that a generation still needs, alone."""
        prompt = 0 if generation.output else len(generation.prompt) - generation.n_cached
        rows = max(0.0, self.filled * generation.request.max_tokens - len(generation.output))
        return prompt * self.prompt_token_s + rows * self.row_s


class Scheduler:
    """All lanes of one model. Owned by the engine's thread."""

    def __init__(self, lanes: Sequence[Lane], max_waiting: int) -> None:
        self.lanes = {lane.name: lane for lane in lanes}
        self.rates = Rates()
        self._max_waiting = max_waiting
        self._served = dict.fromkeys(self.lanes, 0.0)

    def lane(self, name: str) -> Lane:
        """The lane called `name`.

        Raises: EngineError.
        """
        lane = self.lanes.get(name)
        if lane is None:
            raise EngineError(f"lane {name!r} is not loaded; loaded are {sorted(self.lanes)}")
        return lane

    def submit(self, generation: Generation) -> None:
        """Accept a generation, or refuse it.

        Raises: InputError when it cannot fit the context; BusyError when it would not be done in time.
        """
        lane = self.lane(generation.request.lane)
        _check_fits(generation, len(lane.slots[0].tokens))
        self._make_room(generation)
        ahead_s = self.queue_s(before=generation)
        own_s = self.rates.work_s(generation)
        if ahead_s + own_s > generation.request.deadline_s and ahead_s > 0:
            raise BusyError(
                f"about {ahead_s:.1f} s of work is queued and this request needs {own_s:.1f} s, more than "
                f"its deadline of {generation.request.deadline_s:.1f} s; try again later",
                _retry_after(ahead_s + own_s - generation.request.deadline_s / 2),
            )
        lane.waiting.append(generation)

    def _make_room(self, generation: Generation) -> None:
        """When the queue is full, drop a background request for this one, which the next step reports."""
        waiting = [one for lane in self.lanes.values() for one in lane.waiting if not one.ended]
        if len(waiting) < self._max_waiting:
            return
        droppable = [one for one in waiting if one.background]
        if generation.background or not droppable:
            raise BusyError(
                f"{len(waiting)} requests wait, the limit is {self._max_waiting}; try again later",
                _retry_after(self.queue_s() / 2),
            )
        latest = max(droppable, key=lambda one: one.arrived_at)
        latest.fail(BusyError("dropped for a request that is not in the background", 5.0), latest.arrived_at)

    def queue_s(self, before: Generation | None = None) -> float:
        """Estimated time to work off what is queued, or what would be served before a new generation."""
        total = 0.0
        for lane in self.lanes.values():
            for one in (*lane.waiting, *(slot.generation for slot in lane.active)):
                if one is not None and (before is None or one.rank[0] <= before.rank[0]):
                    total += self.rates.work_s(one)
        return total

    def cancel(self, request_id: str) -> None:
        """Mark a generation; it ends before the next decode."""
        for lane in self.lanes.values():
            for one in (*lane.waiting, *(slot.generation for slot in lane.active)):
                if one is not None and one.id == request_id:
                    one.cancelled = True

    @property
    def busy(self) -> bool:
        """Whether there is work."""
        return any(lane.waiting or lane.active for lane in self.lanes.values())

    def step(self, now: float) -> tuple[list[Generation], list[Generation]]:
        """Admit, decode one lane once, and take out what ended: (admitted, ended)."""
        ended = [one for lane in self.lanes.values() for one in lane.sweep(now)]
        admitted = self._admit(now)
        lane = self._next_lane()
        if lane is not None:
            try:
                work = lane.step()
                self.rates.note(work)
                self._served[lane.name] += work.seconds / self._share(lane)
            except EngineError as error:
                assert all(slot.generation is None or slot.generation.error for slot in lane.slots), error
            ended.extend(lane.sweep(now))
        for generation in ended:
            self.rates.note_end(generation)
        return admitted, ended

    def _admit(self, now: float) -> list[Generation]:
        """Fill free slots; a generation under suspicion runs when nothing else does, and nothing joins it."""
        active = [slot.generation for lane in self.lanes.values() for slot in lane.active]
        if any(one is not None and one.exclusive for one in active):
            return []
        suspects = [
            (one.rank, lane, one) for lane in self.lanes.values() for one in lane.waiting if one.exclusive
        ]
        if suspects:
            _, lane, first = min(suspects, key=lambda item: item[0])
            return [] if active else lane.admit(now, only=first)
        foreground = any(not one.background for lane in self.lanes.values() for one in lane.waiting) or any(
            one is not None and not one.background for one in active
        )
        return [one for lane in self.lanes.values() for one in lane.admit(now, background=not foreground)]

    def _next_lane(self) -> Lane | None:
        """The busy lane that got least for its weight; one of weight 0 only when no other is busy."""
        busy = [lane for lane in self.lanes.values() if lane.active]
        real = [lane for lane in busy if lane.weight and not _only_background(lane)]
        chosen = min(real or busy, key=lambda lane: self._served[lane.name], default=None)
        if chosen is not None:  # a lane that was idle may not claim the time it did not use
            floor = self._served[chosen.name]
            for name, lane in self.lanes.items():
                if not lane.active:
                    self._served[name] = max(self._served[name], floor)
        return chosen

    def _share(self, lane: Lane) -> float:
        person = any(
            slot.generation is not None and slot.generation.request.priority == "interactive"
            for slot in lane.active
        )
        return max(lane.weight, MIN_WEIGHT) * (INTERACTIVE_SHARE if person else 1)

    def end_all(self) -> list[Generation]:
        """Cancel everything, at the end of the process."""
        for lane in self.lanes.values():
            for one in (*lane.waiting, *(slot.generation for slot in lane.active)):
                if one is not None:
                    one.fail(RequestCancelledError("the engine was stopped"), one.arrived_at)
        return [one for lane in self.lanes.values() for one in lane.sweep(0.0)]


def _only_background(lane: Lane) -> bool:
    return all(slot.generation is not None and slot.generation.background for slot in lane.active)


def _check_fits(generation: Generation, n_ctx: int) -> None:
    n_prompt, max_tokens = len(generation.prompt), generation.request.max_tokens
    if not n_prompt:
        raise InputError("the prompt is empty")
    if max_tokens < 1:
        raise InputError(f"max_tokens is {max_tokens}; at least 1 token must be asked for")
    if n_prompt + max_tokens > n_ctx:
        raise InputError(
            f"the prompt has {n_prompt} tokens and the answer up to {max_tokens}, more than "
            f"the context of {n_ctx}; shorten it or raise engine.n_ctx in configs/model.whis.yaml"
        )


def _retry_after(seconds: float) -> float:
    return round(min(max(1.0, seconds), MAX_RETRY_AFTER_S), 1)


def _smooth(old: float, new: float) -> float:
    return new if old == 0.0 else (1 - SMOOTHING) * old + SMOOTHING * new
