"""What followers of a job see: its events since it started, and a wake-up at each change.

Invariant: ids grow; those of a later attempt are above all of an earlier one, and the final ones above all.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

ATTEMPT = 1_000_000
FINAL_ID = 1_000_000_000_000
MAX_EVENTS = 2000  # of one job; a draft has some dozens


@dataclass
class Feed:
    """One job's events; used on the event loop only."""

    events: list[tuple[int, str, str]] = field(default_factory=list)
    closed: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    followers: int = 0

    def add(self, attempt: int, name: str, data: str) -> None:
        """Append an event and wake the followers."""
        if len(self.events) < MAX_EVENTS:
            number = self.events[-1][0] + 1 if self.events else 0
            self.events.append((max(number, attempt * ATTEMPT + 1), name, data))
        self.wake()

    def wake(self) -> None:
        """Wake whoever waits."""
        self.changed.set()
        self.changed = asyncio.Event()

    def close(self) -> None:
        """The job has ended."""
        self.closed = True
        self.wake()


class Feeds:
    """Feeds by job id, for as long as somebody needs them."""

    def __init__(self) -> None:
        self._feeds: dict[str, Feed] = {}

    def of(self, job_id: str) -> Feed:
        """The job's feed, made if need be."""
        return self._feeds.setdefault(job_id, Feed())

    def end(self, job_id: str) -> None:
        """Close and forget the job's feed; followers keep theirs until they have read it."""
        feed = self._feeds.pop(job_id, None)
        if feed is not None:
            feed.close()

    def close(self) -> None:
        """Let every follower go, because the server ends; they come back with Last-Event-ID."""
        for job_id in list(self._feeds):
            self.end(job_id)
