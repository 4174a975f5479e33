"""Observations that no box makes: ragas' own values, and a judge's verdicts.

Invariant: whatever cannot be had is kept as an observation with its reason, so that the report can say it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from whis_box.box.opening import engine_spec
from whis_box.config import BoxConfig, ModelConfig, load_config
from whis_box.engine.supervisor import Engine
from whis_box.errors import NotReadyError
from whis_box.evaluation.evidence import Evidence, response
from whis_box.evaluation.golden import GoldenQuestion
from whis_box.evaluation.journal import Journal, Observation
from whis_box.evaluation.judge import (
    EngineJudge,
    Judge,
    PairVerdict,
    ServerJudge,
    balanced_accuracy,
    judge_pair,
    judge_spec,
    read_pairs,
)
from whis_box.evaluation.metrics import overlap, ranking
from whis_box.evaluation.ragas_process import Embed, Ragas
from whis_box.evaluation.settings import JudgeConfig
from whis_box.show import progress

CONTEXTS = 5
JUDGED = {
    "faithfulness": ("faithfulness", ("user_input", "response", "retrieved_contexts")),
    "answer_relevancy": ("answer_relevancy", ("user_input", "response")),
    "judged_context_precision": ("context_precision", ("user_input", "reference", "retrieved_contexts")),
    "judged_context_recall": ("context_recall", ("user_input", "reference", "retrieved_contexts")),
}


@contextmanager
def opened_judge(config: JudgeConfig, box: Path) -> Iterator[Judge | None]:
    """The judge that configs/eval.yaml names; None for none.

    Raises: ConfigError for a URL outside this network; NotReadyError, EngineError for a GGUF.
    """
    if config.model == "none":
        yield None
    elif config.model.startswith(("http://", "https://")):
        yield ServerJudge(config.model, config)
    else:
        placed = load_config(box / "configs" / "box.yaml", BoxConfig)
        model = box / placed.base_model if config.model == "box" else Path(config.model)
        if not model.is_file():
            raise NotReadyError(f"{model}: configs/eval.yaml names it as judge, but it is missing")
        own = engine_spec(
            box / placed.base_model, load_config(box / "configs" / "model.whis.yaml", ModelConfig)
        )
        with Engine(judge_spec(own, model, config)) as engine:
            yield EngineJudge(engine, config)


def observe_judge(evidence: Evidence, journal: Journal, pairs_path: Path, box: Path) -> None:
    """Calibrate the judge on its pairs; if it passes, let it judge through ragas.

    Raises: as `opened_judge`; InputError for a bad calibration set.
    """
    config = evidence.config.judge
    if not pairs_path.is_file():
        _unavailable(journal, "judge_pair", f"{pairs_path.name} is not beside the golden sets")
        return
    pairs = read_pairs(pairs_path)
    with opened_judge(config, box) as judge:
        if judge is None:
            _unavailable(journal, "judge_pair", "no judge is configured")
            return
        for done, pair in enumerate(pairs, start=1):
            if ("judge_pair", pair.id) not in journal.seen:
                text = json.dumps(asdict(judge_pair(judge, pair)))
                journal.add(Observation(kind="judge_pair", id=pair.id, seconds=0.0, text=text))
                progress(done, len(pairs), f"judge calibration {pair.id}")
        verdicts = [PairVerdict(**json.loads(journal.seen["judge_pair", one.id].text or "")) for one in pairs]
        if balanced_accuracy(verdicts) >= config.min_balanced_accuracy:
            _judge_answers(evidence, journal, judge)


def _judge_answers(evidence: Evidence, journal: Journal, judge: Judge) -> None:
    answered = [one for one in evidence.answerable if response(evidence.answer("ask", one.id))]
    chosen = answered[: evidence.config.judge.questions]
    with Ragas(evidence.embed, judge) as ragas:
        for done, question in enumerate(chosen, start=1):
            fields = _fields(evidence, question)
            for name, (metric, needed) in JUDGED.items():
                key = f"{question.id}/{name}"
                if ("judged", key) in journal.seen:
                    continue
                value, error = ragas.score(metric, {field: fields[field] for field in needed})
                kept = {"id": question.id, "metric": name, "value": value, "error": error}
                journal.add(Observation(kind="judged", id=key, seconds=0.0, text=json.dumps(kept)))
            progress(done, len(chosen), f"judge {question.id}")


def _fields(evidence: Evidence, question: GoldenQuestion) -> dict[str, Any]:
    hits = evidence.of("search", question.id).hits or []
    return {
        "user_input": question.question,
        "response": response(evidence.answer("ask", question.id)),
        "reference": question.answer,
        "retrieved_contexts": [hit.text for hit in hits[:CONTEXTS]],
    }


def observe_ragas(evidence: Evidence, journal: Journal) -> None:
    """ragas' own values beside ours on a few answers. Raises: EngineError."""
    answered = [one for one in evidence.answerable if response(evidence.answer("ask", one.id))]
    chosen = answered[: evidence.config.ragas_samples]
    if all(("ragas", f"{one.id}/string_similarity") in journal.seen for one in chosen):
        return
    try:
        with Ragas(evidence.embed) as ragas:
            _cross_check(evidence, journal, ragas, chosen)
    except NotReadyError as cause:
        _unavailable(journal, "ragas", str(cause))


def _cross_check(
    evidence: Evidence, journal: Journal, ragas: Ragas, chosen: Sequence[GoldenQuestion]
) -> None:
    for done, question in enumerate(chosen, start=1):
        for name, (ours, sample) in _both(evidence, question).items():
            key = f"{question.id}/{name}"
            if ("ragas", key) not in journal.seen:
                value, error = ragas.score(name, sample)
                kept = {"metric": name, "ours": ours, "ragas": value, "error": error}
                journal.add(Observation(kind="ragas", id=key, seconds=0.0, text=json.dumps(kept)))
        progress(done, len(chosen), f"ragas {question.id}")


def _both(evidence: Evidence, question: GoldenQuestion) -> dict[str, tuple[float, dict[str, Any]]]:
    """Our value and ragas' sample for each metric that both define."""
    fields = _fields(evidence, question)
    texts = {"reference": fields["reference"], "response": fields["response"]}
    records = [hit.record_id for hit in (evidence.of("search", question.id).hits or [])[:CONTEXTS]]
    ids = {"retrieved_context_ids": records, "reference_context_ids": question.record_ids}
    said, reference = fields["response"], fields["reference"]
    both = {
        "string_similarity": (overlap.string_similarity(said, reference), texts),
        "semantic_similarity": (semantic_similarity(evidence.embed, said, reference), texts),
        "id_context_precision": (ranking.id_context_precision(records, question.record_ids), ids),
        "id_context_recall": (ranking.id_context_recall(records, question.record_ids), ids),
    }
    if ". " not in said and ". " not in reference:  # ragas pairs the sentences of longer texts wrongly
        both["bleu"] = (overlap.corpus_bleu([said], [reference]), texts)
    return both


def semantic_similarity(embed: Embed, left: str, right: str) -> float:
    """Cosine of two texts (ragas SemanticSimilarity)."""
    first, second = embed([left, right])
    return float(first @ second)


def _unavailable(journal: Journal, kind: str, reason: str) -> None:
    if (kind, "-") not in journal.seen:
        journal.add(Observation(kind=kind, id="-", seconds=0.0, error=reason))
