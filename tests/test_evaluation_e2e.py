"""The gate of configs/eval.yaml against the real box and against boxes that are broken on purpose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.evaluation_broken import configs_without_guards, shuffled_index, small_golden, spoiling_adapter
from whis_box import prompts
from whis_box.box.opening import read_lineage
from whis_box.config import load_config
from whis_box.errors import InputError, VerificationError
from whis_box.evaluation.compare import compare_runs
from whis_box.evaluation.gate import gate_run
from whis_box.evaluation.heldout import Sample
from whis_box.evaluation.report import write_report
from whis_box.evaluation.results import RunResult
from whis_box.evaluation.run import Settings, run
from whis_box.evaluation.settings import EvalConfig
from whis_box.evaluation.subject import Subject, parse_subject
from whis_box.gates import GATE_FILE, GateFile, require_gate
from whis_box.paths import repository_root

pytestmark = pytest.mark.e2e
# What a gate asks of a few questions in a test: speed belongs to benchmarks and attacks to the guards' tests,
# and of fourteen questions two misses are no sign of anything.
NOT_HERE = ("latency.", "guards.attack_success")
ENOUGH_HITS = 0.75
SUITES = ("retrieval", "answers", "ragas", "triage", "guards", "leakage")


def rules() -> EvalConfig:
    config = load_config(repository_root() / "configs" / "eval.yaml", EvalConfig)
    kept = [one for one in config.gates if not one.metric.startswith(NOT_HERE)]
    few = {"judged_by": "value", "at_least": ENOUGH_HITS}
    kept = [one.model_copy(update=few) if one.metric == "retrieval.hit@5" else one for one in kept]
    judge = config.judge.model_copy(update={"model": "none"})
    return config.model_copy(update={"gates": kept, "judge": judge, "ragas_samples": 2})


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("evaluation")
    golden = small_golden(folder / "golden", n_questions=14, n_unanswerable=5, n_others=2)
    return Settings(rules(), golden, folder / "no-dataset", folder / "runs", SUITES)


@pytest.fixture(scope="module")
def good(settings: Settings) -> tuple[RunResult, Path, GateFile]:
    box = repository_root() / "build" / "box"
    result, folder = run(Subject("box", box), settings)
    return result, folder, gate_run(folder, settings.config)


def failed(gate: GateFile) -> set[str]:
    return {row.metric for row in gate.rows if not row.passed}


@pytest.mark.timeout(1200)
def test_the_good_box_passes_and_may_be_promoted(
    good: tuple[RunResult, Path, GateFile], settings: Settings, box: Path
) -> None:
    result, folder, gate = good
    assert failed(gate) == set(), gate.rows
    assert require_gate(folder / GATE_FILE, read_lineage(box)).passed
    html, _ = write_report(folder, result, settings.config, gate)
    assert "hit@k" in html.read_text()


@pytest.mark.timeout(1200)
def test_a_second_run_asks_nothing_and_finds_the_same(
    good: tuple[RunResult, Path, GateFile], settings: Settings, box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whis_box.evaluation.run.opened", None)  # to open the box would fail
    again, folder = run(Subject("box", box), settings)
    assert again.suites == good[0].suites and folder == good[1]


@pytest.mark.timeout(1200)
def test_a_shuffled_index_is_refused(
    good: tuple[RunResult, Path, GateFile], settings: Settings, box: Path, tmp_path: Path
) -> None:
    index = shuffled_index(box, tmp_path / "shuffled" / "whis.sqlite")
    result, folder = run(parse_subject(f"index:{index}", box, tmp_path), settings)
    gate = gate_run(folder, settings.config)
    assert {"retrieval.hit@5", "ragas.composite"} <= failed(gate)
    assert "answers.quote_validity" not in failed(gate)  # its quotes are verbatim, only the wrong ones
    verdicts = {one.metric: one.verdict for one in compare_runs(good[0], result).metrics}
    assert verdicts["retrieval.hit@5"] == "worse"
    with pytest.raises(VerificationError, match="belongs to another subject"):
        require_gate(good[1] / GATE_FILE, result.lineage)


@pytest.mark.timeout(1200)
def test_a_box_without_guards_is_refused(settings: Settings, box: Path, tmp_path: Path) -> None:
    configs = configs_without_guards(box, tmp_path / "configs")
    _, folder = run(parse_subject(f"configs:{configs}", box, tmp_path), settings)
    gate = gate_run(folder, settings.config)
    assert {"answers.claim_support", "answers.unanswerable_refused"} <= failed(gate)


@pytest.mark.timeout(1200)
def test_an_adapter_that_spoils_its_base_is_refused(settings: Settings, box: Path, tmp_path: Path) -> None:
    adapter = spoiling_adapter(box / "models" / "base.gguf", tmp_path / "noise.gguf")
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    (dataset / "test.ndjson").write_text("".join(one.model_dump_json() + "\n" for one in heldout()))
    own = replace(settings, dataset=dataset, suites=("fine_tune",), out=tmp_path / "runs")
    result, folder = run(Subject("noise", box, adapter), own)
    gate = gate_run(folder, settings.config)
    assert "fine_tune.perplexity_ratio" in failed(gate)
    row = result.rows()["fine_tune.perplexity_ratio"]
    assert row.value is not None and row.value > 1.0 and result.lineage.adapter != "none"


def heldout() -> list[Sample]:
    facts = [
        "Event 1102 is a cleared audit log.",
        "Event 4625 is a failed logon.",
        "Event 4720 is a new account.",
    ]
    asked = [
        "Which event is a cleared audit log?",
        "Which event is a failed logon?",
        "Which is a new account?",
    ]
    return [
        Sample(
            id=f"s{n}",
            task="grounded_qa",
            split="test",
            record_ids=[],
            segments=list(prompts.answer_prompt(question, facts, "select", 3, may_decline=True).segments),
            completion=f"[{n + 1}]\n",
        )
        for n, question in enumerate(asked)
    ]


def test_a_record_that_the_index_lacks_stops_the_run_by_name(
    settings: Settings, box: Path, tmp_path: Path
) -> None:
    golden = small_golden(tmp_path / "golden", n_questions=1, n_unanswerable=1, n_others=1)
    path = golden / "questions.ndjson"
    path.write_text(path.read_text().replace('"record_ids": ["', '"record_ids": ["gone-', 1))
    own = replace(settings, golden=golden, suites=("retrieval",), out=tmp_path / "runs")
    with pytest.raises(InputError, match=r"1 records that questions name are not in the index: gone-"):
        run(Subject("box", box), own)
    result, _ = run(Subject("box", box), replace(own, allow_missing=True))
    assert len(result.missing_records) == 1 and result.rows()["retrieval.hit@5"].value == 0.0
