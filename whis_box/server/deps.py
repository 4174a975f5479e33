"""What every route may ask for: the service, the caller, the call, and a scope."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request
from pydantic import BaseModel

from whis_box.server import logs
from whis_box.server.access import Caller
from whis_box.server.asynchronous import Desk
from whis_box.server.failures import HttpError
from whis_box.server.service import Call, Service
from whis_box.server.wire import ErrorEnvelope, Job, Scope


def service(request: Request) -> Service:
    """The server's parts."""
    found: Service = request.app.state.service
    return found


def caller(request: Request) -> Caller:
    """Whoever sent the request; the gate has named them."""
    found: Caller = request.scope["state"]["caller"]
    return found


TheService = Annotated[Service, Depends(service)]
TheCaller = Annotated[Caller, Depends(caller)]


def desk(request: Request) -> Desk:
    """Where jobs are taken in."""
    found: Desk = request.app.state.desk
    return found


TheDesk = Annotated[Desk, Depends(desk)]


class CallWith:
    """A dependency: the call of a caller who has `scope`."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def __call__(self, named: TheCaller) -> Call:
        """The call.

        Raises: HttpError 403.
        """
        require(named, self._scope)
        return Call(named, logs.request_id.get())


def require(named: Caller, scope: Scope) -> None:
    """Let only callers with `scope` go on.

    Raises: HttpError 403.
    """
    if not named.may(scope):
        message = f"key {named.name} lacks the scope {scope}; it has {', '.join(sorted(named.scopes))}"
        raise HttpError(403, "scope_missing", message)


AskCall = Annotated[Call, Depends(CallWith("ask"))]
TriageCall = Annotated[Call, Depends(CallWith("triage"))]
IngestCall = Annotated[Call, Depends(CallWith("ingest"))]
AdminCall = Annotated[Call, Depends(CallWith("admin"))]


def may_stream(
    model: type[BaseModel], *media_types: str, **schemas: dict[str, Any]
) -> dict[int | str, dict[str, Any]]:
    """Beside the answer: the job it may become (202), and the answer's other media types."""
    known: dict[str, dict[str, Any]] = {one: {} for one in media_types} | schemas
    content = {name: {"schema": schema} for name, schema in known.items()}
    return {
        200: {"model": model, "content": content, "description": "The answer, whole or as events."},
        202: {"model": Job, "description": "It became a job; see Location."},
    }


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error answers of a route, for the OpenAPI document; those of every route are always there."""
    texts = {
        400: "The body or a parameter cannot be read.",
        401: "No key, or one that is not known.",
        403: "The key lacks the scope, or Host or Origin is not allowed.",
        404: "No such thing.",
        408: "The body did not arrive in time.",
        409: "It conflicts with what is there or under way.",
        413: "The body is too large.",
        422: "A field is wrong, or the idempotency key came with another body.",
        429: "Too many requests; see Retry-After.",
        500: "A fault of the server; the log has it under the request id.",
        503: "Loading, busy or out of time; see Retry-After.",
    }
    every = (400, 401, 403, 408, 413, 422, 429, 500, 503)
    return {
        status: {"model": ErrorEnvelope, "description": texts[status]}
        for status in sorted({*every, *statuses})
    }
