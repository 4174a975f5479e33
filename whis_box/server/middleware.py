"""Around every request: an id, Host and Origin, the caller, the body within its limits, one log line.

Invariant: a body is read whole, within bytes and seconds, before a route sees it; an answer without the
security headers or with a stack trace cannot leave.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from whis_box.errors import WhisError
from whis_box.server import logs
from whis_box.server.access import Caller, Doorkeeper
from whis_box.server.failures import HttpError, as_envelope, status_of
from whis_box.server.metrics import Metrics
from whis_box.server.settings import HttpLimits

PUBLIC = frozenset({"/", "/healthz", "/health", "/v1/health", "/readyz"})
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
MAX_DISCARDED_BYTES = 16_000_000
DISCARD_S = 3.0
NDJSON = ("application/x-ndjson", "application/ndjson", "application/jsonl")

log = logging.getLogger("whis.http")


class Gate:
    """The outermost ASGI layer of ours."""

    def __init__(
        self,
        app: ASGIApp,
        doorkeeper: Doorkeeper,
        metrics: Metrics,
        limits: Callable[[], HttpLimits],
        hosts: frozenset[str],
    ) -> None:
        """`limits` gives those of now; `hosts`: what Host may say, in lower case; `*` allows any."""
        self._app, self._doorkeeper, self._metrics = app, doorkeeper, metrics
        self._limits, self._hosts = limits, hosts
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        reply = _Reply(send, logs.begin(dict(Headers(scope=scope))))
        started = time.perf_counter()
        self._open += 1
        try:
            await self._enter(scope, receive, reply)
        except WhisError as error:
            await self.refuse(scope, reply, error)
        finally:
            self._open -= 1
            self._note(scope, reply, time.perf_counter() - started)

    async def _enter(self, scope: Scope, receive: Receive, reply: _Reply) -> None:
        headers = {name.lower(): value for name, value in Headers(scope=scope).items()}
        if self._open > self._limits().max_connections:
            message = f"{self._open} requests are open, the limit is {self._limits().max_connections}"
            raise HttpError(503, "too_many_connections", message, retry_after_s=2)
        self._check_origin(headers)
        if scope["path"] in PUBLIC:
            scope["state"]["caller"] = None
            await self._app(scope, receive, reply)
            return
        caller = self._doorkeeper.name(headers)
        scope["state"]["caller"] = caller
        reply.caller = caller
        with self._doorkeeper.counted(caller):
            if scope["method"] in ("POST", "PUT", "PATCH", "DELETE"):
                try:
                    receive = await self._whole_body(scope, receive, headers)
                except HttpError as error:
                    if error.status == 413 and "expect" not in headers:
                        await _discard(receive)
                    raise
            await self._app(scope, receive, reply)

    def _check_origin(self, headers: dict[str, str]) -> None:
        host = headers.get("host", "").lower()
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if "*" not in self._hosts and name not in self._hosts:
            message = f"Host {name[:80]!r} is not this server; add it to listen.allowed_hosts"
            raise HttpError(403, "host_not_allowed", message)
        if "origin" in headers:
            message = "requests from web pages are not answered; call from a program"
            raise HttpError(403, "origin_not_allowed", message)

    async def _whole_body(self, scope: Scope, receive: Receive, headers: dict[str, str]) -> Receive:
        if headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise HttpError(400, "encoded_body", "Content-Encoding is not accepted; send the body as it is")
        is_batch = headers.get("content-type", "").partition(";")[0].strip().lower() in NDJSON
        limit = self._limits().max_batch_bytes if is_batch else self._limits().max_body_bytes
        announced = headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > limit:
            raise _too_large(announced, limit)
        try:
            async with asyncio.timeout(self._limits().body_timeout_s):
                body = await _read(receive, limit)
        except TimeoutError:
            message = f"the body did not arrive within {self._limits().body_timeout_s:g} s; send it again"
            raise HttpError(408, "body_timeout", message) from None
        if not is_batch:  # curl says form, Shuffle says nothing, and both mean JSON
            scope["headers"] = [
                *((name, value) for name, value in scope["headers"] if name != b"content-type"),
                (b"content-type", b"application/json"),
            ]
        return _replayed(body, receive)

    async def refuse(self, scope: MutableMapping[str, Any], reply: _Reply, error: WhisError) -> None:
        """Answer with the envelope, if nothing was answered yet."""
        self._metrics.note_refusal(as_envelope(error).error.code)
        if reply.status:
            return
        status, headers = status_of(error)
        body = as_envelope(error).model_dump_json().encode()
        pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        pairs += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if status in (408, 413):
            pairs.append((b"connection", b"close"))
        await reply({"type": "http.response.start", "status": status, "headers": pairs})
        await reply({"type": "http.response.body", "body": body})

    def _note(self, scope: Scope, reply: _Reply, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        self._metrics.note_request(route, reply.status or 499, seconds)
        log.info(
            "request",
            extra={
                "fields": {
                    "method": scope["method"],
                    "route": route,
                    "status": reply.status or 499,
                    "ms": round(seconds * 1000, 1),
                    "caller": reply.caller.name if reply.caller else "",
                }
            },
        )


class _Reply:
    """Sends, adds our headers, and remembers the status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send, self._request_id = send, request_id
        self.status = 0
        self.caller: Caller | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = {name for name, _ in HEADERS}
            headers = [(name, value) for name, value in message.get("headers", []) if name not in own]
            message["headers"] = [*headers, *HEADERS, (b"x-request-id", self._request_id.encode())]
        await self._send(message)


async def _read(receive: Receive, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HttpError(400, "body_cut_off", "the connection closed before the body was whole")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise _too_large(f"more than {limit}", limit)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _discard(receive: Receive) -> None:
    """Take in more of a body that is too large: who still sends would see a reset, not the answer."""
    left = MAX_DISCARDED_BYTES
    with suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_S):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    break


def _replayed(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _too_large(size: str, limit: int) -> HttpError:
    return HttpError(413, "body_too_large", f"the body has {size} bytes, the limit is {limit}; send less")
