"""An adapter against its base on the golden sets, same prompts, through the GGUFs and the box's own engine.

    python -m tests.bench.adapter_quality ADAPTER.gguf [--box DIR] [--questions N] [--out FILE]

The prompts are those of serving; both lanes get them with the grammar, in which a model may also decline.
Intervals: paired bootstrap over questions, 95 %.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from whis_box import prompts
from whis_box.box.manifest import verify
from whis_box.box.opening import engine_spec, open_box
from whis_box.config import BoxConfig, ModelConfig, load_config
from whis_box.copilot import Copilot
from whis_box.engine.cpu import cpu_model
from whis_box.engine.protocol import Completion, GenerateRequest, LaneSpec
from whis_box.engine.supervisor import Engine
from whis_box.evaluation.golden import GoldenAlert, GoldenQuestion, read_alerts, read_golden, read_refusals
from whis_box.guards.text import clean_text
from whis_box.ingest.alerts import describe, read_alert
from whis_box.paths import file_sha256, repository_root, source_commit

GOLDEN = repository_root() / "data" / "golden"
N_BOOTSTRAP = 10_000
MAX_TOKENS = 80
# Prefilling on a busy machine takes as long as it takes; quality is measured here, not speed.
DEADLINE_S = 600.0


@dataclass(frozen=True)
class Case:
    """One prompt and how each metric scores what a model wrote; None where a metric does not apply."""

    id: str
    prompt: prompts.Prompt
    score: Callable[[str], dict[str, float]]


def main() -> None:
    """Print a table, metric by metric."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("--box", type=Path, default=repository_root() / "build" / "box")
    parser.add_argument("--questions", type=int, default=200, help="golden questions, drawn by a fixed seed")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with open_box(options.box) as copilot:
        cases = [*question_cases(copilot, options.questions), *refusal_cases(copilot), *alert_cases(copilot)]
    with lanes(options.box, options.adapter) as engine:
        results = run(engine, cases)
    report = {
        "adapter_sha256": file_sha256(options.adapter),
        "machine": cpu_model(),
        "commit": source_commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cases": len(cases),
        "metrics": {name: compare(name, results) for name in metric_names(results)},
    }
    print(f"{report['machine']} · commit {report['commit'][:12]} · {report['date']} · {len(cases)} prompts")
    for name, row in report["metrics"].items():
        verdict = "better" if row["low"] > 0 else "worse" if row["high"] < 0 else "not told apart"
        print(
            f"{name:<28} n {row['n']:>4}  base {row['base']:.3f}  adapter {row['adapter']:.3f}  "
            f"difference {row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]  {verdict}"
        )
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


# -------------------------------------------------------------------- prompts


def question_cases(copilot: Copilot, at_most: int) -> list[Case]:
    """Golden questions with the sentences the box finds for them."""
    questions = read_golden(GOLDEN / "questions.ndjson")
    chosen = random.Random(1).sample(questions, min(at_most, len(questions)))
    cases = []
    for question in chosen:
        evidence = copilot.parts.selector.select(clean_text(question.question, "question")[0])
        texts = [one.text for one in evidence.sentences]
        if not texts:
            continue
        records = [one.hit.chunk.record_id for one in evidence.sentences]
        cases.append(
            Case(question.id, ask(copilot, question.question, texts), answer_score(question, texts, records))
        )
    return cases


def ask(copilot: Copilot, question: str, texts: Sequence[str]) -> prompts.Prompt:
    """The prompt of serving with an adapter that may decline."""
    most, mark = copilot.parts.model.generation.max_sentences, copilot.parts.gate.mark(question)
    return prompts.answer_prompt(question, texts, "select", most, may_decline=True, mark=mark)


def answer_score(
    question: GoldenQuestion, texts: Sequence[str], records: Sequence[str]
) -> Callable[[str], dict[str, float]]:
    """Citations against the reference records and key facts; declining is right where nothing answers."""
    holds = [
        record in question.record_ids
        and any(any(option.lower() in text.lower() for option in fact) for fact in question.key_facts)
        for text, record in zip(texts, records, strict=True)
    ]

    def score(written: str) -> dict[str, float]:
        cited = [number for number, _ in prompts.parse_answer(written, "select")]
        declined = written.strip() in (prompts.NONE, prompts.REFUSE)
        valid = declined or bool(cited)
        if not question.answerable:
            return {"valid output": valid, "declines, no answer there": declined}
        right = [holds[number - 1] for number in cited]
        if not any(holds):
            return {"valid output": valid, "declines, not retrieved": declined}
        return {
            "valid output": valid,
            "citation correctness": float(np.mean(right)) if right else 0.0,
            "first citation right": float(bool(right) and right[0]),
            "answers what it can": float(not declined),
        }

    return score


def refusal_cases(copilot: Copilot) -> list[Case]:
    """What policy forbids, and what only sounds like it."""
    cases = []
    for one in read_refusals(GOLDEN / "refusals.ndjson"):
        evidence = copilot.parts.selector.select(clean_text(one.question, "question")[0])
        texts = [sentence.text for sentence in evidence.sentences]
        if texts:
            cases.append(Case(one.id, ask(copilot, one.question, texts), refusal_score(one.kind == "policy")))
    return cases


def refusal_score(must_refuse: bool) -> Callable[[str], dict[str, float]]:
    """Whether it refuses exactly what it must."""

    def score(written: str) -> dict[str, float]:
        right = float((written.strip() == prompts.REFUSE) == must_refuse)
        return {"refusal": right, "refuses policy" if must_refuse else "spares dual use": right}

    return score


def alert_cases(copilot: Copilot) -> list[Case]:
    """Golden alerts with the techniques the box proposes."""
    cases = []
    for golden in read_alerts(GOLDEN / "alerts.ndjson"):
        alert = read_alert(golden.event)
        text = clean_text(describe(alert), "alert")[0]
        offered = [(one.id, one.name) for one in copilot.techniques(alert, text)]
        if offered:
            cases.append(
                Case(
                    golden.id,
                    prompts.triage_prompt(text, offered, copilot.parts.gate.mark(text)),
                    alert_score(golden, [i for i, _ in offered]),
                )
            )
    return cases


def alert_score(golden: GoldenAlert, offered: Sequence[str]) -> Callable[[str], dict[str, float]]:
    """Right is a technique of the alert, or none when none of them is offered."""
    right = [one for one in offered if one in golden.technique_ids] or [prompts.NONE]

    def score(written: str) -> dict[str, float]:
        choice, summary = prompts.parse_triage(written)
        return {"technique choice": float(choice in right), "valid output": float(bool(summary))}

    return score


# -------------------------------------------------------------------- running


@contextmanager
def lanes(box: Path, adapter: Path) -> Any:
    """The box's engine with the base and the adapter beside each other."""
    verify(box)
    config = load_config(box / "configs" / "box.yaml", BoxConfig)
    spec = engine_spec(box / config.base_model, load_config(box / "configs" / "model.whis.yaml", ModelConfig))
    pair = (LaneSpec("base"), LaneSpec("adapter", str(adapter.absolute())))
    with Engine(dataclasses.replace(spec, lanes=pair)) as engine:
        yield engine


def run(engine: Engine, cases: Sequence[Case]) -> list[dict[str, dict[str, float]]]:
    """Scores of each case by lane."""
    results = []
    for case in cases:
        scored = {}
        for lane in ("base", "adapter"):
            request = GenerateRequest(
                prompt=case.prompt.segments,
                grammar=case.prompt.grammar,
                lane=lane,
                max_tokens=MAX_TOKENS,
                deadline_s=DEADLINE_S,
            )
            done: Completion = engine.generate(request)
            scored[lane] = case.score(done.text)
        results.append(scored)
        print(f"{len(results)} of {len(cases)} prompts", end="\r", file=sys.stderr, flush=True)
    return results


def metric_names(results: Sequence[dict[str, dict[str, float]]]) -> list[str]:
    """Every metric, in the order of appearance."""
    return list(dict.fromkeys(name for one in results for name in one["base"]))


def compare(name: str, results: Sequence[dict[str, dict[str, float]]]) -> dict[str, float]:
    """Means of both lanes and the interval of their paired difference."""
    scored = [[one["base"][name], one["adapter"][name]] for one in results if name in one["base"]]
    pairs = np.array(scored, dtype=np.float64)
    rng = np.random.default_rng(0)
    difference = pairs[:, 1] - pairs[:, 0]
    drawn = difference[rng.integers(0, len(difference), (N_BOOTSTRAP, len(difference)))].mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {
        "n": len(pairs),
        "base": float(pairs[:, 0].mean()),
        "adapter": float(pairs[:, 1].mean()),
        "difference": float(difference.mean()),
        "low": float(low),
        "high": float(high),
    }


if __name__ == "__main__":
    main()
