"""What was rolled out, compared and rated: one append-only SQLite file in the state folder.

Invariant: the state of an environment is the last row of its changes; any process may add one, and every
other one sees it at its next look.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from whis_box.rollout.state import RolloutEvent, RolloutState
from whis_box.rollout.transaction import open_store, transaction, translated

STEPS = (
    """
create table if not exists changes (
  seq integer primary key autoincrement, at text not null, environment text not null, actor text not null,
  action text not null, reason text not null, state text not null);
create table if not exists observations (
  seq integer primary key autoincrement, at real not null, environment text not null, arm text not null,
  release text not null, ok integer not null, ms real not null, flagged integer not null);
create index if not exists observations_by_time on observations (environment, at);
create table if not exists pairs (
  seq integer primary key autoincrement, at real not null, environment text not null, stable text not null,
  other text not null, answer_id text not null, kind text not null, stable_outcome text not null,
  other_outcome text not null, same integer);
create table if not exists feedback (
  seq integer primary key autoincrement, id text not null, at text not null, answer_id text not null,
  rating text not null, verdict text not null, comment text not null, analyst text not null,
  training text not null, adapter text not null, release text not null, outcome text not null,
  kind text not null, input text not null, output text not null);
""",
)


class RolloutStore:
    """Thread-safe; several processes may share the file."""

    def __init__(self, path: Path) -> None:
        """Raises: StorageError."""
        self.path = path
        self._lock = threading.Lock()
        self._connection = open_store(path, STEPS)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def state(self, environment: str) -> RolloutState | None:
        """The last change's state; None before the first one."""
        rows = self._rows(
            "select seq, state from changes where environment = ? order by seq desc limit 1", (environment,)
        )
        for seq, state in rows:
            return RolloutState.model_validate_json(state).model_copy(update={"revision": int(seq)})
        return None

    def change(
        self, before: RolloutState, after: RolloutState, actor: str, action: str
    ) -> RolloutState | None:
        """Append `after`; None when somebody else changed the state since `before`."""
        stamped = after.model_copy(update={"changed_at": _iso()})
        with self._transaction():
            sql = "select coalesce(max(seq), 0) from changes where environment = ?"
            [(latest,)] = self._connection.execute(sql, (before.environment,))
            if latest != before.revision:
                return None
            self._connection.execute(
                "insert into changes (at, environment, actor, action, reason, state)"
                " values (?, ?, ?, ?, ?, ?)",
                (stamped.changed_at, stamped.environment, actor, action, stamped.reason,
                 stamped.model_dump_json()),
            )  # fmt: skip
            return stamped.model_copy(update={"revision": self._connection.last_insert_rowid()})

    def events(self, environment: str, limit: int) -> list[RolloutEvent]:
        """Changes, newest first."""
        rows = self._rows(
            "select seq, at, actor, action, reason, state from changes where environment = ?"
            " order by seq desc limit ?",
            (environment, limit),
        )
        return [
            RolloutEvent(
                seq=seq,
                at=at,
                actor=actor,
                action=action,
                reason=reason,
                state=RolloutState.model_validate_json(state).model_dump(mode="json"),
            )
            for seq, at, actor, action, reason, state in rows
        ]

    def observe(self, rows: Sequence[tuple[str, str, str, bool, float, bool]]) -> None:
        """(environment, arm, release, ok, ms, flagged) of finished requests."""
        now = time.time()
        with self._transaction():
            self._connection.executemany(
                "insert into observations (at, environment, arm, release, ok, ms, flagged)"
                " values (?, ?, ?, ?, ?, ?, ?)",
                [(now, *row) for row in rows],
            )

    def observations(self, environment: str, window_s: float) -> list[tuple[str, str, bool, float, bool]]:
        """(arm, release, ok, ms, flagged) within the window."""
        sql = "select arm, release, ok, ms, flagged from observations where environment = ? and at >= ?"
        rows = self._rows(sql, (environment, time.time() - window_s))
        return [(arm, release, bool(ok), ms, bool(flagged)) for arm, release, ok, ms, flagged in rows]

    def pair(
        self, environment: str, stable: str, other: str, answer_id: str, kind: str, outcomes: tuple[str, str],
        same: bool | None,
    ) -> None:  # fmt: skip
        """One comparison; `same` is None when either abstained."""
        with self._transaction():
            self._connection.execute(
                "insert into pairs (at, environment, stable, other, answer_id, kind, stable_outcome,"
                " other_outcome, same) values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (time.time(), environment, stable, other, answer_id, kind, *outcomes, same),
            )

    def pairs(self, environment: str, stable: str, other: str, window_s: float) -> list[dict[str, Any]]:
        """Comparisons of two releases within the window, oldest first, with the analysts' verdicts."""
        rows = self._rows(
            "select p.stable_outcome, p.other_outcome, p.same, f.verdict from pairs p"
            " left join feedback f on f.answer_id = p.answer_id"
            " where p.environment = ? and p.stable = ? and p.other = ? and p.at >= ? order by p.seq",
            (environment, stable, other, time.time() - window_s),
        )
        names = ("stable", "other", "same", "analyst")
        return [dict(zip(names, row, strict=True)) for row in rows]

    def rate(self, fields: dict[str, str]) -> tuple[str, str]:
        """Store a judgement; its id and time."""
        feedback_id, at = uuid.uuid4().hex, _iso()
        values = {**fields, "id": feedback_id, "at": at}
        names = ", ".join(values)
        with self._transaction():
            self._connection.execute(
                f"insert into feedback ({names}) values ({', '.join('?' for _ in values)})",
                tuple(values.values()),
            )
        return feedback_id, at

    def ratings(self, limit: int) -> list[dict[str, Any]]:
        """Judgements, newest first."""
        names = (
            "id", "at", "answer_id", "rating", "verdict", "comment", "analyst", "training", "adapter",
            "release", "outcome", "kind", "input", "output",
        )  # fmt: skip
        sql = f"select {', '.join(names)} from feedback order by seq desc limit ?"
        return [dict(zip(names, row, strict=True)) for row in self._rows(sql, (limit,))]

    def _rows(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        with self._lock, translated(self.path):
            return self._connection.execute(sql, tuple(values)).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock, translated(self.path), transaction(self._connection):
            yield


def _iso() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
