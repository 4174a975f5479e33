"""The application: routes, error answers, and the gate around them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

import whis_box
from whis_box.errors import WhisError
from whis_box.server import (
    routes_ask,
    routes_box,
    routes_jobs,
    routes_library,
    routes_openai,
    routes_ops,
    routes_rollout,
    routes_terminal,
)
from whis_box.server.asynchronous import Desk
from whis_box.server.body import problems
from whis_box.server.callbacks import Courier
from whis_box.server.failures import HttpError, as_envelope, envelope, status_of
from whis_box.server.feeds import Feeds
from whis_box.server.middleware import Gate
from whis_box.server.runner import Runner
from whis_box.server.service import Service

log = logging.getLogger("whis.server")
ROUTERS = tuple(
    module.router
    for module in (
        routes_ops,
        routes_ask,
        routes_jobs,
        routes_openai,
        routes_library,
        routes_box,
        routes_rollout,
        routes_terminal,
    )
)
HTTP_CODES = {404: "not_found", 405: "method_not_allowed", 400: "invalid_json"}


def create_app(service: Service, hosts: frozenset[str]) -> FastAPI:
    """The ASGI application over one service; the box is loaded in the background."""
    app = FastAPI(
        title="Whis Box",
        version=whis_box.__version__,
        description="A SOC copilot with quotes that can be checked. See docs/http.md.",
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        strict_content_type=False,
    )
    app.state.service = service
    for router in ROUTERS:
        app.include_router(router)
    app.add_exception_handler(WhisError, _whis_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_middleware(Boundary)
    app.add_middleware(
        Gate,
        doorkeeper=service.doorkeeper,
        metrics=service.metrics,
        limits=lambda: service.config.limits,
        hosts=hosts,
    )
    return app


class Boundary:
    """Nothing unexpected leaves as more than a code; the log has the type and the place."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        try:
            await self._app(scope, receive, send)
        except WhisError:
            raise
        except Exception:
            log.exception("unexpected")
            message = "unexpected fault; the log has it under this request's X-Request-Id"
            raise HttpError(500, "internal_error", message) from None


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load while the server already answers /healthz; drain at the end."""
    service: Service = app.state.service
    feeds = Feeds()
    runner = Runner(service, service.store, feeds)
    app.state.desk = Desk(service, service.store, feeds, runner)
    courier = Courier(service.store, service.config.callbacks, service.webhook_secret)
    loading = asyncio.create_task(_load(service, runner))
    traffic = service.traffic.run(lambda: service.seats, service.prepare)
    working = [asyncio.create_task(one) for one in (runner.run(), courier.run(), traffic)]
    yield
    service.draining = True
    await runner.close()
    for task in (loading, *working):
        task.cancel()
    await asyncio.gather(loading, *working, return_exceptions=True)
    await asyncio.to_thread(service.close)


async def _load(service: Service, runner: Runner) -> None:
    try:
        await asyncio.to_thread(service.open)
        runner.notify()
        log.info("ready")
    except WhisError as error:
        service.load_error = str(error)
        log.error("the box could not be opened", extra={"fields": {"problem": str(error)}})


async def _whis_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, WhisError)
    status, headers = status_of(error)
    body = as_envelope(error)
    _service(request).metrics.note_refusal(body.error.code)
    if status >= 500 and status != 503:
        log.error("request failed", extra={"fields": {"problem": str(error)}})
    return JSONResponse(body.model_dump(), status, headers)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    _service(request).metrics.note_refusal("invalid_request")
    first = error.errors()[0]["loc"] if error.errors() else ()
    param = ".".join(str(part) for part in first[1:]) or None
    return JSONResponse(
        envelope(422, "invalid_request", problems(list(error.errors()), "request"), param).model_dump(), 422
    )


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, WhisError):  # what the body's reader said, which FastAPI wraps
        return await _whis_error(request, error.__cause__)
    code = HTTP_CODES.get(error.status_code, "http_error")
    _service(request).metrics.note_refusal(code)
    message = f"{request.method} {request.url.path[:200]}: {error.detail}; see docs/http.md"
    return JSONResponse(
        envelope(error.status_code, code, message).model_dump(), error.status_code, dict(error.headers or {})
    )


def _service(request: Request) -> Service:
    found: Service = request.app.state.service
    return found
