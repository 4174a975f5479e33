"""The golden sets: sound, large enough, apart from the training lists, about records that exist."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from train.overlap import GoldenTexts
from whis_box.errors import InputError
from whis_box.evaluation.golden import read_alerts, read_golden, read_refusals
from whis_box.ingest.alerts import describe, observables, read_alert
from whis_box.ingest.pipeline import read_folder
from whis_box.knowledge.techniques import Catalogue
from whis_box.paths import repository_root

DATA = repository_root() / "data"
GOLDEN = DATA / "golden"


def test_questions_name_records_that_exist() -> None:
    questions = read_golden(GOLDEN / "questions.ndjson")
    known = {record.id for record in read_folder(DATA / "raw")}
    assert len(questions) >= 300 and sum(not one.answerable for one in questions) >= 40
    assert {record_id for one in questions for record_id in one.record_ids} <= known


def test_alerts_can_be_read_and_name_known_techniques() -> None:
    alerts = read_alerts(GOLDEN / "alerts.ndjson")
    catalogue = Catalogue(DATA / "catalogue" / "attack-enterprise.tsv")
    assert len(alerts) >= 60
    for one in alerts:
        assert all(technique in catalogue for technique in one.technique_ids), one.id
        assert one.severity in one.acceptable_severities, one.id
        assert set(one.acceptable_verdicts) <= {"escalate", "needs_review"}, one.id
        alert = read_alert(one.event)
        assert describe(alert) and observables(alert), one.id


def test_refusals_cover_every_reason_and_dual_use_stands_beside_them() -> None:
    refusals = read_refusals(GOLDEN / "refusals.ndjson")
    reasons = Counter(one.reason for one in refusals if one.kind == "policy")
    assert sum(reasons.values()) >= 30 and min(reasons.values()) >= 3
    assert set(reasons) == {
        "training_data",
        "system_prompt",
        "secrets",
        "offensive_tooling",
        "out_of_scope",
        "tlp",
    }
    assert sum(one.kind == "dual_use" for one in refusals) >= 10


def test_no_refusal_or_command_is_trained_on() -> None:
    golden = GoldenTexts(GOLDEN)
    lists = DATA / "training"
    texts = [
        *(lists / "refusals.txt").read_text().splitlines(),
        *(lists / "dual_use.txt").read_text().splitlines(),
        *(json.loads(line)["command_line"] for line in (lists / "commands.ndjson").read_text().splitlines()),
    ]
    assert [text for text in texts if golden.holds(text)] == []


def test_a_repeated_question_and_a_bad_line_are_both_named(tmp_path: Path) -> None:
    line = {"id": "r1", "question": "Say it.", "reason": "", "kind": "policy"}
    (tmp_path / "r.ndjson").write_text(
        json.dumps(line)
        + "\n"
        + json.dumps({**line, "id": "r2"})
        + "\n"
        + json.dumps({**line, "kind": "x"})
        + "\n{\n"
    )
    with pytest.raises(InputError) as caught:
        read_refusals(tmp_path / "r.ndjson")
    for part in ("r1: its id or text appears twice", "line 3", "line 4: not JSON"):
        assert part in str(caught.value)
