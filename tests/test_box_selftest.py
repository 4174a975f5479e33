"""The box's own questions, and the health check that asks them before a release is used."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from whis_box.box import selftest
from whis_box.box.selftest import health_check
from whis_box.copilot import Copilot


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        "x",
        '{"question": "q", "status": "maybe", "record_ids": []}',
        '{"search": "q", "record_ids": []}',
    ],
)
def test_a_bad_self_test_is_named_by_its_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "selftest.ndjson").write_text(line + "\n")
    with pytest.raises(selftest.VerificationError, match=r"selftest\.ndjson:1"):
        selftest.read_questions(tmp_path / "selftest.ndjson")


class Found:
    """A copilot whose searches find one record."""

    def search(self, query: str, _top_k: int) -> list[Any]:
        return [SimpleNamespace(chunk=SimpleNamespace(record_id=query.split()[-1]))]


@pytest.mark.parametrize(("n_wrong", "passes"), [(0, True), (3, True), (4, False)])
def test_a_search_that_misses_too_often_fails_the_self_test(n_wrong: int, passes: bool) -> None:
    searches = [
        selftest.SmokeSearch(search=f"find {number}", record_ids=["x" if number < n_wrong else str(number)])
        for number in range(20)
    ]
    problems = selftest.smoke_test(cast(Copilot, Found()), searches)
    assert problems == [] if passes else "16 of 20 searches" in problems[0] and "'find 0'" in problems[0]


@pytest.mark.e2e
def test_the_real_box_passes_its_own_questions_and_a_wrong_one_is_noticed(box: Path, tmp_path: Path) -> None:
    assert selftest.self_test(box) == []
    assert len(selftest.read_questions(box / "selftest.ndjson")) >= 5


def test_the_health_check_says_what_the_release_said(tmp_path: Path) -> None:
    program = tmp_path / "whis"
    program.write_text('#!/bin/sh\necho \'{"error": {"message": "no answer within 30 s"}}\'\nexit 1\n')
    program.chmod(0o755)
    assert health_check(tmp_path) == ["doctor --json --box: no answer within 30 s"]
    program.write_text("#!/bin/sh\nexit 0\n")
    assert health_check(tmp_path) == []


FLAKY = """#!/bin/sh
[ "$1" = doctor ] && exit 0
echo run >> "$(dirname "$0")/runs"
if [ "$(wc -l < "$(dirname "$0")/runs")" -le {n_errors} ]; then
  echo '{{"error": {{"message": "the model process died"}}}}'; exit 1
fi
exit 0
"""


@pytest.mark.parametrize(
    ("n_errors", "problems"), [(1, []), (2, ["box self-test --json: the model process died"] * 2)]
)
def test_a_self_test_that_breaks_off_gets_a_second_try(
    tmp_path: Path, n_errors: int, problems: list[str]
) -> None:
    program, told = tmp_path / "whis", list[str]()
    program.write_text(FLAKY.format(n_errors=n_errors))
    program.chmod(0o755)
    assert [one.removeprefix("once more: ") for one in health_check(tmp_path, told.append)] == problems
    assert told == ["box self-test --json: the model process died; running it once more"]
    assert (tmp_path / "runs").read_text() == "run\nrun\n"


def test_a_self_test_with_wrong_answers_gets_none(tmp_path: Path) -> None:
    program, told = tmp_path / "whis", list[str]()
    program.write_text('#!/bin/sh\n[ "$1" = doctor ] && exit 0\necho \'{"problems": ["wrong"]}\'\nexit 5\n')
    program.chmod(0o755)
    assert health_check(tmp_path, told.append) == ["wrong"] and told == []
