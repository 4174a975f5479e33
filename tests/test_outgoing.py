"""What leaves the host was reviewed, is unchanged since, and says nothing about a person."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from whis_box.audit import AuditLog
from whis_box.cli import main
from whis_box.errors import EXIT_OK, InputError, VerificationError
from whis_box.outgoing import AUDIT, PAIRS, RATINGS, REVIEW, hand_over, prepare, redactor
from whis_box.paths import repository_root
from whis_box.rollout.store import RolloutStore

KEY = b"k" * 32
SECRETS = (
    "jdoe",
    "jane.doe@corp.example",
    "WS-4711",
    "10.20.30.40",
    "hunter2-hunter2",
    "Jane Doe",
    "soar-key",
)
TEXT = (
    "Jane Doe (jane.doe@corp.example, CORP\\jdoe) logged on at WS-4711.corp.local from 10.20.30.40 "
    "and set password=hunter2-hunter2 before T1003.001"
)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder full of what must not leave."""
    folder = tmp_path / "state"
    log = AuditLog(folder / "audit")
    detail = {
        "input": TEXT, "outcome": "answered", "findings": ["guard.one", TEXT], "total_ms": 12.5,
        "lineage": {"box": "a" * 64, "note": TEXT}, "cited": [TEXT],
    }  # fmt: skip
    log.append("triage", "soar-key", "jdoe-request", "WS-4711", detail)
    log.append(TEXT, "jdoe")
    log.close()
    store = RolloutStore(folder / "rollout.sqlite")
    for training in ("yes", "no"):
        store.rate(
            {
                "answer_id": "WS-4711", "rating": "up", "verdict": "unlabeled", "comment": TEXT,
                "analyst": "jdoe", "training": training, "adapter": "none", "release": "none on box",
                "outcome": "answered", "kind": "ask", "input": TEXT, "output": json.dumps({"answer": TEXT}),
            }
        )  # fmt: skip
    store.close()
    return folder


def release_all(folder: Path) -> None:
    path = folder / REVIEW
    path.write_text(path.read_text().replace("\thold\t", "\trelease\t"))


def test_without_recognizers_only_closed_forms_leave(state: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert prepare(out, state, KEY, None) == {RATINGS: 2, AUDIT: 2, PAIRS: 0}
    release_all(out)
    hand_over(out, tmp_path / "usb")
    everything = "".join(path.read_text() for path in sorted((tmp_path / "usb").iterdir()))
    assert not [one for one in SECRETS if one in everything]
    first = json.loads((out / AUDIT).read_text().splitlines()[0])
    assert (
        first["outcome"] == "answered" and first["total_ms"] == 12.5 and first["lineage"]["box"] == "a" * 64
    )
    rating = json.loads((out / RATINGS).read_text().splitlines()[0])
    assert rating["release"] == "none on box" and rating["outcome"] == "answered" and rating["rating"] == "up"
    assert first["findings"] == ["guard.one", ""] and len(first["at"]) == len("2026-01-31T00")
    done = subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=tmp_path / "usb", check=False)
    assert done.returncode == 0


def test_pairs_of_those_who_agreed_leave_redacted(state: Path, tmp_path: Path) -> None:
    redact = redactor(repository_root() / "configs", KEY)
    assert prepare(tmp_path / "out", state, KEY, redact)[PAIRS] == 1
    release_all(tmp_path / "out")
    hand_over(tmp_path / "out", tmp_path / "usb")
    everything = "".join(path.read_text() for path in sorted((tmp_path / "usb").iterdir()))
    assert not [one for one in SECRETS if one in everything]
    assert "T1003.001" in everything and "USER_" in everything


def test_nothing_leaves_before_the_review_and_only_what_it_released(state: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(out, state, KEY, None)
    with pytest.raises(InputError, match="nothing is released"):
        hand_over(out, tmp_path / "usb")
    rows = (out / REVIEW).read_text().splitlines()
    (out / REVIEW).write_text("\n".join([rows[0], rows[1].replace("hold", "release"), *rows[2:], ""]))
    assert hand_over(out, tmp_path / "usb")["lines"] == {RATINGS: 2, AUDIT: 0, PAIRS: 0}
    assert not (tmp_path / "usb" / AUDIT).exists()


def test_what_changed_after_the_review_stays(state: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(out, state, KEY, None)
    release_all(out)
    (out / AUDIT).write_text((out / AUDIT).read_text() + '{"added": 1}\n')
    with pytest.raises(VerificationError, match="changed after the review"):
        hand_over(out, tmp_path / "usb")
    assert not (tmp_path / "usb").exists()


@pytest.mark.parametrize("decision", ["yes", "", "RELEASE"])
def test_an_unclear_decision_is_named(decision: str, state: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(out, state, KEY, None)
    path = out / REVIEW
    path.write_text(path.read_text().replace("\thold\t", f"\t{decision}\t", 1))
    with pytest.raises(InputError, match=r"review\.tsv:2"):
        hand_over(out, tmp_path / "usb")


def test_the_commands_export_and_note_what_was_handed_over(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WHIS_STATE", str(state))
    monkeypatch.setenv("WHIS_PSEUDONYM_KEY", "k" * 32)
    out = tmp_path / "out"
    assert main(["state", "export", "--out", str(out), "--state", str(state)]) == EXIT_OK
    release_all(out)
    assert main(["state", "hand-over", "--json", str(out), "--medium", str(tmp_path / "usb")]) == EXIT_OK
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["lines"][AUDIT] == 2
    assert "export.handed_over" in (state / "audit-cli" / "audit-000001.ndjson").read_text()
