"""The job store: one SQLite file that remembers every job, its idempotency key and its result.

Invariant: a job's state changes only in a transaction that names the state and attempt before, so each job
ends exactly once; time never runs backwards in it, whatever the clock does.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from whis_box.rollout.transaction import open_store, transaction, translated
from whis_box.server.failures import HttpError
from whis_box.server.job_rows import COLUMNS, STEPS, JobRow, NewJob, too_often
from whis_box.server.settings import JobsConfig
from whis_box.server.wire import JobError, JobStatus


class JobStore:
    """Thread-safe; one process at a time."""

    def __init__(self, path: Path, config: JobsConfig) -> None:
        """Open the store; what ran when the process ended goes back to the queue.

        Raises: StorageError.
        """
        self.path, self._config = path, config
        self._lock = threading.Lock()
        self._connection = open_store(path, STEPS)
        with translated(self.path):
            [(latest,)] = self._connection.execute(
                "select coalesce(max(max(created_at, coalesce(finished_at, 0))), 0) from jobs"
            )
        self._latest = float(latest)
        self.recover()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def now(self) -> float:
        """Seconds since 1970, never less than before."""
        self._latest = max(time.time(), self._latest)
        return self._latest

    # -------------------------------------------------------------- in

    def submit(self, jobs: Iterable[NewJob]) -> list[tuple[JobRow, bool]]:
        """Store all of `jobs` or none; each with whether it is new, or an earlier one under the same key.

        Raises: HttpError 422 (key with another body), 503 (queue full); StorageError.
        """
        with self._transaction() as connection:
            return [self._submit_one(connection, job) for job in jobs]

    def _submit_one(self, connection: apsw.Connection, job: NewJob) -> tuple[JobRow, bool]:
        key = job.idempotency_key
        if key is not None:
            found = self._select(connection, "owner = ? and idempotency_key = ?", (job.owner, key))
            if found and found[0].fingerprint == job.fingerprint:
                return found[0], False
            if found and job.key_is_explicit:
                message = f"Idempotency-Key {key[:80]!r} came with another body before; use a new key"
                raise HttpError(422, "idempotency_key_reused", message, "Idempotency-Key")
            if found:
                key = None
        [(queued,)] = connection.execute("select count(*) from jobs where status = 'queued'")
        if queued >= self._config.max_queued:
            message = f"{queued} jobs are queued, the limit is {self._config.max_queued}; try again later"
            raise HttpError(503, "queue_full", message, retry_after_s=30)
        job_id = uuid.uuid4().hex
        connection.execute(
            "insert into jobs (id, owner, kind, status, request_id, input, clearance, model, created_at,"
            " callback_url, idempotency_key, fingerprint) values (?, ?, ?, 'queued', ?, ?, ?, ?, ?, ?, ?, ?)",
            (job_id, job.owner, job.kind, job.request_id, job.input, job.clearance, job.model, self.now(),
             job.callback_url, key, job.fingerprint),
        )  # fmt: skip
        return self._select(connection, "id = ?", (job_id,))[0], True

    # ------------------------------------------------------------- work

    def claim(self) -> JobRow | None:
        """The oldest queued job, which runs from now on; None if there is none.

        Raises: StorageError.
        """
        with self._transaction() as connection:
            found = self._select(connection, "status = 'queued' order by seq limit 1", ())
            if not found:
                return None
            connection.execute(
                "update jobs set status = 'running', started_at = ?, attempts = attempts + 1 where seq = ?",
                (self.now(), found[0].seq),
            )
            return self._select(connection, "seq = ?", (found[0].seq,))[0]

    def finish(self, row: JobRow, status: JobStatus, result: str | None, error: JobError | None) -> bool:
        """End a running job; False when it was ended, requeued or deleted in the meantime.

        Raises: StorageError; then it still runs.
        """
        with self._transaction() as connection:
            return self._end(connection, row, "running", status, result, error)

    def requeue(self, row: JobRow) -> bool:
        """Give a running job back, to be started again.

        Raises: StorageError.
        """
        with self._transaction() as connection:
            connection.execute(
                "update jobs set status = 'queued', started_at = null"
                " where seq = ? and status = 'running' and attempts = ?",
                (row.seq, row.attempts),
            )
            return bool(connection.changes())

    def recover(self) -> int:
        """Requeue what ran when the last process ended; a job that was started too often fails.

        Raises: StorageError.
        """
        with self._transaction() as connection:
            running = self._select(connection, "status = 'running'", ())
            for row in running:
                if row.attempts >= self._config.max_attempts:
                    self._end(connection, row, "running", "failed", None, too_often(row.attempts))
            connection.execute(
                "update jobs set status = 'queued', started_at = null where status = 'running'"
            )
            return len(running)

    def cancel(self, row: JobRow) -> bool:
        """Cancel a queued or running job; False when it has ended.

        Raises: StorageError.
        """
        with self._transaction() as connection:
            return any(
                self._end(connection, row, state, "cancelled", None, None, any_attempt=True)
                for state in ("queued", "running")
            )

    def delete(self, row: JobRow) -> None:
        """Forget a job.

        Raises: StorageError.
        """
        with self._transaction() as connection:
            connection.execute("delete from jobs where seq = ?", (row.seq,))
            connection.execute("delete from deliveries where job_id = ?", (row.id,))

    def expire(self) -> int:
        """Forget finished jobs whose time is over; how many.

        Raises: StorageError.
        """
        with self._transaction() as connection:
            connection.execute("delete from jobs where expires_at < ?", (self.now(),))
            return connection.changes()

    def _end(
        self, connection: apsw.Connection, row: JobRow, state: str, status: JobStatus, result: str | None,
        error: JobError | None, any_attempt: bool = False,
    ) -> bool:  # fmt: skip
        now = self.now()
        connection.execute(
            "update jobs set status = ?, result = ?, error = ?, finished_at = ?, expires_at = ?"
            " where seq = ? and status = ? and (? or attempts = ?)",
            (status, result, error.model_dump_json() if error else None, now,
             now + self._config.keep_hours * 3600, row.seq, state, any_attempt, row.attempts),
        )  # fmt: skip
        ended = bool(connection.changes())
        if ended and row.callback_url:
            connection.execute(
                "insert or ignore into deliveries (job_id, due_at) values (?, ?)", (row.id, now)
            )
        return ended

    # -------------------------------------------------------------- out

    def get(self, job_id: str, owner: str | None) -> JobRow:
        """One job; with `owner` only that caller's.

        Raises: HttpError 404, StorageError.
        """
        with self._lock, translated(self.path):
            found = self._select(self._connection, "id = ?", (job_id,))
        if not found or owner not in (None, found[0].owner):
            message = f"job {job_id[:64]!r} is not known, or its time is over; send it again"
            raise HttpError(404, "job_not_found", message)
        return found[0]

    def position(self, row: JobRow) -> int | None:
        """Queued jobs before this one; None unless it is queued."""
        if row.status != "queued":
            return None
        with self._lock, translated(self.path):
            sql = "select count(*) from jobs where status = 'queued' and seq < ?"
            [(ahead,)] = self._connection.execute(sql, (row.seq,))
        return int(str(ahead))

    def page(
        self, owner: str | None, status: str | None, kind: str | None, limit: int, before: int | None
    ) -> list[JobRow]:
        """Newest first, of those with a smaller `seq` than `before`.

        Raises: StorageError.
        """
        wanted = {"owner": owner, "status": status, "kind": kind}
        clauses = [f"{name} = ?" for name, value in wanted.items() if value is not None]
        values: list[Any] = [value for value in wanted.values() if value is not None]
        if before is not None:
            clauses.append("seq < ?")
            values.append(before)
        with self._lock, translated(self.path):
            where = f"{' and '.join(clauses) or 'true'} order by seq desc limit ?"
            return self._select(self._connection, where, (*values, limit))

    def counts(self, owner: str | None = None) -> dict[str, int]:
        """Jobs by status.

        Raises: StorageError.
        """
        sql = "select status, count(*) from jobs where ?1 is null or owner = ?1 group by status"
        with self._lock, translated(self.path):
            return {str(status): int(n) for status, n in self._connection.execute(sql, (owner,))}

    def due_deliveries(self) -> list[tuple[JobRow, int]]:
        """Finished jobs that are to be posted now, with the tries so far.

        Raises: StorageError.
        """
        with self._lock, translated(self.path):
            sql = "select job_id, tries from deliveries where due_at <= ? order by due_at limit 20"
            due = self._connection.execute(sql, (self.now(),)).fetchall()
            rows = [(self._select(self._connection, "id = ?", (job_id,)), tries) for job_id, tries in due]
        return [(found[0], int(str(tries))) for found, tries in rows if found]

    def note_delivery(self, job_id: str, tries: int, due_at: float | None) -> None:
        """Plan the next try, or end the delivery with None.

        Raises: StorageError.
        """
        with self._transaction() as connection:
            if due_at is None:
                connection.execute("delete from deliveries where job_id = ?", (job_id,))
            else:
                sql = "update deliveries set tries = ?, due_at = ? where job_id = ?"
                connection.execute(sql, (tries, due_at, job_id))

    # ----------------------------------------------------------- inside

    @staticmethod
    def _select(connection: apsw.Connection, where: str, values: tuple[Any, ...]) -> list[JobRow]:
        return [
            JobRow(*row) for row in connection.execute(f"select {COLUMNS} from jobs where {where}", values)
        ]

    @contextmanager
    def _transaction(self) -> Iterator[apsw.Connection]:
        with self._lock, translated(self.path), transaction(self._connection):
            yield self._connection
