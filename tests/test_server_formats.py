"""A triage in the form its caller asks for, over a real socket."""

from __future__ import annotations

import json

import pytest

from tests.server_box import ALERT, QUESTION, Running
from whis_box.server.formats import MEDIA_TYPES, Format, chosen


@pytest.mark.parametrize(
    ("asked", "accept", "form"),
    [
        (None, "", "json"),
        (None, "*/*", "json"),
        (None, "text/html, image/png", "json"),
        (None, "text/markdown", "case"),
        (None, "application/stix+json;version=2.1", "stix"),
        (None, "application/json;q=0.5, application/stix+json", "stix"),
        (None, "text/markdown;q=0.2, */*;q=0.9", "json"),
        (None, "text/markdown;q=0", "json"),
        (None, "text/markdown;q=oops, application/cacao+json", "cacao"),
        ("json", "text/markdown", "json"),
        ("navigator", "application/stix+json", "navigator"),
    ],
)
def test_the_query_wins_over_the_best_known_media_type(asked: Format | None, accept: str, form: str) -> None:
    assert chosen(asked, accept) == form


@pytest.mark.parametrize("name", MEDIA_TYPES)
def test_a_triage_comes_in_each_form_by_query_and_by_media_type(server: Running, name: Format) -> None:
    by_query = server.http.post("/v1/triage", params={"format": name}, json=ALERT)
    by_accept = server.http.post("/v1/triage", json=ALERT, headers={"Accept": MEDIA_TYPES[name]})
    for answer in (by_query, by_accept):
        assert answer.status_code == 200
        assert answer.headers["content-type"] == MEDIA_TYPES[name]
        if name == "case":
            assert answer.text.startswith("# LSASS access")
        else:
            key = {"navigator": "techniques", "stix": "objects", "cacao": "workflow"}[name]
            assert answer.json()[key]


def test_the_forms_say_what_the_triage_says(server: Running) -> None:
    triage = server.http.post("/v1/triage", json=ALERT).json()
    layer = server.http.post("/v1/triage?format=navigator", json=ALERT).json()
    assert [one["techniqueID"] for one in layer["techniques"]] == [one["id"] for one in triage["techniques"]]
    bundle = server.http.post("/v1/triage?format=stix", json={"id": "case-9", "event": ALERT}).json()
    [opinion] = [one for one in bundle["objects"] if one["type"] == "opinion"]
    assert opinion["explanation"].startswith(triage["verdict"])


def test_a_batch_has_one_export_a_line_and_goes_on_after_a_bad_one(server: Running) -> None:
    lines = [json.dumps({"id": "a", "event": ALERT}), "{", json.dumps(ALERT)]
    headers = {"content-type": "application/x-ndjson"}
    answer = server.http.post("/v1/triage?format=case", content="\n".join(lines), headers=headers)
    first, bad, last = (json.loads(line) for line in answer.text.splitlines())
    assert first["request_id"] == "a" and first["case"].startswith("# LSASS access")
    assert bad["error"]["code"] == "invalid_json" and last["case"]


def test_one_job_has_every_form_and_the_same_export_twice(server: Running) -> None:
    job = server.http.post("/v1/jobs", json={"kind": "triage", "input": ALERT}).json()
    assert server.finished(job["id"])["status"] == "completed"
    result = f"/v1/jobs/{job['id']}/result"
    assert server.http.get(result).json()["alert_id"] == "alert-1"
    first = server.http.get(result, params={"format": "stix"})
    assert first.headers["content-type"] == MEDIA_TYPES["stix"]
    assert first.json() == server.http.get(result, headers={"Accept": "application/stix+json"}).json()
    assert server.http.get(result, headers={"Accept": "text/markdown"}).text.startswith("# LSASS access")


def test_a_waiting_request_and_its_repetition_come_in_the_form_each_asks_for(server: Running) -> None:
    headers = {"Prefer": "wait=10", "Idempotency-Key": "k-1"}
    note = server.http.post("/v1/triage?format=case", json=ALERT, headers=headers)
    assert note.text.startswith("# LSASS access") and note.headers["location"]
    again = server.http.post("/v1/triage", json=ALERT, headers=headers)
    assert again.headers["idempotency-replayed"] == "true" and again.json()["alert_id"] == "alert-1"


def test_what_has_no_form_says_so(server: Running) -> None:
    streamed = server.http.post("/v1/triage?stream=1&format=stix", json=ALERT)
    assert (streamed.status_code, streamed.json()["error"]["code"]) == (400, "format_not_streamed")
    asked = {"kind": "ask", "input": {"question": QUESTION}}
    job = server.http.post("/v1/jobs", json=asked).json()
    server.finished(job["id"])
    wrong = server.http.get(f"/v1/jobs/{job['id']}/result?format=stix")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "format_not_available")
    lenient = server.http.get(f"/v1/jobs/{job['id']}/result", headers={"Accept": "text/markdown"})
    assert lenient.json()["status"] == "answered"
    unknown = server.http.post("/v1/triage?format=pdf", json=ALERT)
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (422, "format")


@pytest.mark.parametrize("name", MEDIA_TYPES)
def test_text_that_no_encoding_holds_breaks_no_form(server: Running, name: Format) -> None:
    event = b'{"rule": {"name": "broken \\ud800 text"}, "process": {"command_line": "a \\udfff b c"}}'
    answer = server.http.post("/v1/triage", params={"format": name}, content=event)
    assert answer.status_code in (200, 400), answer.text


def test_the_document_names_every_form(server: Running) -> None:
    document = server.http.get("/openapi.json").json()
    for path, method in (("/v1/triage", "post"), ("/v1/jobs/{job_id}/result", "get")):
        route = document["paths"][path][method]
        assert set(MEDIA_TYPES.values()) <= set(route["responses"]["200"]["content"])
        assert "format" in [one["name"] for one in route["parameters"]]
