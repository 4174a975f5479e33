"""The analyzer in this process or in several others: presidio's recognizers run one after the other.

Invariant: the spans of a text are the same whatever the number of processes, and come in the texts' order.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from whis_box.ingest.sanitize.policy import PolicyConfig
from whis_box.ingest.sanitize.spans import Span

if TYPE_CHECKING:  # presidio takes seconds to import, which an unchanged import can spare
    from whis_box.ingest.sanitize.analyzer import Analyzer


class Finders:
    """The analyzer, in this process or in `workers` others."""

    def __init__(self, policy: PolicyConfig, workers: int) -> None:
        self._policy, self._workers = policy, workers
        self._own: Analyzer | None = None

    def __enter__(self) -> Finders:
        self._pool = None
        if self._workers > 1:
            context = multiprocessing.get_context("spawn")
            self._pool = context.Pool(self._workers, _start_worker, (self._policy.model_dump_json(),))
        else:
            self._own = _analyzer(self._policy)
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.terminate()
            self._pool.join()

    def start(self, texts: list[str]) -> Callable[[], Iterator[list[Span]]]:
        """Begin to look for spans; the call that comes back waits for them and gives them in order."""
        if self._pool is not None:
            result = self._pool.map_async(_find, texts, chunksize=4)
            return lambda: iter(result.get())
        assert self._own is not None, "Finders is a context manager"
        own = self._own
        return lambda: map(own.find, texts)


_worker: list[Analyzer] = []


def _analyzer(policy: PolicyConfig) -> Analyzer:
    from whis_box.ingest.sanitize.analyzer import Analyzer

    return Analyzer(policy)


def _start_worker(policy: str) -> None:
    _worker.append(_analyzer(PolicyConfig.model_validate_json(policy)))


def _find(text: str) -> list[Span]:
    return _worker[0].find(text)
