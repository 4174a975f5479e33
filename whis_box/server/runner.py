"""Runs jobs one after the other beside the interactive requests, and tells the followers.

Invariant: a job whose result could not be stored is kept until it can; a job that lost its engine or its
server is started again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from typing import Any

from pydantic import BaseModel

from whis_box.errors import StorageError, WhisError
from whis_box.knowledge.facets import Filter
from whis_box.server import library
from whis_box.server.access import ALL_SCOPES, Caller
from whis_box.server.body import validated
from whis_box.server.failures import HttpError, as_envelope
from whis_box.server.feeds import Feeds
from whis_box.server.job_rows import JobRow, too_often
from whis_box.server.jobs import JobStore
from whis_box.server.seats import JOB
from whis_box.server.service import Call, Service
from whis_box.server.sse import Delta
from whis_box.server.wire import AskRequest, JobError, JobStatus, SearchRequest

POLL_S = 1.0
STORE_RETRY_S = 2.0
EXPIRE_EVERY_S = 300.0
log = logging.getLogger("whis.jobs")


class Runner:
    """Takes jobs from the store while the server runs."""

    def __init__(self, service: Service, store: JobStore, feeds: Feeds) -> None:
        self._service, self._store, self._feeds = service, store, feeds
        self._wake = asyncio.Event()
        self._cancelled: dict[str, threading.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        # One seat stays free for requests that wait, where there is more than one.
        self._at_once = max(1, service.config.seats - 1)

    def notify(self) -> None:
        """There may be something to do."""
        self._wake.set()

    def cancel(self, job_id: str) -> None:
        """Stop a running job where it is."""
        if job_id in self._cancelled:
            self._cancelled[job_id].set()
        self._feeds.end(job_id)

    async def run(self) -> None:
        """Until `close`."""
        expired_at = 0.0
        loop = asyncio.get_running_loop()
        while not self._closing:
            self._wake.clear()
            try:
                if loop.time() - expired_at > EXPIRE_EVERY_S:
                    await asyncio.to_thread(self._store.expire)
                    expired_at = loop.time()
                await self._fill()
            except StorageError as error:
                log.error("job store", extra={"fields": {"problem": str(error)}})
            try:
                async with asyncio.timeout(POLL_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def close(self) -> None:
        """Stop; running jobs go back to the queue."""
        self._closing = True
        for cancelled in self._cancelled.values():
            cancelled.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5.0)
        self._feeds.close()

    async def _fill(self) -> None:
        while self._service.seats is not None and len(self._tasks) < self._at_once and not self._closing:
            row = await asyncio.to_thread(self._store.claim)
            if row is None:
                return
            task = asyncio.create_task(self._one(row))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._wake.set()
        if not task.cancelled() and task.exception() is not None:
            log.error("a job's task failed", exc_info=task.exception())

    async def _one(self, row: JobRow) -> None:
        cancelled = self._cancelled[row.id] = threading.Event()
        feed = self._feeds.of(row.id)
        feed.add(row.attempts, "status", row.wire(with_result=False).model_dump_json())
        loop = asyncio.get_running_loop()

        def on_text(delta: str) -> None:
            text = Delta(text=delta).model_dump_json()
            loop.call_soon_threadsafe(feed.add, row.attempts, "delta", text)

        caller = Caller(row.owner, frozenset(ALL_SCOPES), row.clearance, 1, 1)  # type: ignore[arg-type]
        call = Call(caller, row.request_id or row.id, JOB, on_text, cancelled)
        try:
            result = await self._work(row, call)
            await self._store_end(row, "completed", result, None)
        except WhisError as error:
            await self._failed(row, error)
        finally:
            self._cancelled.pop(row.id, None)

    async def _work(self, row: JobRow, call: Call) -> str:
        fields: dict[str, Any] = json.loads(row.input)
        result: BaseModel
        if row.kind == "ask":
            result = await self._service.ask(validated(AskRequest, fields, "input"), call)
        elif row.kind == "triage":
            narrowed = Filter(clearance=call.caller.clearance)
            result = await self._service.triage(fields, row.model, narrowed, call)
        elif row.kind == "search":
            result = await self._service.search(validated(SearchRequest, fields, "input"), call)
        else:
            return json.dumps(await library.change(row.kind, fields, self._service, call))
        return result.model_dump_json()

    async def _failed(self, row: JobRow, error: WhisError) -> None:
        again = error.retryable or self._closing
        if isinstance(error, HttpError):
            again = again or error.status == 503
        if again and (row.attempts < self._service.config.jobs.max_attempts or self._closing):
            await asyncio.to_thread(self._store.requeue, row)
            return
        body = as_envelope(error).error
        failure = too_often(row.attempts) if again else JobError(
            message=body.message, type=body.type, code=body.code
        )  # fmt: skip
        await self._store_end(row, "failed", None, failure)

    async def _store_end(
        self, row: JobRow, status: JobStatus, result: str | None, error: JobError | None
    ) -> None:
        """Store the end of a job; a full disk is waited for."""
        while True:
            try:
                if await asyncio.to_thread(self._store.finish, row, status, result, error):
                    self._service.metrics.jobs.labels(row.kind, status).inc()
                self._feeds.end(row.id)
                return
            except StorageError as problem:
                log.error("a result waits", extra={"fields": {"job": row.id, "problem": str(problem)}})
                if self._closing:
                    return
                await asyncio.sleep(STORE_RETRY_S)
