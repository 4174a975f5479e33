"""The calibration set is sound, and a judge is held to it, to its schema and to this network."""

from __future__ import annotations

import http.server
import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation_fakes import write_lines
from whis_box.errors import ConfigError, InputError
from whis_box.evaluation.judge import (
    VERDICT_SCHEMA,
    JudgeFailedError,
    JudgePair,
    PairVerdict,
    ServerJudge,
    balanced_accuracy,
    judge_pair,
    read_pairs,
)
from whis_box.evaluation.settings import JudgeConfig
from whis_box.ingest.pipeline import read_folder
from whis_box.paths import repository_root

PAIRS = repository_root() / "data" / "golden" / "judge.ndjson"


def test_sixty_pairs_quote_the_guide_and_half_of_the_claims_are_false() -> None:
    pairs = read_pairs(PAIRS)
    records = {record.id: record for record in read_folder(repository_root() / "data" / "raw")}
    assert len(pairs) == 60 and len({one.id for one in pairs}) == len({one.claim for one in pairs}) == 60
    assert sum(one.supported for one in pairs) == 30
    for one in pairs:
        assert one.context in records[one.record_id].text, one.id
        assert (one.change == "none") == one.supported, one.id
    changes = Counter(one.change for one in pairs if not one.supported)
    assert set(changes) == {"identifier", "number", "tool", "platform", "role", "negation", "addition"}


def test_each_context_carries_one_true_and_one_false_claim() -> None:
    by_context = Counter((one.context, one.supported) for one in read_pairs(PAIRS))
    assert set(by_context.values()) == {1} and len(by_context) == 60


def verdicts(*judged: tuple[bool, bool | None]) -> list[PairVerdict]:
    return [PairVerdict(str(n), truth, said) for n, (truth, said) in enumerate(judged)]


def test_a_judge_that_always_says_yes_is_a_coin() -> None:
    assert balanced_accuracy(verdicts((True, True), (True, True), (True, True), (False, True))) == 0.5
    assert balanced_accuracy(verdicts((True, True), (False, False))) == 1.0
    assert balanced_accuracy(verdicts((True, None), (False, None))) == 0.0
    assert balanced_accuracy([]) == 0.0


class Says:
    """A judge with one answer."""

    def __init__(self, text: str) -> None:
        self.text = text

    def judge(self, prompt: str, schema: dict[str, Any]) -> str:
        if self.text == "fail":
            raise JudgeFailedError("no")
        return self.text


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ('{"verdict": 1}', True),
        ('{"verdict": 0}', False),
        ('{"verdict": 7}', None),
        ("{}", None),
        ("[1]", None),
        ("fail", None),
    ],
)
def test_only_0_and_1_are_verdicts(text: str, verdict: bool | None) -> None:
    pair = JudgePair(
        id="j1",
        record_id="r",
        context="Event 1102 is a cleared log.",
        claim="1102 is it.",
        supported=True,
        change="none",
    )
    assert judge_pair(Says(text), pair).verdict is verdict


def test_a_bad_calibration_line_is_named(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "judge.ndjson", PAIRS.read_text().splitlines()[0], "{}", "nonsense")
    with pytest.raises(InputError, match=r"(?s)line 2: id.*line 3"):
        read_pairs(path)


@pytest.mark.parametrize(
    "url", ["http://8.8.8.8/v1", "https://[2606:4700::1111]/v1", "ftp://127.0.0.1/", "http://"]
)
def test_a_judge_outside_this_network_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"judge\.model"):
        ServerJudge(url, JudgeConfig())


@pytest.fixture
def server() -> Iterator[tuple[str, dict[str, Any]]]:
    """An OpenAI-compatible server on loopback that says what the test puts into `kept`."""
    kept: dict[str, Any] = {"content": '{"verdict": 1}', "status": 200}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            kept["asked"] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = json.dumps({"choices": [{"message": {"content": kept["content"]}}]}).encode()
            self.send_response(kept["status"])
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return None

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}/v1", kept
        listening.shutdown()
        thread.join()


def test_a_local_server_is_asked_for_json_of_the_schema(server: tuple[str, dict[str, Any]]) -> None:
    url, kept = server
    judge = ServerJudge(url, JudgeConfig(name="big"))
    assert judge.judge("Is it?", VERDICT_SCHEMA) == '{"verdict": 1}'
    assert kept["asked"]["model"] == "big" and kept["asked"]["temperature"] == 0
    assert kept["asked"]["response_format"]["json_schema"]["schema"] == VERDICT_SCHEMA
    kept["content"] = "I think so."
    with pytest.raises(JudgeFailedError, match="no JSON"):
        judge.judge("Is it?", VERDICT_SCHEMA)
    kept["status"] = 500
    with pytest.raises(JudgeFailedError, match="500"):
        judge.judge("Is it?", VERDICT_SCHEMA)


def test_a_server_that_is_not_there_is_a_failure_and_no_score() -> None:
    with pytest.raises(JudgeFailedError, match="refused"):
        ServerJudge("http://127.0.0.1:9/v1", JudgeConfig()).judge("Is it?", VERDICT_SCHEMA)
