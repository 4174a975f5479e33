"""The queue's work at the server: alerts are sent, their jobs followed, stopped, and taken in from others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tui.errors import RequestFailedError, ServerGoneError
from tui.screens.dialog import Confirm
from tui.screens.triage.reading import Row, bad
from tui.words import counted

if TYPE_CHECKING:
    from tui.client import Client
    from tui.screens.triage.queue import Queue
    from tui.screens.triage.screen import TriageScreen
    from whis_box.server.wire import Job

BACK_OFF_S = 2.0
MAX_JOBS = 500


class Jobs:
    """What runs in the background for one area; everything it finds out is drawn there."""

    def __init__(self, area: TriageScreen) -> None:
        self._area = area

    @property
    def _queue(self) -> Queue:
        queue = self._area.queue
        assert queue is not None  # the state file was opened before any key reached the area
        return queue

    # --------------------------------------------------------------- sending

    def triage(self, rows: list[Row]) -> None:
        """Send alerts; those that cannot be read are left out."""
        rows = [row for row in rows if row.place is not None]
        if not rows:
            words = "nothing to triage here: rows that wait, or that cannot be read, are left out"
            self._area.say(words, "warning")
        elif self._area.client is not None:
            self._area.rows.marked.clear()
            self._area.work("submit", self._submit, rows, alone=False)

    async def _submit(self, rows: list[Row]) -> None:
        client = self._area.client
        if client is None:
            return
        async for sent in self._queue.submit(rows, client):
            self._area.draw(f"{sent} of {len(rows)} sent")
        self._area.draw()
        self.follow()

    # ------------------------------------------------------------- following

    def follow(self) -> None:
        """Watch the jobs that have not ended, once there is a server."""
        if self._queue.pending and self._area.whis.ready_client is not None:
            self._area.work("follow", self._follow)

    async def _follow(self) -> None:
        """The head of the line is watched; the server works in order."""
        area, queue, client = self._area, self._queue, self._area.whis.ready_client
        while client is not None and queue.pending:
            try:
                await queue.follow(queue.pending[0], client)
            except RequestFailedError as error:
                if error.status not in (429, 503):
                    raise
                area.say(f"the server is busy: {error}", "warning")
                await asyncio.sleep(error.retry_after_s or BACK_OFF_S)
            except ServerGoneError as error:
                area.say("the server is gone; its jobs go on when it is back", "warning")
                area.whis.link.lost(str(error))
                return
            area.draw()
            client = area.whis.ready_client
        area.draw()
        if queue.rows and not queue.pending:
            area.say(f"all jobs have ended: {queue.counts()}")

    # -------------------------------------------------------------- stopping

    def offer_to_stop(self) -> None:
        """Ask, then cancel what waits."""
        pending = self._queue.pending

        def stop(yes: bool | None) -> None:
            if yes:
                self._area.work("stop", self._stop, pending)

        if pending:
            words = f"{counted(len(pending), 'alert')} wait for the model or are worked on."
            self._area.app.push_screen(Confirm("Stop the jobs?", words), stop)

    async def _stop(self, pending: list[Row]) -> None:
        client = self._area.client
        if client is None:
            return
        for row in reversed(pending):
            job = await client.cancel_job(row.job)
            self._queue.take(row, job)
            if job.status == "cancelled":
                row.state, row.problem = "new", ""
        self._area.draw()
        self._area.say(f"stopped {counted(len(pending), 'job')}; t triages them again")

    # -------------------------------------------------------- jobs of others

    def take_in(self) -> None:
        """Take in the server's triage jobs."""
        if self._area.client is not None:
            self._area.work("jobs", self._take_in)

    async def _take_in(self) -> None:
        client, queue = self._area.client, self._queue
        if client is None:
            return
        page = await client.jobs("triage", limit=MAX_JOBS)
        held = {row.job for row in queue.rows}
        fresh = [job for job in page.jobs if job.id not in held]
        queue.add([await self._row_of(job, client) for job in fresh])
        self._area.draw()
        self._area.say(f"{counted(len(fresh), 'job')} of the server taken in")
        self.follow()

    async def _row_of(self, job: Job, client: Client) -> Row:
        row = bad(job.id, None, "")
        row.title, row.at = f"job {job.request_id or job.id}", job.created_at
        row.source, row.job = "server", job.id
        self._queue.take(row, await client.job(job.id) if job.status == "completed" else job)
        return row
