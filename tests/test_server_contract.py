"""The server against its own OpenAPI document, and what it must not import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.server_box import Running
from whis_box.config import load_config
from whis_box.paths import repository_root
from whis_box.server.settings import ServerConfig

CASES = int(os.environ.get("WHIS_SCHEMATHESIS_EXAMPLES", "8"))


def test_the_config_file_says_every_default() -> None:
    path = repository_root() / "configs" / "server.yaml"
    assert load_config(path, ServerConfig) == ServerConfig()
    assert load_config(path, ServerConfig).model_dump(mode="json") == yaml.safe_load(path.read_text())


def test_every_route_of_the_documentation_is_there(server: Running) -> None:
    document = server.http.get("/openapi.json").json()
    text = (repository_root() / "docs" / "http.md").read_text()
    missing = [
        path
        for path in document["paths"]
        if path.replace("_id}", "}").replace("{job}", "{id}").split("{")[0] not in text
    ]
    assert not missing


def test_serving_needs_no_build_or_training_library() -> None:
    program = (
        "import sys, whis_box.server.serve; bad = {'torch', 'transformers', 'peft', 'ragas', 'mlflow',"
        " 'presidio_analyzer', 'onnx', 'openai'}; sys.exit(f'imported: {sorted(bad & set(sys.modules))}'"
        " if bad & set(sys.modules) else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=repository_root()
    )
    assert done.returncode == 0, done.stderr


def test_generated_requests_find_no_fault(server: Running, tmp_path: Path) -> None:
    """No 5xx and no answer that the document does not describe. Set WHIS_SCHEMATHESIS_EXAMPLES for more."""
    command = Path(sys.executable).with_name("schemathesis")
    done = subprocess.run(
        [
            command, "run", f"{server.url}/openapi.json", "--max-examples", str(CASES), "--seed", "1",
            "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,"
            "response_schema_conformance", "--request-timeout", "60", "--no-color",
            "--phases", "examples,coverage,fuzzing",
            "--exclude-path-regex", "/export",
        ],
        capture_output=True, text=True, timeout=max(550, 20 * CASES), cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    print(done.stdout[-1500:])


@pytest.mark.parametrize("name", ["server.yaml", "rollout.yaml"])
def test_every_key_has_a_comment_above(name: str) -> None:
    lines = (repository_root() / "configs" / name).read_text().splitlines()
    for above, line in zip(lines, lines[1:], strict=False):
        assert line.strip().startswith("#") or above.strip().startswith("#"), line
