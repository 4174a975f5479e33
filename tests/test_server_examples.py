"""The examples against a running server, and the ones for other programs against stand-ins of those."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.server_box import ALERT, Running
from whis_box.paths import repository_root
from whis_box.schemas import Answer

PLAYBOOKS = repository_root() / "examples" / "playbooks"


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, **environment}
    )


def load(path: Path, **stand_ins: types.ModuleType) -> Any:
    """Import a file with modules of another program in place."""
    before = {name: sys.modules.get(name) for name in stand_ins}
    sys.modules.update(stand_ins)
    try:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        for name, module_before in before.items():
            if module_before is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module_before


def test_curl(server: Running) -> None:
    done = run("sh", PLAYBOOKS / "ask.sh", WHIS_URL=server.url)
    assert done.returncode == 0, done.stdout + done.stderr
    answer, hits, job = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    assert Answer.model_validate(answer) and hits["hits"] and job["status"] == "completed"


def test_the_openai_client(server: Running) -> None:
    done = run(sys.executable, PLAYBOOKS / "openai_client.py", server.url)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == lines[-1] and lines[1].startswith("  [1] ")


def test_submit_poll_and_branch_with_the_standard_library(server: Running, tmp_path: Path) -> None:
    path = tmp_path / "alert.json"
    path.write_text(json.dumps(ALERT))
    done = run(sys.executable, PLAYBOOKS / "triage_job.py", path, server.url)
    assert done.returncode in (0, 3), done.stderr
    assert done.stdout.startswith("alert-1: ")


def test_the_shuffle_app_submits_and_reads_a_job(server: Running) -> None:
    sdk, base = types.ModuleType("walkoff_app_sdk"), types.ModuleType("walkoff_app_sdk.app_base")
    base.AppBase = object  # type: ignore[attr-defined]
    folder = PLAYBOOKS / "shuffle"
    module = load(folder / "src" / "app.py", **{"walkoff_app_sdk": sdk, "walkoff_app_sdk.app_base": base})
    app = module.WhisBox()
    described = yaml.safe_load((folder / "api.yaml").read_text())
    for action in described["actions"]:
        names = {one["name"] for one in action["parameters"]} | {"apikey", "url"}
        assert set(getattr(module.WhisBox, action["name"]).__annotations__) == names | {"return"}
    job = json.loads(app.submit_triage("any", server.url, json.dumps(ALERT)))["body"]
    server.finished(job["id"])
    done = json.loads(app.get_job("any", server.url, job["id"]))
    assert done["success"] is True and done["body"]["result"]["alert_id"] == "alert-1"
    assert json.loads(app.search("any", server.url, "lsass"))["body"]["hits"]


def test_the_splunk_soar_playbook_ends_with_a_comment(server: Running) -> None:
    """Its `act` is answered the way the HTTP app does: raw string bodies, `parsed_response_body`."""
    said: list[str] = []
    rules = types.ModuleType("phantom.rules")

    def act(verb: str, parameters: list[dict[str, Any]], assets: list[str], callback: Any, **_: Any) -> None:
        where = parameters[0]["location"]
        headers = {"ph-auth-token": "any"}
        answer = (
            server.http.post(where, content=parameters[0]["body"], headers=headers)
            if verb == "post data"
            else server.http.get(where, headers=headers)
        )
        data = [{"parsed_response_body": answer.json()}]
        callback(results=[{"action_results": [{"data": data}]}], container={"id": 1})

    rules.act = act  # type: ignore[attr-defined]
    rules.collect2 = lambda **_: [[ALERT, 7]]  # type: ignore[attr-defined]
    rules.set_severity = lambda **fields: said.append(fields["severity"])  # type: ignore[attr-defined]
    rules.comment = lambda **fields: said.append(fields["comment"])  # type: ignore[attr-defined]
    phantom = types.ModuleType("phantom")
    phantom.rules = rules  # type: ignore[attr-defined]
    playbook = load(PLAYBOOKS / "splunk_soar.py", **{"phantom": phantom, "phantom.rules": rules})
    playbook.on_start({"id": 1})
    assert said and said[-1]


def test_the_tracecat_workflow_calls_routes_that_exist(server: Running) -> None:
    workflow = yaml.safe_load((PLAYBOOKS / "tracecat.yaml").read_text())
    paths = server.http.get("/openapi.json").json()["paths"]
    submit, wait, verdict = workflow["actions"]
    assert "/v1/jobs" in paths and submit["args"]["url"].endswith("/v1/jobs")
    job = server.http.post("/v1/jobs", json={**submit["args"]["payload"], "input": ALERT}).json()
    done = server.finished(job["id"])
    condition = eval(wait["args"]["poll_condition"], {"__builtins__": {}})
    assert condition({"data": done}) and not condition({"data": {"status": "queued"}})
    assert set(verdict["args"]["value"]) <= {*done, "verdict"}


def test_the_unit_is_one_that_systemd_reads(tmp_path: Path) -> None:
    folder = repository_root() / "examples" / "systemd"
    lines = [line for line in (folder / "whis.service").read_text().splitlines() if "=" in line[:40]]
    named = {line.partition("=")[0] for line in lines if not line.startswith("#")}
    assert {"NoNewPrivileges", "ProtectSystem", "CapabilityBoundingSet", "ExecReload", "DynamicUser"} <= named
    try:
        done = run("systemd-analyze", "verify", folder / "whis.service")
    except FileNotFoundError:
        pytest.skip("systemd-analyze is not installed here")
    assert "Unknown" not in done.stderr
