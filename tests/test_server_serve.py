"""Where the server listens, what it refuses to expose, and its signals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.server_box import QUESTION, FakeBox, serving
from whis_box.errors import ConfigError, StorageError
from whis_box.paths import repository_root
from whis_box.server.access import KeyEntry, digest, new_key, read_keys
from whis_box.server.callbacks import read_secret
from whis_box.server.serve import allowed_hosts, check_exposure, open_socket
from whis_box.server.settings import AccessConfig, CallbackConfig, HttpLimits, ListenConfig, ServerConfig


@pytest.mark.parametrize(
    ("fields", "has_keys", "says"),
    [
        ({"host": "0.0.0.0"}, False, "no API keys"),
        ({"host": "10.0.0.5"}, True, "without TLS"),
        ({"host": "127.0.0.1", "tls_cert": "c.pem"}, True, "come together"),
        ({"host": "10.0.0.5", "tls_cert": "c.pem", "tls_key": "k.pem"}, True, "is missing"),
    ],
)
def test_what_others_can_reach_needs_keys_and_tls(fields: dict[str, Any], has_keys: bool, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_exposure(ListenConfig.model_validate(fields), has_keys, fields["host"].startswith("127."))


def test_plain_http_beyond_loopback_has_to_be_asked_for() -> None:
    check_exposure(ListenConfig(host="10.0.0.5", plain_http=True), True, False)
    check_exposure(ListenConfig(), False, True)
    assert "10.0.0.5" in allowed_hosts(ListenConfig(host="10.0.0.5"))
    assert "0.0.0.0" not in allowed_hosts(ListenConfig(host="0.0.0.0"))


def test_a_unix_socket_is_its_owners_and_a_live_one_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "w.sock"
    first, shown = open_socket(ListenConfig(uds=path))
    assert shown == f"unix:{path}" and path.stat().st_mode & 0o077 == 0
    with pytest.raises(StorageError, match="another server"):
        open_socket(ListenConfig(uds=path))
    first.close()
    again, _ = open_socket(ListenConfig(uds=path))  # what a killed server left behind
    again.close()


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}"):
            open_socket(ListenConfig(port=port))


def test_systemd_may_pass_the_socket() -> None:
    program = (
        "import os, socket; from whis_box.server.serve import open_socket, ListenConfig;"
        "os.environ['LISTEN_PID'] = str(os.getpid()); os.environ['LISTEN_FDS'] = '1';"
        "print(open_socket(ListenConfig())[0].getsockname()[1])"
    )
    with socket.create_server(("127.0.0.1", 0)) as passed:
        done = subprocess.run(
            [sys.executable, "-c", f"import os; os.dup2({passed.fileno()}, 3); {program}"],
            capture_output=True, text=True, pass_fds=[passed.fileno()], cwd=repository_root(),
        )  # fmt: skip
        assert done.stdout.strip() == str(passed.getsockname()[1]), done.stderr


def test_keys_come_from_a_private_file_and_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, sha256 = new_key()
    assert digest(key) == sha256
    path = tmp_path / "keys.yaml"
    path.write_text(yaml.safe_dump({"keys": [{"id": "soar", "sha256": sha256, "scopes": ["triage"]}]}))
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_keys(AccessConfig(keys_file=path))
    path.chmod(0o600)
    monkeypatch.setenv("WHIS_API_KEY", "a-long-key-0123456789")
    found = read_keys(AccessConfig(keys_file=path))
    assert [one.id for one in found] == ["soar", "environment"]
    assert "WHIS_API_KEY" not in os.environ
    monkeypatch.setenv("WHIS_API_KEY", "short")
    with pytest.raises(ConfigError, match="shorter than 16"):
        read_keys(AccessConfig())


def test_callbacks_need_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_secret(CallbackConfig()) == b""
    for text in ("", "whsec_short", "whsec_!!!"):
        monkeypatch.setenv("WHIS_WEBHOOK_SECRET", text)
        with pytest.raises(ConfigError, match="WHIS_WEBHOOK_SECRET"):
            read_secret(CallbackConfig(hosts=["soar.example:443"]))


def test_reload_exchanges_keys_and_a_bad_file_changes_nothing(fake_box: FakeBox, tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"

    def write(key: str) -> ServerConfig:
        path.write_text(yaml.safe_dump({"keys": [{"id": "k", "sha256": digest(key), "scopes": ["ask"]}]}))
        path.chmod(0o600)
        return ServerConfig(access=AccessConfig(keys_file=path))

    keys = [KeyEntry(id="k", sha256=digest("old-key"), scopes=["ask"])]
    with serving(fake_box, keys=keys, local=False) as server:
        config = write("new-key")
        server.service.reload(config)

        def status(key: str) -> int:
            return server.http.get("/v1/models", headers={"x-api-key": key}).status_code

        assert (status("old-key"), status("new-key")) == (401, 200)
        smaller = ServerConfig(seats=7, access=config.access, limits=HttpLimits(max_body_bytes=1024))
        assert server.service.reload(smaller) == ["seats"]
        body = {"question": "x" * 2000}
        assert server.http.post("/v1/ask", json=body, headers={"x-api-key": "new-key"}).status_code == 413
        path.write_text("keys: nonsense")
        with pytest.raises(ConfigError):
            server.service.reload(config)
        assert status("new-key") == 200 and server.service.config.limits.max_body_bytes == 1024
        assert server.service.config.seats == ServerConfig().seats


def test_readiness_names_the_device_and_what_differs_from_what_was_asked(fake_box: FakeBox) -> None:
    fake_box.info = replace(fake_box.info, device="cpu", notes=["no GPU driver answers"])
    with serving(fake_box) as server:
        checks = {one["name"]: one for one in server.http.get("/readyz").json()["checks"]}
    assert checks["engine"]["detail"] == "on cpu, backend fake; no GPU driver answers"


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_curl_asks_over_tls_and_the_clear_is_not_answered(fake_box: FakeBox, tmp_path: Path) -> None:
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject]
    made += ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run(made, check=True, capture_output=True)
    listen = ListenConfig(tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem")
    with serving(fake_box, ServerConfig(listen=listen)) as server:
        base = ["curl", "-sS", "--max-time", "20", "--cacert", str(tmp_path / "cert.pem")]
        asked = [*base, "--tlsv1.2", "--data", json.dumps({"question": QUESTION})]
        done = subprocess.run(
            [*asked, f"https://localhost:{server.port}/v1/ask"], capture_output=True, text=True
        )
        assert done.returncode == 0 and json.loads(done.stdout)["status"] == "answered", done.stderr
        strange = ["curl", "-sS", "--max-time", "20", f"https://localhost:{server.port}/healthz"]
        assert subprocess.run(strange, capture_output=True).returncode == 60  # not a known certificate
        clear = [*base, f"http://localhost:{server.port}/healthz"]
        assert subprocess.run(clear, capture_output=True).returncode != 0


def test_a_request_under_way_ends_when_the_server_is_told_to_stop(fake_box: FakeBox) -> None:
    with serving(fake_box) as server:
        server.engine.delay_s = 0.5
        with httpx.Client(base_url=server.url, timeout=20) as other:
            codes: list[int] = []

            def ask() -> None:
                codes.append(other.post("/v1/ask", json={"question": QUESTION}).status_code)

            thread = threading.Thread(target=ask)
            thread.start()
            time.sleep(0.2)
            server.server.should_exit = True
            thread.join(10)
        assert codes == [200]


@pytest.fixture
def process(box: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """`whis serve` on a Unix socket, with the real models."""
    path = tmp_path / "whis.sock"
    environment = {**os.environ, "WHIS_STATE": str(tmp_path / "state"), "PYTHONPATH": str(repository_root())}
    command = [sys.executable, "-m", "whis_box.cli", "serve", "--uds", str(path), "--box", str(box)]
    with (tmp_path / "log").open("w") as log:
        started = subprocess.Popen(command, stderr=log, text=True, env=environment, cwd=repository_root())
    http = httpx.Client(
        transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost", timeout=120
    )
    deadline = time.monotonic() + 240
    while not path.exists() or http.get("/readyz").status_code != 200:
        assert started.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
        time.sleep(0.2)
    yield started, http
    http.close()
    started.kill()
    started.wait()


@pytest.mark.e2e
def test_the_real_server_answers_survives_its_engine_and_drains(
    process: tuple[subprocess.Popen[str], httpx.Client],
) -> None:
    server, http = process
    question = {"question": "What does logon type 10 mean?"}
    first = http.post("/v1/ask", json=question).json()
    assert first["status"] == "answered" and first["citations"]
    engine_pid = http.get("/v1/box/engine").json()["pid"]
    job = http.post("/v1/jobs", json={"kind": "ask", "input": question}).json()
    os.kill(engine_pid, signal.SIGKILL)
    deadline = time.monotonic() + 120
    while (found := http.get(f"/v1/jobs/{job['id']}?wait=5").json())["status"] in ("queued", "running"):
        assert time.monotonic() < deadline
    assert found["status"] == "completed" and found["result"]["answer"] == first["answer"]
    server.send_signal(signal.SIGHUP)
    assert http.post("/v1/ask", json=question).json()["answer"] == first["answer"]
    assert http.get("/v1/audit/verify").json()["intact"] is True
    server.send_signal(signal.SIGTERM)
    assert server.wait(60) == 0
