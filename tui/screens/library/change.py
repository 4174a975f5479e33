"""Ingest and purge: a job of the server, its progress in words, and its outcome in one line."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tui.words import bar, size
from whis_box.server.wire import Job

if TYPE_CHECKING:
    from tui.client import Client

COUNTED = re.compile(r"^\[(\d+)/(\d+)\] (.*)$")


async def run_change(client: Client, job: Job, tell: Callable[[str], None]) -> Job:
    """Follow a job to its end; `tell` gets its progress.

    Raises: what the client raises.
    """
    tell(f"{job.kind}: waits for its turn")
    async for line in client.job_progress(job.id):
        tell(f"{job.kind}: {progress(line)}")
    return await client.job(job.id)


def progress(line: str) -> str:
    """`[3/12] a.md` as a bar with both numbers; any other line as it is."""
    found = COUNTED.match(line)
    if found is None:
        return line
    done, total = int(found[1]), int(found[2])
    return f"{bar(done, total)} {done} of {total}  {found[3]}"


def ended(kind: str, result: Mapping[str, Any]) -> str:
    """What a change did, in one line."""
    if kind == "purge":
        searched = sum((result.get("bytes_searched") or {}).values())
        return (
            f"purged {result.get('record')}: {result.get('passages_searched_for', 0)} passages looked for, "
            f"{result.get('passages_found', 0)} found in {size(searched)}"
        )
    names = ("accepted", "reused", "rejected", "skipped", "duplicates", "removed")
    counts = [f"{name} {result[name]}" for name in names if result.get(name)]
    if result.get("unchanged_files"):
        counts.append(f"unchanged files {result['unchanged_files']}")
    return f"ingest: {', '.join(counts) or 'nothing new'}"
