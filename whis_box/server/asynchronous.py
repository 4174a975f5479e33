"""From a request to a job and back: idempotency keys, `Prefer`, waiting, and following.

Source: RFC 7240 (Prefer), draft-ietf-httpapi-idempotency-key-header-07 (2025).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from fastapi import Response
from fastapi.responses import JSONResponse

from whis_box.errors import InputError
from whis_box.ingest.alerts import read_alert
from whis_box.schemas import Tlp
from whis_box.server import formats, library, sse
from whis_box.server.body import validated
from whis_box.server.failures import HttpError, envelope
from whis_box.server.feeds import ATTEMPT, FINAL_ID, Feeds
from whis_box.server.formats import Format
from whis_box.server.job_rows import JobRow, NewJob
from whis_box.server.jobs import JobStore
from whis_box.server.runner import Runner
from whis_box.server.service import Call, Service
from whis_box.server.wire import AskRequest, JobKind, JobRequest, SearchRequest

MAX_WAIT_S = 60.0
MADE_ID = re.compile(r"^[0-9a-f]{16}$")  # what read_alert gives an alert that has no id of its own
KEY = re.compile(r"^[\x21-\x7e]{1,255}$")
RESULT_EVENTS = {"ask": "answer", "triage": "triage", "search": "hits"}
SCOPES = {"ask": "ask", "search": "ask", "triage": "triage", "ingest": "ingest", "purge": "ingest"}


class Desk:
    """Takes jobs in, and hands them out again."""

    def __init__(self, service: Service, store: JobStore, feeds: Feeds, runner: Runner) -> None:
        self._service, self.store, self._feeds, self._runner = service, store, feeds, runner

    # -------------------------------------------------------------- in

    def new_job(
        self, request: JobRequest, call: Call, key: str, model: str = "whis", clearance: Tlp = "red"
    ) -> NewJob:
        """Check a job before it is stored.

        Raises: HttpError 4xx.
        """
        fields = dict(request.input)
        check_input(request.kind, fields, self._service)
        self._check_callback(request.callback_url)
        explicit = bool(key)
        if explicit and not KEY.match(key):
            raise HttpError(
                400, "invalid_idempotency_key", "Idempotency-Key: 1 to 255 visible ASCII characters"
            )
        if not key and request.kind == "triage":
            key = alert_key(fields)
        body = json.dumps(fields, sort_keys=True, ensure_ascii=False)
        allowed = call.caller.narrowed(clearance)
        what = "\n".join((request.kind, model, allowed, body))
        return NewJob(
            owner=call.caller.name,
            kind=request.kind,
            input=body,
            clearance=allowed,
            fingerprint=hashlib.sha256(what.encode("utf-8", "surrogatepass")).hexdigest(),
            model=model,
            request_id=request.id or call.request_id,
            callback_url=request.callback_url,
            idempotency_key=key or None,
            key_is_explicit=explicit,
        )

    async def submit(self, jobs: list[NewJob]) -> list[tuple[JobRow, bool]]:
        """Store jobs, and wake the runner.

        Raises: as `JobStore.submit`.
        """
        stored = await asyncio.to_thread(self.store.submit, jobs)
        for row, is_new in stored:
            if is_new:
                self._service.metrics.jobs.labels(row.kind, "queued").inc()
        self._runner.notify()
        return stored

    def _check_callback(self, url: str) -> None:
        if not url:
            return
        parts = urlsplit(url)
        hosts = self._service.config.callbacks.hosts
        if (
            parts.scheme not in ("http", "https")
            or parts.username
            or parts.password
            or parts.netloc not in hosts
        ):
            message = f"callback_url: host {parts.netloc[:100]!r} is not in callbacks.hosts of this server"
            raise HttpError(403, "callback_not_allowed", message, "callback_url")

    async def instead(
        self, request: JobRequest, call: Call, headers: Headers, model: str, clearance: Tlp,
        wished: tuple[Format | None, str] = (None, ""),
    ) -> Response:  # fmt: skip
        """Answer a request that may become a job: the result as `wished`, or 202 with the job.

        Raises: HttpError 409 while the same key is under way, and as `new_job` and `submit`.
        """
        job = self.new_job(request, call, headers.key, model, clearance)
        [(row, is_new)] = await self.submit([job])
        if not is_new and headers.key and not row.is_final and headers.wait_s is None:
            message = f"Idempotency-Key {headers.key[:80]!r} is still under way as job {row.id}"
            error = HttpError(409, "idempotency_key_in_flight", message, "Idempotency-Key", retry_after_s=2)
            error.headers["Location"] = f"/v1/jobs/{row.id}"
            raise error
        wait_s = self._service.config.limits.request_timeout_s if headers.wait_s is None else headers.wait_s
        row = await self.wait(row, wait_s, until_final=True)
        if not row.is_final:
            return accepted(row)
        shown = {"Location": f"/v1/jobs/{row.id}"}
        if not is_new:
            shown["Idempotency-Replayed"] = "true"
        return result_of(row, shown, *wished)

    # ------------------------------------------------------------- out

    async def wait(self, row: JobRow, wait_s: float, until_final: bool = False) -> JobRow:
        """The job after its next change, or after `wait_s`."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + min(wait_s, self._service.config.limits.request_timeout_s)
        first = row.status
        while not row.is_final and (until_final or row.status == first) and loop.time() < give_up_at:
            changed = self._feeds.of(row.id).changed
            row = await asyncio.to_thread(self.store.get, row.id, None)
            if row.is_final or (not until_final and row.status != first) or self._service.draining:
                break
            try:
                async with asyncio.timeout(max(0.0, give_up_at - loop.time())):
                    await changed.wait()
            except TimeoutError:
                break
        return await asyncio.to_thread(self.store.get, row.id, None)

    async def follow(self, row: JobRow, last_id: int) -> AsyncIterator[str]:
        """The job's events after `last_id`, to its end."""
        feed = self._feeds.of(row.id)
        row = await asyncio.to_thread(self.store.get, row.id, None)
        if row.is_final:
            self._feeds.end(row.id)
        elif not feed.events and row.attempts * ATTEMPT > last_id:
            yield sse.event(
                "status", row.wire(with_result=False).model_dump_json(), str(row.attempts * ATTEMPT)
            )
        while not row.is_final:
            changed, closed = feed.changed, feed.closed
            for number, name, data in list(feed.events):
                if number > last_id:
                    last_id = number
                    yield sse.event(name, data, str(number))
            if closed:
                break
            try:
                async with asyncio.timeout(sse.PING_S):
                    await changed.wait()
            except TimeoutError:
                yield ": still working\n\n"
        row = await asyncio.to_thread(self.store.get, row.id, None)
        if row.is_final and last_id < FINAL_ID:
            yield sse.event(*final_event(row), str(FINAL_ID))

    async def cancel(self, row: JobRow) -> JobRow:
        """Cancel; a finished job stays as it is.

        Raises: StorageError.
        """
        if await asyncio.to_thread(self.store.cancel, row):
            self._service.metrics.jobs.labels(row.kind, "cancelled").inc()
        self._runner.cancel(row.id)
        return await asyncio.to_thread(self.store.get, row.id, None)

    async def delete(self, row: JobRow) -> None:
        """Cancel and forget.

        Raises: StorageError.
        """
        await self.cancel(row)
        await asyncio.to_thread(self.store.delete, row)


class Headers:
    """What a request's headers say about waiting and repeating."""

    def __init__(self, prefer: str, key: str) -> None:
        """Raises: HttpError 400 for a `wait` that is no number."""
        self.key = key.strip().strip('"')
        wishes = [one.strip().partition("=") for one in re.split(r"[,;]", prefer.lower()) if one.strip()]
        named = {name.strip(): value.strip().strip('"') for name, _, value in wishes}
        self.wait_s: float | None = None
        if "wait" in named:
            if not named["wait"].isdecimal():
                raise HttpError(400, "invalid_prefer", f"Prefer: wait={named['wait'][:20]} is not seconds")
            self.wait_s = min(float(named["wait"]), MAX_WAIT_S)
        elif "respond-async" in named:
            self.wait_s = 0.0

    @property
    def wants_job(self) -> bool:
        """Whether the request has to go through the store."""
        return self.wait_s is not None or bool(self.key)


def check_input(kind: JobKind, fields: dict[str, Any], service: Service) -> None:
    """Refuse now what would fail later.

    Raises: HttpError 4xx.
    """
    if kind == "ask":
        service.release_for(validated(AskRequest, fields, "input").model)
    elif kind == "search":
        validated(SearchRequest, fields, "input")
    elif kind == "triage":
        if not fields:
            raise HttpError(422, "invalid_request", "input: an alert must hold at least one field", "input")
    else:
        library.check_change(kind, fields, service)


def alert_key(event: Mapping[str, object]) -> str:
    """The alert's own id as idempotency key; "" for one whose id was made from its content."""
    try:
        alert_id = read_alert(event).id
    except (InputError, ValueError):
        return ""
    is_digest = MADE_ID.match(alert_id) and alert_id not in json.dumps(event, ensure_ascii=False)
    return "" if is_digest else f"alert:{alert_id}"[:255]


def accepted(row: JobRow) -> JSONResponse:
    """202 with the job."""
    headers = {"Location": f"/v1/jobs/{row.id}", "Preference-Applied": "respond-async", "Retry-After": "1"}
    return JSONResponse(row.wire().model_dump(mode="json"), 202, headers)


def result_of(
    row: JobRow, headers: dict[str, str], asked: Format | None = None, accept: str = ""
) -> Response:
    """A finished job's bare result in the form asked for, or its error.

    Raises: HttpError 400 when its kind has no such form.
    """
    if (other := formats.of_job(asked, accept, row)) is not None:
        other.headers.update(headers)
        return other
    if row.status == "completed":
        return Response(row.result, 200, headers, "application/json")
    if row.status == "cancelled":
        body = envelope(409, "cancelled", f"job {row.id} was cancelled; send it again")
        return JSONResponse(body.model_dump(), 409, headers)
    error = row.wire().error
    assert error is not None
    status = 400 if error.type == "invalid_request_error" else 500
    return JSONResponse(envelope(status, error.code, error.message).model_dump(), status, headers)


def final_event(row: JobRow) -> tuple[str, str]:
    """Name and data of a job's last event."""
    if row.status == "completed":
        return RESULT_EVENTS.get(row.kind, "report"), row.result or "{}"
    if row.status == "cancelled":
        return "cancelled", row.wire().model_dump_json()
    error = row.wire().error
    assert error is not None
    return "error", envelope(500, error.code, error.message).model_dump_json()
