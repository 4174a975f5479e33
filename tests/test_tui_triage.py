"""Triage: keys on a real server with an engine that says what it is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.server_box import ALERT, Running
from tests.tui_pilot import Terminal, drive
from tui.screens.triage.queue import Queue
from tui.screens.triage.reading import Row
from tui.screens.triage.screen import TriageScreen
from tui.state import State


def alerts_in(folder: Path, count: int = 3) -> Path:
    """An NDJSON file of alerts that differ in their host."""
    path = folder / "alerts.ndjson"
    lines = [json.dumps(ALERT | {"_id": f"alert-{n}", "host": {"name": f"fs{n:02}"}}) for n in range(count)]
    path.write_text("\n".join(lines) + "\n")
    return path


def triage_screen(running: Terminal) -> TriageScreen:
    """The area, whatever lies over it."""
    return next(one for one in running.app.screen_stack if isinstance(one, TriageScreen))


def rows_of(running: Terminal) -> list[Row]:
    """All rows of the queue."""
    queue = triage_screen(running).queue
    assert queue is not None
    return queue.rows


def test_a_queue_is_triaged_judged_and_there_again_the_next_time(server: Running, tmp_path: Path) -> None:
    path = alerts_in(tmp_path)

    async def first(running: Terminal) -> None:
        await running.sees("3 alerts taken in")
        await running.press("T")
        await running.until(lambda: all(row.state == "done" for row in rows_of(running)))
        await running.press("a", "down", "x")
        await running.type("a test host")
        await running.press("enter")
        await running.until(lambda: rows_of(running)[1].decision)
        await running.until(lambda: len(server.http.get("/v1/feedback").json()["feedback"]) == 2)
        await running.press("enter", "space")
        await running.sees("[x]")

    async def second(running: Terminal) -> None:
        await running.until(lambda: len(rows_of(running)) == 3)
        assert [row.decision for row in rows_of(running)] == ["accepted", "rejected", ""]
        assert rows_of(running)[1].reason == "a test host" and rows_of(running)[1].ticked == {0}
        assert all(row.state == "done" for row in rows_of(running))

    drive(server, tmp_path, first, alerts=[str(path)], size=(100, 60))
    told = server.http.get("/v1/feedback").json()["feedback"]
    assert {(one["rating"], one["comment"]) for one in told} == {("up", ""), ("down", "a test host")}
    drive(server, tmp_path, second, alerts=[str(path)])


def test_a_correction_goes_to_every_marked_alert_with_its_verdict(server: Running, tmp_path: Path) -> None:
    async def flow(running: Terminal) -> None:
        await running.until(lambda: len(rows_of(running)) == 3)
        await running.press("T")
        await running.until(lambda: all(row.state == "done" for row in rows_of(running)))
        await running.press("asterisk", "c")
        await running.sees("benign true positive")
        await running.press("down", "down", "enter")
        await running.sees("Correct to false_positive")
        await running.press("enter")
        await running.until(lambda: all(row.decision for row in rows_of(running)))
        await running.until(lambda: len(server.http.get("/v1/feedback").json()["feedback"]) == 3)
        assert {one["verdict"] for one in server.http.get("/v1/feedback").json()["feedback"]} == {
            "false_positive"
        }

    drive(server, tmp_path, flow, alerts=[str(alerts_in(tmp_path))])


def test_the_queue_is_filtered_by_words_and_ordered(server: Running, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text(
        json.dumps({"_id": "z", "rule": {"name": "Audit log cleared"}, "event": {"kind": "alert"}})
    )

    async def flow(running: Terminal) -> None:
        await running.until(lambda: len(rows_of(running)) == 4)
        await running.press("slash")
        await running.type("cleared")
        await running.until(lambda: len(triage_screen(running).rows.items) == 1)
        await running.press("escape")
        assert len(triage_screen(running).rows.items) == 4
        await running.press(*["s"] * 5)
        assert triage_screen(running).rows.items[0].title == "Audit log cleared"

    drive(server, tmp_path, flow, alerts=[str(alerts_in(tmp_path)), str(other)])


@pytest.mark.parametrize(
    ("steps", "suffix", "holds"),
    [
        (0, "case.md", "# "),
        (1, "json.json", '"verdict"'),
        (2, "stix.json", '"bundle"'),
        (3, "navigator.json", '"enterprise-attack"'),
    ],
)
def test_a_case_is_exported(server: Running, tmp_path: Path, steps: int, suffix: str, holds: str) -> None:
    out = tmp_path / "out"

    async def flow(running: Terminal) -> None:
        await running.until(lambda: len(rows_of(running)) == 1)
        await running.press("t")
        await running.until(lambda: rows_of(running)[0].state == "done")
        await running.press("e", *["down"] * steps, "enter")
        await running.sees("Export to folder")
        running.screen.query_one("Input").value = str(out)
        await running.press("enter")
        await running.sees("wrote")
        [written] = out.iterdir()
        assert written.name.endswith(suffix) and holds in written.read_text()

    drive(server, tmp_path, flow, alerts=[str(alerts_in(tmp_path, 1))])


def test_the_raw_event_is_a_tree_that_can_be_searched(server: Running, tmp_path: Path) -> None:
    async def flow(running: Terminal) -> None:
        await running.until(lambda: len(rows_of(running)) == 1)
        await running.press("r", "slash")
        await running.type("minidump")
        await running.press("enter")
        await running.sees("1/1  process.command_line = rundll32.exe comsvcs.dll")

    drive(server, tmp_path, flow, alerts=[str(alerts_in(tmp_path, 1))])


def test_jobs_that_others_sent_are_taken_in(server: Running, tmp_path: Path) -> None:
    job = server.http.post("/v1/jobs", json={"kind": "triage", "input": ALERT, "id": "soar-7"}).json()
    server.finished(job["id"])

    async def flow(running: Terminal) -> None:
        await running.press("f3", "J")
        await running.sees("1 job of the server taken in", "job soar-7", "escalate")

    drive(server, tmp_path, flow)


def test_ten_thousand_rows_are_filtered_and_sorted() -> None:
    state = State(None)
    queue = Queue(state)
    levels = ("low", "high")
    queue.add([Row(f"{n:032}", None, f"alert {n}", severity=levels[n % 2]) for n in range(10_000)])
    assert [row.title for row in queue.seen("9999", "title")] == ["alert 9999"]
    ordered = [row.severity for row in queue.seen("", "severity")]
    assert ordered == ["high"] * 5000 + ["low"] * 5000
    state.close()
