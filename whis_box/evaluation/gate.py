"""Holding a run against the rules of configs/eval.yaml.

Invariant: a rule whose figure was not measured fails unless the rule says otherwise; a gate without rules
refuses.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from pathlib import Path

from pydantic import ValidationError

from whis_box.config import describe_validation
from whis_box.errors import ConfigError, VerificationError
from whis_box.evaluation.results import Row, RunResult
from whis_box.evaluation.run import RESULTS
from whis_box.evaluation.settings import EvalConfig, GateRule
from whis_box.gates import GATE_FILE, GateFile, GateRow, Sign, binding_of, write_gate
from whis_box.paths import file_sha256, read_text

NONE = "none"


def gate_run(folder: Path, config: EvalConfig, sign: Sign | None = None) -> GateFile:
    """Judge a run and write its gate file beside its results.

    Raises: NotReadyError, VerificationError for results that do not validate; ConfigError without rules.
    """
    result = read_results(folder)
    if not config.gates:
        raise ConfigError("configs/eval.yaml: gates is empty; a gate without rules lets nothing pass")
    rows = judge(result, config.gates)
    rules = json.dumps([rule.model_dump() for rule in config.gates], sort_keys=True)
    gate = GateFile(
        passed=all(row.passed for row in rows),
        subject=result.subject,
        binding=binding_of(result.lineage),
        rows=rows,
        rules_sha256=hashlib.sha256(rules.encode()).hexdigest(),
        results_sha256=file_sha256(folder / RESULTS),
        created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    return write_gate(folder / GATE_FILE, gate, sign)


def read_results(folder: Path) -> RunResult:
    """A run's results.

    Raises: NotReadyError if there are none; VerificationError if they do not validate.
    """
    path = folder / RESULTS
    try:
        return RunResult.model_validate_json(read_text(path, "run `whis eval run`"))
    except ValidationError as cause:
        raise VerificationError(describe_validation(str(path), cause)) from None


def judge(result: RunResult, rules: list[GateRule]) -> list[GateRow]:
    """One row for each rule; a sample is no evaluation, so it fails every rule."""
    rows = result.rows()
    judged = [_judge_one(rule, rows.get(rule.metric), result.lineage.adapter) for rule in rules]
    if result.sample:
        reason = f"measured on a sample of {result.sample}; a gate needs the whole sets"
        return [one.model_copy(update={"passed": False, "reason": reason}) for one in judged]
    return judged


def _judge_one(rule: GateRule, row: Row | None, adapter: str) -> GateRow:
    limit = f">= {rule.at_least:g}" if rule.at_least is not None else f"<= {rule.at_most:g}"
    if row is None or row.value is None:
        reason = row.reason if row is not None else "not measured: its suite was not run"
        fine = rule.not_measured == "pass" or (
            rule.not_measured == "pass_without_adapter" and adapter == NONE
        )
        return GateRow(metric=rule.metric, limit=limit, passed=fine, reason=reason)
    margin = _margin(rule, row.value)
    worse_end = row.low if rule.at_least is not None else row.high
    passed = margin >= 0
    if rule.judged_by == "interval":
        passed = passed and worse_end is not None and _margin(rule, worse_end) >= 0
        limit += " (interval)"
    return GateRow(
        metric=rule.metric,
        limit=limit,
        passed=passed,
        value=row.value,
        low=row.low,
        high=row.high,
        n=row.n,
        margin=margin,
    )


def _margin(rule: GateRule, value: float) -> float:
    if rule.at_least is not None:
        return value - rule.at_least
    assert rule.at_most is not None  # the rule has one limit
    return rule.at_most - value
