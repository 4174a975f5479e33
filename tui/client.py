"""What the terminal asks of a server, call by call. Nothing else in it touches the network."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from tui.connection import Connection, Target, quoted, told
from tui.errors import ContractError, RequestFailedError, ServerGoneError
from whis_box.rollout.state import AdapterList, RolloutEvent, RolloutReport, RolloutState
from whis_box.schemas import Answer, Chunk, Hit, Record, Triage
from whis_box.server.wire import (
    AuditTail,
    BoxCheck,
    BoxState,
    EngineState,
    Feedback,
    Job,
    JobList,
    Library,
    MetricsSummary,
    RecordChunks,
    RecordList,
    SearchResponse,
)

T = TypeVar("T", bound=BaseModel)
JOB_ENDS = {"report", "error", "cancelled", "answer", "triage", "hits"}


class Client:
    """One server, as the screens see it."""

    def __init__(self, target: Target, key: str = "") -> None:
        self.target = target
        self._http = Connection(target, key)

    async def close(self) -> None:
        """Close the pool."""
        await self._http.close()

    # ------------------------------------------------------------- answers

    async def ask(
        self, question: str, request_id: str = ""
    ) -> AsyncIterator[tuple[Literal["delta"], str] | tuple[Literal["answer"], Answer]]:
        """Draft deltas, then the checked answer.

        Raises: ServerGoneError, RequestFailedError, ContractError.
        """
        body = {"question": question, "id": request_id}
        final: Answer | None = None
        path = "/v1/ask?stream=1"
        async for name, data in self._http.events("POST", path, body):
            if name == "error":
                raise told(data, 503, {}, path)
            if name == "delta":
                yield "delta", str(data.get("text", ""))
            elif name == "answer":
                final = self._as(Answer, data)
                yield "answer", final
        if final is None:
            raise ServerGoneError("the server ended the answer in the middle; ask again")

    async def search(self, query: str, top_k: int = 10) -> list[Hit]:
        """Passages, best first."""
        return (await self._post(SearchResponse, "/v1/search", {"query": query, "top_k": top_k})).hits

    async def explain(self, query: str, top_k: int = 10) -> dict[str, Any]:
        """Passages with what put each where it is."""
        return dict(await self._http.json("POST", "/v1/search/explain", {"query": query, "top_k": top_k}))

    async def feedback(self, **fields: str) -> Feedback:
        """Send a judgement."""
        return await self._post(Feedback, "/v1/feedback", fields)

    async def export(self, form: str, triage: Triage, event: Mapping[str, Any]) -> str:
        """A triaged alert in another tool's format."""
        body = {"format": form, "triage": triage.model_dump(mode="json"), "event": dict(event)}
        return str((await self._http.json("POST", "/v1/export", body))["text"])

    # ---------------------------------------------------------------- jobs

    async def submit_triage(self, events: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Job | str]:
        """Queue alerts as `(id, event)`; for each the job, or why it was refused."""
        lines = [json.dumps({"kind": "triage", "id": name, "input": event}) for name, event in events]
        return [self._job_or_error(line) for line in await self._http.lines("/v1/jobs", lines)]

    def _job_or_error(self, line: str) -> Job | str:
        try:
            fields = json.loads(line)
        except ValueError:
            raise ContractError(
                "POST /v1/jobs: a line of the answer is not JSON; is this `whis serve`?"
            ) from None
        if not isinstance(fields, dict):
            raise ContractError("POST /v1/jobs: a line of the answer is not a job; is this `whis serve`?")
        if isinstance(fields.get("error"), dict) and "kind" not in fields:
            return str(fields["error"].get("message", "refused"))
        return self._as(Job, fields)

    async def submit(self, kind: str, given: Mapping[str, Any]) -> Job:
        """Queue one job."""
        return await self._post(Job, "/v1/jobs", {"kind": kind, "input": dict(given)})

    async def job(self, job_id: str, wait_s: float = 0) -> Job:
        """One job; with `wait_s`, after its next change."""
        return await self._get(Job, f"/v1/jobs/{job_id}", wait=wait_s or None)

    async def jobs(self, kind: str = "", status: str = "", before: str = "", limit: int = 200) -> JobList:
        """A page of jobs, newest first."""
        return await self._get(
            JobList,
            "/v1/jobs",
            kind=kind or None,
            status=status or None,
            before=before or None,
            limit=limit,
        )

    async def job_progress(self, job_id: str) -> AsyncIterator[str]:
        """What a job says of its progress, a line at a time, until it has ended.

        Raises: ServerGoneError, RequestFailedError, ContractError.
        """
        said = ""
        async for name, data in self._http.events("GET", f"/v1/jobs/{job_id}/events"):
            said += str(data.get("text", "")) if name == "delta" else ""
            *lines, said = said.split("\n")
            for line in lines:
                yield line
            if name in JOB_ENDS:
                return

    async def cancel_job(self, job_id: str) -> Job:
        """Stop a job."""
        return await self._post(Job, f"/v1/jobs/{job_id}/cancel", None)

    # ------------------------------------------------------------- library

    async def library(self) -> Library:
        """The index and its sources."""
        return await self._get(Library, "/v1/library")

    async def records(
        self, source: str = "", part: str = "", after: str = "", limit: int = 200
    ) -> RecordList:
        """A page of records."""
        return await self._get(
            RecordList, "/v1/library/records", source=source, q=part, after=after, limit=limit
        )

    async def record(self, record_id: str) -> Record:
        """One record."""
        return await self._get(Record, f"/v1/library/records/{quoted(record_id)}")

    async def record_chunks(self, record_id: str) -> RecordChunks:
        """One record and its passages."""
        return await self._get(RecordChunks, f"/v1/library/records/{quoted(record_id)}/chunks")

    async def chunk(self, chunk_id: str) -> Chunk:
        """One passage."""
        return await self._get(Chunk, f"/v1/library/chunks/{quoted(chunk_id)}")

    # ------------------------------------------------------------- the box

    async def ready(self) -> bool:
        """Whether the model and the index are loaded.

        Raises: as the others; RequestFailedError with the server's own words when they could not be loaded.
        """
        try:
            await self._http.json("GET", "/readyz")
        except RequestFailedError as error:
            if error.status == 503 and str(error) == "loading the model":
                return False
            raise
        return True

    async def is_whis(self) -> bool:
        """Whether a Whis server answers at all."""
        version = await self._http.json("GET", "/version")
        return bool(version.get("name") == "whis-box")

    async def box(self) -> BoxState:
        """The manifest."""
        return await self._get(BoxState, "/v1/box")

    async def verify_box(self) -> BoxCheck:
        """Compare every file, now."""
        return await self._post(BoxCheck, "/v1/box/verify", None)

    async def engine(self) -> EngineState:
        """The model process."""
        return await self._get(EngineState, "/v1/box/engine")

    async def index(self) -> dict[str, Any]:
        """What the index says of itself."""
        return dict(await self._http.json("GET", "/v1/box/index"))

    async def metrics(self) -> MetricsSummary:
        """Figures since the server started."""
        return await self._get(MetricsSummary, "/v1/metrics/summary")

    async def audit(self, limit: int = 200) -> AuditTail:
        """The log's tail."""
        return await self._get(AuditTail, "/v1/audit", limit=limit)

    async def rollout_report(self) -> RolloutReport:
        """Figures of each arm."""
        return await self._get(RolloutReport, "/v1/rollout/report")

    async def rollout_events(self) -> list[RolloutEvent]:
        """Changes, newest first."""
        return [self._as(RolloutEvent, one) for one in await self._http.json("GET", "/v1/rollout/events")]

    async def adapters(self) -> AdapterList:
        """Adapters and indexes."""
        return await self._get(AdapterList, "/v1/adapters")

    async def gates(self) -> dict[str, Any]:
        """Gate files by reference."""
        return dict(await self._http.json("GET", "/v1/gates"))

    async def change_rollout(self, action: str, **fields: Any) -> RolloutState:
        """Promote, roll back, …"""
        return await self._post(RolloutState, f"/v1/rollout/{action}", fields)

    # ---------------------------------------------------------------- wire

    async def _get(self, kind: type[T], path: str, /, **params: Any) -> T:
        given = {name: value for name, value in params.items() if value is not None}
        return self._as(kind, await self._http.json("GET", path, params=given))

    async def _post(self, kind: type[T], path: str, body: Any) -> T:
        return self._as(kind, await self._http.json("POST", path, body))

    def _as(self, kind: type[T], fields: Any) -> T:
        try:
            return kind.model_validate(fields)
        except ValidationError as cause:
            first = cause.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ContractError(
                f"the server's {kind.__name__} is not what this program knows ({where}: {first['msg']}); "
                "use the terminal that came with the server's box"
            ) from None
