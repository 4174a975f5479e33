"""Asking the box: every golden item once, kept in the journal; the suites score what is kept.

Invariant: an item that the box fails on is an observation with an error, never left out.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from whis_box.box.opening import open_box
from whis_box.copilot import Copilot
from whis_box.errors import WhisError
from whis_box.evaluation.attacks import Attack, read_attacks
from whis_box.evaluation.golden import (
    GoldenAlert,
    GoldenQuestion,
    GoldenRefusal,
    read_alerts,
    read_golden,
    read_refusals,
)
from whis_box.evaluation.journal import Journal, Observation, SeenHit
from whis_box.evaluation.subject import Subject
from whis_box.knowledge.store import connect
from whis_box.paths import file_sha256
from whis_box.show import progress

SEARCH_DEPTH = 10
WARM_UP = "Which Windows event ID is logged when the audit log is cleared?"
Item = TypeVar("Item", GoldenQuestion, GoldenAlert, GoldenRefusal, Attack)


@dataclass(frozen=True)
class Golden:
    """The golden sets of a run, cut to the sample."""

    questions: list[GoldenQuestion] = field(default_factory=list)
    alerts: list[GoldenAlert] = field(default_factory=list)
    refusals: list[GoldenRefusal] = field(default_factory=list)
    attacks: list[Attack] = field(default_factory=list)
    sha256: dict[str, str] = field(default_factory=dict)


def read_sets(folder: Path, sample: int, seed: int, attacks: Path | None = None) -> Golden:
    """All golden sets of a folder, and the attacks if their file is there; `sample` above 0 takes so many of
    each, the same for the same seed.

    Raises: NotReadyError, InputError naming every bad line, StorageError.
    """
    paths = {name: folder / f"{name}.ndjson" for name in ("questions", "alerts", "refusals")}
    if attacks is not None and attacks.is_file():
        paths["attacks"] = attacks
    return Golden(
        _sampled(read_golden(paths["questions"]), sample, seed),
        _sampled(read_alerts(paths["alerts"]), sample, seed),
        _sampled(read_refusals(paths["refusals"]), sample, seed),
        _sampled(read_attacks(paths["attacks"]), sample, seed) if "attacks" in paths else [],
        {name: file_sha256(path) for name, path in paths.items()},
    )


def _sampled(items: list[Item], sample: int, seed: int) -> list[Item]:
    if not sample or sample >= len(items):
        return items
    chosen = set(random.Random(seed).sample(range(len(items)), sample))
    return [one for place, one in enumerate(items) if place in chosen]


def missing_records(golden: Golden, index: Path) -> list[str]:
    """Records that golden questions name and the index does not hold.

    Raises: NotReadyError, VerificationError, StorageError.
    """
    connection = connect(index)
    try:
        held = {str(one) for (one,) in connection.execute("select id from records")}
    finally:
        connection.close()
    return sorted({record for one in golden.questions for record in one.record_ids} - held)


@dataclass(frozen=True)
class Task:
    """One thing to ask: its place in the journal and how to get the answer."""

    kind: str
    id: str
    run: Callable[[Copilot], dict[str, object]]


def tasks(golden: Golden, kinds: Sequence[str]) -> Iterator[Task]:
    """What to ask for the kinds "search", "ask", "refusal", "triage" and "attack"."""
    for question in golden.questions:
        if "search" in kinds:
            yield Task("search", question.id, partial(_search, question.question))
        if "ask" in kinds:
            yield Task("ask", question.id, partial(_ask, question.question))
    if "refusal" in kinds:
        yield from (Task("refusal", one.id, partial(_ask, one.question)) for one in golden.refusals)
    if "triage" in kinds:
        yield from (Task("triage", one.id, partial(_triage, one.event)) for one in golden.alerts)
    if "attack" in kinds:
        yield from (Task("attack", one.id, one.launch) for one in golden.attacks)


def _ask(question: str, box: Copilot) -> dict[str, object]:
    return {"answer": box.ask(question)}


def _triage(event: Mapping[str, object], box: Copilot) -> dict[str, object]:
    return {"triage": box.triage(event)}


def _search(text: str, box: Copilot) -> dict[str, object]:
    hits = box.search(text, SEARCH_DEPTH)
    return {
        "hits": [SeenHit(chunk_id=h.chunk.id, record_id=h.chunk.record_id, text=h.chunk.text) for h in hits]
    }


@contextmanager
def opened(subject: Subject) -> Iterator[Copilot]:
    """The subject, loaded, with its first call made.

    Raises: as `open_box`.
    """
    with open_box(subject.box, adapter=subject.adapter) as copilot:
        copilot.ask(WARM_UP)
        yield copilot


def observe(copilot: Copilot, journal: Journal, todo: Sequence[Task]) -> None:
    """Ask what the journal does not hold yet.

    Raises: StorageError; an InputError or EngineError of one item is kept as its observation.
    """
    for done, task in enumerate(todo, start=1):
        started = time.perf_counter()
        found = _ask_once(copilot, task)
        if found.pop("retryable", False):  # the child had died or was starved; a second failure is the box's
            found = _ask_once(copilot, task)
        found.pop("retryable", None)
        seconds = round(time.perf_counter() - started, 4)
        journal.add(
            Observation.model_validate({"kind": task.kind, "id": task.id, "seconds": seconds, **found})
        )
        progress(done, len(todo), f"{task.kind} {task.id}")


def _ask_once(copilot: Copilot, task: Task) -> dict[str, object]:
    try:
        return task.run(copilot)
    except WhisError as error:
        return {"error": f"{type(error).__name__}: {error}", "retryable": error.retryable}
