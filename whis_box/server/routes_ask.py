"""/v1/ask, /v1/triage and /v1/search: one request, many as NDJSON, or a stream of events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel
from starlette.responses import StreamingResponse

from whis_box import batch
from whis_box.errors import WhisError
from whis_box.knowledge.facets import Filter
from whis_box.schemas import Answer, Tlp, Triage
from whis_box.server import formats, sse
from whis_box.server.asynchronous import Headers
from whis_box.server.body import StrictRoute, is_ndjson, lines_of, read_object, validated
from whis_box.server.deps import AskCall, TheDesk, TheService, TriageCall, may_stream, responses
from whis_box.server.failures import as_envelope
from whis_box.server.formats import AcceptHeader, FormatQuery
from whis_box.server.service import Call, Service
from whis_box.server.wire import AskRequest, BatchError, JobRequest, SearchRequest, SearchResponse

router = APIRouter(route_class=StrictRoute, tags=["whis"])
Stream = Annotated[int, Query(ge=0, le=1, description="1 answers with server-sent events.")]
Prefer = Annotated[str, Header(max_length=200, description="`respond-async`, or `wait=N` seconds.")]
Key = Annotated[str, Header(max_length=255, description="Makes a retry safe.")]


def event_body(example: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI request body of a route that takes any JSON object."""
    schema = {"type": "object", "minProperties": 1}
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema, "example": example}},
        }
    }


EXAMPLE_ALERT = {
    "event": {"kind": "alert"},
    "rule": {"name": "LSASS memory dump"},
    "process": {"command_line": "rundll32.exe comsvcs.dll, MiniDump 624 C:\\temp\\l.dmp full"},
    "host": {"name": "fs01.example.corp"},
}


TRIAGE_ANSWERS = may_stream(Triage, sse.MEDIA_TYPE, "application/x-ndjson", **formats.SCHEMAS)


@router.post(
    "/v1/ask",
    response_model=Answer,
    responses={**may_stream(Answer, sse.MEDIA_TYPE), **responses(404, 409)},
)
async def ask(
    request: Request, asked: AskRequest, call: AskCall, service: TheService, desk: TheDesk,
    stream: Stream = 0, prefer: Prefer = "", idempotency_key: Key = "", accept: AcceptHeader = "",
) -> Any:  # fmt: skip
    """Answer from the box's passages; `stream=1` or `Accept: text/event-stream` streams the draft."""
    service.release_for(asked.model)
    headers = Headers(prefer, idempotency_key)
    if headers.wants_job:
        job = JobRequest(kind="ask", input=asked.model_dump(exclude_defaults=True), id=asked.id)
        return await desk.instead(job, call, headers, "whis", asked.clearance)
    if stream or sse.MEDIA_TYPE in accept:
        draft = sse.Draft()
        watched = replace(call, on_text=draft, cancelled=draft.cancelled)
        return _stream(service, draft, service.ask(asked, watched), "answer")
    return await service.ask(asked, call)


@router.post("/v1/ask/batch", response_class=Response, responses=responses())
async def ask_batch(request: Request, call: AskCall, service: TheService) -> Response:
    """NDJSON in and out: `{"id", "question"}` lines, answers or errors in input order."""

    async def one(fields: dict[str, Any], own: Call) -> str:
        return (await service.ask(validated(AskRequest, fields, "line"), own)).model_dump_json()

    return _batch(request, await request.body(), one, call, service)


@router.post(
    "/v1/triage",
    response_model=Triage,
    responses={**TRIAGE_ANSWERS, **responses(404, 409)},
    openapi_extra=event_body(EXAMPLE_ALERT),
)
async def triage(
    request: Request,
    call: TriageCall,
    service: TheService,
    desk: TheDesk,
    stream: Stream = 0,
    prefer: Prefer = "",
    idempotency_key: Key = "",
    model: Annotated[str, Query(max_length=200)] = "whis",
    clearance: Tlp = "red",
    asked: FormatQuery = None,
    accept: AcceptHeader = "",
) -> Any:
    """Judge one alert: the body is the alert itself in any known shape, or `{"id", "event"}`."""
    service.release_for(model)
    narrowed = Filter(clearance=call.caller.narrowed(clearance))
    data = await request.body()
    headers = Headers(prefer, idempotency_key)
    form = formats.chosen(asked, accept)
    if is_ndjson(request):

        async def one(fields: dict[str, Any], own: Call) -> str:
            event = batch.event_of(fields)
            return formats.line(form, await service.triage(event, model, narrowed, own), event)

        return _batch(request, data, one, call, service)
    fields = read_object(data)
    event = batch.event_of(fields)
    if event is not fields and isinstance(fields.get("id"), str):
        call = replace(call, request_id=str(fields["id"])[:200])
    if headers.wants_job:
        job = JobRequest(kind="triage", input=dict(event), id=call.request_id)
        return await desk.instead(job, call, headers, model, clearance, (asked, accept))
    if stream or sse.MEDIA_TYPE in accept:
        formats.check_streamed(asked)
        draft = sse.Draft()
        watched = replace(call, on_text=draft, cancelled=draft.cancelled)
        return _stream(service, draft, service.triage(event, model, narrowed, watched), "triage")
    judged = await service.triage(event, model, narrowed, call)
    return judged if form == formats.JSON else formats.rendered(form, judged, event)


@router.post("/v1/search", response_model=SearchResponse, responses=responses())
async def search(asked: SearchRequest, call: AskCall, service: TheService) -> SearchResponse:
    """Find passages, without the model."""
    return await service.search(asked, call)


def _stream(service: Service, draft: sse.Draft, work: Awaitable[BaseModel], final: str) -> Response:
    return sse.stream(sse.draft_events(draft, work, final, service.metrics.note_refusal))


def _batch(
    request: Request,
    data: bytes,
    one: Callable[[dict[str, Any], Call], Awaitable[str]],
    call: Call,
    service: Service,
) -> Response:
    """One line out for each line in, in order; a bad line gives an error object and the batch goes on."""
    lines = list(lines_of(data, service.config.limits.max_batch_lines))

    async def answers() -> AsyncIterator[str]:
        for number, line in lines:
            request_id: Any = None
            try:
                fields = read_object(line, f"line {number}")
                request_id = fields.get("id")
                own = replace(call, request_id=request_id) if isinstance(request_id, str) else call
                yield await one(fields, own) + "\n"
            except WhisError as error:
                code = as_envelope(error)
                service.metrics.note_refusal(code.error.code)
                shown = request_id if isinstance(request_id, str) else None
                yield BatchError(request_id=shown, line=number, error=code.error).model_dump_json() + "\n"

    return StreamingResponse(answers(), media_type="application/x-ndjson")
