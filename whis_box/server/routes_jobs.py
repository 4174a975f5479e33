"""/v1/jobs: submit, look, wait, follow, read, cancel, forget."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse

from whis_box.errors import WhisError
from whis_box.server import formats, sse
from whis_box.server.access import Caller
from whis_box.server.asynchronous import MAX_WAIT_S, SCOPES, Desk, accepted, result_of
from whis_box.server.body import StrictRoute, is_ndjson, lines_of, read_object, validated
from whis_box.server.deps import TheCaller, TheDesk, TheService, require, responses
from whis_box.server.failures import HttpError, as_envelope
from whis_box.server.formats import AcceptHeader, FormatQuery
from whis_box.server.job_rows import JobRow, NewJob
from whis_box.server.service import Call
from whis_box.server.wire import BatchError, Job, JobKind, JobList, JobRequest, JobStatus

router = APIRouter(prefix="/v1/jobs", route_class=StrictRoute, tags=["jobs"])
JobId = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]
EXAMPLE = {"kind": "ask", "input": {"question": "What does logon type 10 mean?"}, "id": "case-17"}
BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": JobRequest.model_json_schema(), "example": EXAMPLE}},
    }
}
RESULTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The result, as the kind's own route answers.",
        "content": {
            name: {"schema": schema}
            for name, schema in ({"application/json": {"type": "object"}} | formats.SCHEMAS).items()
        },
    }
}


@router.post("", status_code=202, response_model=Job, responses=responses(404, 409), openapi_extra=BODY)
async def submit(
    request: Request,
    caller: TheCaller,
    service: TheService,
    desk: TheDesk,
    idempotency_key: Annotated[str, Header(max_length=255)] = "",
) -> Response:
    """Queue one job, or one a line of NDJSON; the answer comes at once."""
    data = await request.body()
    if is_ndjson(request):
        return await _submit_lines(data, caller, desk, service.config.limits.max_batch_lines)
    new = _new(read_object(data), "request body", caller, desk, idempotency_key)
    [(row, is_new)] = await desk.submit([new])
    response = accepted(row)
    if not is_new:
        response.headers["Idempotency-Replayed"] = "true"
    return response


def _new(fields: dict[str, object], where: str, caller: Caller, desk: Desk, key: str) -> NewJob:
    from whis_box.server import logs

    asked = validated(JobRequest, fields, where)
    require(caller, SCOPES[asked.kind])  # type: ignore[arg-type]
    return desk.new_job(asked, Call(caller, logs.request_id.get()), key)


async def _submit_lines(data: bytes, caller: Caller, desk: Desk, max_lines: int) -> Response:
    """All good lines in one transaction; a bad line gives an error and the rest is queued."""
    answers: list[str] = []
    new: dict[int, NewJob] = {}
    for number, line in lines_of(data, max_lines):
        answers.append("")
        try:
            new[len(answers) - 1] = _new(
                read_object(line, f"line {number}"), f"line {number}", caller, desk, ""
            )
        except WhisError as error:
            body = BatchError(request_id=None, line=number, error=as_envelope(error).error)
            answers[-1] = body.model_dump_json()
    for place, (row, _) in zip(new, await desk.submit(list(new.values())), strict=True):
        answers[place] = row.wire().model_dump_json()
    return Response("".join(f"{one}\n" for one in answers), 202, media_type="application/x-ndjson")


@router.get("", response_model=JobList, responses=responses())
async def page(
    caller: TheCaller,
    desk: TheDesk,
    status: JobStatus | None = None,
    kind: JobKind | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    before: Annotated[str, Query(pattern="^[0-9]{0,18}$")] = "",
) -> JobList:
    """Own jobs, newest first; all of them for admin."""
    owner = _owner(caller)
    rows = await asyncio.to_thread(
        desk.store.page, owner, status, kind, limit, int(before) if before else None
    )
    counts = await asyncio.to_thread(desk.store.counts, owner)
    return JobList(
        jobs=[row.wire(with_result=False) for row in rows],
        next=str(rows[-1].seq) if len(rows) == limit else "",
        counts=counts,
    )


@router.get("/{job_id}", response_model=Job, responses=responses(404))
async def look(
    job_id: JobId, caller: TheCaller, desk: TheDesk, wait: Annotated[float, Query(ge=0, le=MAX_WAIT_S)] = 0
) -> Response:
    """One job; `wait` holds the answer back until it changes, or that many seconds."""
    row = await _get(desk, job_id, caller)
    if wait and not row.is_final:
        row = await desk.wait(row, wait)
    position = await asyncio.to_thread(desk.store.position, row)
    return JSONResponse(row.wire(position).model_dump(mode="json"))


@router.get("/{job_id}/events", response_class=Response, responses=responses(404))
async def events(
    job_id: JobId,
    caller: TheCaller,
    desk: TheDesk,
    last_event_id: Annotated[str, Header(pattern="^[0-9]{0,18}$")] = "",
) -> Response:
    """Follow a job with server-sent events, after `Last-Event-ID` if one is given."""
    row = await _get(desk, job_id, caller)
    return sse.stream(desk.follow(row, int(last_event_id) if last_event_id else -1))


@router.get("/{job_id}/result", response_class=Response, responses={**RESULTS, **responses(404, 409)})
async def result(
    job_id: JobId, caller: TheCaller, desk: TheDesk, asked: FormatQuery = None, accept: AcceptHeader = ""
) -> Response:
    """The bare result of a finished job; a triage in any of its forms."""
    row = await _get(desk, job_id, caller)
    if not row.is_final:
        message = f"job {row.id} is {row.status}; ask again, or wait with GET /v1/jobs/{row.id}?wait=20"
        raise HttpError(409, "job_not_finished", message, retry_after_s=1)
    return result_of(row, {}, asked, accept)


@router.post("/{job_id}/cancel", response_model=Job, responses=responses(404))
async def cancel(job_id: JobId, caller: TheCaller, desk: TheDesk) -> Job:
    """Stop a job; a finished one stays as it is."""
    return (await desk.cancel(await _get(desk, job_id, caller))).wire()


@router.delete("/{job_id}", status_code=204, responses=responses(404))
async def delete(job_id: JobId, caller: TheCaller, desk: TheDesk) -> Response:
    """Cancel a job and forget it, with its idempotency key."""
    await desk.delete(await _get(desk, job_id, caller))
    return Response(status_code=204)


def _owner(caller: Caller) -> str | None:
    return None if caller.may("admin") else caller.name


async def _get(desk: Desk, job_id: str, caller: Caller) -> JobRow:
    return await asyncio.to_thread(desk.store.get, job_id, _owner(caller))
