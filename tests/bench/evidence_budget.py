"""How much evidence a prompt should hold: answer quality and time against the budget of tokens.

    python -m tests.bench.evidence_budget [--box DIR] [--most N]

Development questions of the guide that have an answer, through the whole box, with the real model. A fact is
reachable when one of the numbered sentences holds it, and told when the answer does.
"""

from __future__ import annotations

import argparse
import random
import statistics
from pathlib import Path

from whis_box.box.opening import open_box
from whis_box.config import RagConfig, load_config
from whis_box.evaluation.bench import environment
from whis_box.evaluation.golden import GoldenQuestion, has_key_facts, read_golden
from whis_box.paths import repository_root

ROOT = repository_root()
# Tokens of evidence, and sentences that such a budget can hold (about fifty tokens each).
BUDGETS = ((128, 3), (256, 5), (420, 8), (512, 10), (1024, 20), (2048, 32))


def main() -> None:
    """Print one row a budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--box", type=Path, default=ROOT / "build" / "box")
    parser.add_argument("--most", type=int, default=100)
    options = parser.parse_args()
    dev = [one for one in read_golden(ROOT / "data" / "golden" / "dev.ndjson") if one.answerable]
    questions = random.Random(4).sample(dev, min(options.most, len(dev)))
    for key, value in environment(options.box).items():
        print(f"{key}: {value}")
    print(f"{len(questions)} questions\n tokens  sentences  answered  reachable   told  p50 ms  p95 ms")
    for max_tokens, max_sentences in BUDGETS:
        print(row(options.box, questions, max_tokens, max_sentences), flush=True)


def row(box: Path, questions: list[GoldenQuestion], max_tokens: int, max_sentences: int) -> str:
    """Ask every question with one budget."""
    rag = load_config(box / "configs" / "rag.yaml", RagConfig)
    evidence = rag.evidence.model_copy(update={"max_tokens": max_tokens, "max_sentences": max_sentences})
    answered = reachable = told = 0
    times = []
    with open_box(box, rag.model_copy(update={"evidence": evidence})) as copilot:
        for question in questions:
            shown = copilot.evidence(question.question).sentences
            reachable += has_key_facts(question, " ".join(one.text for one in shown))
            answer = copilot.ask(question.question)
            answered += answer.status == "answered"
            told += answer.status == "answered" and has_key_facts(question, answer.answer)
            times.append(answer.timings.total_ms)
    n = len(questions)
    return (
        f"{max_tokens:>7}  {max_sentences:>9}  {answered / n:>8.3f}  {reachable / n:>9.3f}  "
        f"{told / n:>5.3f}  {statistics.median(times):>6.0f}  {statistics.quantiles(times, n=20)[-1]:>6.0f}"
    )


if __name__ == "__main__":
    main()
