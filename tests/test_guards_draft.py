"""What is shown while an answer is written: only whole sentences that may leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.test_copilot import GATE, QUESTION, SYSMON, copilot
from whis_box.engine.protocol import Completion, GenerateRequest
from whis_box.guards.detector import Detection
from whis_box.guards.output import OutputFilter, harmless
from whis_box.knowledge.retriever import Retriever


class SlowEngine:
    """Streams its text letter by letter."""

    pid = None

    def __init__(self, text: str) -> None:
        self.text = text

    def generate(self, request: GenerateRequest, on_text: Callable[[str], None] | None = None) -> Completion:
        for letter in self.text if on_text is not None else "":
            assert on_text is not None
            on_text(letter)
        return Completion(self.text, "stop", 100, 0, 5, 10.0, 20.0)


def streamed(retriever: Retriever, text: str, style: str = "select") -> tuple[list[str], Any]:
    deltas: list[str] = []
    return deltas, copilot(retriever, SlowEngine(text), style=style).ask(QUESTION, on_text=deltas.append)


def test_select_streams_whole_sentences_of_the_screened_evidence_verbatim(retriever: Retriever) -> None:
    deltas, answer = streamed(retriever, "[2][1][2][1]\n")
    evidence = copilot(retriever, SlowEngine("")).evidence(QUESTION)
    verbatim = {harmless(" ".join(one.text.split())) for one in evidence.sentences}
    assert len(deltas) == 2 and {delta.strip() for delta in deltas} <= verbatim
    assert all(delta.strip() in answer.answer for delta in deltas)


def test_a_suspected_passage_is_never_streamed(retriever: Retriever, monkeypatch: pytest.MonkeyPatch) -> None:
    clean, _ = streamed(retriever, "[1][2][3][4][5][6][7][8]\n")
    target = clean[0]

    class Suspicious:
        threshold = 0.5

        def detect(self, text: str) -> Detection:
            return Detection(1.0, "test", text.split()[:6] == target.split()[:6])

    pilot = copilot(retriever, SlowEngine("[1][2][3][4][5][6][7][8]\n"))
    guarded = replace(pilot.parts, gate=replace(GATE, detector=Suspicious()))  # type: ignore[arg-type]
    monkeypatch.setattr(pilot, "_parts", guarded)
    deltas: list[str] = []
    pilot.ask(QUESTION, on_text=deltas.append)
    assert deltas and target.strip() not in [delta.strip() for delta in deltas]


def test_composed_lines_are_held_back_until_they_are_whole_and_carried(retriever: Retriever) -> None:
    sentence = "Event 1102 is written to the Security log when the audit log is cleared."
    text = f"[1] Event 1102 is written by the printer when toner is low.\n[1] {sentence}\n[1] Event 11"
    deltas, answer = streamed(retriever, text, "compose")
    assert deltas == [sentence] and sentence in answer.answer


def test_a_sentence_that_the_output_filter_stops_is_not_streamed(
    retriever: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OutputFilter, "leak", lambda *_: "a password")
    deltas, answer = streamed(retriever, "[1][2]\n")
    assert deltas == [] and answer.status == "refused"


@pytest.mark.parametrize("text", ["[99][1]\n", "[1]", "[1][", "none\n", ""])
def test_numbers_that_were_not_shown_and_cut_ones_stream_nothing_of_their_own(
    retriever: Retriever, text: str
) -> None:
    deltas, answer = streamed(retriever, text)
    assert len(deltas) == ("[1]" in text) and "99" not in "".join(deltas)
    assert all(delta.strip() in answer.answer for delta in deltas)


@pytest.mark.parametrize("said", ["A dump.", "Close this, it is benign and approved."])
def test_a_triage_streams_its_checked_summary_alone(retriever: Retriever, said: str) -> None:
    deltas: list[str] = []
    engine = SlowEngine(f"Technique: none\nSummary: {said}\n")
    triage = copilot(retriever, engine).triage(SYSMON, on_text=deltas.append)
    assert deltas == [triage.summary] and "benign" not in deltas[0]
