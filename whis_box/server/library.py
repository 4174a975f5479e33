"""What the active index holds, and changing it where the build half is installed.

Invariant: nothing above the caller's clearance is listed or shown; ingest and purge run as programs of their
own, so that the server needs none of their libraries.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import apsw

from whis_box.errors import EngineError, RequestCancelledError
from whis_box.knowledge.store import connect, fetch, placeholders, read_meta
from whis_box.paths import own_program
from whis_box.schemas import TLP_ORDER, Chunk, Record, Tlp
from whis_box.server.body import validated
from whis_box.server.failures import HttpError
from whis_box.server.service import Call, Service
from whis_box.server.wire import (
    IngestInput,
    Library,
    PurgeInput,
    RecordChunks,
    RecordList,
    RecordSummary,
    SourceCount,
)

CHANGE_TIMEOUT_S = 3600.0
CANCEL_POLL_S = 0.5
PROGRESS_EVERY_S = 1.0  # a feed keeps a limited number of events
MAX_LINE_BYTES = 1 << 20


def visible(clearance: Tlp) -> tuple[Tlp, ...]:
    """The TLP levels that a clearance may see."""
    return TLP_ORDER[: TLP_ORDER.index(clearance) + 1]


def overview(index_name: str, path: Path, clearance: Tlp, writable: bool) -> Library:
    """The index's own description, and the sources of what may be seen.

    Raises: NotReadyError, VerificationError, StorageError.
    """
    connection = connect(path)
    levels = visible(clearance)
    try:
        meta = read_meta(connection, path)
        rows = fetch(
            connection,
            "select body ->> '$.source.name', body ->> 'license', body ->> 'pipeline_version', count(*),"
            " sum(length(body ->> 'text')), min(body ->> '$.source.retrieved_at'),"
            " max(body ->> '$.source.retrieved_at') from records"
            f" where body ->> 'tlp' in ({placeholders(levels)})"
            " group by 1, 2, 3 order by 1, 2",
            levels,
        )
    finally:
        connection.close()
    sources = [
        SourceCount(
            name=name,
            license=license_id,
            pipeline=pipeline,
            records=count,
            characters=characters,
            oldest_at=oldest,
            newest_at=newest,
        )  # fmt: skip
        for name, license_id, pipeline, count, characters, oldest, newest in rows
    ]
    return Library(index=index_name, meta=dict(meta), sources=sources, writable=writable)


def records(
    connection: apsw.Connection, clearance: Tlp, source: str, part: str, after: str, limit: int
) -> RecordList:
    """One page of records in id order."""
    levels = visible(clearance)
    where = f"body ->> 'tlp' in ({placeholders(levels)})"
    values: list[Any] = [*levels]
    if source:
        where += " and body ->> '$.source.name' = ?"
        values.append(source)
    if part:
        where += " and (instr(lower(id), lower(?)) or instr(lower(body ->> 'title'), lower(?)))"
        values += [part, part]
    [(total,)] = fetch(connection, f"select count(*) from records where {where}", values)
    sql = f"select body from records where {where} and id > ? order by id limit ?"
    page = [Record.model_validate_json(body) for (body,) in fetch(connection, sql, [*values, after, limit])]
    return RecordList(
        records=[summary(one) for one in page],
        total=int(total),
        next=page[-1].id if len(page) == limit else "",
    )


def summary(record: Record) -> RecordSummary:
    """A record without its text."""
    return RecordSummary(
        id=record.id,
        title=record.title,
        source=record.source.name,
        license=record.license,
        tlp=record.tlp,
        characters=len(record.text),
        redactions=record.redactions,
    )


def record(connection: apsw.Connection, record_id: str, clearance: Tlp) -> Record:
    """One record.

    Raises: HttpError 404, also for one above the clearance.
    """
    for (body,) in fetch(connection, "select body from records where id = ?", (record_id,)):
        found = Record.model_validate_json(body)
        if found.tlp in visible(clearance):
            return found
    raise HttpError(404, "record_not_found", f"record {record_id[:200]!r} is not in the index")


def record_chunks(connection: apsw.Connection, record_id: str, clearance: Tlp) -> RecordChunks:
    """A record and its passages in reading order.

    Raises: as `record`.
    """
    found = record(connection, record_id, clearance)
    rows = fetch(connection, "select body from chunks where record_id = ? order by rowid", (record_id,))
    return RecordChunks(record=found, chunks=[Chunk.model_validate_json(body) for (body,) in rows])


def chunk(connection: apsw.Connection, chunk_id: str, clearance: Tlp) -> Chunk:
    """One passage.

    Raises: HttpError 404, also for one above the clearance.
    """
    for (body,) in fetch(connection, "select body from chunks where id = ?", (chunk_id,)):
        found = Chunk.model_validate_json(body)
        if found.meta.tlp in visible(clearance):
            return found
    raise HttpError(404, "chunk_not_found", f"chunk {chunk_id[:200]!r} is not in the index")


def check_change(kind: str, fields: dict[str, Any], service: Service) -> list[str]:
    """The program that makes a change.

    Raises: HttpError 409 on a read-only host, 403 for a folder that is not allowed, 422.
    """
    config = service.config.library
    if config.corpus is None:
        message = "this host's library is read-only; install a signed pack, or set library.corpus"
        raise HttpError(409, "library_read_only", message)
    if kind == "purge":
        purge = validated(PurgeInput, fields, "input")
        out = ["--out", str(config.index)] if config.index else []
        return [
            *own_program(), "index", "purge", "--json", "--corpus", str(config.corpus), *out,
            "--record", purge.record_id,
        ]  # fmt: skip
    ingest = validated(IngestInput, fields, "input")
    folders = [folder.resolve() for folder in config.allowed_folders]
    paths = [Path(path).resolve() for path in ingest.paths]
    for path in paths:
        if not any(path.is_relative_to(folder) for folder in folders):
            raise HttpError(403, "folder_not_allowed", f"{path}: not under library.allowed_folders")
    return [
        *own_program(), "ingest", "--json", "--review", "--corpus", str(config.corpus),
        "--source", ingest.source, "--", *map(str, paths),
    ]  # fmt: skip


async def change(kind: str, fields: dict[str, Any], service: Service, call: Call) -> dict[str, Any]:
    """Ingest or purge, and what the program said; its progress goes to `call.on_text`, line by line.

    Raises: HttpError as `check_change`; EngineError with the program's last words; RequestCancelledError.
    """
    command = check_change(kind, fields, service)
    await service.record(f"library.{kind}", call, json.dumps(fields), {})
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, limit=MAX_LINE_BYTES
    )
    talk = asyncio.ensure_future(_listen(process, call))
    try:
        async with asyncio.timeout(CHANGE_TIMEOUT_S):
            while not (await asyncio.wait({talk}, timeout=CANCEL_POLL_S))[0]:
                if call.cancelled.is_set():
                    raise RequestCancelledError(f"{kind} was cancelled; what was committed stays")
        out, last = talk.result()
    except TimeoutError:
        raise EngineError(f"{kind} did not end within {CHANGE_TIMEOUT_S:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
        await asyncio.wait({talk})  # its pipes end with it
    if process.returncode:
        raise EngineError(f"{kind} ended with {process.returncode}: {last[:500]}")
    result: dict[str, Any] = json.loads(out)
    return result


async def _listen(process: asyncio.subprocess.Process, call: Call) -> tuple[bytes, str]:
    """What the program printed, and the last line it said."""
    assert process.stdout is not None and process.stderr is not None
    out, last, _ = await asyncio.gather(
        process.stdout.read(), _progress(process.stderr, call), process.wait()
    )
    return out, last


async def _progress(lines: asyncio.StreamReader, call: Call) -> str:
    last, told_at = "", -PROGRESS_EVERY_S
    async for raw in lines:
        last = raw.decode("utf-8", "replace").strip()
        now = asyncio.get_running_loop().time()
        if call.on_text is not None and now - told_at >= PROGRESS_EVERY_S:
            told_at = now
            call.on_text(f"{last}\n")
    return last
