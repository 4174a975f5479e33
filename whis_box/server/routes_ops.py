"""Health, readiness, version and metrics."""

from __future__ import annotations

from fastapi import APIRouter, Response

import whis_box
from whis_box.server.deps import AskCall, TheCaller, TheService, responses
from whis_box.server.failures import HttpError
from whis_box.server.wire import Check, MetricsSummary, Readiness, Version

router = APIRouter(tags=["operations"])


@router.get("/", include_in_schema=False)
@router.get("/health", include_in_schema=False)
@router.get("/v1/health", include_in_schema=False)
@router.get("/healthz", response_model=dict[str, str])
async def healthz() -> dict[str, str]:
    """The process is alive."""
    return {"status": "ok"}


@router.get("/readyz", response_model=Readiness, responses=responses())
async def readyz(service: TheService) -> Readiness:
    """The box is loaded and unchanged; 503 before that, and while the server drains."""
    problem = service.load_error or service.refusal
    checks = [
        Check(name="box", ready=service.seats is not None and not problem, detail=problem),
        Check(name="draining", ready=not service.draining),
    ]
    if not all(check.ready for check in checks):
        detail = problem or ("shutting down" if service.draining else "loading the model")
        raise HttpError(503, "not_ready", detail, retry_after_s=2)
    info = service.box.info
    notes = "".join(f"; {note}" for note in info.notes)
    checks.append(Check(name="engine", ready=True, detail=f"on {info.device}, backend {info.backend}{notes}"))
    return Readiness(ready=True, checks=checks)


@router.get("/version", response_model=Version, responses=responses())
async def version(caller: TheCaller, service: TheService) -> Version:
    """The program's version and the digests of everything that shapes an answer."""
    lineage = service.box.lineage if service.seats is not None else None
    return Version(version=whis_box.__version__, lineage=lineage, environment=service.environment)


@router.get("/metrics", response_class=Response, responses=responses())
async def metrics(caller: TheCaller, service: TheService) -> Response:
    """Prometheus text format."""
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/v1/metrics/summary", response_model=MetricsSummary, responses=responses())
async def summary(call: AskCall, service: TheService) -> MetricsSummary:
    """What a status line shows, since the server started."""
    seats = service.seats
    return service.metrics.summary(
        service.job_counts(), seats.busy if seats else 0, seats.waiting if seats else 0
    )
