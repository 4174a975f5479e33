"""Opening a box: verify, then load its parts in parallel, and close them again.

Invariant: no file of the box is parsed before its hash has been compared with the manifest.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from whis_box import prompts
from whis_box.box.manifest import Manifest, verify
from whis_box.config import BoxConfig, ModelConfig, RagConfig, load_config
from whis_box.copilot import Copilot, Parts
from whis_box.engine import cpu
from whis_box.engine.protocol import EngineSpec
from whis_box.engine.supervisor import Engine
from whis_box.guards.gate import open_gate
from whis_box.ingest.sanitize.policy import PolicyConfig
from whis_box.knowledge.embedder import MODEL_FILE, Embedder
from whis_box.knowledge.evidence import EvidenceSelector
from whis_box.knowledge.retriever import Retriever
from whis_box.knowledge.techniques import Catalogue
from whis_box.paths import state_dir
from whis_box.schemas import Lineage

POLICY = Path("configs/policy.yaml")


@contextmanager
def open_box(folder: Path, rag: RagConfig | None = None) -> Iterator[Copilot]:
    """A verified, loaded box; its engine's child ends with the context. `rag` replaces the box's own settings
    of retrieval, for experiments.

    Raises: NotReadyError, VerificationError, ConfigError, StorageError, EngineError.
    """
    manifest, digest = verify(folder)
    box = load_config(folder / "configs" / "box.yaml", BoxConfig)
    model = load_config(folder / "configs" / "model.whis.yaml", ModelConfig)
    rag = rag or load_config(folder / "configs" / "rag.yaml", RagConfig)
    policy = load_config(folder / POLICY, PolicyConfig).guards
    gate = open_gate(folder / box.guards, folder / box.catalogue, policy)
    engine = Engine(engine_spec(folder / box.base_model, model))
    # The child loads the weights while this process loads the embedder.
    with ThreadPoolExecutor(max_workers=1) as pool:
        engine_started = pool.submit(engine.start)
        try:
            retriever = open_retriever(folder, box, rag, manifest)
            engine_started.result()
            yield Copilot(
                Parts(
                    engine=engine,
                    retriever=retriever,
                    selector=EvidenceSelector(retriever, rag.evidence, rag.abstain),
                    catalogue=Catalogue(folder / box.catalogue),
                    model=model,
                    box=box,
                    lineage=_lineage(manifest, digest, box),
                    gate=gate,
                )
            )
        finally:
            engine.stop()


def open_retriever(folder: Path, box: BoxConfig, rag: RagConfig, manifest: Manifest) -> Retriever:
    """The box's search, without the model."""
    embedder = Embedder(folder / box.embedder, rag.embedder_dim, cpu.thread_count())
    digest = manifest.sha256_of((box.embedder / MODEL_FILE).as_posix())
    return Retriever(folder / box.index, embedder, digest, rag.retriever)


def engine_spec(model_path: Path, model: ModelConfig) -> EngineSpec:
    """What to start the engine's child with on this machine.

    Raises: NotReadyError when no CPU backend works.
    """
    choice = cpu.choose(model_path, state_dir() / "cpu-variant.json")
    return EngineSpec(
        model_path=str(model_path.absolute()),
        backend_path=choice.path,
        n_threads=model.engine.n_threads or cpu.thread_count(),
        n_ctx=model.engine.n_ctx,
        n_batch=model.engine.n_batch,
        flash_attention=model.engine.flash_attention,
    )


def _lineage(manifest: Manifest, digest: str, box: BoxConfig) -> Lineage:
    return Lineage(
        box=digest,
        base=manifest.sha256_of(box.base_model.as_posix()),
        adapter="none",
        index=manifest.sha256_of(box.index.as_posix()),
        embedder=manifest.sha256_of((box.embedder / MODEL_FILE).as_posix()),
        prompt=prompts.prompt_sha256(),
        policy=manifest.sha256_of(POLICY.as_posix()),
    )
