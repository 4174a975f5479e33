"""The routes over a real socket: answers, errors, limits, keys, and what must never leave."""

from __future__ import annotations

import gzip
import json
import socket
import time

import pytest

from tests.server_box import ALERT, QUESTION, FakeBox, Running, serving
from whis_box.server.access import KeyEntry, digest
from whis_box.server.settings import HttpLimits, ServerConfig

READER = "reader-key-0123456789abcdef"
ADMIN = "admin-key-0123456789abcdef"


def keys() -> list[KeyEntry]:
    return [
        KeyEntry(id="reader", sha256=digest(READER), scopes=["ask"], clearance="clear"),
        KeyEntry(id="boss", sha256=digest(ADMIN), scopes=["admin"], clearance="red"),
    ]


def test_an_answer_and_a_triage_come_whole(server: Running) -> None:
    answer = server.http.post("/v1/ask", json={"question": QUESTION, "id": "case-1"})
    assert answer.status_code == 200 and answer.json()["request_id"] == "case-1"
    assert answer.json()["citations"][0]["record_id"] == "win-1102"
    triage = server.http.post("/v1/triage", json=ALERT).json()
    assert triage["alert_id"] == "alert-1" and triage["verdict"] in ("escalate", "needs_review")


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_body_is_json_whatever_its_content_type_says(server: Running, content_type: str | None) -> None:
    headers = {"content-type": content_type} if content_type else {}
    body = json.dumps({"question": QUESTION}).encode()
    assert server.http.post("/v1/ask", content=body, headers=headers).status_code == 200


def test_a_stream_ends_with_the_whole_answer(server: Running) -> None:
    body = server.http.post("/v1/ask?stream=1", json={"question": QUESTION}).text
    names = [line[7:] for line in body.splitlines() if line.startswith("event: ")]
    assert names == ["delta", "answer"]
    final = json.loads(body.splitlines()[-2].removeprefix("data: "))
    assert final["status"] == "answered"
    assert json.loads(body.splitlines()[1].removeprefix("data: "))["text"] in final["answer"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 422, "invalid_request"),
        (b"{", 400, "invalid_json"),
        (b"[1]", 400, "invalid_json"),
        (b'{"question": "a", "question": "b"}', 400, "invalid_json"),
        (b'{"question": NaN}', 400, "invalid_json"),
        (b'{"question": "\xff"}', 400, "invalid_json"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, 400, "invalid_json"),
        (b'{"question": 1}', 422, "invalid_request"),
        (b'{"question": "x", "typo": 1}', 422, "invalid_request"),
        (b'{"question": "   "}', 400, "invalid_input"),
        (b'{"question": "x", "model": "gpt-4"}', 404, "model_not_found"),
    ],
)
def test_bad_bodies_get_a_typed_error(server: Running, body: bytes, status: int, code: str) -> None:
    answer = server.http.post("/v1/ask", content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["error"]["message"]


def test_a_body_over_the_limit_and_a_packed_one_are_refused(fake_box: FakeBox) -> None:
    with serving(fake_box, ServerConfig(limits=HttpLimits(max_body_bytes=2000))) as server:
        large = server.http.post("/v1/ask", content=b'{"question": "' + b"x" * 3000 + b'"}')
        assert large.status_code == 413 and large.json()["error"]["code"] == "body_too_large"
        for _ in range(10):  # a client that is still sending sees the answer, not a reset
            huge = server.http.post("/v1/ask", content=b"x" * 8_000_000)
            assert huge.json()["error"]["code"] == "body_too_large"
        unannounced = server.http.post("/v1/ask", content=iter([b"x" * 1500, b"x" * 1500]))
        assert unannounced.status_code == 413
        packed = gzip.compress(b'{"question": "' + b"x" * 1_000_000 + b'"}')
        answer = server.http.post("/v1/ask", content=packed, headers={"content-encoding": "gzip"})
        assert answer.status_code == 400 and answer.json()["error"]["code"] == "encoded_body"


def test_a_slow_body_and_a_slow_head_end(fake_box: FakeBox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whis_box.server.serve.HEADER_TIMEOUT_S", 0.3)
    with serving(fake_box, ServerConfig(limits=HttpLimits(body_timeout_s=0.3))) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as slow:
            slow.sendall(b"POST /v1/ask HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
            slow.settimeout(5)
            assert b" 408 " in slow.recv(4096).split(b"\r\n")[0]
        with socket.create_connection(("127.0.0.1", server.port)) as slower:
            slower.sendall(b"GET /healthz HT")
            slower.settimeout(5)
            started = time.monotonic()
            assert slower.recv(4096) == b"" and time.monotonic() - started < 4
        assert server.http.get("/healthz").status_code == 200


def test_other_hosts_and_web_pages_are_refused(server: Running) -> None:
    foreign = server.http.get("/version", headers={"host": "evil.example"})
    assert foreign.status_code == 403 and foreign.json()["error"]["code"] == "host_not_allowed"
    page = server.http.post("/v1/ask", json={"question": QUESTION}, headers={"origin": "http://evil.example"})
    assert page.status_code == 403
    assert "access-control-allow-origin" not in page.headers


def test_every_answer_carries_the_security_headers_and_its_request_id(server: Running) -> None:
    for path in ("/healthz", "/nope", "/v1/models"):
        answer = server.http.get(path, headers={"x-request-id": "abc-1"})
        assert answer.headers["x-request-id"] == "abc-1"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "server" not in answer.headers
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    answer = server.http.get("/healthz", headers={"traceparent": trace})
    assert answer.headers["x-request-id"] == "4bf92f3577b34da6a3ce929d0e0e4736"


def test_keys_scopes_and_clearance(fake_box: FakeBox) -> None:
    with serving(fake_box, keys=keys(), local=False) as server:
        none = server.http.get("/v1/models")
        assert none.status_code == 401 and none.headers["www-authenticate"].startswith("Bearer")
        assert server.http.get("/healthz").status_code == 200
        wrong = server.http.get("/v1/models", headers={"authorization": "Bearer nope"})
        assert wrong.status_code == 401 and "nope" not in wrong.text
        for name, value in (
            ("authorization", f"Bearer {READER}"),
            ("x-api-key", READER),
            ("ph-auth-token", READER),
        ):
            assert server.http.get("/v1/models", headers={name: value}).status_code == 200
        reader = {"x-api-key": READER}
        assert (
            server.http.post("/v1/triage", json=ALERT, headers=reader).json()["error"]["code"]
            == "scope_missing"
        )
        assert server.http.get("/v1/audit", headers=reader).status_code == 403
        query = {"query": "CVE-2021-44228 jndi ldap"}
        seen = server.http.post("/v1/search", json=query, headers=reader).json()["hits"]
        assert seen and all(hit["chunk"]["meta"]["tlp"] == "clear" for hit in seen)
        boss = {"x-api-key": ADMIN}
        assert any(
            hit["chunk"]["record_id"] == "log4shell"
            for hit in server.http.post("/v1/search", json=query, headers=boss).json()["hits"]
        )
        assert server.http.get("/v1/library/records/log4shell", headers=reader).status_code == 404
        assert server.http.get("/v1/library/records/log4shell", headers=boss).status_code == 200
        asked = server.http.post(
            "/v1/ask", json={"question": "What does CVE-2021-44228 let an attacker do?"}, headers=reader
        ).json()
        assert all(one["tlp"] == "clear" for one in asked["citations"])


def test_a_key_that_has_expired_is_unknown(fake_box: FakeBox) -> None:
    old = KeyEntry.model_validate(
        {"id": "old", "sha256": digest(READER), "scopes": ["ask"], "not_after": "2020-01-01T00:00:00Z"}
    )
    with serving(fake_box, keys=[old], local=False) as server:
        assert server.http.get("/v1/models", headers={"x-api-key": READER}).status_code == 401


def test_rate_and_concurrency_are_limited(fake_box: FakeBox) -> None:
    slow_key = keys()[0].model_copy(update={"rate_per_minute": 2})
    with serving(fake_box, keys=[slow_key], local=False) as server:
        codes = [server.http.get("/v1/models", headers={"x-api-key": READER}) for _ in range(3)]
        assert [one.status_code for one in codes] == [200, 200, 429]
        assert int(codes[2].headers["retry-after"]) >= 1


def test_an_unexpected_fault_shows_no_trace(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret inside")

    monkeypatch.setattr(server.service, "release_for", broken)
    answer = server.http.post("/v1/ask", json={"question": QUESTION})
    assert answer.status_code == 500 and answer.json()["error"]["code"] == "internal_error"
    assert "secret" not in answer.text and "Traceback" not in answer.text


def test_ndjson_gives_one_line_for_each_in_order(server: Running) -> None:
    lines = [
        json.dumps({"id": "a", "question": QUESTION}),
        "{broken",
        json.dumps({"id": "c", "question": QUESTION}),
    ]
    answer = server.http.post(
        "/v1/ask/batch", content="\n".join(lines), headers={"content-type": "application/x-ndjson"}
    )
    got = [json.loads(line) for line in answer.text.splitlines()]
    assert [one["request_id"] for one in got] == ["a", None, "c"]
    assert got[1]["error"]["code"] == "invalid_json" and got[1]["line"] == 2


def test_metrics_count_and_hold_no_text(server: Running) -> None:
    server.http.post("/v1/ask", json={"question": QUESTION})
    server.http.post("/v1/ask", json={"question": 1})
    text = server.http.get("/metrics").text
    assert 'whis_outcomes_total{kind="ask",outcome="answered"} 1.0' in text
    assert 'whis_refusals_total{code="invalid_request"} 1.0' in text
    assert "whis_ttft_seconds_bucket" in text and "audit log" not in text
    summary = server.http.get("/v1/metrics/summary").json()
    assert summary["completion_tokens"] == 5 and summary["cached_tokens"] == 40


def test_the_audit_log_has_digests_and_verifies(server: Running) -> None:
    answer = server.http.post("/v1/ask", json={"question": QUESTION}, headers={"x-request-id": "r-1"}).json()
    entries = server.http.get("/v1/audit").json()["entries"]
    asked = [one for one in entries if one["action"] == "ask"]
    assert asked[0]["subject"] == answer["id"] and asked[0]["request_id"] == "r-1"
    assert asked[0]["detail"]["cited"] == [one["sha256"] for one in answer["citations"]]
    assert QUESTION not in json.dumps(entries)
    assert server.http.get("/v1/audit/verify").json()["intact"] is True


def test_the_library_the_box_and_the_engine_are_described(server: Running) -> None:
    library = server.http.get("/v1/library").json()
    assert sum(one["records"] for one in library["sources"]) == 3 and library["writable"] is False
    page = server.http.get("/v1/library/records", params={"limit": 2}).json()
    assert page["total"] == 3 and page["next"] == page["records"][-1]["id"]
    rest = server.http.get("/v1/library/records", params={"after": page["next"]}).json()
    assert len(rest["records"]) == 1
    whole = server.http.get("/v1/library/records/lsass/chunks").json()
    chunk = whole["chunks"][0]
    assert whole["record"]["text"][chunk["start"] : chunk["end"]] == chunk["text"]
    assert server.http.get(f"/v1/library/chunks/{chunk['id']}").json() == chunk
    assert server.http.get("/v1/box/engine").json()["pid"] == 4242
    assert server.http.get("/v1/box").json()["files"] == 1
    assert server.http.post("/v1/box/verify").json()["intact"] is True
    (server.service.box.folder / "LICENSE").write_text("FREE")
    assert "LICENSE" in server.http.post("/v1/box/verify").json()["problems"][0]
    assert server.http.get("/v1/me").json()["name"] == "local"
    refused = server.http.post("/v1/jobs", json={"kind": "purge", "input": {"record_id": "lsass"}})
    assert refused.status_code == 409 and refused.json()["error"]["code"] == "library_read_only"
