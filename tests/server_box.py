"""A server over the hashing embedder's index and an engine that says what it is told, on a real socket."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from whis_box.audit import AuditLog
from whis_box.box.manifest import FORMAT_VERSION, Manifest, describe_folder, write_manifest
from whis_box.config import AbstainConfig, BoxConfig, EvidenceConfig, ModelConfig
from whis_box.copilot import Copilot, Parts
from whis_box.engine.protocol import Completion, EngineInfo, EngineState, GenerateRequest
from whis_box.errors import RequestCancelledError, WhisError
from whis_box.gates import GateFile, GateRow, binding_of, write_gate
from whis_box.guards.gate import open_gate
from whis_box.guards.policy import GuardPolicy
from whis_box.knowledge.evidence import EvidenceSelector
from whis_box.knowledge.retriever import Retriever
from whis_box.knowledge.techniques import Catalogue
from whis_box.paths import repository_root, state_dir
from whis_box.rollout.config import RolloutConfig
from whis_box.rollout.releases import BASE, BOX_INDEX, Artifact, Release, Shelf
from whis_box.schemas import Lineage
from whis_box.server.access import Doorkeeper, KeyEntry
from whis_box.server.app import create_app
from whis_box.server.seats import Seats
from whis_box.server.serve import LOOPBACK_NAMES, open_socket, uvicorn_config
from whis_box.server.service import Service
from whis_box.server.settings import ListenConfig, ServerConfig

CATALOGUE = repository_root() / "data" / "catalogue" / "attack-enterprise.tsv"
GATE = open_gate(repository_root() / "data" / "guards", CATALOGUE, GuardPolicy())
LINEAGE = Lineage(box="b", base="b", adapter="none", index="i", embedder="e", prompt="p", policy="none")
QUESTION = "Which event is written when the audit log is cleared?"
ALERT = {
    "_id": "alert-1",
    "event": {"kind": "alert", "code": "10"},
    "rule": {"name": "LSASS access"},
    "process": {"command_line": "rundll32.exe comsvcs.dll, MiniDump 624 C:\\l.dmp full"},
}
INFO = EngineInfo("fake", 2048, 2048, 100, 1, "fake", 1.0, ["base"])


class FakeEngine:
    """Says `[1]`, or no technique; `gate` holds it back, `error` makes it fail, `delay_s` makes it slow."""

    def __init__(self) -> None:
        self.pid = 4242
        self.restarts = 0
        self.state: EngineState | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.delay_s = 0.0
        self.errors: dict[str, WhisError] = {}
        self.lanes: list[str] = []

    def start(self) -> EngineInfo:
        return INFO

    def stop(self) -> None:
        self.gate.set()

    def stream(self, request: GenerateRequest, cancelled: threading.Event) -> Iterator[str | Completion]:
        self.lanes.append(request.lane)
        if request.lane in self.errors:
            raise self.errors[request.lane]
        until = time.monotonic() + self.delay_s
        while not self.gate.wait(0.005) or time.monotonic() < until:
            if cancelled.is_set():
                raise RequestCancelledError("the request was cancelled")
        text = "Technique: none\nSummary: A dump.\n" if "Technique" in request.grammar else "[1]\n"
        yield text
        yield Completion(text, "stop", 100, 40, 5, 10.0, 20.0)


def make_gate(folder: Path, name: str, **binding: str) -> str:
    """A sealed gate file that passes exactly one lineage."""
    path = folder / name / "gate.json"
    path.parent.mkdir(exist_ok=True)
    row = GateRow(metric="ask.answered", limit="at least 0.5", passed=True)
    gate = GateFile(
        passed=True, subject=name, binding={**binding_of(LINEAGE), **binding}, rows=[row],
        rules_sha256="0" * 64, results_sha256="0" * 64, created_at="2026-11-25T00:00:00+00:00",
    )  # fmt: skip
    write_gate(path, gate)
    return str(path)


def make_shelf(folder: Path, index: Path) -> Shelf:
    """The base, `good@1` with a passed gate, and `bad@1` without one."""
    gate_path = make_gate(folder, "good", adapter="1" * 64)
    missing = str(folder / "bad" / "gate.json")
    adapters = [
        Artifact(reference=BASE, path="", sha256="none", origin="box"),
        Artifact(reference="good@1", path="x", sha256="1" * 64, origin="box", gate_path=gate_path),
        Artifact(reference="bad@1", path="x", sha256="2" * 64, origin="box", gate_path=missing),
    ]
    indexes = [Artifact(reference=BOX_INDEX, path=str(index), sha256="i", origin="box")]
    return Shelf(adapters, indexes, LINEAGE)


class FakeBox:
    """Stands in for OpenedBox; two adapters, one of them with a passed gate."""

    def __init__(self, index: Path, embedder: Any, retriever: Retriever) -> None:
        self.digest = "d" * 64
        self._embedder_sha256 = str(retriever.meta["embedder_sha256"])
        self.embedder, self.engine, self.info = embedder, FakeEngine(), INFO
        self.folder = index.parent / "box"
        self.folder.mkdir()
        (self.folder / "LICENSE").write_text("free")
        files = describe_folder(self.folder)
        self.manifest = Manifest(
            format_version=FORMAT_VERSION, name="test", version="1", source_commit="c", files=files
        )
        write_manifest(self.folder, self.manifest)
        self.box, self.model, self.lineage = BoxConfig(), ModelConfig(), LINEAGE
        self.shelf = make_shelf(self.folder.parent, index)
        self.releases = frozenset({Release()})
        self.index = index
        self.config = retriever._config

    def read_shelf(self) -> Shelf:
        return self.shelf

    def extend(self, releases: Iterable[Release]) -> bool:
        for release in releases:
            self.shelf.check(release)
        self.releases |= frozenset(releases)
        return True

    def lineage_of(self, release: Release) -> Lineage:
        return self.shelf.lineage_of(release)

    def copilot(self, release: Release, writer: Any) -> Copilot:
        retriever = Retriever(self.index, self.embedder, self._embedder_sha256, self.config)
        selector = EvidenceSelector(retriever, EvidenceConfig(), AbstainConfig(bias=60.0))
        catalogue = Catalogue(CATALOGUE)
        lane = "base" if release.adapter == BASE else release.adapter
        lineage = self.lineage_of(release)
        return Copilot(
            Parts(writer, retriever, selector, catalogue, self.model, self.box, lineage, GATE, lane)
        )

    def close(self) -> None:
        self.engine.stop()


class FakeService(Service):
    """A service whose box is given."""

    given: Any

    def open(self) -> None:
        self.opened_at, self.opened_unix = "2026-01-01T00:00:00+00:00", 1
        self.seats = Seats(self.given, self.config.seats, self.config.limits.max_waiting)


class Running:
    """A server on a port of its own."""

    def __init__(self, service: FakeService, port: int, server: uvicorn.Server) -> None:
        self.service, self.port, self.server = service, port, server
        self.engine: FakeEngine = service.given.engine
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx.Client(base_url=self.url, timeout=20.0)

    def finished(self, job_id: str) -> dict[str, Any]:
        """The job, once it has ended."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            job: dict[str, Any] = self.http.get(f"/v1/jobs/{job_id}", params={"wait": 2}).json()
            if job["status"] in ("completed", "failed", "cancelled"):
                return job
        raise AssertionError(f"job {job_id} did not end")


@contextmanager
def serving(
    box: FakeBox, config: ServerConfig | None = None, keys: list[KeyEntry] | None = None,
    rollout: RolloutConfig | None = None, local: bool = True,
) -> Iterator[Running]:  # fmt: skip
    """Run a server until the block ends, the way `whis serve` does."""
    settings = config or ServerConfig()
    audit = AuditLog(state_dir() / "audit")
    doorkeeper = Doorkeeper(keys or [], settings.access, settings.limits, local)
    service = FakeService(box.folder, settings, rollout or RolloutConfig(), audit, doorkeeper)
    service.given = box
    app = create_app(service, LOOPBACK_NAMES)
    server = uvicorn.Server(uvicorn_config(app, settings.listen, settings))
    sock, _ = open_socket(ListenConfig(port=0))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([sock])), name="server", daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not (server.started and service.seats):
        time.sleep(0.01)
    running = Running(service, sock.getsockname()[1], server)
    try:
        yield running
    finally:
        running.http.close()
        server.should_exit = True
        box.engine.gate.set()
        thread.join(15)
        assert not thread.is_alive(), "the server did not stop"
