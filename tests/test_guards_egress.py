"""Sockets of a process, seen through /proc."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from whis_box import machine
from whis_box.errors import NotReadyError, VerificationError
from whis_box.guards.egress import check_silence, sockets_of
from whis_box.paths import repository_root


def test_a_process_without_sockets_is_silent() -> None:
    with subprocess.Popen(["sleep", "5"]) as child:
        assert sockets_of(child.pid) == [] and check_silence(child.pid) == 0
        child.kill()


def test_a_listener_is_allowed_by_its_port_only() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert check_silence(listeners=frozenset({port})) == 1
        with pytest.raises(VerificationError, match="beside its listener"):
            check_silence()


def test_a_client_of_the_listener_is_allowed_and_a_datagram_socket_is_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        program = f"import socket, sys; s = socket.create_connection(('127.0.0.1', {port})); sys.stdin.read()"
        with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as client:
            served, _ = listener.accept()
            with served:
                assert check_silence(listeners=frozenset({port})) == 1
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stray:
                    stray.bind(("127.0.0.1", 0))
                    with pytest.raises(VerificationError, match="udp"):
                        check_silence(listeners=frozenset({port}))
            client.communicate()


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_stray_socket_is_named_by_address_and_port(family: int, host: str) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as stray:
        try:
            stray.bind((host, 0))
        except OSError:
            pytest.skip(f"no {host} here")
        stray.listen(1)
        shown = f"[{host}]" if ":" in host else host
        with pytest.raises(VerificationError, match=re.escape(f"{shown}:{stray.getsockname()[1]} ->")):
            check_silence()
        doctor = machine.sockets()
        assert doctor.state == "failed" and f":{stray.getsockname()[1]}" in doctor.detail
    assert machine.sockets().state == "ok"
    assert machine.sockets("gone", 2**22 + 1).state == "warning"


def test_a_process_that_is_gone_is_no_pass() -> None:
    with pytest.raises(NotReadyError, match="not measured"):
        check_silence(2**22 + 1)


@pytest.mark.e2e
def test_the_box_answers_without_any_network(box: Path) -> None:
    whis = [sys.executable, "-m", "whis_box.cli", "ask", "--box", str(box), "What is event 4625?"]
    unshare = shutil.which("unshare")
    allowed = unshare and subprocess.run([unshare, "-rn", "true"], capture_output=True).returncode == 0
    command = [str(unshare), "-rn", *whis] if allowed else whis  # else /proc alone, below
    environment = os.environ | {"PYTHONPATH": str(repository_root())}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0 and "4625" in done.stdout, done.stderr


@pytest.mark.e2e
def test_neither_the_program_nor_its_engine_holds_a_socket(box: Path) -> None:
    from whis_box.box.opening import open_box

    with open_box(box) as copilot:
        copilot.ask("What is event 4625?")
        assert copilot.engine_pid is not None
        assert sockets_of(copilot.engine_pid) == [] and check_silence(copilot.engine_pid) == 0
        assert check_silence() == 0
