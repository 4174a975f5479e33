"""Rollout: who gets what, what may be promoted, what comes back by itself, and the unseen shadow."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.server_box import (
    ALERT,
    LINEAGE,
    QUESTION,
    FakeBox,
    Running,
    make_gate,
    make_shelf,
    serving,
)
from whis_box.audit import verify_log
from whis_box.box.manifest import FORMAT_VERSION, Manifest, describe_folder, write_manifest
from whis_box.cli import main
from whis_box.config import load_config
from whis_box.errors import (
    EXIT_NOT_READY,
    EXIT_OK,
    EXIT_USAGE,
    ConfigError,
    EngineError,
    InputError,
    NotReadyError,
)
from whis_box.paths import repository_root
from whis_box.rollout.compare import agreement
from whis_box.rollout.config import EnvironmentConfig, RollbackRules, RolloutConfig
from whis_box.rollout.control import Control, arm_of
from whis_box.rollout.releases import Release, Shelf, gate_of, read_shelf
from whis_box.rollout.state import Rate, RolloutRequest, RolloutState
from whis_box.rollout.store import RolloutStore

GOOD, BAD = Release(adapter="good@1"), Release(adapter="bad@1")


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return make_shelf(tmp_path, tmp_path / "index.sqlite")


@pytest.fixture
def control(tmp_path: Path) -> Any:
    rules = RollbackRules(min_requests=5)
    config = RolloutConfig(environments={"prod": EnvironmentConfig(rollback=rules)})
    store = RolloutStore(tmp_path / "rollout.sqlite")
    yield Control(config, store)
    store.close()


def ask(**fields: Any) -> RolloutRequest:
    return RolloutRequest.model_validate(fields)


def test_the_config_file_loads_and_an_unknown_environment_is_named(tmp_path: Path) -> None:
    path = repository_root() / "configs" / "rollout.yaml"
    assert load_config(path, RolloutConfig).model_dump(mode="json") == yaml.safe_load(path.read_text())
    (tmp_path / "r.yaml").write_text("environment: moon\n")
    with pytest.raises(ConfigError, match="'moon' is none of"):
        load_config(tmp_path / "r.yaml", RolloutConfig)


def test_a_canary_is_promoted_with_its_gate_and_rolled_back(control: Control, shelf: Shelf) -> None:
    control.act("canary", ask(adapter="good@1", percent=20), shelf, "me")
    assert control.state().canary == GOOD and control.state().stable == Release()
    promoted = control.act("promote", ask(), shelf, "me")
    assert (promoted.stable, promoted.previous, promoted.canary) == (GOOD, Release(), None)
    back = control.act("rollback", ask(reason="worse"), shelf, "me")
    assert back.stable == Release() and back.revision == 3
    events = control.store.events("prod", 10)
    assert [one.action for one in events] == ["rollback", "promote", "canary"]
    assert events[0].reason == "worse" and events[0].actor == "me"


def test_promotion_needs_a_passed_gate_for_exactly_these_files(
    control: Control, shelf: Shelf, tmp_path: Path
) -> None:
    control.act("canary", ask(adapter="bad@1"), shelf, "me")
    with pytest.raises(NotReadyError, match=r"gate\.json: missing"):
        control.act("promote", ask(), shelf, "me")
    path = Path(make_gate(tmp_path, "bad", adapter="1" * 64))
    with pytest.raises(NotReadyError, match="another subject"):
        control.act("promote", ask(), shelf, "me")
    make_gate(tmp_path, "bad", adapter="2" * 64, index="old")
    with pytest.raises(NotReadyError, match="another subject"):
        control.act("promote", ask(), shelf, "me")
    make_gate(tmp_path, "bad", adapter="2" * 64)
    path.write_text(path.read_text().replace("0.5", "0.1"))
    with pytest.raises(NotReadyError, match="digest does not match"):
        control.act("promote", ask(), shelf, "me")
    assert control.state().stable == Release()


@pytest.mark.parametrize(
    ("action", "fields", "error"),
    [
        ("promote", {}, InputError),
        ("rollback", {}, InputError),
        ("canary", {}, InputError),
        ("canary", {"adapter": "../x"}, InputError),
        ("canary", {"adapter": "gone@9"}, NotReadyError),
        ("canary", {"adapter": "base@box"}, InputError),
        ("activate", {"adapter": "base@box"}, InputError),
        ("shadow", {"adapter": "good@1", "index": "none@1"}, NotReadyError),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(
    control: Control, shelf: Shelf, action: Any, fields: dict[str, str], error: type[Exception]
) -> None:
    with pytest.raises(error):
        control.act(action, ask(**fields), shelf, "me")
    assert control.state().revision == 0


def test_two_writers_do_not_overwrite_each_other(control: Control, shelf: Shelf) -> None:
    before = control.state()
    assert control.store.change(before, before, "a", "stop") is not None
    assert control.store.change(before, before, "b", "stop") is None


def test_a_key_keeps_its_arm_and_the_share_is_kept() -> None:
    state = RolloutState(environment="prod", canary=GOOD, canary_percent=25)
    arms = [arm_of(state, f"alert-{n}")[0] for n in range(4000)]
    assert arms == [arm_of(state, f"alert-{n}")[0] for n in range(4000)]
    assert 0.22 < arms.count("canary") / 4000 < 0.28
    assert all(
        arm_of(state.model_copy(update={"canary_percent": 0}), str(n))[0] == "stable" for n in range(500)
    )
    assert all(
        arm_of(state.model_copy(update={"canary_percent": 100}), str(n))[0] == "canary" for n in range(500)
    )


def test_abstentions_count_in_neither_half_but_as_misses_of_recall() -> None:
    def pair(stable: str, other: str, same: bool | None, analyst: str | None = None) -> dict[str, Any]:
        return {"stable": stable, "other": other, "same": same, "analyst": analyst}

    found = agreement(
        [
            pair("escalate", "escalate", True),
            pair("escalate", "needs_review", None),
            pair("benign", "escalate", False, "true_positive"),
            pair("escalate", "benign", False, "false_positive"),
        ]
    )
    assert (found.agreement.numerator, found.agreement.denominator) == (1, 3)
    assert (found.recall_on_malicious.numerator, found.recall_on_malicious.denominator) == (2, 3)
    assert found.abstained.value == 0.25 and found.analyst_agreement.value == 1.0
    empty = agreement([])
    assert str(empty.agreement) == "not measured" and str(Rate.of(1, 2)) == "0.500 (1/2)"


def observe(control: Control, arm: str, release: Release, n: int, ok: bool = True, ms: float = 100.0) -> None:
    control.store.observe([("prod", arm, str(release), ok, ms, False)] * n)


def test_errors_and_latency_break_a_canary_but_not_before_enough_requests(
    control: Control, shelf: Shelf
) -> None:
    control.act("canary", ask(adapter="good@1", percent=50), shelf, "me")
    observe(control, "canary", GOOD, 4, ok=False)
    assert control.breach() == ""
    observe(control, "canary", GOOD, 1, ok=False)
    assert control.breach().startswith("error rate 1.000 (5/5)")
    observe(control, "canary", GOOD, 95)
    assert control.breach() == ""
    observe(control, "stable", Release(), 100)
    observe(control, "canary", GOOD, 30, ms=400.0)
    assert "p95 400 ms is 4.00 times 100 ms" in control.breach()


def test_a_release_that_was_just_promoted_is_judged_too(control: Control, shelf: Shelf) -> None:
    observe(control, "stable", Release(), 20)
    control.act("activate", ask(adapter="good@1"), shelf, "me")
    observe(control, "stable", GOOD, 5, ok=False)
    assert control.breach().startswith("error rate")
    assert control.act("rollback", ask(), shelf, "auto").stable == Release()


def test_the_shelf_reads_adapters_indexes_and_gates(tmp_path: Path) -> None:
    folder = tmp_path / "box" / "adapters" / "soc" / "2"
    folder.mkdir(parents=True)
    (folder / "adapter.gguf").write_bytes(b"GGUF")
    found = read_shelf(tmp_path / "box", tmp_path / "state", tmp_path / "i.sqlite", LINEAGE)
    held = found.adapters["soc@2"]
    assert held.origin == "box" and found.lineage_of(Release(adapter="soc@2")).adapter == held.sha256
    assert gate_of(held) is None and "missing" in found.gate_problem(Release(adapter="soc@2"))
    make_gate(folder.parent, "2", adapter=held.sha256)
    assert found.gate_problem(Release(adapter="soc@2")) == ""
    (folder / "gate.json").write_text("{")
    assert gate_of(held) is None and "gate.json" in found.gate_problem(Release(adapter="soc@2"))


# ------------------------------------------------------------------ served


def wait_for(check: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def act(server: Running, action: str, **fields: Any) -> dict[str, Any]:
    answer = server.http.post(f"/v1/rollout/{action}", json=fields)
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


def test_a_canary_answers_its_share_is_promoted_and_goes_back_with_the_answer(server: Running) -> None:
    act(server, "canary", adapter="good@1", percent=100)
    answer = server.http.post("/v1/ask", json={"question": QUESTION}).json()
    assert answer["lineage"]["adapter"] == "1" * 64 and server.engine.lanes[-1] == "good@1"
    assert act(server, "promote")["stable"]["adapter"] == "good@1"
    assert server.http.post("/v1/triage", json=ALERT).json()["lineage"]["adapter"] == "1" * 64
    pid = server.http.get("/v1/box/engine").json()["pid"]
    act(server, "rollback", reason="worse")
    assert server.http.post("/v1/ask", json={"question": QUESTION}).json()["lineage"]["adapter"] == "none"
    assert server.http.get("/v1/box/engine").json()["pid"] == pid
    actions = [one["action"] for one in server.http.get("/v1/audit").json()["entries"]]
    assert {"rollout.canary", "rollout.promote", "rollout.rollback", "rollout.active"} <= set(actions)


def test_a_change_by_another_process_is_followed(server: Running, fake_box: FakeBox) -> None:
    other = Control(RolloutConfig(), RolloutStore(server.service.rollout_store.path))
    other.act("canary", ask(adapter="good@1", percent=100), fake_box.shelf, "cli")
    wait_for(lambda: server.http.get("/v1/rollout").json()["revision"] == 1, 2.0)
    server.http.post("/v1/ask", json={"question": QUESTION})
    assert server.engine.lanes[-1] == "good@1"
    other.store.close()


def test_a_canary_that_fails_goes_back_by_itself(fake_box: FakeBox) -> None:
    rules = EnvironmentConfig(rollback=RollbackRules(min_requests=3))
    with serving(fake_box, rollout=RolloutConfig(environments={"prod": rules})) as server:
        act(server, "canary", adapter="bad@1", percent=100)
        server.engine.errors["bad@1"] = EngineError("the adapter is broken")
        codes = [
            server.http.post("/v1/ask", json={"question": f"audit log {n}"}).status_code for n in range(3)
        ]
        assert codes == [500] * 3
        wait_for(lambda: server.http.get("/v1/rollout").json()["canary"] is None)
        assert server.http.post("/v1/ask", json={"question": QUESTION}).status_code == 200
        event = server.http.get("/v1/rollout/events").json()[0]
        assert event["actor"] == "auto" and "error rate 1.000 (3/3)" in event["reason"]


def test_a_promotion_without_its_gate_is_a_conflict(server: Running) -> None:
    act(server, "canary", adapter="bad@1")
    refused = server.http.post("/v1/rollout/promote", json={})
    assert refused.status_code == 409 and "gate.json: missing" in refused.json()["error"]["message"]
    assert "gate.json: missing" in server.http.get("/v1/rollout/report").json()["gate_problem"]


def test_a_shadow_compares_and_never_answers(server: Running) -> None:
    act(server, "shadow", adapter="good@1")
    for n in range(3):
        answer = server.http.post("/v1/ask", json={"question": QUESTION, "id": f"q-{n}"}).json()
        assert answer["lineage"]["adapter"] == "none"
    report: dict[str, Any] = {}

    def compared() -> bool:
        report.update(server.http.get("/v1/rollout/report").json())
        return [one["errors"]["denominator"] for one in report["arms"]] == [3, 3]

    wait_for(compared)
    assert report["comparison"]["pairs"] == 3
    assert report["comparison"]["agreement"] == {"value": 1.0, "numerator": 3, "denominator": 3}
    assert report["comparison"]["analyst_agreement"]["value"] is None
    assert {one["arm"]: one["errors"]["denominator"] for one in report["arms"]} == {"stable": 3, "shadow": 3}
    metrics = server.http.get("/metrics").text
    assert 'whis_rollout_pairs{other="good@1 on index@box",outcome="same"} 3.0' in metrics


def test_a_request_interrupts_the_shadow_which_comes_back_later(server: Running) -> None:
    act(server, "shadow", adapter="good@1")
    server.http.post("/v1/ask", json={"question": QUESTION})
    server.engine.gate.clear()
    wait_for(lambda: server.engine.lanes[-1] == "good@1")
    server.engine.gate.set()
    wait_for(lambda: server.http.get("/v1/rollout/report").json()["comparison"]["pairs"] == 1)
    server.engine.gate.clear()
    seats = server.service.seats
    assert seats is not None
    shadow = seats.submit(2, Release(), lambda copilot: copilot.ask(QUESTION))
    wait_for(lambda: seats.busy == 1)
    stable = seats.submit(0, Release(), lambda copilot: copilot.search(QUESTION))
    assert stable.future.result(5) and isinstance(shadow.future.exception(5), EngineError)


def test_a_shadow_that_fails_changes_nothing(server: Running) -> None:
    act(server, "shadow", adapter="bad@1")
    server.engine.errors["bad@1"] = EngineError("broken")
    assert server.http.post("/v1/ask", json={"question": QUESTION}).status_code == 200
    wait_for(lambda: server.http.get("/v1/rollout/report").json()["arms"][1]["errors"]["numerator"] == 1)


def test_a_rating_joins_the_comparison(server: Running) -> None:
    act(server, "shadow", adapter="good@1")
    triage = server.http.post("/v1/triage", json=ALERT).json()
    rated = server.http.post(
        "/v1/feedback",
        json={"answer_id": triage["id"], "rating": "up", "verdict": "true_positive", "training": "yes"},
    )
    assert rated.status_code == 201 and rated.json()["adapter"] == "none"
    wait_for(lambda: server.http.get("/v1/rollout/report").json()["comparison"]["pairs"] == 1)
    compared = server.http.get("/v1/rollout/report").json()["comparison"]
    assert compared["analyst_agreement"]["denominator"] == 1
    assert server.http.get("/v1/feedback").json()["counts"] == {"up": 1, "down": 0}
    unknown = server.http.post("/v1/feedback", json={"answer_id": "x", "rating": "up"})
    assert unknown.status_code == 404
    [row] = server.service.rollout_store.ratings(10)
    assert json.loads(row["input"]) == ALERT


def test_the_command_line_changes_and_shows_the_rollout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WHIS_STATE", str(tmp_path / "state"))
    box = tmp_path / "box"
    places = ("models/base.gguf", "index/whis.sqlite", "embedder/model.onnx", "adapters/soc/2/soc.gguf")
    for place in places:
        (box / place).parent.mkdir(parents=True, exist_ok=True)
        (box / place).write_bytes(place.encode())
    (box / "configs").mkdir()
    for name in ("box.yaml", "policy.yaml"):
        shutil.copy(repository_root() / "configs" / name, box / "configs")
    files = describe_folder(box)
    write_manifest(
        box, Manifest(format_version=FORMAT_VERSION, name="t", version="1", source_commit="c", files=files)
    )

    def whis(*command: str) -> tuple[int, str]:
        code = main(["adapters", *command, "--box", str(box)])
        return code, capsys.readouterr().out

    assert whis("canary", "gone@1")[0] == EXIT_NOT_READY
    code, out = whis("canary", "soc@2", "--percent", "25", "--reason", "first try")
    assert code == EXIT_OK and "soc@2 on index@box  25 %" in out
    assert whis("promote")[0] == EXIT_NOT_READY  # no gate file
    code, out = whis("list", "--json")
    assert [one["gate"] for one in json.loads(out)["held"]] == ["no gate"] * 3
    code, out = whis("report")
    assert "errors not measured" in out and "not to be promoted" in out
    assert "canary" not in whis("rollback", "--reason", "worse")[1]
    assert [line.split()[3] for line in whis("history")[1].splitlines()] == ["rollback", "canary"]
    assert verify_log(tmp_path / "state" / "audit-cli").entries == 2
    assert whis("rollback")[0] == EXIT_USAGE
