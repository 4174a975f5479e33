"""Seats: threads that work on one request at a time, each with its own copilots, fed by one priority queue.

Invariant: a request that was taken ends with a result or a typed error; shadow work gives its seat back at
once when anybody waits.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Generic, TypeVar

from whis_box.copilot import Copilot
from whis_box.errors import BusyError, NotReadyError
from whis_box.rollout.releases import Release
from whis_box.server.opened import OpenedBox, SeatWriter

T = TypeVar("T")
INTERACTIVE, JOB, SHADOW = 0, 1, 2
RETRY_AFTER_S = 2.0


class Seat:
    """One thread's copilots, opened when they are first needed."""

    def __init__(self) -> None:
        self.writer: SeatWriter | None = None
        self._box: OpenedBox | None = None
        self._copilots: dict[Release, Copilot] = {}

    def copilot(self, box: OpenedBox, release: Release) -> Copilot:
        """The copilot for `release`; a box that was opened anew replaces all of them.

        Raises: as `OpenedBox.copilot`.
        """
        if self._box is not box:
            self.close()
            self._box, self.writer = box, SeatWriter(box.engine)
        assert self.writer is not None
        if release not in self._copilots:
            self._copilots[release] = box.copilot(release, self.writer)
        return self._copilots[release]

    def close(self) -> None:
        """Close every index connection."""
        for copilot in self._copilots.values():
            copilot.parts.retriever.close()
        self._copilots = {}


class Ticket(Generic[T]):
    """A piece of work in the line or on a seat."""

    def __init__(
        self, priority: int, release: Release, work: Callable[[Copilot], T], cancelled: threading.Event
    ) -> None:
        self.priority, self.release, self.work, self.cancelled = priority, release, work, cancelled
        self.future: Future[T] = Future()
        self.outcome: T | None = None
        self.box: OpenedBox | None = None

    def settled(self, before: Callable[[], None]) -> _Settled:
        """A context that ends the future with `outcome` or with whatever was raised, after `before`."""
        return _Settled(self, before)

    def cancel(self) -> None:
        """Drop it from the line, or stop it where it is."""
        self.cancelled.set()
        self.future.cancel()


class _Settled:
    """Hands every exception of the block to whoever waits; the seat goes on."""

    def __init__(self, ticket: Ticket[Any], before: Callable[[], None]) -> None:
        self._ticket, self._before = ticket, before

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._before()  # first, so that whoever waited sees a free seat
        if value is not None:
            self._ticket.future.set_exception(value)
        else:
            self._ticket.future.set_result(self._ticket.outcome)
        return True


class Seats:
    """A fixed number of threads over one opened box; the box can be exchanged while they work."""

    def __init__(self, box: OpenedBox, n_seats: int, max_waiting: int) -> None:
        self.n_seats, self.max_waiting = n_seats, max_waiting
        self._box = box
        self._line: queue.PriorityQueue[tuple[int, int, Ticket[object] | None]] = queue.PriorityQueue()
        self._order = itertools.count()
        self._lock = threading.Lock()
        self._busy: dict[int, int] = {INTERACTIVE: 0, JOB: 0, SHADOW: 0}
        self._waiting = dict(self._busy)
        self._closing = False
        self._running: set[Ticket[object]] = set()
        self._threads = [
            threading.Thread(target=self._sit, name=f"whis-seat-{n}", daemon=True) for n in range(n_seats)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def box(self) -> OpenedBox:
        """The box that the next request gets."""
        return self._box

    def exchange(self, box: OpenedBox) -> OpenedBox:
        """Let the next requests use `box`; the one before, which still finishes what it works on."""
        before, self._box = self._box, box
        return before

    def uses(self, box: OpenedBox) -> bool:
        """Whether a request that began on `box` still runs."""
        with self._lock:
            return any(ticket.box is box for ticket in self._running)

    @property
    def busy(self) -> int:
        """Seats that work."""
        return sum(self._busy.values())

    @property
    def waiting(self) -> int:
        """Tickets in the line."""
        return sum(self._waiting.values())

    @property
    def urgent(self) -> bool:
        """Whether anything but shadow work waits or runs."""
        return any(self._busy[kind] + self._waiting[kind] for kind in (INTERACTIVE, JOB))

    def submit(
        self,
        priority: int,
        release: Release,
        work: Callable[[Copilot], T],
        cancelled: threading.Event | None = None,
    ) -> Ticket[T]:
        """Put work in the line; its future ends on a seat's thread. Setting `cancelled` stops it.

        Raises: BusyError when the line is full, NotReadyError while it closes.
        """
        ticket = Ticket(priority, release, work, cancelled or threading.Event())
        with self._lock:
            if self._closing:
                raise NotReadyError("the server is shutting down; try again in a moment")
            if self._waiting[priority] >= self.max_waiting:
                raise BusyError(
                    f"{self._waiting[priority]} requests wait, the limit is {self.max_waiting}; "
                    "try again later, or send a job",
                    RETRY_AFTER_S,
                )
            self._waiting[priority] += 1
            shadows = [one for one in self._running if one.priority == SHADOW] if priority < SHADOW else []
        for shadow in shadows:
            shadow.cancelled.set()
        self._line.put((priority, next(self._order), ticket))  # type: ignore[arg-type]
        return ticket

    def _sit(self) -> None:
        seat = Seat()
        while True:
            _, _, ticket = self._line.get()
            if ticket is None:
                break
            with self._lock:
                self._waiting[ticket.priority] -= 1
                taken = ticket.future.set_running_or_notify_cancel()
                if taken:
                    ticket.box = self._box
                    self._busy[ticket.priority] += 1
                    self._running.add(ticket)
            if taken:
                self._work(seat, ticket)
        seat.close()

    def _work(self, seat: Seat, ticket: Ticket[object]) -> None:
        with ticket.settled(lambda: self._leave(ticket)):
            assert ticket.box is not None
            copilot = seat.copilot(ticket.box, ticket.release)
            assert seat.writer is not None
            seat.writer.cancelled = ticket.cancelled
            ticket.outcome = ticket.work(copilot)

    def _leave(self, ticket: Ticket[object]) -> None:
        with self._lock:
            self._busy[ticket.priority] -= 1
            self._running.discard(ticket)

    def close(self, timeout_s: float) -> None:
        """Let running work end within `timeout_s`, then cancel it, and end the threads."""
        with self._lock:
            self._closing = True
        for _ in self._threads:
            self._line.put((SHADOW + 1, next(self._order), None))
        for thread in self._threads:
            thread.join(timeout_s)
        for ticket in list(self._running):
            ticket.cancel()
        for thread in self._threads:
            thread.join(2.0)
