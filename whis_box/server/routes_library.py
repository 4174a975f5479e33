"""/v1/library: what the active index holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path as File
from typing import Annotated, TypeVar

import apsw
from fastapi import APIRouter, Path, Query

from whis_box.errors import VerificationError
from whis_box.knowledge.store import connect
from whis_box.schemas import Chunk, Record
from whis_box.server import library
from whis_box.server.deps import AskCall, TheService, responses
from whis_box.server.service import Service
from whis_box.server.wire import Library, RecordChunks, RecordList

T = TypeVar("T")
router = APIRouter(prefix="/v1/library", tags=["library"])
Id = Annotated[str, Path(min_length=1, max_length=200)]
Part = Annotated[str, Query(max_length=200)]


@router.get("", response_model=Library, responses=responses())
async def overview(call: AskCall, service: TheService) -> Library:
    """The index, its sources, and whether this host can change it."""
    name, path = _index(service)
    writable = service.config.library.corpus is not None
    return await asyncio.to_thread(library.overview, name, path, call.caller.clearance, writable)


@router.get("/records", response_model=RecordList, responses=responses())
async def records(
    call: AskCall,
    service: TheService,
    source: Part = "",
    q: Part = "",
    after: Part = "",
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> RecordList:
    """One page of records in id order; `q` is a part of id or title."""
    level = call.caller.clearance
    return await _read(service, lambda index: library.records(index, level, source, q, after, limit))


@router.get("/records/{record_id}", response_model=Record, responses=responses(404))
async def record(record_id: Id, call: AskCall, service: TheService) -> Record:
    """One record with its text."""
    return await _read(service, lambda index: library.record(index, record_id, call.caller.clearance))


@router.get("/records/{record_id}/chunks", response_model=RecordChunks, responses=responses(404))
async def chunks(record_id: Id, call: AskCall, service: TheService) -> RecordChunks:
    """A record and the passages it was cut into."""
    return await _read(service, lambda index: library.record_chunks(index, record_id, call.caller.clearance))


@router.get("/chunks/{chunk_id}", response_model=Chunk, responses=responses(404))
async def chunk(chunk_id: Id, call: AskCall, service: TheService) -> Chunk:
    """One passage."""
    return await _read(service, lambda index: library.chunk(index, chunk_id, call.caller.clearance))


def _index(service: Service) -> tuple[str, File]:
    release = service.stable
    return release.index, File(service.box.shelf.indexes[release.index].path)


async def _read(service: Service, read: Callable[[apsw.Connection], T]) -> T:
    """Read from a connection of its own, on a thread of its own."""
    _, path = _index(service)

    def work() -> T:
        connection = connect(path)
        try:
            return read(connection)
        except apsw.Error as cause:
            raise VerificationError(f"{path}: cannot be read ({cause}); copy the box again") from cause
        finally:
            connection.close()

    return await asyncio.to_thread(work)
