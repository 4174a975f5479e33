"""Running the server: which socket, TLS, slow clients, and the signals.

Invariant: an address that others can reach is refused without keys, and without TLS unless so asked.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import signal
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from whis_box.audit import AuditLog
from whis_box.config import load_config
from whis_box.durable import Disk
from whis_box.errors import ConfigError, StorageError, WhisError, storage_error
from whis_box.paths import state_dir
from whis_box.rollout.config import RolloutConfig
from whis_box.server import logs
from whis_box.server.access import Doorkeeper, is_local, read_keys
from whis_box.server.app import create_app
from whis_box.server.service import Service
from whis_box.server.settings import ListenConfig, ServerConfig
from whis_box.state import write_note

HEADER_TIMEOUT_S = 10.0  # from the first byte of a connection to a whole request head
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", "::1", "testserver", "whis"})
log = logging.getLogger("whis.serve")


class PatientProtocol(H11Protocol):
    """HTTP/1.1 that closes a connection whose request head does not come; uvicorn would wait forever."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEADER_TIMEOUT_S, self._close_headless)

    def _close_headless(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_timer.cancel()
        super().connection_lost(exc)


def serve(
    folder: Path, config_path: Path, listen: ListenConfig, config: ServerConfig, rollout: RolloutConfig
) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises: ConfigError, StorageError, VerificationError, NotReadyError.
    """
    logs.set_up()
    keys = read_keys(config.access)
    local = is_local(listen.host, listen.uds)
    check_exposure(listen, bool(keys), local)
    write_note(state_dir(), Disk())
    audit = AuditLog(state_dir() / "audit", config.audit.rotate_bytes)
    doorkeeper = Doorkeeper(keys, config.access, config.limits, local)
    service = Service(folder, config, rollout, audit, doorkeeper)
    app = create_app(service, allowed_hosts(listen))
    sock, shown = open_socket(listen)
    audit.append("server.start", "whis", detail={"address": shown, "keys": [one.id for one in keys]})
    server = uvicorn.Server(uvicorn_config(app, listen, config))
    print(f"whis serve: {shown}", file=sys.stderr, flush=True)
    # uvicorn raises the signal again once it has drained; to end on request is no failure.
    signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        asyncio.run(_run(server, sock, service, config_path))
    finally:
        if listen.uds is not None:
            listen.uds.unlink(missing_ok=True)


async def _run(server: uvicorn.Server, sock: socket.socket, service: Service, config_path: Path) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _reload, service, config_path)
    await server.serve([sock])


def _reload(service: Service, config_path: Path) -> None:
    """Read the config and the keys again; what does not validate leaves everything as it was."""
    try:
        waiting = service.reload(load_config(config_path, ServerConfig))
        log.info("reloaded", extra={"fields": {"needs_restart": waiting}})
    except WhisError as error:
        log.error("reload refused", extra={"fields": {"problem": str(error)}})


def uvicorn_config(app: Any, listen: ListenConfig, config: ServerConfig) -> uvicorn.Config:
    """What uvicorn is started with; its own log, headers and websockets are off."""
    return uvicorn.Config(
        app,
        http=PatientProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=max(1, int(config.drain_s)),
        h11_max_incomplete_event_size=32_768,
        ssl_certfile=str(listen.tls_cert) if listen.tls_cert else None,
        ssl_keyfile=str(listen.tls_key) if listen.tls_key else None,
    )


def check_exposure(listen: ListenConfig, has_keys: bool, local: bool) -> None:
    """Refuse to be reachable from other machines without keys, or in the clear.

    Raises: ConfigError.
    """
    if (listen.tls_cert is None) != (listen.tls_key is None):
        raise ConfigError("listen: tls_cert and tls_key come together; give both or none")
    for path in (listen.tls_cert, listen.tls_key):
        if path is not None and not path.is_file():
            raise ConfigError(f"listen: {path} is missing; give a PEM file")
    if local:
        return
    if not has_keys:
        raise ConfigError(
            f"listen.host is {listen.host}, which other machines can reach, and there are no API keys; "
            "make one with `whis keys new`, or listen on 127.0.0.1"
        )
    if listen.tls_cert is None and not listen.plain_http:
        raise ConfigError(
            f"listen.host is {listen.host} without TLS; give --tls-cert and --tls-key, or --plain-http if a "
            "proxy on this host ends TLS"
        )


def allowed_hosts(listen: ListenConfig) -> frozenset[str]:
    """Host header values without port."""
    own = set() if listen.host in ("0.0.0.0", "::") else {_bracketed(listen.host)}
    return frozenset({*LOOPBACK_NAMES, *own, *(name.lower() for name in listen.allowed_hosts)})


def open_socket(listen: ListenConfig) -> tuple[socket.socket, str]:
    """The socket systemd passed on, a Unix socket, or a TCP socket; and how to write its address.

    Raises: StorageError, ConfigError.
    """
    # Source: sd_listen_fds(3): LISTEN_PID, LISTEN_FDS, descriptors from 3.
    if os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS") == "1":
        sock = socket.socket(fileno=3)
        return sock, "the socket that systemd passed on"
    if listen.uds is not None:
        return _unix_socket(listen.uds), f"unix:{listen.uds}"
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((listen.host, listen.port))
    except OSError as cause:
        sock.close()
        raise ConfigError(
            f"cannot listen on {listen.host}:{listen.port}: {cause.strerror}; choose another"
        ) from None
    sock.listen(512)
    scheme = "https" if listen.tls_cert else "http"
    return sock, f"{scheme}://{_bracketed(listen.host)}:{sock.getsockname()[1]}"


def _unix_socket(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with ExitStack() as undo:
        undo.callback(sock.close)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if path.is_socket():
                _refuse_live(path)
                path.unlink()
            old = os.umask(0o177)
            try:
                sock.bind(str(path))
            finally:
                os.umask(old)
        except OSError as cause:
            raise storage_error("listen on", path, cause) from cause
        undo.pop_all()
    sock.listen(512)
    return sock


def _refuse_live(path: Path) -> None:
    """A socket that somebody answers on is not taken away."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return
    raise StorageError(f"{path}: another server answers there; stop it or choose another path")


def _bracketed(host: str) -> str:
    try:
        return f"[{host}]" if ipaddress.ip_address(host).version == 6 else host
    except ValueError:
        return host.lower()
