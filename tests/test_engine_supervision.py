"""What the child may not do, what its death does to requests, and what it refuses, with the real model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.engine_adapters import write_adapter
from whis_box.box.opening import engine_spec
from whis_box.config import ModelConfig
from whis_box.engine.protocol import Completion, EngineSpec, GenerateRequest, LaneSpec
from whis_box.engine.supervisor import Engine
from whis_box.errors import (
    BusyError,
    DeadlineError,
    EngineCrashedError,
    InputError,
    NotReadyError,
    QuarantinedError,
    RequestCancelledError,
    VerificationError,
    WhisError,
)
from whis_box.paths import file_sha256
from whis_box.prompts import chat

pytestmark = pytest.mark.e2e

SHORT = GenerateRequest(chat("You are brief.", "Name a colour."), max_tokens=8, deadline_s=120)
LONG = GenerateRequest(chat("You are a writer.", "Write a long story."), max_tokens=400, deadline_s=120)


@pytest.fixture(scope="module")
def spec(box: Path) -> EngineSpec:
    chosen = engine_spec(box / "models" / "base.gguf", ModelConfig())
    return replace(chosen, n_threads=1, n_ctx=1024, n_slots=4)


@pytest.fixture(scope="module")
def shared_engine(spec: EngineSpec) -> Iterator[Engine]:
    with Engine(spec) as engine:
        yield engine


def kill_while_running(engine: Engine, request: GenerateRequest) -> None:
    """Kill the child once it works on `request`."""
    stream = engine.stream(request)
    next(stream)
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)
    with pytest.raises(EngineCrashedError):
        list(stream)


def test_a_request_that_was_there_at_two_deaths_is_refused_and_others_are_not(spec: EngineSpec) -> None:
    with Engine(spec) as engine:
        kill_while_running(engine, LONG)
        kill_while_running(engine, LONG)
        with pytest.raises(QuarantinedError, match=r"request [0-9a-f]{16} ended the model process 2 times"):
            engine.generate(LONG)
        assert engine.generate(SHORT).text


def test_a_request_that_succeeds_alone_after_a_death_is_cleared(spec: EngineSpec) -> None:
    request = replace(LONG, max_tokens=40)
    with Engine(spec) as engine:
        for _ in range(3):
            kill_while_running(engine, request)
            assert engine.generate(request).text


def test_every_request_in_flight_gets_a_retryable_error_when_the_child_dies(spec: EngineSpec) -> None:
    errors: list[WhisError] = []

    def run(engine: Engine, number: int) -> None:
        try:
            engine.generate(replace(LONG, seed=number, temperature=1.0))
        except WhisError as error:
            errors.append(error)

    with Engine(spec) as engine:
        threads = [threading.Thread(target=run, args=(engine, number)) for number in range(8)]
        for thread in threads:
            thread.start()
        while (state := engine.state) is None or state.active + state.waiting < 8:
            time.sleep(0.05)
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        for thread in threads:
            thread.join(60)
        assert [type(error) for error in errors] == [EngineCrashedError] * 8
        assert all(error.retryable for error in errors)
        assert engine.generate(SHORT).text


def test_the_child_outlives_the_thread_that_started_it(spec: EngineSpec) -> None:
    engine = Engine(spec)
    starter = threading.Thread(target=engine.start)
    starter.start()
    starter.join()
    pid = engine.pid
    time.sleep(0.5)
    assert engine.generate(SHORT).text and engine.pid == pid and engine.restarts == 0
    engine.stop()


def test_a_stopped_idle_child_is_noticed_and_replaced(
    spec: EngineSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whis_box.engine.child.HEARTBEAT_TIMEOUT_S", 3.0)
    with Engine(spec) as engine:
        first = engine.pid
        assert first is not None
        os.kill(first, signal.SIGSTOP)
        deadline = time.monotonic() + 30
        while engine.pid is not None and time.monotonic() < deadline:
            time.sleep(0.1)
        assert engine.pid is None, "the watchdog did not notice"
        assert engine.generate(SHORT).text and engine.pid != first


def test_a_thousand_requests_at_once_each_end_with_an_answer_or_a_typed_refusal(spec: EngineSpec) -> None:
    outcomes: Counter[str] = Counter()
    lock = threading.Lock()
    retry_after: list[float] = []

    def run(engine: Engine, number: int) -> None:
        request = replace(
            SHORT, prompt=chat("You are brief.", f"Say {number}."), max_tokens=1, deadline_s=600
        )
        try:
            outcome = type(engine.generate(request)).__name__
        except (BusyError, DeadlineError) as error:
            outcome = type(error).__name__
            if isinstance(error, BusyError):
                retry_after.append(error.retry_after_s)
        with lock:
            outcomes[outcome] += 1

    with Engine(replace(spec, max_waiting=50)) as engine:
        threads = [threading.Thread(target=run, args=(engine, number)) for number in range(1000)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(300)
        assert outcomes.total() == 1000
        assert outcomes["Completion"] >= 50 and outcomes["BusyError"] > 0
        assert all(1.0 <= seconds <= 120.0 for seconds in retry_after)
        assert engine.generate(SHORT).text and engine.restarts == 0


def test_the_child_can_open_no_internet_socket_start_no_program_and_write_no_file(tmp_path: Path) -> None:
    script = f"""
import socket, subprocess
from whis_box.engine import sandbox
sandbox.enter()
refused = 0
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK):
    try:
        socket.socket(family, socket.SOCK_RAW if family == socket.AF_NETLINK else socket.SOCK_STREAM)
    except PermissionError:
        refused += 1
socket.socketpair()
try:
    subprocess.run(["/bin/true"])
except PermissionError:
    refused += 1
try:
    with open({str(tmp_path / "out")!r}, "w") as stream:
        stream.write("x")
except OSError:
    refused += 1
print(refused)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "5", done.stderr


def test_a_child_without_enough_memory_says_so(spec: EngineSpec) -> None:
    with pytest.raises(NotReadyError, match=r"16 slots of 8192 tokens \(f16\) cannot be allocated"):
        Engine(replace(spec, n_ctx=8192, n_slots=16, memory_limit_bytes=1_500_000_000)).start()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("other architecture", "not a LoRA adapter for base.gguf"),
        ("other size", "not a LoRA adapter for base.gguf"),
        ("other base", "made for the base ffffffffffffffff, but base.gguf is [0-9a-f]{16}"),
        ("truncated", "adapter.gguf"),
        ("missing", "adapter.gguf.*missing"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_by_name(
    spec: EngineSpec, tmp_path: Path, content: str, says: str
) -> None:
    path = tmp_path / "adapter.gguf"
    if content == "other architecture":
        write_adapter(path, 1, architecture="qwen2")
    elif content == "other size":
        write_adapter(path, 1, n_embd=512)
    elif content == "other base":
        write_adapter(path, 1, base="f" * 64)
    elif content == "truncated":
        write_adapter(path, 1)
        path.write_bytes(path.read_bytes()[:100_000])
    lanes = (LaneSpec("base"), LaneSpec("stable", str(path)))
    with pytest.raises((VerificationError, NotReadyError), match=says):
        Engine(replace(spec, lanes=lanes, base_sha256=file_sha256(Path(spec.model_path)))).start()


def test_a_gpu_backend_that_does_not_load_leaves_the_cpu_at_work_and_is_reported(
    spec: EngineSpec, tmp_path: Path
) -> None:
    broken = tmp_path / "libggml-cuda.so"
    broken.write_bytes(b"not a library")
    with Engine(replace(spec, gpu_path=str(broken))) as engine:
        info = engine.start()
        assert info.device == "cpu" and "the CPU is used" in info.notes[0]
        assert engine.generate(SHORT).text


def test_an_event_set_by_another_thread_cancels_a_request(shared_engine: Engine) -> None:
    given_up = threading.Event()
    threading.Timer(0.3, given_up.set).start()
    with pytest.raises(RequestCancelledError):
        list(shared_engine.stream(LONG, given_up))
    assert shared_engine.generate(SHORT).text


@pytest.mark.parametrize("max_tokens", [0, -1])
def test_a_request_for_no_tokens_is_refused(shared_engine: Engine, max_tokens: int) -> None:
    with pytest.raises(InputError, match="at least 1 token"):
        shared_engine.generate(replace(SHORT, max_tokens=max_tokens))


def test_an_empty_prompt_is_refused(shared_engine: Engine) -> None:
    with pytest.raises(InputError, match="prompt is empty"):
        shared_engine.generate(replace(SHORT, prompt=(("", True),)))


def test_text_that_is_no_valid_unicode_is_still_answered(shared_engine: Engine) -> None:
    assert shared_engine.generate(replace(SHORT, prompt=chat("Be brief.", "a\ud800b\x00c"))).prompt_tokens


def test_logprobs_come_only_when_asked_and_are_cover_what_is_allowed(
    shared_engine: Engine,
) -> None:
    assert shared_engine.generate(SHORT).logprobs == ()
    asked = replace(SHORT, grammar='start: "red" | "blue"', logprobs=2)
    completion = shared_engine.generate(asked)
    assert "".join(one.text for one in completion.logprobs) == completion.text
    first = completion.logprobs[0]
    assert first.logprob == pytest.approx(first.top[0][1])
    assert all(one.logprob <= 0 for one in completion.logprobs)
    assert {text[0] for text, value in first.top if value > -20} <= {"r", "b"}


def test_a_seed_repeats_a_draw_and_different_seeds_differ(shared_engine: Engine) -> None:
    drawn = replace(SHORT, temperature=1.2, top_p=0.95, min_p=0.02, max_tokens=12)
    texts = [shared_engine.generate(replace(drawn, seed=seed)).text for seed in (1, 1, 2, 3, 4)]
    assert texts[0] == texts[1] and len(set(texts)) > 2


def test_a_completion_tells_its_lane_and_the_state_counts_it(shared_engine: Engine) -> None:
    completion = shared_engine.generate(SHORT)
    assert isinstance(completion, Completion) and completion.lane == "base"
    assert 0 <= completion.queue_ms <= completion.ttft_ms <= completion.total_ms
    time.sleep(1.5)
    state = shared_engine.state
    assert state is not None and state.lanes["base"]["done"] >= 1 and state.resident_bytes > 50_000_000
