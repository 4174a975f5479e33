"""`whis bench`: the engine beside raw libllama, the golden set end to end, and a cold start.

Invariant: a figure is the median of several runs and stands beside its limit; one that was not measured
says so.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from whis_box.box.manifest import read_manifest
from whis_box.box.opening import engine_spec, open_box
from whis_box.config import BoxConfig, ModelConfig, load_config
from whis_box.copilot import Copilot
from whis_box.engine import cpu
from whis_box.engine.protocol import EngineSpec, GenerateRequest
from whis_box.engine.supervisor import Engine
from whis_box.errors import EngineError
from whis_box.evaluation.golden import GoldenQuestion, has_key_facts, is_hit, quotes_verbatim, read_golden
from whis_box.ingest.pipeline import read_folder
from whis_box.paths import source_commit
from whis_box.prompts import answer_prompt, chat
from whis_box.show import progress

GENERATED_TOKENS = 128
PAIRS_PER_RUN = 4
COLD_QUESTION = "Which Windows event ID is logged when the audit log is cleared?"
STORY = "Write a long story about a lighthouse keeper, a storm, a lost ship and the years that followed."


@dataclass(frozen=True)
class Figure:
    """One row: `met` is None when there is no limit."""

    name: str
    value: str
    limit: str
    met: bool | None


def run(box: Path, golden: Path, runs: int, only: set[str]) -> dict[str, Any]:
    """Measure; `only` picks parts of {"engine", "golden", "start"}, empty means all.

    Raises: as `open_box`; InputError for bad golden files.
    """
    parts: dict[str, Callable[[], list[Figure]]] = {
        "engine": lambda: _engine_figures(box, runs),
        "golden": lambda: _golden_figures(box, golden),
        "start": lambda: _start_figures(box, runs),
    }
    figures = [figure for name, part in parts.items() if not only or name in only for figure in part()]
    return {"environment": environment(box), "figures": [asdict(figure) for figure in figures]}


def environment(box: Path) -> dict[str, str]:
    """Where and on what a figure was taken."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": f"{cpu.cpu_model()}, {cpu.thread_count()} threads",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "commit": source_commit(),
        "box": read_manifest(box)[1],
    }


# ------------------------------------------------------------------ engine


def _engine_figures(box: Path, runs: int) -> list[Figure]:
    config = load_config(box / "configs" / "box.yaml", BoxConfig)
    spec = engine_spec(box / config.base_model, load_config(box / "configs" / "model.whis.yaml", ModelConfig))
    spec = replace(spec, n_draft=0)  # the peer guesses nothing ahead either
    pairs = _speed_pairs(spec, PAIRS_PER_RUN * runs)
    raw, ours = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    free, constrained = _grammar_tokens_per_s(spec, runs)
    ratio = statistics.median(mine / peer for peer, mine in pairs)
    cost = 1.0 - statistics.median(constrained) / statistics.median(free)
    return [
        Figure("raw libllama, one stream, tokens/s (median)", f"{statistics.median(raw):.1f}", "-", None),
        Figure("engine, one stream, tokens/s (median)", f"{statistics.median(ours):.1f}", "-", None),
        Figure("engine / raw (median of pairs)", f"{ratio:.3f}", ">= 0.95", ratio >= 0.95),
        Figure(
            "free decoding of an answer prompt, tokens/s (median)",
            f"{statistics.median(free):.1f}",
            "-",
            None,
        ),
        Figure("constrained decoding, tokens/s (median)", f"{statistics.median(constrained):.1f}", "-", None),
        Figure("cost of the constraint", f"{100 * cost:.1f} %", "<= 10 %", cost <= 0.10),
    ]


def _speed_pairs(spec: EngineSpec, n_pairs: int) -> list[tuple[float, float]]:
    """(raw, engine) tokens/s of one generation in turn, both processes alive, so that drift hits both."""
    prompt = chat("You are a writer.", STORY)
    fields = asdict(spec) | {"prompt": "".join(text for text, _ in prompt), "n_tokens": GENERATED_TOKENS}
    command = [sys.executable, "-m", "whis_box.evaluation.raw_libllama", json.dumps(fields)]
    request = GenerateRequest(prompt, max_tokens=GENERATED_TOKENS)
    environment = cpu.child_environment()
    pairs = []
    with (
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        ) as peer,
        Engine(spec) as engine,
    ):
        for done in range(n_pairs + 1):
            pair = (_raw_rate(peer), _rate(engine, request))
            if done > 0:  # the first is a warm-up
                pairs.append(pair)
                progress(done, n_pairs, "engine beside raw libllama")
    return pairs


def _raw_rate(peer: subprocess.Popen[str]) -> float:
    assert peer.stdin is not None and peer.stdout is not None
    peer.stdin.write("go\n")
    peer.stdin.flush()
    line = peer.stdout.readline()
    if not line:
        raise EngineError("the raw libllama process ended early; run it by hand to see its message")
    return float(line)


def _grammar_tokens_per_s(spec: EngineSpec, runs: int) -> tuple[list[float], list[float]]:
    """The same prompt, free and under the real answer grammar, in turn."""
    facts = [
        "Event 1102 is written to the Security log when the audit log is cleared.",
        "Event 104 is written to the System log when another log is cleared.",
        "Clearing logs is technique T1070.001, Clear Windows Event Logs.",
    ]
    prompt = answer_prompt("How do I notice that somebody cleared the logs?", facts, "compose", max_lines=3)
    free = GenerateRequest(prompt.segments, max_tokens=GENERATED_TOKENS)
    constrained = GenerateRequest(prompt.segments, prompt.grammar, max_tokens=GENERATED_TOKENS)
    with Engine(spec) as engine:
        for request in (free, constrained):
            engine.generate(request)
        pairs = [(_rate(engine, free), _rate(engine, constrained)) for _ in range(3 * runs)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _rate(engine: Engine, request: GenerateRequest) -> float:
    """Tokens per second after the first token."""
    completion = engine.generate(request)
    return (completion.completion_tokens - 1) / (completion.total_ms - completion.ttft_ms) * 1000


# ------------------------------------------------------------------ golden


def _golden_figures(box: Path, golden: Path) -> list[Figure]:
    questions = read_golden(golden)
    guide = golden.resolve().parent.parent / "raw"
    records = {record.id: record for record in read_folder(guide)}
    with open_box(box) as copilot:
        copilot.ask(COLD_QUESTION)  # a warm-up; the cold start is measured on its own
        rows = []
        for done, question in enumerate(questions, start=1):
            rows.append(_ask_golden(copilot, question, records))
            progress(done, len(questions), question.id)
        memory_mb = peak_memory_mb(copilot.engine_pid)
    return _golden_table(questions, rows, memory_mb)


@dataclass(frozen=True)
class _Row:
    seconds: float
    hit: bool
    answered: bool
    verbatim: bool
    facts: bool


def _ask_golden(copilot: Copilot, question: GoldenQuestion, records: dict[str, Any]) -> _Row:
    started = time.perf_counter()
    answer = copilot.ask(question.question)
    seconds = time.perf_counter() - started
    return _Row(
        seconds=seconds,
        hit=is_hit(question, copilot.search(question.question, 5), 5),
        answered=answer.status == "answered",
        verbatim=quotes_verbatim(answer, records),
        facts=answer.status == "answered" and has_key_facts(question, answer.answer),
    )


def _golden_table(questions: list[GoldenQuestion], rows: list[_Row], memory_mb: float) -> list[Figure]:
    pairs = list(zip(questions, rows, strict=True))
    answerable = [row for question, row in pairs if question.answerable]
    unanswerable = [row for question, row in pairs if not question.answerable]
    seconds = sorted(row.seconds for row in rows)
    p50, p95 = statistics.median(seconds), seconds[min(len(seconds) - 1, int(0.95 * len(seconds)))]
    hit = sum(row.hit for row in answerable) / len(answerable)
    refused = sum(not row.answered for row in unanswerable)
    needed = round(len(unanswerable) * 13 / 15)
    verbatim = sum(row.verbatim for row in rows)
    answered = sum(row.answered for row in answerable)
    facts = sum(row.facts for row in answerable)
    return [
        Figure(
            "golden questions, answerable / unanswerable",
            f"{len(answerable)} / {len(unanswerable)}",
            "-",
            None,
        ),
        Figure("end to end p50", f"{p50:.2f} s", "<= 1.8 s", p50 <= 1.8),
        Figure("end to end p95", f"{p95:.2f} s", "<= 3.0 s", p95 <= 3.0),
        Figure("hit@5", f"{hit:.3f}", ">= 0.92", hit >= 0.92),
        Figure(
            "answers whose quotes are all verbatim", f"{verbatim}/{len(rows)}", "all", verbatim == len(rows)
        ),
        Figure(
            "unanswerable questions refused",
            f"{refused}/{len(unanswerable)}",
            f">= {needed}",
            refused >= needed,
        ),
        Figure("answerable questions answered", f"{answered}/{len(answerable)}", "-", None),
        Figure(
            "answerable questions whose answer holds the key facts", f"{facts}/{len(answerable)}", "-", None
        ),
        Figure(
            "peak memory, program and engine together", f"{memory_mb:.0f} MB", "<= 800 MB", memory_mb <= 800
        ),
    ]


def peak_memory_mb(engine_pid: int | None) -> float:
    """Sum of both processes' peak resident sets; pages they share count twice, so this is an upper bound."""
    total_kb = 0
    for pid in (os.getpid(), engine_pid):
        status = Path(f"/proc/{pid}/status").read_text()
        total_kb += int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
    return total_kb / 1000


# ------------------------------------------------------------------- start


def _start_figures(box: Path, runs: int) -> list[Figure]:
    command = [sys.executable, "-m", "whis_box.cli", "ask", "--json", "--box", str(box), COLD_QUESTION]
    seconds = []
    for done in range(1, runs + 1):
        started = time.perf_counter()
        completed = subprocess.run(command, capture_output=True, text=True)
        if completed.returncode != 0:
            raise EngineError(f"the cold start failed: {completed.stderr.strip()}")
        seconds.append(time.perf_counter() - started)
        progress(done, runs, "start to first answer")
    median = statistics.median(seconds)
    return [
        Figure(
            "start of the program to the end of its first answer", f"{median:.2f} s", "<= 5 s", median <= 5.0
        )
    ]
