"""The options of a prompt: where each ends, whether it is right, what it weighs."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from train.dataset_tasks import Example, Task
from train.options import RIGHT, WRONG, judged_options
from train.packing import make_row
from train.samples import to_samples
from whis_box.prompts import NONE, Prompt, answer_prompt, triage_prompt

FACTS = ["Event 4625 is a failed logon.", "Event 1102 is a cleared log.", "Event 4624 is a logon."]


def example(task: Task, prompt: Prompt, completion: str) -> Example:
    return Example(
        id="0" * 16,
        task=task,
        split="train",
        record_ids=[],
        segments=list(prompt.segments),
        completion=completion,
    )


def judged_lines(made: Example) -> list[str]:
    text = "".join(part for part, _ in made.segments)
    ends = [one.position + 1 for one in judged_options(made, tokens_of, 1.0)]
    return [text[:end].rpartition("\n")[2] for end in ends]


def targets(made: Example) -> list[int]:
    return [one.target for one in judged_options(made, tokens_of, 1.0)]


def tokens_of(segments: Sequence[tuple[str, bool]]) -> list[int]:
    """Characters, but the two verdicts are one token each."""
    text = "".join(part for part, _ in segments)
    return [{RIGHT: -1, WRONG: -2}[text]] if text in (RIGHT, WRONG) else [ord(one) for one in text]


def test_every_fact_is_judged_at_its_end_and_the_cited_ones_are_right() -> None:
    made = example("grounded_qa", answer_prompt("q?", FACTS, "select", 2, True, mark="ab"), "[1][3]\n")
    assert judged_lines(made) == [f"[{n}] {fact}" for n, fact in enumerate(FACTS, 1)]
    assert targets(made) == [-1, -2, -1]
    assert [one.weight for one in judged_options(made, tokens_of, 1.0)] == pytest.approx([0.25, 0.5, 0.25])


def test_without_an_answer_all_are_wrong_and_weigh_the_whole_share() -> None:
    made = example("unanswerable", answer_prompt("q?", FACTS, "select", 1, True), f"{NONE}\n")
    assert targets(made) == [-2, -2, -2]
    assert sum(one.weight for one in judged_options(made, tokens_of, 0.6)) == pytest.approx(0.6)


def test_techniques_are_judged_behind_the_alert_and_none_is_one_of_them() -> None:
    offered = [("T1003.001", "LSASS Memory"), ("T1059", "Command and Scripting Interpreter")]
    prompt = triage_prompt("T1003.001 stands in the alert\nnone of it counts", offered)
    made = example("triage", prompt, "Technique: T1059\nSummary: A shell ran.\n")
    assert judged_lines(made) == [
        "T1003.001 LSASS Memory",
        "T1059 Command and Scripting Interpreter",
        "none",
    ]
    assert targets(made) == [-2, -1, -2]
    none = example("triage", prompt, "Technique: none\nSummary: A shell ran.\n")
    assert targets(none) == [-2, -2, -1]


def test_a_prompt_without_options_is_judged_nowhere() -> None:
    made = example("refusal", answer_prompt("q?", [], "select", 1, True), "refuse\n")
    assert judged_options(made, tokens_of, 1.0) == ()


def test_a_row_asks_at_the_options_of_its_own_sample() -> None:
    made = [
        example("grounded_qa", answer_prompt("first?", FACTS, "select", 1, True), "[2]\n"),
        example("grounded_qa", answer_prompt("second?", FACTS[:2], "select", 1, True), "[1]\n"),
    ]
    samples = to_samples(made, tokens_of, 10_000, options_share=1.0)
    row = make_row(samples)
    asked = (row.targets == -1) | (row.targets == -2)
    ends = [chr(int(row.input_ids[0, at])) for at in row.answer_rows[asked]]
    assert ends == ["."] * 5
    assert row.sample_of[asked].tolist() == [0, 0, 0, 1, 1]
    assert torch.bincount(row.sample_of, row.weights).tolist() == pytest.approx([2.0, 2.0])
    chosen = "".join(chr(int(one)) for one in row.targets[row.chooses])
    assert chosen == "[2][1]"
