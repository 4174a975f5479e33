"""Lanes and the scheduler over a fake context whose logits betray any wrong token in a cache."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.engine_fakes import N_VOCAB, expected, make_generation, make_lane
from whis_box.engine.generation import Generation
from whis_box.engine.lane import Lane
from whis_box.engine.scheduler import Scheduler
from whis_box.errors import BusyError, DeadlineError, EngineError, InputError, RequestCancelledError


def run_all(scheduler: Scheduler, steps: int = 10_000) -> list[Generation]:
    """Step until nothing is left; the generations that ended, in order."""
    ended: list[Generation] = []
    for now in range(steps):
        if not scheduler.busy:
            return ended
        ended.extend(scheduler.step(float(now))[1])
    raise AssertionError("the scheduler is stuck")


def prompt_of(rng: random.Random, shared: list[int]) -> list[int]:
    cut = rng.randrange(len(shared))
    return shared[:cut] + [rng.randrange(1, N_VOCAB) for _ in range(rng.randrange(1, 40))]


def test_many_requests_in_three_lanes_each_get_their_own_adapters_answer() -> None:
    rng = random.Random(1)
    lanes = [make_lane(name)[0] for name in ("base", "stable", "canary")]
    scheduler = Scheduler(lanes, max_waiting=1000)
    shared = [rng.randrange(1, N_VOCAB) for _ in range(120)]
    asked: dict[str, tuple[str, list[int], int]] = {}
    for number in range(300):
        lane, prompt, limit = rng.choice(lanes).name, prompt_of(rng, shared), rng.randrange(1, 20)
        asked[str(number)] = lane, prompt, limit
        scheduler.submit(make_generation(str(number), prompt, lane=lane, max_tokens=limit))
    ended = run_all(scheduler)
    assert sorted(one.id for one in ended) == sorted(asked)
    for one in ended:
        assert one.error is None and one.output == expected(*asked[one.id])
    assert sum(lane.counters["cached_tokens"] for lane in lanes) > 0


def test_cancels_deadlines_and_failed_decodes_leave_the_other_answers_right() -> None:
    rng = random.Random(2)
    made = [make_lane(name) for name in ("base", "stable", "canary")]
    scheduler = Scheduler([lane for lane, _ in made], max_waiting=1000)
    shared = [rng.randrange(1, N_VOCAB) for _ in range(120)]
    asked: dict[str, tuple[str, list[int], int]] = {}
    ended: list[Generation] = []
    for now in range(6000):
        if now < 3000 and rng.random() < 0.4:
            name = str(now)
            asked[name] = rng.choice(made)[0].name, prompt_of(rng, shared), rng.randrange(1, 12)
            deadline = rng.choice([5.0, 1e6])
            fields: dict[str, Any] = {"lane": asked[name][0], "max_tokens": asked[name][2]}
            try:
                scheduler.submit(
                    make_generation(name, asked[name][1], float(now), deadline_s=deadline, **fields)
                )
            except BusyError:
                del asked[name]
        if asked and rng.random() < 0.1:
            scheduler.cancel(rng.choice(list(asked)))
        if rng.random() < 0.01:
            rng.choice(made)[1].fail_next = True
        ended.extend(scheduler.step(float(now))[1])
        if now >= 3000 and not scheduler.busy:
            break
    assert not scheduler.busy, "a lane is stuck"
    assert sorted(one.id for one in ended) == sorted(asked)
    kinds = {type(one.error) for one in ended}
    assert kinds == {type(None), RequestCancelledError, DeadlineError, EngineError}
    for one in ended:
        if one.error is None:
            assert one.output == expected(*asked[one.id])


@pytest.mark.parametrize("n_draft", [1, 3, 8])
def test_drafts_never_change_the_answer(n_draft: int) -> None:
    rng = random.Random(3)
    lane, context = make_lane(n_draft=n_draft)
    scheduler = Scheduler([lane], max_waiting=1000)
    for number in range(40):
        # A prompt that already holds its own continuation, so that some guesses are right.
        start = [rng.randrange(1, N_VOCAB) for _ in range(10)]
        prompt = start + expected("base", start, 12) + start
        scheduler.submit(make_generation(str(number), prompt, max_tokens=12))
        (one,) = run_all(scheduler)
        assert one.output == expected("base", prompt, 12)
    assert context.n_decoded > 0


def test_a_prompt_is_decoded_in_chunks_beside_running_rows() -> None:
    lane, context = make_lane(n_batch=16)
    scheduler = Scheduler([lane], max_waiting=10)
    scheduler.submit(make_generation("running", [3], max_tokens=30))
    scheduler.step(0.0)
    scheduler.step(1.0)
    scheduler.submit(make_generation("long", list(range(1, 60)), max_tokens=1))
    scheduler.step(2.0)
    slots = [row[0] for row in context.batch.rows]
    assert len(slots) == 16 and slots.count(0) == 1, "one row for the running one, the rest for the prompt"


def test_a_short_prompt_overtakes_a_long_one() -> None:
    lane, _ = make_lane(n_batch=32)
    scheduler = Scheduler([lane], max_waiting=10)
    scheduler.submit(make_generation("long", [1] * 240, max_tokens=1))
    scheduler.step(0.0)
    scheduler.submit(make_generation("short", [2] * 60, now=1.0, max_tokens=1))
    ended = [[one.id for one in scheduler.step(float(now))[1]] for now in range(1, 4)]
    assert ["short"] in ended


def test_a_long_prompt_is_not_starved_by_a_stream_of_short_ones() -> None:
    lane, _ = make_lane(n_batch=32)
    scheduler = Scheduler([lane], max_waiting=100)
    scheduler.submit(make_generation("long", [1] * 200, max_tokens=1))
    ended: list[str] = []
    for now in range(1, 40):
        for number in range(2):
            prompt = [2 + now % 50, 3 + number] * 20
            scheduler.submit(make_generation(f"{now}-{number}", prompt, now=float(now), max_tokens=1))
        ended += [one.id for one in scheduler.step(float(now))[1]]
    assert "long" in ended


def test_a_prompt_waits_for_the_shared_part_that_another_is_decoding() -> None:
    lane, context = make_lane(n_batch=64)
    scheduler = Scheduler([lane], max_waiting=10)
    shared = list(range(1, 51))
    for name in ("one", "two", "three"):
        scheduler.submit(make_generation(name, [*shared, len(name)], max_tokens=1))
    ended = run_all(scheduler)
    assert sorted(one.n_cached for one in ended) == [0, 50, 50]
    assert context.n_decoded == 51 + 1 + 1


def test_a_lane_of_weight_zero_and_background_requests_run_only_when_nothing_else_does() -> None:
    stable, shadow = make_lane("stable")[0], make_lane("shadow", weight=0)[0]
    scheduler = Scheduler([stable, shadow], max_waiting=10)
    scheduler.submit(make_generation("shadow", [1], lane="shadow", priority="background", max_tokens=3))
    scheduler.submit(make_generation("real", [2], lane="stable", max_tokens=3))
    assert [one.id for one in run_all(scheduler)] == ["real", "shadow"]


def test_lanes_get_the_engine_by_their_weights() -> None:
    stable, canary = make_lane("stable", weight=8)[0], make_lane("canary", weight=2)[0]
    scheduler = Scheduler([stable, canary], max_waiting=10)
    steps = {"stable": 0, "canary": 0}
    for lane in (stable, canary):
        original = lane.step

        def counted(lane: Lane = lane, original: Any = original) -> Any:
            steps[lane.name] += 1
            work = original()
            work.seconds = 1.0  # every step costs the same
            return work

        lane.step = counted  # type: ignore[method-assign]
        endless = next(n for n in range(1, N_VOCAB) if len(expected(lane.name, [n], 101)) == 101)
        scheduler.submit(make_generation(lane.name, [endless], lane=lane.name, max_tokens=200))
    for now in range(100):
        scheduler.step(float(now))
    assert 75 <= steps["stable"] <= 85


def test_an_interactive_request_goes_before_earlier_ones() -> None:
    lane, _ = make_lane(n_slots=1)
    scheduler = Scheduler([lane], max_waiting=10)
    for number in range(3):
        scheduler.submit(make_generation(f"batch-{number}", [1 + number], max_tokens=2))
    scheduler.submit(make_generation("person", [9], now=1.0, priority="interactive", max_tokens=2))
    assert [one.id for one in run_all(scheduler)][0] == "person"


def test_a_full_queue_is_refused_with_a_time_to_come_back_and_background_makes_room() -> None:
    lane, _ = make_lane(n_slots=1)
    scheduler = Scheduler([lane], max_waiting=3)
    scheduler.submit(make_generation("background", [1], priority="background"))
    for number in range(2):
        scheduler.submit(make_generation(str(number), [1]))
    scheduler.submit(make_generation("real", [1]))
    with pytest.raises(BusyError, match="3 requests wait, the limit is 3") as refused:
        scheduler.submit(make_generation("too many", [1]))
    assert refused.value.retry_after_s >= 1.0 and refused.value.retryable
    ended = {one.id: one for one in run_all(scheduler)}
    assert sorted(ended) == ["0", "1", "background", "real"]
    assert isinstance(ended["background"].error, BusyError) and ended["real"].error is None


def test_a_request_that_would_not_be_done_in_time_is_refused_at_once() -> None:
    lane, _ = make_lane(n_slots=1)
    scheduler = Scheduler([lane], max_waiting=100)
    scheduler.rates.row_s, scheduler.rates.filled = 1.0, 1.0
    scheduler.submit(make_generation("first", [1], max_tokens=50, deadline_s=100.0))
    with pytest.raises(BusyError, match="50.0 s of work is queued") as refused:
        scheduler.submit(make_generation("second", [1], max_tokens=8, deadline_s=20.0))
    assert refused.value.retry_after_s == pytest.approx(48.0)


def test_a_suspect_runs_alone() -> None:
    lane, _ = make_lane()
    scheduler = Scheduler([lane], max_waiting=10)
    together: set[frozenset[str]] = set()
    suspect = make_generation("suspect", [1], max_tokens=5)
    suspect.exclusive = True
    scheduler.submit(make_generation("before", [2], max_tokens=5))
    scheduler.step(0.0)
    scheduler.submit(suspect)
    scheduler.submit(make_generation("after", [3], max_tokens=5))
    for now in range(100):
        scheduler.step(float(now))
        together.add(frozenset(slot.generation.id for slot in lane.active if slot.generation))
    assert frozenset({"suspect"}) in together
    assert not any("suspect" in names and len(names) > 1 for names in together)


def test_gaps_between_slots_are_closed_and_answers_stay_right() -> None:
    lane, _ = make_lane()
    scheduler = Scheduler([lane], max_waiting=10)
    prompts = {"a": [1, 2], "b": [3, 4], "c": [5, 6]}
    limits = {"a": 2, "b": 2, "c": 40}
    for name, prompt in prompts.items():
        scheduler.submit(make_generation(name, prompt, max_tokens=limits[name]))
    ended = run_all(scheduler)
    assert {one.id: one.output for one in ended} == {
        name: expected("base", prompt, limits[name]) for name, prompt in prompts.items()
    }


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "says"),
    [([], 1, "prompt is empty"), ([1], 0, "max_tokens is 0"), ([1] * 250, 10, "250 tokens .* 10, .* 256")],
)
def test_a_request_that_cannot_fit_is_refused_with_its_numbers(
    prompt: list[int], max_tokens: int, says: str
) -> None:
    lane, _ = make_lane()
    with pytest.raises(InputError, match=says):
        Scheduler([lane], 10).submit(make_generation("x", prompt, max_tokens=max_tokens))


def test_a_character_split_over_tokens_is_streamed_whole_and_a_broken_one_is_replaced() -> None:
    lane, _ = make_lane()
    generation = make_generation("x", [1], max_tokens=3)
    pieces = {10: "é".encode()[:1], 11: "é".encode()[1:], 12: b"\xff"}
    generation._model = type("Model", (), {"piece": staticmethod(pieces.__getitem__)})()  # type: ignore[assignment]
    deltas = []
    for token in (10, 11, 12):
        generation._record([token], None)  # type: ignore[arg-type]
        deltas.append(generation.take_delta())
    assert deltas == ["", "é", "\ufffd"]
