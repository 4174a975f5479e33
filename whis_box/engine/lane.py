"""A lane: one adapter's context, its slots, and the continuous batching inside it.

Invariant: `Slot.tokens[:n]` always equals what that slot's KV cache holds, and no other lane ever sees it, so
a prefix is reused only under the adapter that computed it (llama.cpp issue 26207 is what happens otherwise).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whis_box.engine.context import Context
from whis_box.engine.generation import Generation
from whis_box.engine.prefix_tree import PrefixTree, common_length
from whis_box.engine.slot import Slot
from whis_box.engine.speculation import lookup
from whis_box.errors import EngineError

MIN_SHARED = 24
"""Prompt tokens below which sharing a prefix does not pay for copying it."""
FEW_FORCED = 2
"""So few forced tokens go one by one with the other slots' rows; more are worth a pass of their own."""
OLDEST_EVERY = 4
"""One step in so many gives its room to the prompt that came first."""
MOVE_TOKENS = 8
"""A generation with fewer tokens to go is not moved to close a gap between slots."""


@dataclass
class StepWork:
    """What one step did."""

    n_prompt_tokens: int = 0
    n_rows: int = 0
    seconds: float = 0.0


class Lane:
    """Admits generations into slots and decodes them together. Owned by the engine's thread."""

    def __init__(
        self, name: str, weight: int, context: Context, prefixes: PrefixTree, n_draft: int = 0
    ) -> None:
        self.name, self.weight, self.n_draft = name, weight, n_draft
        self.slots = [Slot(index, context.n_ctx) for index in range(context.n_slots)]
        self.waiting: list[Generation] = []
        self.counters = dict.fromkeys(("done", "prompt_tokens", "cached_tokens", "completion_tokens"), 0)
        self._n_shared = 0
        self._context, self._prefixes, self._key = context, prefixes, prefixes.key

    @property
    def active(self) -> list[Slot]:
        """Slots that work on a generation."""
        return [slot for slot in self.slots if slot.generation is not None]

    # ------------------------------------------------------------- admission

    def admit(self, now: float, only: Generation | None = None, background: bool = True) -> list[Generation]:
        """Give free slots to waiting generations, in order of rank; those that were admitted."""
        admitted = []
        for generation in sorted(self.waiting, key=lambda one: one.rank):
            if (only is not None and generation is not only) or (generation.background and not background):
                continue
            free = next((slot for slot in self.slots if slot.generation is None), None)
            if free is None:
                break
            if self._better_soon(generation.prompt):
                continue
            self.waiting.remove(generation)
            generation.admitted_at = now
            self._place(generation, free)
            admitted.append(generation)
        return admitted

    def _better_soon(self, prompt: NDArray[np.int32]) -> bool:
        """Whether a prompt that is being decoded will soon offer more shared tokens than there are now."""
        coming = max(
            (
                common_length(slot.generation.prompt, prompt)
                for slot in self.slots
                if slot.generation is not None and slot.prompt_left
            ),
            default=0,
        )
        return coming >= MIN_SHARED and coming - self._source(prompt)[0] >= MIN_SHARED

    def _source(self, prompt: NDArray[np.int32]) -> tuple[int, Slot | NDArray[np.uint8] | None]:
        """The longest usable prefix and who holds it; at least one token is always decoded again."""
        usable = prompt[: len(prompt) - 1]
        length, source = self._prefixes.find(self._key, usable)
        best: tuple[int, Slot | NDArray[np.uint8] | None] = (length, source)
        for slot in self.slots:
            common = common_length(slot.held, usable)
            if common > best[0]:
                best = common, slot
        return best

    def _place(self, generation: Generation, slot: Slot) -> None:
        known = min(self._prefixes.insert(generation.prompt), len(generation.prompt) - 1)
        length, source = self._source(generation.prompt)
        in_place = common_length(slot.held, generation.prompt[:-1])
        if length < max(MIN_SHARED, in_place + MIN_SHARED):  # a copy would cost more than it saves
            length, source = in_place, slot
        if isinstance(source, Slot) and source is not slot:
            source = self._context.export(source.index)
        if isinstance(source, np.ndarray):
            self._context.restore(slot.index, source)
        self._context.truncate(slot.index, length)
        slot.tokens[:length] = generation.prompt[:length]
        slot.n, slot.generation = length, generation
        generation.n_cached = length
        if known >= MIN_SHARED and known - self._prefixes.find(self._key, generation.prompt[:known])[0] >= (
            MIN_SHARED
        ):
            generation.save_at = known
            self._save(slot)

    def _save(self, slot: Slot) -> None:
        """Keep the state of a prefix that is known to be shared, once the slot holds just that."""
        generation = slot.generation
        if generation is not None and generation.save_at and slot.n >= generation.save_at:
            if slot.n == generation.save_at:
                self._prefixes.put(self._key, slot.held.copy(), self._context.export(slot.index))
            generation.save_at = 0

    # ------------------------------------------------------------------ step

    def step(self) -> StepWork:
        """Decode once: a row for every running generation first, then prompt tokens in what room is left.

        Raises: EngineError, after which every generation of the lane has been dropped.
        """
        started = time.perf_counter()
        self._close_gap()
        batch = self._context.batch
        batch.reset()
        work = StepWork()
        rows: list[tuple[Slot, list[int], list[int], int]] = []
        running = [slot for slot in self.active if not slot.prompt_left]
        for slot in running:
            rows.append(self._add_running(slot, len(running)))
        work.n_rows = batch.n_rows
        for slot, count in self._shares(batch.room):
            rows.append(self._add_prompt(slot, count))
        work.n_prompt_tokens = batch.n_rows - work.n_rows
        if batch.n_rows:
            self._decode(rows)
            now = time.perf_counter()
            for slot, sent, draft, row in rows:
                self._advance(slot, sent, draft, row, now)
        work.seconds = time.perf_counter() - started
        return work

    def _decode(self, rows: list[tuple[Slot, list[int], list[int], int]]) -> None:
        try:
            self._context.decode()
        except EngineError as error:
            self._context.clear()
            now = time.perf_counter()
            for slot in self.slots:
                slot.n = 0
                if slot.generation is not None:
                    slot.generation.fail(
                        EngineError(f"{error} in lane {self.name}; the request was dropped"), now
                    )
            raise
        for slot, sent, draft, _ in rows:
            slot.append(sent)
            slot.append(draft)

    def _add_running(self, slot: Slot, n_running: int) -> tuple[Slot, list[int], list[int], int]:
        generation = slot.generation
        assert generation is not None and generation.pending
        sent = generation.pending
        if n_running > 2 and 1 < len(sent) <= 1 + FEW_FORCED:
            sent = sent[:1]
        sent = sent[: max(1, self._context.batch.room - n_running)]
        draft = (
            self._draft(slot, generation) if n_running == 1 and len(sent) == len(generation.pending) else []
        )
        complete = len(sent) == len(generation.pending)
        n_logits = 1 + len(draft) if complete else 0
        row = self._context.batch.add(slot.index, [*sent, *draft], slot.n, n_logits)
        return slot, sent, draft, row if complete else -1

    def _draft(self, slot: Slot, generation: Generation) -> list[int]:
        """Guesses that the grammar would also allow; only for greedy decoding."""
        left = generation.request.max_tokens - len(generation.output)
        if not self.n_draft or left < 2 or generation.request.temperature > 0 or generation.request.logprobs:
            return []
        seen = np.concatenate([slot.held, np.array(generation.pending, dtype=np.int32)])
        draft = lookup(seen, min(self.n_draft, left - 1))
        if generation.constraint is not None and draft:
            draft = draft[: generation.constraint.allowed_prefix(draft)]
        generation.n_drafted += len(draft)
        return draft

    def _shares(self, room: int) -> list[tuple[Slot, int]]:
        """How many prompt tokens each slot gets: the first in rank and then the shortest takes what it needs.

        Every few steps it is the oldest instead, so that none starves. A chunk is not dealt out among many:
        libllama decodes rows of unequal counts in separate passes.
        """
        slots = [(slot.generation, slot) for slot in self.active if slot.generation and slot.prompt_left]
        slots.sort(key=lambda one: (one[0].rank[0], one[1].prompt_left))
        self._n_shared += 1
        if self._n_shared % OLDEST_EVERY == 0:
            slots.sort(key=lambda one: one[0].arrived_at)
        shares = []
        for _, slot in slots:
            if take := min(self._until_stop(slot), room):
                shares.append((slot, take))
                room -= take
        return sorted(shares, key=lambda one: one[0].index)

    @staticmethod
    def _until_stop(slot: Slot) -> int:
        """Prompt tokens up to the end, or up to the place where the state is to be saved."""
        save_at = slot.generation.save_at if slot.generation else 0
        return save_at - slot.n if save_at > slot.n else slot.prompt_left

    def _add_prompt(self, slot: Slot, count: int) -> tuple[Slot, list[int], list[int], int]:
        generation = slot.generation
        assert generation is not None
        last = count == slot.prompt_left
        sent = generation.prompt[slot.n : slot.n + count]
        row = self._context.batch.add(slot.index, sent, slot.n, int(last))
        return slot, sent.tolist(), [], row if last else -1

    def _advance(self, slot: Slot, sent: list[int], draft: list[int], row: int, now: float) -> None:
        """Take what the decoded rows tell: nothing yet, or the next tokens, checked against the draft."""
        generation = slot.generation
        assert generation is not None
        generation.pending = generation.pending[len(sent) :]
        self._save(slot)
        if row < 0:
            return
        confirmed = 0
        try:
            while True:
                decided = generation.decide(self._context.logits(row + confirmed), now)
                matched = 0
                for guess, token in zip(draft[confirmed:], decided, strict=False):
                    if guess != token:
                        break
                    matched += 1
                confirmed += matched
                generation.pending = decided[matched:]
                if generation.ended or generation.pending:
                    break
        except EngineError as error:
            generation.fail(error, now)
        generation.n_accepted += confirmed
        if confirmed < len(draft):
            slot.n -= len(draft) - confirmed
            self._context.truncate(slot.index, slot.n)

    # --------------------------------------------------------------- the end

    def sweep(self, now: float) -> list[Generation]:
        """Take out what has ended, waiting or running; its slot keeps the prompt for others to share."""
        for slot in self.active:
            assert slot.generation is not None
            slot.generation.check(now)
        for generation in self.waiting:
            generation.check(now)
        ended = [one for one in self.waiting if one.ended]
        self.waiting = [one for one in self.waiting if not one.ended]
        for slot in self.active:
            assert slot.generation is not None
            if slot.generation.ended:
                ended.append(slot.generation)
                self._release(slot, slot.generation)
        return ended

    def _release(self, slot: Slot, generation: Generation) -> None:
        slot.generation = None
        if slot.n > len(generation.prompt):
            slot.n = len(generation.prompt)
            self._context.truncate(slot.index, slot.n)
        self.counters["done"] += 1
        self.counters["prompt_tokens"] += len(generation.prompt)
        self.counters["cached_tokens"] += generation.n_cached
        self.counters["completion_tokens"] += len(generation.output)

    def _close_gap(self) -> None:
        """Move the last running generation into a gap: libllama batches neighbouring slots only."""
        active = self.active
        if self.waiting or len(active) < 2 or active[-1].index == len(active) - 1:
            return
        last, generation = active[-1], active[-1].generation
        gap = next(slot for slot in self.slots if slot.generation is None)
        assert generation is not None
        if generation.request.max_tokens - len(generation.output) < MOVE_TOKENS:
            return
        self._context.restore(gap.index, self._context.export(last.index))
        gap.tokens[: last.n] = last.held
        gap.n, gap.generation = last.n, generation
        last.generation = None

    def close(self) -> None:
        """Free the context."""
        self._context.close()
