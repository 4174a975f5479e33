"""/v1/search/explain and /v1/export: what the analyst's terminal asks for beside the other routes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter

from whis_box.exports import Case, export, to_text
from whis_box.ingest.alerts import read_alert
from whis_box.server.body import StrictRoute
from whis_box.server.deps import AskCall, TheService, TriageCall, responses
from whis_box.server.wire import Exported, ExportRequest, SearchRequest

router = APIRouter(prefix="/v1", route_class=StrictRoute, tags=["terminal"])


@router.post("/search/explain", response_model=dict[str, Any], responses=responses())
async def explain(asked: SearchRequest, call: AskCall, service: TheService) -> dict[str, Any]:
    """A search with what put each passage where it is."""
    return await service.explain(asked, call)


@router.post("/export", response_model=Exported, responses=responses())
async def export_case(asked: ExportRequest, call: TriageCall, service: TheService) -> Exported:
    """A triage in another tool's format; nothing is stored or sent."""
    case = Case(asked.triage, read_alert(asked.event), asked.event, datetime.now(UTC))
    await service.record("export", call, "", {"format": asked.format}, asked.triage.id)
    return Exported(format=asked.format, text=to_text(export(asked.format, case)))
