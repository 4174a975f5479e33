"""ragas itself beside our definitions, and what becomes of a judge that talks nonsense.

Needs ragas in its own environment (`make ragas`), so it is marked e2e; the judge is scripted, no model runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from nltk.stem import PorterStemmer

from tests.evaluation_fakes import embed
from whis_box.evaluation.judge import JudgeFailedError
from whis_box.evaluation.judging import semantic_similarity
from whis_box.evaluation.metrics import overlap, ranking
from whis_box.evaluation.ragas_process import Ragas

pytestmark = pytest.mark.e2e
CLOSE = 1e-6
PAIRS = [
    ("Event 1102 is written when the audit log is cleared.", "Event 1102 shows a cleared audit log."),
    ("Logon type 10 is RDP.", "Logon type 10 is a RemoteInteractive logon, which RDP produces."),
    ("T1059.001 is PowerShell", "T1059.001, PowerShell, is a sub-technique of T1059"),
    ("nothing in common", "Sysmon event 10: process access"),
]
CONTEXTS = ["Event 1102 is written to the Security log.", "Sysmon event 10 is process access.", "Other."]


class ScriptedJudge:
    """Says what it was told to, whatever it is asked."""

    def __init__(self, *replies: Any) -> None:
        self.replies = list(replies)

    def judge(self, prompt: str, schema: dict[str, Any]) -> str:
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply if isinstance(reply, str) else json.dumps(reply)


@pytest.fixture(scope="module")
def judge() -> ScriptedJudge:
    return ScriptedJudge()


@pytest.fixture(scope="module")
def ragas(judge: ScriptedJudge) -> Iterator[Ragas]:
    with Ragas(embed, judge) as process:
        yield process


def ask(ragas: Ragas, metric: str, **sample: Any) -> float:
    value, error = ragas.score(metric, sample)
    assert value is not None, error
    return value


@pytest.mark.parametrize(("response", "reference"), PAIRS)
def test_our_text_metrics_are_ragas_own(ragas: Ragas, response: str, reference: str) -> None:
    texts = {"response": response, "reference": reference}
    mine = {
        "string_similarity": overlap.string_similarity(response, reference),
        "rouge_l": overlap.rouge_l(response, reference, PorterStemmer().stem),
        "bleu": overlap.corpus_bleu([response], [reference]),
        "semantic_similarity": semantic_similarity(embed, response, reference),
        "exact_match": float(response == reference),
    }
    theirs = {name: ask(ragas, name, **texts) for name in mine}
    assert mine == pytest.approx(theirs, abs=CLOSE)


@pytest.mark.parametrize(
    ("retrieved", "reference"), [("abc", "a"), ("aab", "abz"), ("xyz", "a"), ("ab", "ab")]
)
def test_our_id_metrics_are_ragas_own(ragas: Ragas, retrieved: str, reference: str) -> None:
    sample = {"retrieved_context_ids": list(retrieved), "reference_context_ids": list(reference)}
    precision, recall = (ask(ragas, f"id_context_{name}", **sample) for name in ("precision", "recall"))
    assert ranking.id_context_precision(retrieved, reference) == pytest.approx(precision, abs=CLOSE)
    assert ranking.id_context_recall(retrieved, reference) == pytest.approx(recall, abs=CLOSE)


@pytest.mark.parametrize("verdicts", [(1, 0, 1), (0, 0, 1), (1, 1, 1), (0, 0, 0)])
def test_our_context_precision_is_ragas_own_for_the_same_verdicts(
    ragas: Ragas, judge: ScriptedJudge, verdicts: tuple[int, ...]
) -> None:
    judge.replies = [{"reason": "r", "verdict": one} for one in verdicts]
    value = ask(ragas, "context_precision", user_input="q", reference="a", retrieved_contexts=CONTEXTS)
    assert ranking.context_precision([bool(one) for one in verdicts]) == pytest.approx(value, abs=CLOSE)


def test_faithfulness_recall_and_relevancy_go_through_the_judge(ragas: Ragas, judge: ScriptedJudge) -> None:
    verdicts = [{"statement": f"s{n}", "reason": "r", "verdict": n % 2} for n in range(4)]
    judge.replies = [{"statements": ["s0", "s1", "s2", "s3"]}, {"statements": verdicts}]
    sample = {"user_input": "q", "response": "r", "retrieved_contexts": CONTEXTS}
    assert ask(ragas, "faithfulness", **sample) == 0.5
    judge.replies = [
        {"classifications": [{"statement": "s", "reason": "r", "attributed": n} for n in (1, 1, 0)]}
    ]
    sample = {"user_input": "q", "reference": "a", "retrieved_contexts": CONTEXTS}
    assert ask(ragas, "context_recall", **sample) == pytest.approx(2 / 3)
    judge.replies = [{"question": "Which event is it?", "noncommittal": 0}] * 3
    assert ask(ragas, "answer_relevancy", user_input="Which event is it?", response="1102") == pytest.approx(
        1, abs=1e-5
    )


@pytest.mark.parametrize(
    "nonsense",
    ["no JSON at all", "{}", {"statements": "x"}, {"statements": []}, JudgeFailedError("it fell asleep")],
)
def test_a_judge_that_talks_nonsense_gives_no_score_but_a_reason(
    ragas: Ragas, judge: ScriptedJudge, nonsense: object
) -> None:
    judge.replies = [nonsense]
    sample = {"user_input": "q", "response": "r", "retrieved_contexts": CONTEXTS}
    value, error = ragas.score("faithfulness", sample)
    assert value is None and error


def test_empty_contexts_are_a_failure_and_no_score(ragas: Ragas) -> None:
    value, error = ragas.score("faithfulness", {"user_input": "q", "response": "r", "retrieved_contexts": []})
    assert value is None and "retrieved_contexts is missing" in error
