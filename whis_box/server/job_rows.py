"""A job as it is stored and as it is asked for; the table behind `jobs.py`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime

from whis_box.server.wire import FINAL, Job, JobError, JobStatus

STEPS = (
    """
create table if not exists jobs (
  seq integer primary key autoincrement, id text not null unique, owner text not null, kind text not null,
  status text not null, request_id text not null, input text not null, clearance text not null,
  model text not null, created_at real not null, started_at real, finished_at real, expires_at real,
  attempts integer not null default 0, error text, result text, callback_url text not null,
  idempotency_key text, fingerprint text not null);
create unique index if not exists jobs_by_key on jobs (owner, idempotency_key)
  where idempotency_key is not null;
create index if not exists jobs_by_status on jobs (status, seq);
create table if not exists deliveries (
  job_id text primary key, tries integer not null default 0, due_at real not null);
""",
)
COLUMNS = (
    "seq, id, owner, kind, status, request_id, input, clearance, model, created_at, started_at, finished_at,"
    " expires_at, attempts, error, result, callback_url, idempotency_key, fingerprint"
)


@dataclass(frozen=True)
class JobRow:
    """A job as it is stored; times in seconds since 1970."""

    seq: int
    id: str
    owner: str
    kind: str
    status: JobStatus
    request_id: str
    input: str
    clearance: str
    model: str
    created_at: float
    started_at: float | None
    finished_at: float | None
    expires_at: float | None
    attempts: int
    error: str | None
    result: str | None
    callback_url: str
    idempotency_key: str | None
    fingerprint: str

    @property
    def is_final(self) -> bool:
        """Whether nothing will change any more."""
        return self.status in FINAL

    def wire(self, position: int | None = None, with_result: bool = True) -> Job:
        """As it goes over HTTP."""
        return Job(
            id=self.id,
            kind=self.kind,
            status=self.status,
            request_id=self.request_id,
            created_at=_iso(self.created_at) or "",
            started_at=_iso(self.started_at),
            finished_at=_iso(self.finished_at),
            expires_at=_iso(self.expires_at),
            attempts=self.attempts,
            position=position,
            error=JobError.model_validate_json(self.error) if self.error else None,
            result=json.loads(self.result) if with_result and self.result else None,
        )


@dataclass(frozen=True)
class NewJob:
    """What is asked for."""

    owner: str
    kind: str
    input: str
    clearance: str
    fingerprint: str
    model: str = "whis"
    request_id: str = ""
    callback_url: str = ""
    idempotency_key: str | None = None
    key_is_explicit: bool = True
    """An own `Idempotency-Key`, against the alert's id, under which another body is simply another job."""


def too_often(attempts: int) -> JobError:
    """Why a job that never ends is given up."""
    return JobError(
        message=f"started {attempts} times and never finished; look at the log, then send it again",
        type="server_error",
        code="too_many_attempts",
    )


def _iso(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
