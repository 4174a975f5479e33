"""Reused prefixes against cold runs, and adapters against each other, on the real weights.

libllama has one attention kernel for batches of 64 rows and more, and another for less. Where a reused
prefix leaves every row to the same kernel, logits are equal bit for bit; elsewhere they differ as much as
those of two cold runs with different n_batch do (rms 0.34 of logits with a deviation of 3.0, measured), which
is the tolerance here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.engine_adapters import write_adapter
from whis_box.box.opening import engine_spec
from whis_box.config import ModelConfig
from whis_box.engine import cpu, native
from whis_box.engine.context import Context
from whis_box.engine.generation import Generation
from whis_box.engine.lane import Lane
from whis_box.engine.model import Model
from whis_box.engine.prefix_tree import CacheKey, PrefixTree
from whis_box.engine.protocol import EngineSpec, GenerateRequest, LaneSpec
from whis_box.engine.scheduler import Scheduler

pytestmark = pytest.mark.e2e

TOLERANCE = 0.5  # rms
SYSTEM = "You are a SOC analyst's assistant. You answer only from the numbered facts. " * 3
FACTS = "[1] Event 1102 is written when the audit log is cleared. [2] Event 4625 is a failed logon. " * 3


class Recorded(Generation):
    """Keeps a copy of every row of logits it decided from."""

    def _choose(self, logits: NDArray[np.float32]) -> int:
        self.__dict__.setdefault("seen", []).append(logits.copy())
        return super()._choose(logits)


class Bench:
    """Makes lanes over one loaded model."""

    def __init__(self, spec: EngineSpec, folder: Path) -> None:
        binding = native.load()
        cpu.load_backend(binding, spec.backend_path)
        binding.llama_backend_init()
        self.spec, self.folder = spec, folder
        self.model = Model(binding, Path(spec.model_path))
        self.lanes: list[Lane] = []

    def lane(self, adapter: str = "", n_slots: int = 3) -> Lane:
        """A fresh lane: nothing is cached."""
        path = str(write_adapter(self.folder / f"{adapter}.gguf", seed=len(adapter))) if adapter else ""
        lane_spec = LaneSpec(adapter or "base", path, n_slots=n_slots)
        prefixes = PrefixTree(CacheKey("base", adapter, 1.0), 100_000, 64_000_000)
        lane = Lane(lane_spec.name, 8, Context(self.model, self.spec, lane_spec), prefixes)
        self.lanes.append(lane)
        return lane

    def run(self, lane: Lane, *texts: str, max_tokens: int = 4) -> list[Any]:
        """Run prompts together in one lane; the finished generations in order."""
        scheduler = Scheduler([lane], 100)
        generations = []
        for number, text in enumerate(texts):
            request = GenerateRequest(((text, False),), lane=lane.name, max_tokens=max_tokens, deadline_s=1e6)
            prompt = self.model.tokenize(list(request.prompt))
            generations.append(Recorded(str(number), request, prompt, None, self.model, 0.0))
            scheduler.submit(generations[-1])
        while scheduler.busy:
            scheduler.step(1.0)
        assert all(one.error is None for one in generations)
        return generations


@pytest.fixture(scope="module")
def bench(box: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    chosen = engine_spec(box / "models" / "base.gguf", ModelConfig())
    spec = EngineSpec(chosen.model_path, chosen.backend_path, n_threads=1, n_ctx=768, n_batch=128)
    made = Bench(spec, tmp_path_factory.mktemp("adapters"))
    yield made
    for lane in made.lanes:
        lane.close()
    made.model.close()


def distance(one: Any, other: Any) -> float:
    """Root mean square difference between the logits of the first decided token."""
    return float(np.sqrt(np.mean((one.seen[0] - other.seen[0]) ** 2)))


def test_a_prefix_copied_from_another_slot_or_from_a_saved_state_gives_a_cold_runs_logits(
    bench: Bench,
) -> None:
    asked = SYSTEM + FACTS + "Which event tells of a cleared log?"
    (cold,) = bench.run(bench.lane(), asked)
    warm_lane = bench.lane()
    bench.run(warm_lane, SYSTEM + FACTS + "What is a failed logon?")
    (in_place,) = bench.run(warm_lane, asked)
    bench.run(warm_lane, *(f"{number} is something else entirely, and long enough." for number in range(3)))
    (saved,) = bench.run(warm_lane, asked)
    assert cold.n_cached == 0 and in_place.n_cached > 100 and saved.n_cached > 100
    for warm in (in_place, saved):
        assert np.array_equal(warm.seen[0], cold.seen[0])
        assert warm.output == cold.output


def test_requests_decoded_together_get_the_logits_they_get_alone(bench: Bench) -> None:
    texts = [f"{SYSTEM} {number} {FACTS} Which event?" for number in range(3)]
    alone = [bench.run(bench.lane(), text)[0] for text in texts]
    for one, other in zip(bench.run(bench.lane(), *texts), alone, strict=True):
        assert distance(one, other) < TOLERANCE


def test_the_same_cold_run_twice_is_equal_bit_for_bit(bench: Bench) -> None:
    (one,), (other,) = bench.run(bench.lane(), SYSTEM), bench.run(bench.lane(), SYSTEM)
    assert np.array_equal(one.seen[0], other.seen[0])


def test_no_adapter_ever_uses_another_adapters_cache(bench: Bench) -> None:
    asked = SYSTEM + FACTS + "Which event tells of a cleared log?"
    names = ("", "a", "bb")
    cold = {name: bench.run(bench.lane(name), asked)[0] for name in names}
    for one in names:
        for other in names:
            if one < other:
                assert distance(cold[one], cold[other]) > TOLERANCE, "adapters must differ to prove it"
    lanes = {name: bench.lane(name) for name in names}
    scheduler = Scheduler(list(lanes.values()), 100)
    generations = []
    for number in range(9):  # the same prompt in every lane, interleaved, three times over
        name = names[number % 3]
        request = GenerateRequest(((asked, False),), lane=name or "base", max_tokens=2, deadline_s=1e6)
        prompt = bench.model.tokenize(list(request.prompt))
        generation = Recorded(str(number), request, prompt, None, bench.model, float(number))
        generations.append((name, generation))
        scheduler.submit(generation)
    while scheduler.busy:
        scheduler.step(10.0)
    assert sum(one.n_cached > 100 for _, one in generations) == 6
    for name, generation in generations:
        assert np.array_equal(generation.seen[0], cold[name].seen[0])
