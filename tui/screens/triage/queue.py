"""The queue: rows, what is known about them from before, their order, and their jobs at the server.

Invariant: every result and judgement is noted in the state file when it comes, so that closing the terminal
loses nothing; jobs go on at the server and are found again.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

from tui.client import Client
from tui.errors import RequestFailedError
from tui.screens.triage.reading import Row
from tui.state import State
from whis_box.errors import InputError, StorageError
from whis_box.schemas import SEVERITY_ORDER, Triage
from whis_box.server.wire import FINAL, Job

BATCH_ROWS, BATCH_BYTES = 500, 16_000_000
WAIT_S = 20.0
STATES = ("running", "queued", "new", "failed", "done", "bad")
SORTS: dict[str, Callable[[Row], Any]] = {
    "as it came": lambda row: 0,
    "severity": lambda row: -(SEVERITY_ORDER.index(row.severity) if row.severity in SEVERITY_ORDER else -1),
    "verdict": lambda row: (row.verdict != "escalate", row.verdict == "", -row.confidence),
    "state": lambda row: STATES.index(row.state),
    "newest": lambda row: _backwards(row.at),
    "title": lambda row: row.title.lower(),
}


def _backwards(text: str) -> tuple[int, ...]:
    return tuple(-ord(one) for one in text) or (0,)


class Queue:
    """All rows of the area."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.rows: list[Row] = []
        self._keys: set[str] = set()

    def add(self, rows: Sequence[Row]) -> int:
        """Take in rows that are not there yet; how many were."""
        fresh = []
        for row in rows:
            if row.key not in self._keys:
                self._keys.add(row.key)
                fresh.append(row)
        by_key = {row.key: row for row in fresh}
        for key, note in self._state.notes(list(by_key)).items():
            row = by_key[key]
            row.decision, row.reason, row.ticked = note.decision, note.reason, set(note.ticked)
            if note.triage:
                show_triage(row, Triage.model_validate_json(note.triage))
            elif note.job and row.state == "new":
                row.job, row.state = note.job, "queued"
        self.rows += fresh
        return len(fresh)

    def seen(self, words: str, order: str) -> list[Row]:
        """The rows that hold all words, in an order; rows of the same rank stay as they came."""
        terms = words.lower().split()
        found = (
            [row for row in self.rows if all(term in haystack(row) for term in terms)] if terms else self.rows
        )
        return sorted(found, key=SORTS[order]) if order != "as it came" else list(found)

    def counts(self) -> str:
        """How many there are of what."""
        tally: dict[str, int] = {}
        for row in self.rows:
            tally[row.state] = tally.get(row.state, 0) + 1
        return ", ".join(f"{tally[name]} {name}" for name in STATES if name in tally)

    def triage_of(self, row: Row) -> Triage | None:
        """The stored triage."""
        note = self._state.note_of(row.key)
        return Triage.model_validate_json(note.triage) if note is not None and note.triage else None

    def done(self, row: Row, triage: Triage) -> None:
        """A triage came."""
        self._state.note(row.key, triage=triage.model_dump_json())
        show_triage(row, triage)

    def decide(self, row: Row, decision: str, reason: str) -> None:
        """The analyst's judgement."""
        row.decision, row.reason = decision, reason
        self._state.note(row.key, decision=decision, reason=reason)

    def tick(self, row: Row, step: int) -> None:
        """A step of the checklist is done, or not."""
        row.ticked ^= {step}
        self._state.note(row.key, ticked=sorted(row.ticked))

    # ---------------------------------------------------------------- jobs

    async def submit(self, rows: Iterable[Row], client: Client) -> AsyncIterator[int]:
        """Queue alerts at the server; after each batch, how many are there."""
        sent = 0
        for batch in _batches(rows):
            for (row, _), answer in zip(
                batch, await client.submit_triage([(r.key, e) for r, e in batch]), strict=True
            ):
                self._submitted(row, answer)
            sent += len(batch)
            yield sent

    def _submitted(self, row: Row, answer: Job | str) -> None:
        if isinstance(answer, str):
            row.state, row.problem = "failed", answer
            return
        row.job, row.state, row.problem = answer.id, "queued", ""
        self._state.note(row.key, job=answer.id)

    @property
    def pending(self) -> list[Row]:
        """Rows whose job has not ended, in the server's order."""
        return [row for row in self.rows if row.state in ("queued", "running")]

    async def follow(self, row: Row, client: Client) -> None:
        """Wait for the next change of a row's job."""
        try:
            job = await client.job(row.job, WAIT_S)
        except RequestFailedError as error:
            if error.status != 404:
                raise
            row.state, row.job, row.problem = "new", "", "the server has forgotten its job; triage it again"
            return
        self.take(row, job)

    def take(self, row: Row, job: Job) -> None:
        """What a job says."""
        if job.status == "completed" and job.result is not None:
            self.done(row, Triage.model_validate(job.result))
        elif job.status in FINAL:
            row.state = "failed"
            row.problem = job.error.message if job.error else job.status
        else:
            row.state = "running" if job.status == "running" else "queued"


def _batches(rows: Iterable[Row]) -> Iterable[list[tuple[Row, dict[str, Any]]]]:
    """Rows with their events, as many as one request may carry; a row that cannot be read is left out."""
    batch: list[tuple[Row, dict[str, Any]]] = []
    size = 0
    for row in rows:
        try:
            event = row.event()
        except (InputError, StorageError) as error:
            row.state, row.problem = "failed", str(error)
            continue
        length = row.place.length if row.place else len(json.dumps(event))
        if batch and (len(batch) == BATCH_ROWS or size + length > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((row, event))
        size += length
    if batch:
        yield batch


def show_triage(row: Row, triage: Triage) -> None:
    """A row says what its triage says."""
    row.state, row.problem = "done", ""
    row.verdict, row.severity, row.confidence = triage.verdict, triage.severity, triage.confidence
    row.alert_id = row.alert_id or triage.alert_id
    row.techniques = " ".join(one.id for one in triage.techniques)


def haystack(row: Row) -> str:
    """What a filter looks at."""
    return " ".join(
        (
            row.title,
            row.alert_id,
            row.severity,
            row.state,
            row.verdict,
            row.techniques,
            row.decision,
            row.source,
            row.at,
        )
    ).lower()
