"""What the terminal remembers: history with full-text search, panes, judgements. One SQLite file.

Invariant: a file that cannot be written costs nothing but memory over the end of the program: everything goes
on in RAM, and `problem` says so.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

NAME = "tui.sqlite"
BUSY_MS = 500
SCHEMA = """
create table if not exists kept (name text primary key, value text not null);
create table if not exists asked (
    id integer primary key, at real not null, question text not null, answer text not null,
    body text not null);
create virtual table if not exists asked_words using fts5(
    question, answer, content='asked', content_rowid='id', tokenize='unicode61 remove_diacritics 2');
create trigger if not exists asked_in after insert on asked begin
    insert into asked_words(rowid, question, answer) values (new.id, new.question, new.answer); end;
create trigger if not exists asked_out after delete on asked begin
    insert into asked_words(asked_words, rowid, question, answer)
    values ('delete', old.id, old.question, old.answer); end;
create table if not exists alerts (
    key text primary key, triage text, job text, decision text, reason text, ticked text, at real not null);
"""


@dataclass(frozen=True)
class Asked:
    """One question of the history; `body` is the Answer as JSON."""

    id: int
    at: float
    question: str
    answer: str
    body: str


@dataclass(frozen=True)
class AlertNote:
    """What is known about an alert from before."""

    triage: str | None = None
    job: str | None = None
    decision: str = ""
    reason: str = ""
    ticked: tuple[int, ...] = ()


class State:
    """One file for one user; several terminals may share it."""

    def __init__(self, folder: Path | None, history_days: int = 90) -> None:
        """Open the file in `folder`, or RAM when that fails or `folder` is None."""
        self.problem = ""
        self._days = history_days
        try:
            self._db = self._open(folder)
        except (apsw.Error, OSError) as cause:
            self.problem = (
                f"{folder}: cannot be written ({cause}); history and panes are kept until you quit, "
                "then lost. Set WHIS_STATE to a folder that you may write."
            )
            self._db = self._open(None)

    def _open(self, folder: Path | None) -> apsw.Connection:
        if folder is None:
            database = apsw.Connection(":memory:")
        else:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            path = folder / NAME
            path.touch(mode=0o600)
            database = apsw.Connection(str(path))
        database.set_busy_timeout(BUSY_MS)
        database.execute("pragma journal_mode = wal; pragma synchronous = normal")
        database.execute(SCHEMA)
        with database:
            database.execute("delete from asked where at < ?", (time.time() - self._days * 86400,))
        return database

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # ------------------------------------------------------------- history

    def remember(self, question: str, answer: str, body: str) -> None:
        """Keep an answered question."""
        if self._days:
            self._write(
                "insert into asked(at, question, answer, body) values (?, ?, ?, ?)",
                (time.time(), question, answer, body),
            )

    def history(self, words: str = "", limit: int = 200) -> list[Asked]:
        """Newest first; with `words`, those that hold all of them (the last one may be a beginning)."""
        terms = re.findall(r"\w+", words)
        columns = "asked.id, asked.at, asked.question, asked.answer, asked.body"
        if not terms:
            rows = self._db.execute(f"select {columns} from asked order by at desc limit ?", (limit,))
        else:
            query = " ".join(f'"{term}"' for term in terms) + "*"
            rows = self._db.execute(
                f"select {columns} from asked_words join asked on asked.id = asked_words.rowid"
                " where asked_words match ? order by asked.at desc limit ?",
                (query, limit),
            )
        return [Asked(*row) for row in rows]

    def forget(self, asked_id: int) -> None:
        """Take one question out of the history."""
        self._write("delete from asked where id = ?", (asked_id,))

    # ---------------------------------------------------------------- panes

    def get(self, name: str, default: Any = None) -> Any:
        """A remembered value."""
        row = self._db.execute("select value from kept where name = ?", (name,)).fetchone()
        return json.loads(row[0]) if row else default

    def put(self, name: str, value: Any) -> None:
        """Remember a value."""
        self._write("insert or replace into kept(name, value) values (?, ?)", (name, json.dumps(value)))

    # --------------------------------------------------------------- alerts

    def note_of(self, key: str) -> AlertNote | None:
        """What is known about the alert with this key."""
        return self.notes([key]).get(key)

    def notes(self, keys: list[str]) -> dict[str, AlertNote]:
        """The same for many."""
        found: dict[str, AlertNote] = {}
        for start in range(0, len(keys), 500):
            part = keys[start : start + 500]
            marks = ",".join("?" * len(part))
            rows = self._db.execute(
                f"select key, triage, job, decision, reason, ticked from alerts where key in ({marks})", part
            )
            for key, triage, job, decision, reason, ticked in rows:
                found[key] = AlertNote(
                    triage, job, decision or "", reason or "", tuple(json.loads(ticked or "[]"))
                )
        return found

    def note(self, key: str, **fields: Any) -> None:
        """Change what is known about an alert: triage, job, decision, reason, ticked."""
        values = {
            name: json.dumps(value) if isinstance(value, list | tuple) else value
            for name, value in fields.items()
        }
        names = ", ".join(values)
        updates = ", ".join(f"{name} = excluded.{name}" for name in values)
        self._write(
            f"insert into alerts(key, at, {names}) values (?, ?{', ?' * len(values)})"
            f" on conflict(key) do update set {updates}",
            (key, time.time(), *values.values()),
        )

    def _write(self, sql: str, values: tuple[Any, ...]) -> None:
        try:
            with self._db:
                self._db.execute(sql, values)
        except apsw.Error as cause:  # full, locked or gone read-only: said once, and the work goes on
            self.problem = (
                f"not saved: {cause}. Free some space, or close the other program that holds the file."
            )
