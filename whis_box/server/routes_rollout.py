"""/v1/rollout, /v1/adapters, /v1/gates and /v1/feedback."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Response

from whis_box.errors import InputError, NotReadyError
from whis_box.gates import GateFile
from whis_box.paths import own_program
from whis_box.rollout.compare import outcome_of
from whis_box.rollout.releases import Artifact, gate_of
from whis_box.rollout.state import (
    Action,
    AdapterList,
    AdapterState,
    RolloutEvent,
    RolloutReport,
    RolloutRequest,
    RolloutState,
)
from whis_box.schemas import Answer
from whis_box.server.body import StrictRoute
from whis_box.server.deps import AdminCall, AskCall, TheService, responses
from whis_box.server.failures import HttpError
from whis_box.server.service import Service
from whis_box.server.wire import Feedback, FeedbackList, FeedbackRequest

router = APIRouter(prefix="/v1", route_class=StrictRoute, tags=["rollout"])


@router.get("/rollout", response_model=RolloutState, responses=responses())
async def state(call: AskCall, service: TheService) -> RolloutState:
    """What holds for the next request."""
    return service.traffic.state


@router.get("/rollout/report", response_model=RolloutReport, responses=responses())
async def report(call: AskCall, service: TheService) -> RolloutReport:
    """Figures of each arm, and of the other arm beside stable."""
    traffic = service.traffic
    return await asyncio.to_thread(traffic.control.report, service.box.shelf, traffic.dropped)


@router.get("/rollout/events", response_model=list[RolloutEvent], responses=responses())
async def events(
    call: AskCall, service: TheService, limit: Annotated[int, Query(ge=1, le=500)] = 50
) -> list[RolloutEvent]:
    """Changes, newest first."""
    name = service.traffic.state.environment
    return await asyncio.to_thread(service.rollout_store.events, name, limit)


@router.post("/rollout/{action}", response_model=RolloutState, responses=responses(409))
async def act(action: Action, asked: RolloutRequest, call: AdminCall, service: TheService) -> RolloutState:
    """Change the rollout; it holds when the answer comes."""
    traffic = service.traffic

    def work() -> RolloutState:
        shelf = None if action in ("rollback", "stop") else service.box.read_shelf()
        after = traffic.control.act(action, asked, shelf, call.caller.name)
        traffic.follow(after, service.prepare)
        return traffic.state

    service.ready_seats  # noqa: B018 (raises while the box loads)
    try:
        after = await asyncio.to_thread(work)
    except (InputError, NotReadyError) as error:
        raise HttpError(409, "rollout_refused", f"{action}: {error}") from None
    await service.record(f"rollout.{action}", call, asked.reason, {"revision": after.revision})
    return after


@router.get("/adapters", response_model=AdapterList, responses=responses())
async def adapters(call: AskCall, service: TheService) -> AdapterList:
    """Adapters and indexes on this host, and what they do."""
    shelf = service.box.shelf
    return AdapterList(
        adapters=[_state(service, "adapter", one) for one in shelf.adapters.values()],
        indexes=[_state(service, "index", one) for one in shelf.indexes.values()],
    )


@router.get("/gates", response_model=dict[str, GateFile], responses=responses())
async def gates(call: AskCall, service: TheService) -> dict[str, GateFile]:
    """The gate files on this host by reference; an altered one is not among them."""
    shelf = service.box.shelf
    held = [*shelf.adapters.values(), *shelf.indexes.values()]
    return {one.reference: gate for one in held if (gate := gate_of(one)) is not None}


def _state(service: Service, kind: str, artifact: Artifact) -> AdapterState:
    now, gate = service.traffic.state, gate_of(artifact)
    arms = {"stable": now.stable, "previous": now.previous, "canary": now.canary, "shadow": now.shadow}
    roles = [
        name
        for name, release in arms.items()
        if release is not None and getattr(release, kind) == artifact.reference
    ]
    return AdapterState(
        kind=kind,
        reference=artifact.reference,
        sha256=artifact.sha256,
        origin=artifact.origin,
        roles=roles,
        gate_passed=gate.passed if gate is not None else None,
    )


@router.post("/feedback", status_code=201, response_model=Feedback, responses=responses(404))
async def rate(asked: FeedbackRequest, call: AskCall, service: TheService) -> Feedback:
    """An analyst's judgement of an answer given not long ago."""
    served = service.traffic.recent(asked.answer_id)
    if served is None:
        message = f"answer {asked.answer_id[:64]!r} is not known here any more; ask again, then rate it"
        raise HttpError(404, "answer_not_found", message, "answer_id")
    result, keeps = served.result, asked.training == "yes"
    fields = {
        **asked.model_dump(),
        "adapter": result.lineage.adapter,
        "release": str(served.release),
        "outcome": outcome_of(result),
        "kind": "ask" if isinstance(result, Answer) else "triage",
        "input": served.text if keeps else "",
        "output": result.model_dump_json() if keeps else "",
    }
    feedback_id, at = await asyncio.to_thread(service.rollout_store.rate, fields)
    await service.record("feedback", call, asked.comment, {"rating": asked.rating}, asked.answer_id)
    return Feedback(id=feedback_id, at=at, adapter=result.lineage.adapter, **asked.model_dump())


@router.get("/feedback", response_model=FeedbackList, responses=responses())
async def ratings(
    call: AskCall, service: TheService, limit: Annotated[int, Query(ge=1, le=500)] = 50
) -> FeedbackList:
    """Judgements, newest first."""
    rows = await asyncio.to_thread(service.rollout_store.ratings, limit)
    names = Feedback.model_fields
    shown = [Feedback(**{name: row[name] for name in names}) for row in rows]
    return FeedbackList(
        feedback=shown,
        counts={word: sum(one.rating == word for one in shown) for word in ("up", "down")},
    )


@router.get("/feedback/export", response_class=Response, responses=responses(409))
async def export(call: AdminCall, service: TheService) -> Response:
    """NDJSON training pairs of those who agreed, redacted; needs the build half's recognizers."""

    process = await asyncio.create_subprocess_exec(
        *own_program(), "adapters", "export", "--store", str(service.rollout_store.path),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, said = await process.communicate()
    if process.returncode:
        last = said.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise HttpError(
            409, "redaction_unavailable", f"the pairs cannot be redacted here: {' '.join(last)[:300]}"
        )
    await service.record("feedback.export", call, "", {"bytes": len(out)})
    return Response(out, media_type="application/x-ndjson")
