"""A Splunk SOAR playbook over the HTTP app (asset "whis"): submit, poll, branch.

The asset's base_url is the server's own address, not loopback, which the app refuses; its auth token
header may stay `ph-auth-token`; test_path is /healthz. Bodies go as raw strings, as the app sends them.
"""

from __future__ import annotations

import json
from typing import Any

import phantom.rules as phantom  # type: ignore[import-not-found]

ASSET = "whis"


def on_start(container: dict[str, Any]) -> None:
    """Send the container's first artifact as an alert."""
    artifacts = phantom.collect2(container=container, datapath=["artifact:*.cef", "artifact:*.id"])
    cef, artifact_id = artifacts[0]
    job = {"kind": "triage", "input": {**cef, "id": f"soar-{artifact_id}"}}
    parameters = [{"location": "/v1/jobs", "body": json.dumps(job), "verify_certificate": True}]
    phantom.act("post data", parameters=parameters, assets=[ASSET], callback=poll, name="submit")


def poll(
    action: Any = None, success: Any = None, container: Any = None, results: Any = None, **_: Any
) -> None:
    """Look at the job, again until it has ended."""
    job = _body(results)
    if job["status"] in ("queued", "running"):
        parameters = [{"location": f"/v1/jobs/{job['id']}?wait=20", "verify_certificate": True}]
        phantom.act("get data", parameters=parameters, assets=[ASSET], callback=poll, name="poll")
    else:
        decide(container, job)


def decide(container: Any, job: dict[str, Any]) -> None:
    """Escalate, or leave it to a person; nothing is ever closed."""
    result = job.get("result") or {}
    if result.get("verdict") == "escalate":
        phantom.set_severity(container=container, severity=_severity(result["severity"]))
    phantom.comment(container=container, comment=result.get("summary") or json.dumps(job.get("error")))


def _body(results: Any) -> dict[str, Any]:
    body = results[0]["action_results"][0]["data"][0]["parsed_response_body"]
    return dict(body)


def _severity(word: str) -> str:
    return {"critical": "high", "high": "high", "medium": "medium"}.get(word, "low")


def on_finish(container: dict[str, Any], summary: dict[str, Any]) -> None:
    """Splunk SOAR calls it at the end."""
