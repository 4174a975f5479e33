"""A box opened for serving: one engine and one embedder, and a copilot per seat and release.

Invariant: a release's lane exists in the engine before its copilot is made; lineage names exactly the
adapter and index that a copilot uses.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from whis_box.box.manifest import verify
from whis_box.box.opening import engine_spec, open_embedder, open_guards, open_lineage
from whis_box.config import BoxConfig, ModelConfig, RagConfig, load_config
from whis_box.copilot import Copilot, OnText, Parts
from whis_box.engine.protocol import Completion, EngineInfo, EngineSpec, GenerateRequest, LaneSpec
from whis_box.engine.supervisor import Engine
from whis_box.errors import EngineError
from whis_box.knowledge.embedder import MODEL_FILE
from whis_box.knowledge.evidence import EvidenceSelector
from whis_box.knowledge.retriever import Retriever
from whis_box.knowledge.techniques import Catalogue
from whis_box.paths import state_dir
from whis_box.rollout.releases import BASE, Release, Shelf, read_shelf
from whis_box.schemas import Lineage


class SeatWriter:
    """The engine as one seat sees it: a request that can be cancelled from another thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.cancelled = threading.Event()

    @property
    def pid(self) -> int | None:
        """Process id of the model process."""
        return self._engine.pid

    def generate(self, request: GenerateRequest, on_text: OnText | None = None) -> Completion:
        """As `Engine.generate`, until `cancelled` is set."""
        for event in self._engine.stream(request, self.cancelled):
            if isinstance(event, Completion):
                return event
            if on_text is not None:
                on_text(event)
        raise EngineError("the engine ended a request without a result")


class OpenedBox:
    """Everything that the seats share. Closing it ends the engine's child."""

    def __init__(self, folder: Path, releases: Iterable[Release]) -> None:
        """Verify, then load.

        Raises: NotReadyError, VerificationError, ConfigError, StorageError, EngineError.
        """
        self.folder = folder
        self.manifest, self.digest = verify(folder)
        self.box = load_config(folder / "configs" / "box.yaml", BoxConfig)
        self.model = load_config(folder / "configs" / "model.whis.yaml", ModelConfig)
        self.rag = load_config(folder / "configs" / "rag.yaml", RagConfig)
        self.lineage = open_lineage(self.manifest, self.digest, self.box)
        self.shelf = self.read_shelf()
        self.releases = frozenset(releases)
        for release in self.releases:
            self.shelf.check(release)
        self.engine = Engine(self._spec())
        with ExitStack() as undo, ThreadPoolExecutor(max_workers=1) as pool:
            undo.callback(self.engine.stop)
            engine_started = pool.submit(self.engine.start)
            self.embedder = open_embedder(folder, self.box, self.rag)
            self.info: EngineInfo = engine_started.result()
            self.catalogue = Catalogue(folder / self.box.catalogue)
            self.gate = open_guards(folder, self.box, self._adapters().values())
            undo.pop_all()

    def _adapters(self) -> dict[str, Path]:
        """Reference to file of every adapter that has a lane."""
        names = sorted({one.adapter for one in self.releases} - {BASE})
        return {name: Path(self.shelf.adapters[name].path) for name in names}

    def _spec(self) -> EngineSpec:
        lanes = (LaneSpec("base"), *(LaneSpec(name, str(path)) for name, path in self._adapters().items()))
        base_sha256 = self.manifest.sha256_of(self.box.base_model.as_posix())
        return engine_spec(self.folder / self.box.base_model, self.model, lanes, base_sha256)

    def extend(self, releases: Iterable[Release]) -> bool:
        """Offer `releases` too, if all their adapters have a lane; False when a new engine is needed.

        Raises: NotReadyError for what this host does not hold; StorageError, ConfigError.
        """
        wanted = frozenset(releases)
        if wanted <= self.releases:
            return True
        if {one.adapter for one in wanted} - {BASE} - {one.adapter for one in self.releases}:
            return False
        self.shelf = self.read_shelf()
        for release in wanted:
            self.shelf.check(release)
        self.releases |= wanted
        return True

    def read_shelf(self) -> Shelf:
        """What this host holds now."""
        return read_shelf(self.folder, state_dir(), self.folder / self.box.index, self.lineage)

    def lineage_of(self, release: Release) -> Lineage:
        """What an answer of `release` carries."""
        return self.shelf.lineage_of(release)

    def open_index(self, release: Release) -> Retriever:
        """A new connection to the release's index.

        Raises: NotReadyError, VerificationError, StorageError.
        """
        digest = self.manifest.sha256_of((self.box.embedder / MODEL_FILE).as_posix())
        path = Path(self.shelf.indexes[release.index].path)
        return Retriever(path, self.embedder, digest, self.rag.retriever)

    def copilot(self, release: Release, writer: SeatWriter) -> Copilot:
        """A copilot with its own connection to the index.

        Raises: as `open_index`.
        """
        retriever = self.open_index(release)
        return Copilot(
            Parts(
                engine=writer,
                retriever=retriever,
                selector=EvidenceSelector(retriever, self.rag.evidence, self.rag.abstain),
                catalogue=self.catalogue,
                model=self.model,
                box=self.box,
                lineage=self.lineage_of(release),
                gate=self.gate,
                lane="base" if release.adapter == BASE else release.adapter,
                may_decline=release.adapter != BASE,
            )
        )

    def close(self) -> None:
        """End the engine's child."""
        self.engine.stop()
