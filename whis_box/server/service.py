"""What the routes share: the opened box, the seats, the log and the counters, and the way of one request.

Invariant: a route never touches a copilot; whatever it asks for runs on a seat, is counted and audited.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from whis_box.audit import AuditLog
from whis_box.box.manifest import Manifest
from whis_box.box.watch import Watch
from whis_box.copilot import Copilot, OnText
from whis_box.errors import EngineError, NotReadyError, RequestCancelledError, VerificationError
from whis_box.ingest.alerts import read_alert
from whis_box.knowledge.facets import Filter
from whis_box.paths import state_dir
from whis_box.rollout.config import RolloutConfig
from whis_box.rollout.control import Control
from whis_box.rollout.releases import BASE, Release
from whis_box.rollout.state import Arm, RolloutState
from whis_box.rollout.store import RolloutStore
from whis_box.schemas import Answer, Triage
from whis_box.server.access import Caller, Doorkeeper, read_keys
from whis_box.server.callbacks import read_secret
from whis_box.server.failures import HttpError
from whis_box.server.jobs import JobStore
from whis_box.server.metrics import Metrics
from whis_box.server.opened import OpenedBox
from whis_box.server.seats import INTERACTIVE, Seats, Ticket
from whis_box.server.settings import ServerConfig
from whis_box.server.traffic import Traffic, prepare_box
from whis_box.server.wire import AskRequest, Narrowing, SearchRequest, SearchResponse

T = TypeVar("T")
R = TypeVar("R", Answer, Triage)
log = logging.getLogger("whis.server")
NEEDS_RESTART = ("seats", "listen", "jobs", "callbacks", "drain_s")
OURS = frozenset({"", "whis", "default"})


@dataclass(frozen=True)
class Call:
    """Who asks, under which id, how urgently, and who listens to the draft."""

    caller: Caller
    request_id: str
    priority: int = INTERACTIVE
    on_text: OnText | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)

    def watched(self, on_text: OnText | None, cancelled: threading.Event) -> Call:
        """The same call, with somebody who listens and may stop it."""
        return replace(self, on_text=on_text, cancelled=cancelled)


class Service:
    """One server's parts. `seats` is None until the box is loaded."""

    def __init__(
        self,
        folder: Path,
        config: ServerConfig,
        rollout: RolloutConfig,
        audit: AuditLog,
        doorkeeper: Doorkeeper,
    ) -> None:
        """Open the stores; the box is loaded by `open`.

        Raises: ConfigError, StorageError.
        """
        self.folder, self.config, self.audit, self.doorkeeper = folder, config, audit, doorkeeper
        self.store = JobStore(config.jobs.path or state_dir() / "jobs.sqlite", config.jobs)
        self.webhook_secret = read_secret(config.callbacks)
        self.metrics = Metrics()
        self.rollout_store = RolloutStore(state_dir() / "rollout.sqlite")
        self.traffic = Traffic(Control(rollout, self.rollout_store), audit, self.metrics)
        self.seats: Seats | None = None
        self.watch: Watch | None = None
        self.altered: list[str] = []
        self.load_error = ""
        self.opened_at = ""
        self.opened_unix = 0
        self.draining = False
        self.metrics.gauge(
            "whis_seats_busy", "Seats that work.", lambda: self.seats.busy if self.seats else 0
        )
        self.metrics.gauge(
            "whis_seats_waiting", "Requests in the line.", lambda: self.seats.waiting if self.seats else 0
        )
        self.metrics.gauge(
            "whis_engine_restarts",
            "Lives of the model process beyond the first.",
            lambda: self.seats.box.engine.restarts if self.seats else 0,
        )
        self.metrics.gauge(
            "whis_box_altered_files",
            "Files that differ from the manifest since the box was opened.",
            lambda: len(self.altered),
        )

    def open(self) -> None:
        """Load the box and make the seats.

        Raises: NotReadyError, VerificationError, ConfigError, StorageError, EngineError.
        """
        box = OpenedBox(self.folder, self.traffic.state.releases())
        self.opened_unix = int(time.time())
        self.opened_at = datetime.now(UTC).isoformat(timespec="seconds")
        self.seats = Seats(box, self.config.seats, self.config.limits.max_waiting)
        self.start_watch(box.manifest)

    def start_watch(self, manifest: Manifest) -> None:
        """Hash the box's files again, one after another, until `close`."""
        self.watch = Watch(self.folder, manifest, self._note_altered, self.config.watch.round_s)
        self.watch.start()

    def _note_altered(self, problem: str) -> None:
        log.error("the box changed while it ran", extra={"fields": {"problem": problem}})
        self.altered.append(problem)
        self.audit.append("box.altered", "whis", detail={"problem": problem})

    def close(self) -> None:
        """Drain, then end everything."""
        if self.watch is not None:
            self.watch.stop()
        if self.seats is not None:
            self.seats.close(self.config.drain_s)
            self.seats.box.close()
        self.store.close()
        self.rollout_store.close()
        self.audit.close()

    def prepare(self, state: RolloutState) -> None:
        """Load what a state of the rollout names.

        Raises: NotReadyError, VerificationError, StorageError, EngineError; then nothing has changed.
        """
        prepare_box(self.ready_seats, lambda releases: OpenedBox(self.folder, releases))(state)

    def reload(self, config: ServerConfig) -> list[str]:
        """Take new keys, limits, audit and library settings; the changed sections that need a restart.

        Raises: ConfigError, NotReadyError, StorageError; then nothing has changed.
        """
        keys = read_keys(config.access)
        kept = {name: getattr(self.config, name) for name in NEEDS_RESTART}
        waiting = [name for name, value in kept.items() if getattr(config, name) != value]
        self.audit.append("server.reload", "whis", detail={"needs_restart": waiting})
        self.config = config.model_copy(update=kept)
        self.doorkeeper.reload(keys, config.access, config.limits)
        if self.seats is not None:
            self.seats.max_waiting = config.limits.max_waiting
        return waiting

    @property
    def ready_seats(self) -> Seats:
        """The seats.

        Raises: NotReadyError while the box loads, or when it could not be loaded; VerificationError when it
        changed since, unless the config only wants that reported.
        """
        if self.refusal:
            raise VerificationError(self.refusal)
        if self.seats is None:
            raise NotReadyError(self.load_error or "the model and the index are loading; try again soon")
        return self.seats

    @property
    def refusal(self) -> str:
        """Why nothing is answered any more, empty while all is well."""
        if not self.altered or self.config.watch.on_change == "report":
            return ""
        return f"the box changed while it ran: {self.altered[0]}; run `whis box verify`, then start again"

    @property
    def box(self) -> OpenedBox:
        """The opened box.

        Raises: NotReadyError.
        """
        return self.ready_seats.box

    @property
    def environment(self) -> str:
        """The rollout's environment."""
        return self.traffic.state.environment

    @property
    def fingerprint(self) -> str:
        """A short name of everything that shapes an answer, as OpenAI's `system_fingerprint`."""
        text = self.box.lineage_of(self.stable).model_dump_json()
        return f"whis_{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def job_counts(self) -> dict[str, int]:
        """Jobs by status."""
        return self.store.counts()

    # ------------------------------------------------------------ requests

    def release_for(self, model: str, key: str = "", caller: str = "") -> tuple[Arm | None, Release]:
        """The arm and release behind the name in `model`; no arm where the caller chose the model.

        Raises: HttpError 404.
        """
        if model in OURS:
            return self.traffic.choose(key, caller)
        wanted = BASE if model == "base" else model
        stable = self.traffic.state.stable
        names = self.model_names()
        if model in names:
            return None, Release(adapter=wanted, index=stable.index)
        known = ", ".join(["whis", *names])
        raise HttpError(
            404, "model_not_found", f"model {model[:80]!r} is not loaded; there are {known}", "model"
        )

    @property
    def stable(self) -> Release:
        """What answers for `whis`, but for a canary."""
        return self.traffic.state.stable

    def model_names(self) -> list[str]:
        """Names that `model` may have beside `whis`."""
        adapters = sorted({one.adapter for one in self.box.releases} - {BASE})
        return ["base", *adapters]

    async def ask(self, asked: AskRequest, call: Call) -> Answer:
        """Answer one question.

        Raises: what `Copilot.ask` raises, HttpError, BusyError.
        """
        narrowed = narrow(asked, call.caller)
        identity = asked.id or call.request_id

        def work(copilot: Copilot, on_text: OnText | None = None) -> Answer:
            return copilot.ask(asked.question, identity, on_text, narrowed)

        return await self._routed(call, asked.model, asked.question, asked.question, work)

    async def triage(self, event: Mapping[str, object], model: str, clearance: Filter, call: Call) -> Triage:
        """Judge one alert.

        Raises: what `Copilot.triage` raises, HttpError, BusyError.
        """
        text = json.dumps(event, ensure_ascii=False, sort_keys=True, default=str)

        def work(copilot: Copilot, on_text: OnText | None = None) -> Triage:
            return copilot.triage(event, call.request_id, on_text, clearance)

        return await self._routed(call, model, read_alert(event).id, text, work)

    async def _routed(self, call: Call, model: str, key: str, text: str, work: Callable[..., R]) -> R:
        """Run on the arm's release, and note what came out."""
        self.ready_seats  # noqa: B018 (raises while the box loads)
        arm, release = self.release_for(model, key, call.caller.name)
        started = time.perf_counter()
        try:
            result = await self._on_seat(call, release, lambda copilot: work(copilot, call.on_text))
        except (EngineError, VerificationError) as error:
            if not isinstance(error, RequestCancelledError):
                self.traffic.failed(arm, release, (time.perf_counter() - started) * 1000)
            raise
        self.traffic.served(arm, release, result, text, work)
        await self._note(result, release, call, text)
        return result

    async def search(self, asked: SearchRequest, call: Call) -> SearchResponse:
        """The best passages, without the model.

        Raises: what `Copilot.search` raises, BusyError.
        """
        narrowed = narrow(asked, call.caller)
        hits = await self._on_seat(
            call, self.stable, lambda copilot: copilot.search(asked.query, asked.top_k, narrowed)
        )
        await self.record("search", call, asked.query, {"hits": len(hits)})
        return SearchResponse(hits=hits, lineage=self.box.lineage_of(self.stable))

    async def explain(self, asked: SearchRequest, call: Call) -> dict[str, Any]:
        """The same passages with their reasons.

        Raises: as `search`.
        """
        narrowed = narrow(asked, call.caller)
        explained = await self._on_seat(
            call, self.stable, lambda copilot: copilot.explain(asked.query, asked.top_k, narrowed)
        )
        await self.record("search", call, asked.query, {"hits": len(explained["hits"])})
        return explained

    async def _on_seat(self, call: Call, release: Release, work: Callable[[Copilot], T]) -> T:
        ticket: Ticket[T] = self.ready_seats.submit(call.priority, release, work, call.cancelled)
        timeout_s = self.config.limits.request_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.wrap_future(ticket.future)
        except TimeoutError:
            message = f"no answer within {timeout_s:g} s; send it as a job (Prefer: respond-async)"
            raise HttpError(503, "request_timeout", message, retry_after_s=10) from None
        finally:
            ticket.cancel()

    # ---------------------------------------------------------------- notes

    async def _note(self, result: Answer | Triage, release: Release, call: Call, text: str) -> None:
        self.metrics.note_result(result, str(release))
        kind = "ask" if isinstance(result, Answer) else "triage"
        detail: dict[str, Any] = {
            "outcome": result.status if isinstance(result, Answer) else result.verdict,
            "lineage": result.lineage.model_dump(),
            "findings": sorted({one.code for one in result.findings}),
            "cited": [one.sha256 for one in result.citations],
            "total_ms": result.timings.total_ms,
        }
        detail.update(self.content("output", result.model_dump_json()))
        await self.record(kind, call, text, detail, result.id)

    async def record(
        self, action: str, call: Call, text: str, detail: dict[str, Any], subject: str = ""
    ) -> None:
        """One audit entry, on the disk when this returns; the input as the policy says.

        Raises: StorageError.
        """
        full = {**self.content("input", text), **detail}
        # A thread waits for the disk, not the loop that answers everybody else.
        await asyncio.to_thread(self.audit.append, action, call.caller.name, call.request_id, subject, full)

    def content(self, name: str, text: str) -> dict[str, str]:
        """A text's digest, and the text itself where the policy keeps it."""
        kept = {f"{name}_sha256": hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()}
        return {**kept, name: text} if self.config.audit.content == "full" else kept


def narrow(asked: Narrowing, caller: Caller) -> Filter:
    """The filter of a request, with no more clearance than the caller has."""
    return Filter(
        sources=list(asked.sources),
        platforms=list(asked.platforms),
        techniques=list(asked.techniques),
        licenses=list(asked.licenses),
        clearance=caller.narrowed(asked.clearance),
    )


def now_iso() -> str:
    """UTC, in seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
