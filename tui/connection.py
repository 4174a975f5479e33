"""One HTTP connection pool to a server: requests, server-sent events, and failures in words.

Invariant: every failure is one of three errors with words an analyst can act on; closing a stream cancels the
request at the server.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from tui.errors import ContractError, RequestFailedError, ServerGoneError

TIMEOUT = httpx.Timeout(10.0, read=130.0)  # the server itself ends a request after limits.request_timeout_s
SILENCE_S = 40.0  # a stream sends a comment every 15 s


@dataclass(frozen=True)
class Target:
    """A server's address: `http://…`, `https://…` or `unix:PATH`."""

    url: str

    @property
    def socket(self) -> str | None:
        """The Unix socket's path."""
        return self.url.removeprefix("unix:") if self.url.startswith("unix:") else None

    def open(self, key: str = "") -> httpx.AsyncClient:
        """A connection pool."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        transport = httpx.AsyncHTTPTransport(uds=self.socket) if self.socket else None
        base = "http://whis" if self.socket else self.url
        return httpx.AsyncClient(
            base_url=base, transport=transport, timeout=TIMEOUT, headers=headers, trust_env=False
        )


class Connection:
    """The pool."""

    def __init__(self, target: Target, key: str = "") -> None:
        self.target = target
        self._http = target.open(key)

    async def close(self) -> None:
        """Close the pool."""
        await self._http.aclose()

    async def json(self, method: str, path: str, body: Any = None, params: Any = None) -> Any:
        """An answer's JSON.

        Raises: ServerGoneError, RequestFailedError, ContractError.
        """
        response = await self._send(self._http.build_request(method, path, json=body, params=params))
        try:
            return response.json()
        except ValueError:
            raise ContractError(f"{method} {path}: the answer is not JSON; is this `whis serve`?") from None

    async def lines(self, path: str, lines: list[str]) -> list[str]:
        """Send NDJSON; the lines that come back.

        Raises: ServerGoneError, RequestFailedError.
        """
        headers = {"Content-Type": "application/x-ndjson"}
        request = self._http.build_request("POST", path, content="\n".join(lines), headers=headers)
        return [line for line in (await self._send(request)).text.splitlines() if line]

    async def _send(self, request: httpx.Request) -> httpx.Response:
        with_words = f"{request.method} {request.url.path}"
        try:
            response = await self._http.send(request)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as cause:
            raise _gone(self.target, cause) from None
        if response.status_code >= 400:
            raise _failure(response.status_code, response.content, response.headers, with_words)
        return response

    async def events(
        self, method: str, path: str, body: Any = None
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Server-sent events; Source: HTML Living Standard, section 9.2."""
        async with self._stream(method, path, body) as response:
            name, data = "", ""
            async for line in response.aiter_lines():
                if line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("data: "):
                    data += line[6:]
                elif not line and data:
                    fields = json.loads(data)
                    yield name, fields
                    name, data = "", ""

    @asynccontextmanager
    async def _stream(self, method: str, path: str, body: Any) -> AsyncIterator[httpx.Response]:
        timeout = httpx.Timeout(10.0, read=SILENCE_S)
        try:
            async with self._http.stream(method, path, json=body, timeout=timeout) as response:
                if response.status_code >= 400:
                    raise _failure(response.status_code, await response.aread(), response.headers, path)
                yield response
        except (httpx.HTTPError, OSError) as cause:
            raise _gone(self.target, cause) from None
        except json.JSONDecodeError:
            raise ContractError(f"{path}: an event is not JSON; is this `whis serve`?") from None


def _gone(target: Target, cause: Exception) -> ServerGoneError:
    why = str(cause) or type(cause).__name__
    return ServerGoneError(f"the server at {target.url} does not answer ({why})")


def _failure(status: int, content: bytes, headers: Mapping[str, str], path: str) -> RequestFailedError:
    try:
        fields = json.loads(content)
    except ValueError:
        fields = {}
    return told(fields, status, headers, path)


def told(fields: Any, status: int, headers: Mapping[str, str], path: str) -> RequestFailedError:
    """The failure that a body or an event describes."""
    error = fields.get("error") if isinstance(fields, dict) else None
    known = (
        error if isinstance(error, dict) else {"message": f"{path}: status {status}", "code": "http_error"}
    )
    wait = headers.get("retry-after", "0")
    return RequestFailedError(
        str(known.get("message")), status, str(known.get("code")), float(wait) if wait.isdigit() else 0.0
    )


def quoted(part: str) -> str:
    """A name as one part of a path."""
    return quote(part, safe="")
