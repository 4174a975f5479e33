"""The box's own questions with the answers it must give, and the health check before it is used.

Invariant: the questions are a file of the signed manifest, and the box that answers them is the very folder
that would be switched to, run by its own program.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from pydantic import ValidationError

from whis_box.box.opening import open_box
from whis_box.config import describe_validation
from whis_box.errors import VerificationError
from whis_box.paths import read_text
from whis_box.schemas import Frozen, Status

SELF_TEST_NAME = "selftest.ndjson"
CHECK_TIMEOUT_S = 300


class SelfTestQuestion(Frozen):
    """A question, and what the box answered when it was released."""

    question: str
    status: Status
    record_ids: list[str]
    """One of these must be cited; empty where nothing may be answered."""


def read_questions(path: Path) -> list[SelfTestQuestion]:
    """Raises: NotReadyError, StorageError; VerificationError naming the line."""
    questions = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        try:
            questions.append(SelfTestQuestion.model_validate_json(line))
        except ValidationError as cause:
            raise VerificationError(describe_validation(f"{path}:{number}", cause)) from None
    return questions


def self_test(folder: Path) -> list[str]:
    """Every question whose answer is not the expected one.

    Raises: as `open_box`.
    """
    questions = read_questions(folder / SELF_TEST_NAME)
    problems = [] if questions else [f"{SELF_TEST_NAME} holds no question"]
    with open_box(folder) as copilot:
        for one in questions:
            answer = copilot.ask(one.question)
            cited = {citation.record_id for citation in answer.citations}
            fits = answer.status == one.status and (not one.record_ids or cited & set(one.record_ids))
            if not fits:
                problems.append(
                    f"{one.question!r}: {answer.status} citing {sorted(cited)}, "
                    f"expected {one.status} citing one of {one.record_ids}"
                )
    return problems


def health_check(folder: Path) -> list[str]:
    """Run the box's own `doctor` and self-test, each in a process of its own; what failed."""
    command = _program(folder)
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as state:
        environment = os.environ | {"WHIS_STATE": state}
        for arguments in (["doctor"], ["box", "self-test"]):
            problems += _run([*command, *arguments, "--json", "--box", str(folder)], environment)
            if problems:
                break
    return problems


def migrate_state(folder: Path, state: Path) -> list[str]:
    """Let the release in `folder` bring the state forward, in a process of its own; what failed."""
    return _run([*_program(folder), "state", "migrate", "--json", "--state", str(state)], dict(os.environ))


def _program(folder: Path) -> list[str]:
    program = folder / "whis"
    return [str(program)] if program.is_file() else [sys.executable, "-m", "whis_box.cli"]


def _run(command: list[str], environment: dict[str, str]) -> list[str]:
    what = " ".join(command[1:4])
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=CHECK_TIMEOUT_S, env=environment
        )
    except subprocess.TimeoutExpired:
        return [f"{what}: no answer within {CHECK_TIMEOUT_S} s"]
    except OSError as cause:
        return [f"{what}: the program does not start: {cause.strerror}"]
    if done.returncode == 0:
        return []
    try:
        report = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return [f"{what}: ended with status {done.returncode}: {last}"]
    if said := report.get("error", {}).get("message"):
        return [f"{what}: {said}"]
    failed = [
        f"{one['name']}: {one['detail']}" for one in report.get("checks", []) if one["state"] == "failed"
    ]
    return failed or [str(one) for one in report.get("problems", [])] or [f"{what}: status {done.returncode}"]
