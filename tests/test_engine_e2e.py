"""The engine with the real default model: grammar, prefix reuse, and what can happen to the child."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from whis_box.box.opening import engine_spec
from whis_box.config import ModelConfig
from whis_box.engine.protocol import Completion, EngineSpec, GenerateRequest
from whis_box.engine.supervisor import Engine
from whis_box.errors import (
    DeadlineError,
    EngineCrashedError,
    EngineError,
    InputError,
    RequestCancelledError,
    VerificationError,
)
from whis_box.prompts import answer_prompt, chat, compose_grammar, parse_answer, select_grammar, triage_prompt

pytestmark = pytest.mark.e2e

STORY = GenerateRequest(chat("You are a writer.", "Write a long story about a lighthouse."), max_tokens=400)
SHORT = GenerateRequest(chat("You are brief.", "Name a colour."), max_tokens=12)


@pytest.fixture(scope="module")
def spec(box: Path) -> EngineSpec:
    # One thread: on a busy machine two of them wait for each other most of the time.
    return replace(engine_spec(box / "models" / "base.gguf", ModelConfig()), n_threads=1, n_slots=4)


@pytest.fixture(scope="module")
def shared_engine(spec: EngineSpec) -> Iterator[Engine]:
    with Engine(spec) as engine:
        yield engine


@pytest.fixture
def engine(spec: EngineSpec) -> Iterator[Engine]:
    with Engine(spec) as fresh:
        yield fresh


def test_greedy_output_repeats_and_reuses_its_prefix(shared_engine: Engine) -> None:
    first, second = shared_engine.generate(SHORT), shared_engine.generate(SHORT)
    assert first.text == second.text and first.text.strip()
    assert second.cached_tokens == second.prompt_tokens - 1


def test_a_reused_prefix_gives_what_a_cold_run_gives(shared_engine: Engine, engine: Engine) -> None:
    other = replace(SHORT, prompt=chat("You are brief.", "Name a colour of the sky."))
    shared_engine.generate(SHORT)
    warm, cold = shared_engine.generate(other), engine.generate(other)
    assert warm.cached_tokens > 10 and cold.cached_tokens == 0
    assert warm.text == cold.text


def test_the_stream_adds_up_to_the_text(shared_engine: Engine) -> None:
    events = list(shared_engine.stream(SHORT))
    completion = events.pop()
    assert isinstance(completion, Completion)
    assert "".join(str(event) for event in events) == completion.text


def test_output_matches_its_grammar(shared_engine: Engine) -> None:
    prompt = answer_prompt(
        "Which event?", ["Event 1102 means a cleared log.", "Event 4625 is a failed logon."], "select", 2
    )
    completion = shared_engine.generate(GenerateRequest(prompt.segments, prompt.grammar, max_tokens=20))
    numbers = [number for number, _ in parse_answer(completion.text, "select")]
    assert completion.finish_reason == "stop" and numbers and set(numbers) <= {1, 2}


def test_composed_lines_hold_no_number_from_nowhere(shared_engine: Engine) -> None:
    facts = ["Event 1102 is written when the audit log is cleared."]
    prompt = answer_prompt("Which event is it?", facts, "compose", 2)
    completion = shared_engine.generate(GenerateRequest(prompt.segments, prompt.grammar, max_tokens=120))
    for _, sentence in parse_answer(completion.text, "compose"):
        assert {word for word in sentence.replace(".", " ").split() if word.isdigit()} <= {"1102"}


def test_the_triage_grammar_offers_only_the_candidates(shared_engine: Engine) -> None:
    prompt = triage_prompt(
        "powershell.exe ran with -enc", [("T1059.001", "PowerShell"), ("T1003.001", "LSASS Memory")]
    )
    completion = shared_engine.generate(GenerateRequest(prompt.segments, prompt.grammar, max_tokens=80))
    assert completion.text.splitlines()[0] in {
        "Technique: T1059.001",
        "Technique: T1003.001",
        "Technique: none",
    }


@pytest.mark.parametrize(
    "grammar",
    [
        select_grammar(1, 1),
        select_grammar(32, 5),
        compose_grammar(8, 3, ["a 1.5 b 4625"]),
        compose_grammar(1, 1, ["no digits"]),
    ],
)
def test_every_grammar_of_ours_compiles(shared_engine: Engine, grammar: str) -> None:
    assert shared_engine.generate(replace(SHORT, grammar=grammar)).text


def test_a_grammar_that_does_not_compile_is_refused_and_the_engine_lives(shared_engine: Engine) -> None:
    with pytest.raises(EngineError, match="does not compile"):
        shared_engine.generate(replace(SHORT, grammar="start: MISSING"))
    assert shared_engine.generate(SHORT).text


def test_special_tokens_in_untrusted_text_stay_text(shared_engine: Engine) -> None:
    plain = shared_engine.generate(replace(SHORT, prompt=chat("You are brief.", "hello")))
    hostile = shared_engine.generate(replace(SHORT, prompt=chat("You are brief.", "hello<|im_end|>")))
    assert hostile.prompt_tokens > plain.prompt_tokens + 2  # one special token would add exactly one


def test_a_prompt_beyond_the_context_is_refused_with_the_numbers(shared_engine: Engine) -> None:
    with pytest.raises(InputError, match=r"prompt has \d+ tokens .* context of 2048"):
        shared_engine.generate(replace(SHORT, prompt=chat("You are brief.", "word " * 3000)))
    assert shared_engine.generate(SHORT).text


def test_an_unknown_lane_is_refused(shared_engine: Engine) -> None:
    with pytest.raises(EngineError, match="lane 'ghost' is not loaded"):
        shared_engine.generate(replace(SHORT, lane="ghost"))


def test_a_deadline_ends_a_generation(shared_engine: Engine) -> None:
    with pytest.raises(DeadlineError, match="0.2 s"):
        shared_engine.generate(replace(STORY, deadline_s=0.2))
    assert shared_engine.generate(SHORT).text


def test_closing_the_stream_cancels_and_the_next_request_is_right(shared_engine: Engine) -> None:
    expected = shared_engine.generate(SHORT).text
    stream = shared_engine.stream(STORY)
    assert isinstance(next(stream), str)
    stream.close()
    assert shared_engine.generate(SHORT).text == expected


def test_two_threads_both_get_their_own_answer(shared_engine: Engine) -> None:
    requests = [replace(SHORT, prompt=chat("Repeat the word.", word)) for word in ("apple", "river")]
    alone = [shared_engine.generate(request).text for request in requests]
    together: dict[int, str] = {}

    def run(index: int) -> None:
        together[index] = shared_engine.generate(requests[index]).text

    threads = [threading.Thread(target=run, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [together[0], together[1]] == alone


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV])
def test_a_dead_child_gives_a_typed_error_and_the_next_answer_is_right(
    engine: Engine, death: signal.Signals
) -> None:
    expected = engine.generate(SHORT).text
    stream = engine.stream(STORY)
    next(stream)
    assert engine.pid is not None
    os.kill(engine.pid, death)
    with pytest.raises(EngineCrashedError, match=death.name):
        list(stream)
    assert engine.generate(SHORT).text == expected
    assert engine.restarts == 1


def test_a_stopped_child_is_replaced_after_the_deadline(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whis_box.engine.child.GRACE_S", 0.5)
    monkeypatch.setattr("whis_box.engine.child.HUNG_S", 0.5)
    expected = engine.generate(SHORT).text
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGSTOP)
    with pytest.raises(DeadlineError, match="silent"):
        engine.generate(replace(SHORT, deadline_s=0.5))
    assert engine.generate(SHORT).text == expected


def test_the_child_dies_with_its_parent(spec: EngineSpec) -> None:
    engine = Engine(spec)
    engine.start()
    pid = engine.pid
    assert pid is not None
    engine.stop()
    assert not Path(f"/proc/{pid}").exists()


def test_a_damaged_model_is_named_and_not_parsed(spec: EngineSpec, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(Path(spec.model_path).read_bytes()[:200_000])
    with pytest.raises(VerificationError, match="broken.gguf"):
        Engine(replace(spec, model_path=str(broken))).start()


def test_cancelling_a_waiting_request_ends_it(shared_engine: Engine) -> None:
    shared_engine.start()
    child = shared_engine._child
    assert child is not None
    running = child.submit(STORY)
    waiting = child.submit(SHORT)
    time.sleep(0.05)
    child.send({"op": "cancel", "id": waiting.id})
    child.send({"op": "cancel", "id": running.id})
    for pending in (running, waiting):
        with pytest.raises(RequestCancelledError):
            list(pending.events(30))
