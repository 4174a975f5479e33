"""Jobs: submit, wait, follow, cancel; keys that make a retry safe; restarts, full disks and clocks."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.server
import json
import threading
import time
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.server_box import ALERT, QUESTION, FakeBox, Running, serving
from whis_box.errors import EngineCrashedError, StorageError
from whis_box.server.access import KeyEntry, digest
from whis_box.server.failures import HttpError
from whis_box.server.job_rows import NewJob
from whis_box.server.jobs import JobStore
from whis_box.server.settings import CallbackConfig, JobsConfig, ServerConfig

ASK = {"kind": "ask", "input": {"question": QUESTION}}


def new_job(key: str | None = None, fingerprint: str = "f", explicit: bool = True) -> NewJob:
    return NewJob("me", "ask", "{}", "red", fingerprint, idempotency_key=key, key_is_explicit=explicit)


@pytest.fixture
def store(tmp_path: Path) -> Any:
    opened = JobStore(tmp_path / "jobs.sqlite", JobsConfig())
    yield opened
    opened.close()


def test_a_job_is_accepted_at_once_and_gives_its_result(server: Running) -> None:
    answer = server.http.post("/v1/jobs", json=ASK)
    assert answer.status_code == 202 and answer.json()["status"] in ("queued", "running")
    job_id = answer.json()["id"]
    assert answer.headers["location"] == f"/v1/jobs/{job_id}"
    job = server.finished(job_id)
    assert job["status"] == "completed" and job["result"]["status"] == "answered"
    assert server.http.get(f"/v1/jobs/{job_id}/result").json() == job["result"]


def test_while_the_engine_is_busy_jobs_wait_and_show_their_place(server: Running) -> None:
    server.engine.gate.clear()
    ids = [server.http.post("/v1/jobs", json=ASK).json()["id"] for _ in range(3)]
    deadline = time.monotonic() + 5
    while server.http.get(f"/v1/jobs/{ids[0]}").json()["status"] != "running":
        assert time.monotonic() < deadline
    assert server.http.get(f"/v1/jobs/{ids[2]}").json()["position"] == 1
    early = server.http.get(f"/v1/jobs/{ids[2]}/result")
    assert early.status_code == 409 and early.json()["error"]["code"] == "job_not_finished"
    started = time.monotonic()
    assert server.http.get(f"/v1/jobs/{ids[2]}", params={"wait": 0.3}).json()["status"] == "queued"
    assert time.monotonic() - started >= 0.25
    server.engine.gate.set()
    assert [server.finished(one)["status"] for one in ids] == ["completed"] * 3
    listed = server.http.get("/v1/jobs", params={"limit": 2}).json()
    assert [one["id"] for one in listed["jobs"]] == ids[:0:-1] and listed["counts"] == {"completed": 3}
    assert server.http.get("/v1/jobs", params={"before": listed["next"]}).json()["jobs"][0]["id"] == ids[0]


def test_a_running_and_a_queued_job_can_be_cancelled_and_forgotten(server: Running) -> None:
    server.engine.gate.clear()
    first, second = (server.http.post("/v1/jobs", json=ASK).json()["id"] for _ in range(2))
    time.sleep(0.3)
    for job_id in (first, second):
        assert server.http.post(f"/v1/jobs/{job_id}/cancel").json()["status"] == "cancelled"
    server.engine.gate.set()
    assert server.finished(first)["status"] == "cancelled"
    assert server.http.get(f"/v1/jobs/{first}/result").status_code == 409
    assert server.http.delete(f"/v1/jobs/{first}").status_code == 204
    assert server.http.get(f"/v1/jobs/{first}").json()["error"]["code"] == "job_not_found"


def events_of(text: str) -> list[tuple[int, str, Any]]:
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "event" in fields:
            found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return found


def test_events_follow_a_job_and_go_on_after_an_id(server: Running) -> None:
    server.engine.gate.clear()
    job_id = server.http.post("/v1/jobs", json=ASK).json()["id"]
    threading.Timer(0.5, server.engine.gate.set).start()
    seen = events_of(server.http.get(f"/v1/jobs/{job_id}/events").text)
    names = [name for _, name, _ in seen]
    assert names[-1] == "answer" and "delta" in names and names[0] == "status"
    numbers = [number for number, _, _ in seen]
    assert numbers == sorted(set(numbers))
    rest = events_of(
        server.http.get(f"/v1/jobs/{job_id}/events", headers={"last-event-id": str(numbers[-2])}).text
    )
    assert rest == seen[-1:]
    done = server.http.get(f"/v1/jobs/{job_id}/events", headers={"last-event-id": str(numbers[-1])})
    assert events_of(done.text) == []


def test_prefer_turns_a_request_into_a_job_or_waits(server: Running) -> None:
    later = server.http.post("/v1/triage", json=ALERT, headers={"prefer": "respond-async"})
    assert later.status_code == 202 and later.headers["preference-applied"] == "respond-async"
    assert server.finished(later.json()["id"])["result"]["alert_id"] == "alert-1"
    now = server.http.post("/v1/ask", json={"question": QUESTION}, headers={"prefer": "wait=10"})
    assert now.status_code == 200 and now.json()["status"] == "answered"
    server.engine.gate.clear()
    slow = server.http.post("/v1/ask", json={"question": QUESTION}, headers={"prefer": "wait=0"})
    assert slow.status_code == 202
    server.engine.gate.set()
    assert server.finished(slow.json()["id"])["status"] == "completed"


def test_an_idempotency_key_replays_refuses_another_body_and_says_in_flight(server: Running) -> None:
    key, body = {"idempotency-key": "k-1"}, {"question": QUESTION}
    first = server.http.post("/v1/ask", json=body, headers=key)
    calls = len(server.engine.lanes)
    again = server.http.post("/v1/ask", json=body, headers=key)
    assert first.json() == again.json() and again.headers["idempotency-replayed"] == "true"
    assert len(server.engine.lanes) == calls
    other = server.http.post("/v1/ask", json={"question": "another one"}, headers=key)
    assert other.status_code == 422 and other.json()["error"]["code"] == "idempotency_key_reused"
    server.engine.gate.clear()
    running = server.http.post("/v1/jobs", json=ASK, headers={"idempotency-key": "k-2"})
    busy = server.http.post("/v1/ask", json=body, headers={"idempotency-key": "k-2"})
    assert busy.status_code == 409 and "retry-after" in busy.headers
    same = server.http.post("/v1/jobs", json=ASK, headers={"idempotency-key": "k-2"})
    assert same.json()["id"] == running.json()["id"]


def test_the_alerts_own_id_is_the_default_key(server: Running) -> None:
    job = {"kind": "triage", "input": ALERT}
    ids = {server.http.post("/v1/jobs", json=job).json()["id"] for _ in range(3)}
    assert len(ids) == 1
    changed = {"kind": "triage", "input": {**ALERT, "message": "updated"}}
    assert server.http.post("/v1/jobs", json=changed).json()["id"] not in ids
    without = {"kind": "triage", "input": {"message": "no id"}}
    assert len({server.http.post("/v1/jobs", json=without).json()["id"] for _ in range(2)}) == 2


def test_a_batch_is_one_job_a_line(server: Running) -> None:
    lines = [json.dumps({**ASK, "id": "a"}), '{"kind": "nope", "input": {}}', json.dumps({**ASK, "id": "b"})]
    answer = server.http.post(
        "/v1/jobs", content="\n".join(lines), headers={"content-type": "application/x-ndjson"}
    )
    got = [json.loads(line) for line in answer.text.splitlines()]
    assert answer.status_code == 202 and got[1]["error"]["code"] == "invalid_request"
    assert [server.finished(got[n]["id"])["result"]["request_id"] for n in (0, 2)] == ["a", "b"]


def test_a_job_belongs_to_its_key(fake_box: FakeBox) -> None:
    keys = [KeyEntry(id=name, sha256=digest(f"key-of-{name}"), scopes=["ask"]) for name in ("ann", "bob")]
    with serving(fake_box, keys=keys, local=False) as server:
        ann, bob = ({"x-api-key": f"key-of-{name}"} for name in ("ann", "bob"))
        job_id = server.http.post("/v1/jobs", json=ASK, headers=ann).json()["id"]
        assert server.http.get(f"/v1/jobs/{job_id}", headers=ann).status_code == 200
        assert server.http.get(f"/v1/jobs/{job_id}", headers=bob).status_code == 404
        assert server.http.get("/v1/jobs", headers=bob).json()["jobs"] == []
        triage = {"kind": "triage", "input": ALERT}
        assert server.http.post("/v1/jobs", json=triage, headers=ann).status_code == 403


def test_a_job_that_loses_its_engine_is_started_again_and_given_up_at_the_limit(fake_box: FakeBox) -> None:
    config = ServerConfig(jobs=JobsConfig(max_attempts=3))
    with serving(fake_box, config) as server:
        server.engine.errors["base"] = EngineCrashedError("the engine process died")
        job = server.finished(server.http.post("/v1/jobs", json=ASK).json()["id"])
        assert job["status"] == "failed" and job["attempts"] == 3
        assert job["error"]["code"] == "too_many_attempts"


def test_queued_and_running_jobs_survive_a_restart(fake_box: FakeBox) -> None:
    with serving(fake_box) as server:
        server.engine.gate.clear()
        ids = [server.http.post("/v1/jobs", json=ASK).json()["id"] for _ in range(4)]
        time.sleep(0.3)
        assert server.http.get(f"/v1/jobs/{ids[0]}").json()["status"] == "running"
        server.engine.stop = lambda: None  # type: ignore[method-assign]
    fake_box.engine.gate.set()
    with serving(fake_box) as server:
        jobs = [server.finished(one) for one in ids]
        assert [one["status"] for one in jobs] == ["completed"] * 4


def test_a_full_queue_is_refused(fake_box: FakeBox) -> None:
    with serving(fake_box, ServerConfig(jobs=JobsConfig(max_queued=1))) as server:
        server.engine.gate.clear()
        answers = [server.http.post("/v1/jobs", json=ASK) for _ in range(4)]
        refused = [one for one in answers if one.status_code == 503]
        assert refused and refused[0].json()["error"]["code"] == "queue_full"
        assert int(refused[0].headers["retry-after"]) > 0
        server.engine.gate.set()


def test_a_finished_job_is_posted_signed_to_an_allowed_host(
    fake_box: FakeBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = b"s" * 32
    monkeypatch.setenv("WHIS_WEBHOOK_SECRET", "whsec_" + base64.b64encode(secret).decode())
    got: list[tuple[dict[str, str], bytes]] = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            got.append(({k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(500 if len(got) == 1 else 204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base's name)
            pass

    receiver = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    host = f"127.0.0.1:{receiver.server_port}"
    config = ServerConfig(callbacks=CallbackConfig(hosts=[host], retries_s=[0.0, 0.1]))
    with serving(fake_box, config) as server:
        refused = server.http.post("/v1/jobs", json={**ASK, "callback_url": "http://elsewhere.example/x"})
        assert refused.status_code == 403
        job_id = server.http.post("/v1/jobs", json={**ASK, "callback_url": f"http://{host}/x"}).json()["id"]
        deadline = time.monotonic() + 10
        while len(got) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    receiver.shutdown()
    receiver.server_close()
    headers, body = got[1]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["webhook-id"] == job_id and json.loads(body)["status"] == "completed"


def test_a_job_ends_once_whatever_tries_to_end_it(store: JobStore) -> None:
    store.submit([new_job()])
    row = store.claim()
    assert row is not None
    assert store.requeue(row) and store.claim() is not None
    assert store.finish(row, "completed", "{}", None) is False  # the first attempt comes too late
    again = store.get(row.id, None)
    assert store.finish(again, "completed", '{"n": 1}', None) is True
    assert store.finish(again, "completed", '{"n": 2}', None) is False
    assert store.get(row.id, None).result == '{"n": 1}' and store.cancel(again) is False


def test_time_in_the_store_never_runs_backwards(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    [(first, _)] = store.submit([new_job()])
    monkeypatch.setattr("whis_box.server.jobs.time.time", lambda: first.created_at - 86_400)
    [(second, _)] = store.submit([new_job()])
    assert second.created_at >= first.created_at
    row = store.claim()
    assert row is not None and row.id == first.id
    store.finish(row, "completed", "{}", None)
    assert store.expire() == 0 and store.get(row.id, None).status == "completed"


def test_a_finished_job_and_its_key_are_forgotten_after_their_time(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.submit([new_job("k")])
    row = store.claim()
    assert row is not None
    store.finish(row, "completed", "{}", None)
    monkeypatch.setattr("whis_box.server.jobs.time.time", lambda: row.created_at + 73 * 3600)
    assert store.expire() == 1
    with pytest.raises(HttpError, match="not known"):
        store.get(row.id, None)
    assert store.submit([new_job("k", "another body")])[0][1] is True


def test_a_full_disk_is_a_typed_error_and_loses_nothing(store: JobStore, tmp_path: Path) -> None:
    store.submit([new_job("kept")])
    connection = store._connection
    [(pages,)] = connection.execute("pragma page_count")
    connection.execute(f"pragma max_page_count = {pages}").fetchall()
    big = NewJob("me", "ask", json.dumps({"x": "y" * 200_000}), "red", "f")
    with pytest.raises(StorageError, match="disk is full"):
        store.submit([big])
    connection.execute("pragma max_page_count = 1000000").fetchall()
    assert store.submit([new_job("kept")])[0][1] is False
    assert store.submit([big])[0][1] is True
    assert isinstance(connection, apsw.Connection)
