"""Records that resume, subjects, comparisons and reports, without a model."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import pytest

from tests.evaluation_fakes import LINEAGE, TEXT, answer, run_result, seen, write_lines
from whis_box.cli import main
from whis_box.errors import DeadlineError, InputError, NotReadyError
from whis_box.evaluation.attacks import read_attacks
from whis_box.evaluation.compare import compare_runs
from whis_box.evaluation.gate import gate_run
from whis_box.evaluation.journal import Journal
from whis_box.evaluation.observe import Task, observe, read_sets
from whis_box.evaluation.report import write_report
from whis_box.evaluation.results import Case, SuiteResult, mean, not_measured
from whis_box.evaluation.run import newest_run, write_results
from whis_box.evaluation.settings import EvalConfig, GateRule
from whis_box.evaluation.subject import parse_subject
from whis_box.paths import repository_root

BINDING = {"lineage": "x", "seed": 0}


def test_a_run_that_was_cut_off_goes_on_after_its_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "run" / "observations.ndjson"
    with Journal(path, BINDING) as journal:
        journal.add(seen("ask", "g1", answer=answer()))
    path.write_bytes(path.read_bytes() + b'{"kind": "ask", "id": "g2", "seco')
    asked: list[str] = []

    def ask(item: str) -> Task:
        return Task("ask", item, lambda box: asked.append(item) or {"answer": answer()})

    with Journal(path, BINDING) as journal:
        assert set(journal.seen) == {("ask", "g1")}
        todo = [one for one in (ask("g1"), ask("g2")) if (one.kind, one.id) not in journal.seen]
        observe(None, journal, todo)  # type: ignore[arg-type]
    assert asked == ["g2"]
    with Journal(path, BINDING) as journal:
        assert set(journal.seen) == {("ask", "g1"), ("ask", "g2")}
        assert journal.seen["ask", "g1"].answer == answer()


def test_records_of_another_box_are_not_mixed_in(tmp_path: Path) -> None:
    path = tmp_path / "observations.ndjson"
    Journal(path, BINDING).__exit__(None, None, None)
    with pytest.raises(InputError, match="another seed; choose another --out"):
        Journal(path, BINDING | {"seed": 1})
    path.write_text("nonsense\n")
    with pytest.raises(InputError, match="not a run's records"):
        Journal(path, BINDING)


def test_an_item_that_the_box_fails_on_is_kept_as_a_failure(tmp_path: Path) -> None:
    def fail(box: object) -> dict[str, object]:
        raise InputError("too long")

    with Journal(tmp_path / "o.ndjson", BINDING) as journal:
        observe(None, journal, [Task("ask", "g1", fail)])  # type: ignore[arg-type]
        assert journal.seen["ask", "g1"].error == "InputError: too long"


def test_a_request_that_ran_out_of_time_is_tried_once_more_and_no_more(tmp_path: Path) -> None:
    tries: list[str] = []

    def slow(box: object, until: int, name: str) -> dict[str, object]:
        tries.append(name)
        if tries.count(name) < until:
            raise DeadlineError("30 s")
        return {"text": "done"}

    with Journal(tmp_path / "o.ndjson", BINDING) as journal:
        todo = [
            Task("ask", name, partial(slow, until=until, name=name)) for name, until in (("g1", 2), ("g2", 9))
        ]
        observe(None, journal, todo)  # type: ignore[arg-type]
        assert journal.seen["ask", "g1"].text == "done" and not journal.seen["ask", "g1"].error
        assert journal.seen["ask", "g2"].error == "DeadlineError: 30 s"
    assert tries == ["g1", "g1", "g2", "g2"]


def test_a_sample_is_the_same_each_time_and_part_of_the_whole() -> None:
    golden = repository_root() / "data" / "golden"
    first, second, whole = read_sets(golden, 20, 0), read_sets(golden, 20, 0), read_sets(golden, 0, 0)
    assert first.questions == second.questions and len(first.questions) == len(first.alerts) == 20
    assert {one.id for one in first.questions} < {one.id for one in whole.questions}
    assert first.questions != read_sets(golden, 20, 1).questions


def test_every_bad_line_of_an_attack_corpus_is_named(tmp_path: Path) -> None:
    good = {"id": "t1", "family": "f", "channel": "question", "question": "q", "markers": ["m"]}
    path = write_lines(
        tmp_path / "attacks.ndjson",
        json.dumps(good),
        json.dumps(good),
        json.dumps(good | {"id": "t2", "channel": "alert"}),
        json.dumps({"family": "f"}),
        "{",
    )
    with pytest.raises(InputError) as caught:
        read_attacks(path)
    for part in ("line 2: the id t1 appears twice", "line 3", "line 4: id", "line 5: not JSON"):
        assert part in str(caught.value)


@pytest.mark.parametrize("text", ["nonsense", "weights:x", "", "adapter"])
def test_a_subject_that_is_none_says_what_there_is(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="say base, NAME@VERSION or one of adapter, index"):
        parse_subject(text, tmp_path, tmp_path)


def test_a_subject_whose_file_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotReadyError, match=r"none\.gguf: missing"):
        parse_subject(f"adapter:{tmp_path}/none.gguf", tmp_path, tmp_path)
    with pytest.raises(NotReadyError, match=r"nobody/9.9.9: holds 0 GGUF files"):
        parse_subject("nobody@9.9.9", tmp_path, tmp_path)
    assert parse_subject("base", tmp_path, tmp_path).adapter is None


def suite(values: dict[str, float], name: str = "f1") -> SuiteResult:
    return SuiteResult(suite="answers", rows=[mean(name, values)], per_item={name: values})


def test_a_comparison_pairs_questions_and_counts_wins() -> None:
    a = run_result(suite({f"g{n}": 0.2 for n in range(30)}))
    b = run_result(suite({f"g{n}": 0.6 if n else 0.1 for n in range(30)}), subject="new")
    [found] = compare_runs(a, b).metrics
    assert (found.wins, found.ties, found.losses, found.verdict) == (29, 0, 1, "better")
    assert found.low > 0 and found.difference == pytest.approx(0.3833, abs=1e-3)
    assert compare_runs(b, a).metrics[0].verdict == "worse"
    assert compare_runs(a, a).metrics[0].verdict == "no difference shown"
    assert compare_runs(a, b).changed[0].id != "g0"


def test_where_lower_is_better_a_fall_is_a_win() -> None:
    a, b = (run_result(suite({f"g{n}": value for n in range(30)}, "loss")) for value in (2.0, 1.0))
    [found] = compare_runs(a, b).metrics
    assert found.verdict == "better" and found.wins == 30


def test_runs_of_other_questions_are_not_compared() -> None:
    a = run_result(suite({"g1": 1.0}))
    with pytest.raises(InputError, match="different questions"):
        compare_runs(a, run_result(suite({"g1": 1.0}), golden={"questions": "other"}))
    with pytest.raises(InputError, match="share no suite"):
        compare_runs(a, run_result())


def full_result() -> SuiteResult:
    case = Case(
        id="g1",
        asked="<script>alert(1)</script> | `x`",
        expected="e",
        got="\x1b[31mred",
        evidence=["<img src=http://x>"],
        score=0.0,
    )
    return SuiteResult(
        suite="answers",
        rows=[mean("f1", [0.1, 0.9]), not_measured("judged", "judge too small")],
        worst=[case],
        notes=["a <b>note</b>"],
        plots={
            "hit_curve": {n: 0.9 for n in range(1, 11)},
            "ask_s": [0.1, 0.2, 0.9],
            "reliability": {
                "answer": [{"low": 0.0, "high": 0.1, "n": 1, "confidence": 0.1, "accuracy": 0.2}]
            },
            "confusion": {"labels": ["<a>", "b"], "table": [[1, 0], [2, 3]]},
            "loss_curve": [
                {"step": 1, "loss": 2.0, "val_loss": None},
                {"step": 2, "loss": 1.0, "val_loss": 1.5},
            ],
        },
    )


def test_the_report_holds_everything_and_nothing_that_runs_or_loads(tmp_path: Path) -> None:
    result = run_result(full_result())
    write_results(tmp_path, result)
    gate = gate_run(tmp_path, EvalConfig(gates=[GateRule(metric="answers.f1", at_least=0.9)]))
    comparison = compare_runs(run_result(suite({"g1": 0.0})), run_result(suite({"g1": 1.0})))
    html, markdown = (
        one.read_text() for one in write_report(tmp_path, result, EvalConfig(), gate, comparison)
    )
    assert html.count("<svg") == 5 and "REFUSED" in html and "not measured: judge too small" in html
    without_namespace = html.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(
        r"<script|<img|<link|<iframe|href=|src=|@import|url\(", without_namespace.replace("&lt;img src=", "")
    )
    assert "&lt;script&gt;alert(1)" in html and "\x1b" not in html + markdown
    assert "## Gate: REFUSED" in markdown and "\\|" in markdown and "<script" not in markdown
    for digest in LINEAGE.model_dump():
        assert digest in markdown


def test_the_newest_run_is_the_one_gated(tmp_path: Path) -> None:
    with pytest.raises(NotReadyError, match="holds no run"):
        newest_run(tmp_path)
    write_results(tmp_path / "one", run_result())
    assert newest_run(tmp_path) == tmp_path / "one"


def test_the_command_exits_1_on_a_refusal_and_0_on_a_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_results(tmp_path / "run", run_result(suite({"g1": 0.5, "g2": 0.5})))
    config = tmp_path / "eval.yaml"
    command = ["eval", "gate", str(tmp_path / "run"), "--eval-config", str(config)]
    config.write_text("gates: [{metric: answers.f1, at_least: 0.6}]")
    assert main(command) == 1
    assert "REFUSES" in (said := capsys.readouterr().out) and "-0.100" in said and "0.500 to 0.500" in said
    config.write_text("gates: [{metric: answers.f1, at_least: 0.4}]")
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passed"] is True
    config.write_text("gates: [{metric: answers.f1, at_least: 40}]")
    assert main(command) == 2 and "is a share" in capsys.readouterr().err


def test_a_comparison_of_two_run_folders_needs_no_box(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("a", 0.2), ("b", 0.4)):
        write_results(tmp_path / name, run_result(suite({f"g{n}": value for n in range(20)}), subject=name))
    assert main(["eval", "compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert "20/0/0" in (said := capsys.readouterr().out) and "better" in said


def test_an_unknown_suite_and_a_record_that_the_index_lacks_stop_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "run", "--suite", "beauty", "--box", str(tmp_path)]) == 2
    assert "no suite beauty; there are retrieval" in capsys.readouterr().err
    assert TEXT
