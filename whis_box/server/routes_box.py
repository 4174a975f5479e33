"""/v1/box, /v1/audit and /v1/me: what is running, what it did, and who asks."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query

from whis_box.audit import AuditCheck, tail, verify_log
from whis_box.box.install import signature_state
from whis_box.box.manifest import verify
from whis_box.box.slots import home_at
from whis_box.errors import VerificationError
from whis_box.knowledge.store import describe
from whis_box.paths import default_home
from whis_box.server.deps import AdminCall, AskCall, TheCaller, TheService, responses
from whis_box.server.wire import AuditTail, BoxCheck, BoxState, EngineState, Me

router = APIRouter(prefix="/v1", tags=["box"])


@router.get("/me", response_model=Me, responses=responses())
async def me(caller: TheCaller) -> Me:
    """The caller's own name, scopes and clearance."""
    return Me(name=caller.name, scopes=sorted(caller.scopes), clearance=caller.clearance)


@router.get("/box", response_model=BoxState, responses=responses())
async def box_state(call: AskCall, service: TheService) -> BoxState:
    """The manifest, as it was verified when the box was opened."""
    box = service.box
    home = home_at(default_home())
    signature = await asyncio.to_thread(signature_state, box.folder, home)
    return BoxState(
        folder=str(box.folder),
        name=box.manifest.name,
        version=box.manifest.version,
        manifest_sha256=box.digest,
        source_commit=box.manifest.source_commit,
        files=len(box.manifest.files),
        size_bytes=sum(one.size_bytes for one in box.manifest.files),
        verified_at=service.opened_at,
        signature=signature,
        lineage=box.lineage_of(service.stable),
    )


@router.post("/box/verify", response_model=BoxCheck, responses=responses())
async def box_verify(call: AdminCall, service: TheService) -> BoxCheck:
    """Compare every file of the box with its manifest, now."""
    folder = service.box.folder
    try:
        manifest, _ = await asyncio.to_thread(verify, folder)
        result = BoxCheck(intact=True, files=len(manifest.files), problems=[])
    except VerificationError as error:
        result = BoxCheck(intact=False, files=0, problems=str(error).splitlines())
    await service.record("box.verify", call, "", {"intact": result.intact})
    return result


@router.get("/box/engine", response_model=EngineState, responses=responses())
async def engine(call: AskCall, service: TheService) -> EngineState:
    """The model process and the seats."""
    seats, box = service.ready_seats, service.box
    state = box.engine.state
    return EngineState(
        running=box.engine.pid is not None,
        pid=box.engine.pid,
        restarts=box.engine.restarts,
        memory_bytes=(state.resident_bytes or None) if state else None,
        info=asdict(box.info),
        seats=seats.n_seats,
        busy=seats.busy,
        waiting=seats.waiting,
    )


@router.get("/box/index", response_model=dict[str, Any], responses=responses())
async def index(call: AskCall, service: TheService) -> dict[str, Any]:
    """What the active index says of itself."""
    release = service.stable
    path = Path(service.box.shelf.indexes[release.index].path)

    return {"index": release.index, **await asyncio.to_thread(describe, path)}


@router.get("/audit", response_model=AuditTail, responses=responses())
async def audit(
    call: AdminCall,
    service: TheService,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[int | None, Query(ge=1, le=2**53)] = None,
) -> AuditTail:
    """The last entries of the audit log, newest last."""
    return AuditTail(entries=await asyncio.to_thread(tail, service.audit.folder, limit, before))


@router.get("/audit/verify", response_model=AuditCheck, responses=responses())
async def audit_verify(call: AdminCall, service: TheService) -> AuditCheck:
    """Read the whole chain."""
    return await asyncio.to_thread(verify_log, service.audit.folder)
