"""The box's own questions with the answers it must give, and the health check before it is used.

Invariant: the questions and searches are a file of the signed manifest, and the box that answers them is the
very folder that would be switched to, run by its own program.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from whis_box.box.opening import open_box
from whis_box.config import describe_validation
from whis_box.copilot import Copilot
from whis_box.errors import VerificationError
from whis_box.paths import read_text
from whis_box.schemas import Frozen, Status

SELF_TEST_NAME = "selftest.ndjson"
CHECK_TIMEOUT_S = 300
# Of the searches: some misses are usual (docs/measurements.md), with a broken index or embedder most miss.
SMOKE_TOP_K = 5
SMOKE_FLOOR = 0.85

Tell = Callable[[str], None]


class SelfTestQuestion(Frozen):
    """A question, and what the box answered when it was released."""

    question: str
    status: Status
    record_ids: list[str]
    """One of these must be cited; empty where nothing may be answered."""


class SmokeSearch(Frozen):
    """A search, and the records of which one must be among the first; a share of all searches may miss."""

    search: str
    record_ids: list[str] = Field(min_length=1)


def read_questions(path: Path) -> list[SelfTestQuestion | SmokeSearch]:
    """Raises: NotReadyError, StorageError; VerificationError naming the line."""
    questions: list[SelfTestQuestion | SmokeSearch] = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        kind = SmokeSearch if line.startswith('{"search"') else SelfTestQuestion
        try:
            questions.append(kind.model_validate_json(line))
        except ValidationError as cause:
            raise VerificationError(describe_validation(f"{path}:{number}", cause)) from None
    return questions


def self_test(folder: Path) -> list[str]:
    """Every question whose answer is not the expected one, and a search that misses too often.

    Raises: as `open_box`.
    """
    lines = read_questions(folder / SELF_TEST_NAME)
    questions = [one for one in lines if isinstance(one, SelfTestQuestion)]
    problems = [] if questions else [f"{SELF_TEST_NAME} holds no question"]
    with open_box(folder) as copilot:
        problems += smoke_test(copilot, [one for one in lines if isinstance(one, SmokeSearch)])
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


def smoke_test(copilot: Copilot, searches: Sequence[SmokeSearch]) -> list[str]:
    """One problem if fewer than the floor find their record.

    Raises: as `Copilot.search`.
    """
    missed = [
        one.search
        for one in searches
        if not {hit.chunk.record_id for hit in copilot.search(one.search, SMOKE_TOP_K)} & set(one.record_ids)
    ]
    n_found = len(searches) - len(missed)
    if n_found >= SMOKE_FLOOR * len(searches):
        return []
    return [
        f"{n_found} of {len(searches)} searches found their record among the first {SMOKE_TOP_K}, "
        f"at least {SMOKE_FLOOR:.0%} must; missed, among others: {missed[0]!r}"
    ]


def health_check(folder: Path, tell: Tell = lambda _: None) -> list[str]:
    """Run the box's own `doctor` and self-test, each in a process of its own; what failed.

    A self-test that breaks off with an error, which wrong answers are not, is run once more; `tell` gets the
    error.
    """
    command = _program(folder)
    with tempfile.TemporaryDirectory() as state:
        environment = os.environ | {"WHIS_STATE": state}

        def ran(*arguments: str) -> _Ran:
            return _run([*command, *arguments, "--json", "--box", str(folder)], environment)

        if problems := ran("doctor").problems:
            return problems
        first = ran("box", "self-test")
        if not first.broke_off:
            return first.problems
        tell(f"{first.problems[0]}; running it once more")
        second = ran("box", "self-test")
        return [*first.problems, *(f"once more: {one}" for one in second.problems)] if second.problems else []


def migrate_state(folder: Path, state: Path) -> list[str]:
    """Let the release in `folder` bring the state forward, in a process of its own; what failed."""
    command = [*_program(folder), "state", "migrate", "--json", "--state", str(state)]
    return _run(command, dict(os.environ)).problems


def _program(folder: Path) -> list[str]:
    program = folder / "whis"
    return [str(program)] if program.is_file() else [sys.executable, "-m", "whis_box.cli"]


@dataclass(frozen=True)
class _Ran:
    """What failed in a process; `broke_off` when it ended with an error instead of a report."""

    problems: list[str]
    broke_off: bool = False


def _run(command: list[str], environment: dict[str, str]) -> _Ran:
    what = " ".join(command[1:4])
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=CHECK_TIMEOUT_S, env=environment
        )
    except subprocess.TimeoutExpired:
        return _Ran([f"{what}: no answer within {CHECK_TIMEOUT_S} s"], broke_off=True)
    except OSError as cause:
        return _Ran([f"{what}: the program does not start: {cause.strerror}"], broke_off=True)
    if done.returncode == 0:
        return _Ran([])
    try:
        report = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return _Ran([f"{what}: ended with status {done.returncode}: {last}"], broke_off=True)
    if said := report.get("error", {}).get("message"):
        return _Ran([f"{what}: {said}"], broke_off=True)
    failed = [
        f"{one['name']}: {one['detail']}" for one in report.get("checks", []) if one["state"] == "failed"
    ]
    failed = failed or [str(one) for one in report.get("problems", [])]
    return _Ran(failed) if failed else _Ran([f"{what}: status {done.returncode}"], broke_off=True)
