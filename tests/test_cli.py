"""The command line: exit codes, streams, batches, and what it says about bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from whis_box.cli import main
from whis_box.paths import repository_root
from whis_box.show import printable

AUDIT_QUESTION = "Which Windows event ID is logged when the audit log is cleared?"


def whis(*arguments: str, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run the program as a user would."""
    command = [sys.executable, "-m", "whis_box.cli", *arguments]
    return subprocess.run(
        command, input=stdin, capture_output=True, timeout=120, env=os.environ | environment
    )


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], 2),
        (["frobnicate"], 2),
        (["ask"], 2),
        (["ask", "x", "--input", "y"], 2),
        (["search", "x", "--top-k", "0"], 2),
        (["--version"], 0),
    ],
)
def test_usage_errors_exit_with_2(
    arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        assert main(arguments) == code
    except SystemExit as stop:
        assert stop.code == code
    capsys.readouterr()


def test_a_missing_box_is_not_ready(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", "x", "--box", str(tmp_path)]) == 4
    captured = capsys.readouterr()
    assert captured.out == "" and "no box here" in captured.err and str(tmp_path) in captured.err


def test_nothing_a_document_holds_can_move_the_cursor() -> None:
    assert printable("a\x1b[2Jb\u202ec\td\n") == "a\\x1b[2Jb\\u202ec\td\n"


def test_json_errors_are_objects_on_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["box", "verify", "--json", "--box", str(tmp_path)]) == 4
    body = json.loads(capsys.readouterr().out)
    assert body["error"]["code"] == "not_ready" and "no box here" in body["error"]["message"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x7fELF\x02\x01\x00\xff\xfe", "utf-8"),
        (b'{"a": 1', "alert.json"),
        (b"", "empty"),
        (b"[1, 2]", "object"),
        (b"[" * 100_000, "alert.json"),
    ],
    ids=["binary", "truncated", "empty", "not an object", "deep"],
)
def test_a_bad_alert_is_refused_before_the_model_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, message: str
) -> None:
    path = tmp_path / "alert.json"
    path.write_bytes(content)
    assert main(["triage", str(path), "--box", str(tmp_path / "no box needed")]) == 2
    error = capsys.readouterr().err
    assert message in error.lower() and "alert.json" in error


def test_an_alert_file_that_cannot_be_read_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["triage", str(tmp_path / "none.json"), "--box", str(tmp_path)]) == 1
    assert "none.json" in capsys.readouterr().err


def test_the_readme_only_names_commands_that_exist() -> None:
    text = (repository_root() / "README.md").read_text(encoding="utf-8")
    words = {
        line.split()[1] for line in text.splitlines() if line.startswith("whis ") and len(line.split()) > 1
    }
    done = whis("--help")
    assert all(word in done.stdout.decode() for word in words), words


@pytest.mark.e2e
def test_ask_answers_with_a_verbatim_quote(box: Path) -> None:
    done = whis("ask", "--json", AUDIT_QUESTION)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["status"] == "answered" and "1102" in answer["answer"]
    assert all(citation["quote"] for citation in answer["citations"])
    assert answer["timings"]["completion_tokens"] > 0


@pytest.mark.e2e
def test_ask_refuses_with_exit_code_3(box: Path) -> None:
    done = whis("ask", "--json", "What is the best recipe for sourdough bread with rye flour?")
    assert done.returncode == 3
    assert json.loads(done.stdout)["status"] == "insufficient_evidence"


@pytest.mark.e2e
def test_a_batch_keeps_order_and_goes_on_after_bad_lines(box: Path) -> None:
    lines = [
        json.dumps({"id": "a", "question": AUDIT_QUESTION}).encode(),
        b"not json",
        b'{"id": "c"}',
        json.dumps({"id": "d", "question": "x" * 1_000_000}).encode(),
        json.dumps({"id": "e", "question": "What does logon type 10 mean?"}).encode(),
    ]
    done = whis("ask", "--input", "-", stdin=b"\n".join(lines))
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert [row["request_id"] for row in rows] == ["a", None, "c", "d", "e"]
    assert [("error" in row) for row in rows] == [False, True, True, True, False]


@pytest.mark.e2e
def test_search_gives_hits_and_triage_takes_stdin(box: Path) -> None:
    hits = json.loads(whis("search", "--json", "T1003.001").stdout)
    assert hits[0]["chunk"]["meta"]["technique_ids"]
    alert = (repository_root() / "examples" / "alert.json").read_bytes()
    done = whis("triage", "--json", "-", stdin=alert)
    triage = json.loads(done.stdout)
    assert triage["techniques"][0]["id"] == "T1003.001" and triage["verdict"] == "escalate", triage[
        "techniques"
    ]
    assert done.returncode == 0


@pytest.mark.e2e
def test_doctor_is_well_and_says_so_as_json(box: Path) -> None:
    done = whis("doctor", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0 and report["ok"], report
    assert {check["name"] for check in report["checks"]} >= {"box", "cpu", "engine", "index", "sockets"}


@pytest.mark.e2e
@pytest.mark.parametrize(
    "name", ["models/base.gguf", "embedder/model.onnx", "index/whis.sqlite", "configs/rag.yaml"]
)
def test_an_altered_file_stops_the_program_with_its_name(box: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "box mit Umlaut ä"
    subprocess.run(["cp", "-r", "--reflink=auto", str(box), str(copy)], check=True)
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 0x40
    (copy / name).write_bytes(content)
    done = whis("ask", AUDIT_QUESTION, "--box", str(copy))
    assert done.returncode == 5 and name in done.stderr.decode() and b"copy the box again" in done.stderr


@pytest.mark.e2e
def test_a_box_runs_from_a_path_with_spaces_and_umlauts_read_only(box: Path, tmp_path: Path) -> None:
    copy = tmp_path / "Büro box"
    subprocess.run(["cp", "-r", "--reflink=auto", str(box), str(copy)], check=True)
    subprocess.run(["chmod", "-R", "a-w", str(copy)], check=True)
    done = whis("ask", "--json", AUDIT_QUESTION, "--box", str(copy))
    subprocess.run(["chmod", "-R", "u+w", str(copy)], check=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.e2e
def test_the_box_answers_without_any_network(box: Path) -> None:
    command = [
        "unshare",
        "--net",
        "--map-root-user",
        sys.executable,
        "-m",
        "whis_box.cli",
        "ask",
        "--json",
        AUDIT_QUESTION,
    ]
    done = subprocess.run(command, capture_output=True, timeout=120)
    if b"unshare" in done.stderr and b"Operation not permitted" in done.stderr:
        pytest.fail("this machine does not allow a network namespace; run the suite where it does")
    assert done.returncode == 0 and "1102" in json.loads(done.stdout)["answer"]
