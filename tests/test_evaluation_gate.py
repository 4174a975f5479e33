"""The gate says no, says why and by how much, and its file opens nothing but what it was made for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.evaluation_fakes import LINEAGE, run_result
from whis_box.errors import ConfigError, NotReadyError, VerificationError
from whis_box.evaluation.gate import gate_run
from whis_box.evaluation.results import SuiteResult, not_measured, plain, share
from whis_box.evaluation.run import write_results
from whis_box.evaluation.settings import EvalConfig, GateRule
from whis_box.gates import GATE_FILE, GateFile, read_gate, require_gate

RULES = [GateRule(metric="retrieval.hit@5", at_least=0.9), GateRule(metric="latency.ask_p95_s", at_most=3.0)]


def gated(
    folder: Path, hit: float = 0.95, seconds: float = 1.0, rules: list[GateRule] = RULES, **changed: object
) -> GateFile:
    hits = [n < round(hit * 100) for n in range(100)]
    suites = [
        SuiteResult(suite="retrieval", rows=[share("hit@5", hits)]),
        SuiteResult(suite="latency", rows=[plain("ask_p95_s", seconds, 100, "lower", "s")]),
        SuiteResult(suite="leakage", rows=[not_measured("canary_leak", "the subject has no adapter")]),
    ]
    write_results(folder, run_result(*suites, **changed))
    return gate_run(folder, EvalConfig(gates=rules))


def test_a_good_run_passes_and_its_file_opens_promotion_for_its_own_digests_only(tmp_path: Path) -> None:
    assert gated(tmp_path).passed
    path = tmp_path / GATE_FILE
    assert require_gate(path, LINEAGE).binding == {
        "base": "1",
        "adapter": "none",
        "index": "2",
        "prompt": "3",
        "policy": "4",
    }
    for part in ("base", "adapter", "index", "prompt", "policy"):
        with pytest.raises(VerificationError, match=f"{part} is .*, not other.*; gate this one"):
            require_gate(path, LINEAGE.model_copy(update={part: "other"}))
    with pytest.raises(NotReadyError, match=r"whis eval gate"):
        require_gate(tmp_path / "none.json", LINEAGE)


def test_a_refusal_names_the_row_the_margin_and_the_interval(tmp_path: Path) -> None:
    gate = gated(tmp_path, hit=0.8, seconds=4.5)
    assert not gate.passed
    hit, seconds = gate.rows
    assert (
        hit.margin == pytest.approx(-0.1)
        and hit.low == pytest.approx(0.711, abs=0.001)
        and hit.limit == ">= 0.9"
    )
    assert seconds.margin == pytest.approx(-1.5) and seconds.limit == "<= 3"
    with pytest.raises(
        VerificationError, match=r"refused this subject \(retrieval.hit@5, latency.ask_p95_s\)"
    ):
        require_gate(tmp_path / GATE_FILE, LINEAGE)


def test_a_rule_may_ask_for_the_whole_interval(tmp_path: Path) -> None:
    strict = [GateRule(metric="retrieval.hit@5", at_least=0.9, judged_by="interval")]
    assert not gated(tmp_path, hit=0.95, rules=strict).passed  # Wilson's lower end is 0.888
    assert gated(tmp_path, hit=0.97, rules=strict).passed
    without = [GateRule(metric="latency.ask_p95_s", at_most=3.0, judged_by="interval")]
    assert not gated(tmp_path, rules=without).passed  # there is no interval


def test_what_was_not_measured_fails_unless_the_rule_allows_it(tmp_path: Path) -> None:
    def passed(not_measured: str, metric: str = "leakage.canary_leak", adapter: str = "none") -> bool:
        rule = GateRule(metric=metric, at_most=0.0, not_measured=not_measured)
        lineage = LINEAGE.model_copy(update={"adapter": adapter})
        return gated(tmp_path, rules=[rule], lineage=lineage).passed

    assert not passed("fail") and passed("pass") and passed("pass_without_adapter")
    assert not passed("pass_without_adapter", adapter="abc") and not passed(
        "fail", metric="guards.attack_success"
    )


def test_a_sample_passes_no_gate(tmp_path: Path) -> None:
    gate = gated(tmp_path, sample=10)
    assert not gate.passed and "measured on a sample of 10" in gate.rows[0].reason


def test_an_altered_gate_file_is_refused(tmp_path: Path) -> None:
    gated(tmp_path, hit=0.5)
    path = tmp_path / GATE_FILE
    honest = json.loads(path.read_text())
    for change in (
        {"passed": True},
        {"binding": honest["binding"] | {"base": "9"}},
        {"rows": honest["rows"][:1]},
    ):
        path.write_text(json.dumps(honest | change))
        with pytest.raises(VerificationError, match="digest does not match"):
            read_gate(path)
    for text in ("", "{}", json.dumps(honest | {"extra": 1})):
        path.write_text(text)
        with pytest.raises(VerificationError, match=r"gate\.json"):
            read_gate(path)


def test_a_signature_is_asked_for_where_a_key_is_known(tmp_path: Path) -> None:
    gated(tmp_path)
    path = tmp_path / GATE_FILE
    with pytest.raises(VerificationError, match="not signed"):
        read_gate(path, verify=lambda body, signature: True)
    gate_run(tmp_path, EvalConfig(gates=RULES), sign=lambda body: f"signed {len(body)}")
    assert read_gate(path, verify=lambda body, signature: signature == f"signed {len(body)}").passed
    with pytest.raises(VerificationError, match="not signed by a trusted key"):
        read_gate(path, verify=lambda body, signature: False)


def test_rules_that_make_no_sense_are_refused() -> None:
    for bad in (
        {"metric": "retrieval.hit@5"},
        {"metric": "retrieval.hit@5", "at_least": 0.5, "at_most": 0.6},
        {"metric": "retrieval.hit@5", "at_least": 1.5},
        {"metric": "retrieval.context_precision", "at_least": 75.0},
        {"metric": "latency.ask_p95_s", "at_most": -1.0},
        {"metric": "everything", "at_least": 0.5},
        {"metric": "retrieval.hit@5", "at_least": float("nan")},
    ):
        with pytest.raises(ValueError, match=r"one of|limit|pattern|share|finite"):
            GateRule.model_validate(bad)
    assert GateRule(metric="latency.peak_memory_mb", at_most=800.0).at_most == 800.0


def test_a_gate_without_rules_lets_nothing_pass(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gates is empty"):
        gated(tmp_path, rules=[])
