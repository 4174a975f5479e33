"""Opening a box: verify, then load its parts in parallel, and close them again.

Invariant: no file of the box is parsed before its hash has been compared with the manifest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from whis_box import prompts
from whis_box.box.manifest import Manifest, verify
from whis_box.config import BoxConfig, ModelConfig, RagConfig, load_config
from whis_box.copilot import Copilot, Parts
from whis_box.engine import cpu, gpu
from whis_box.engine.gguf_header import read_header
from whis_box.engine.protocol import EngineSpec, LaneSpec
from whis_box.engine.sizing import Sizing, available_memory, plan
from whis_box.engine.supervisor import Engine
from whis_box.guards.gate import Gate, open_gate
from whis_box.guards.output import leak_file
from whis_box.ingest.sanitize.policy import PolicyConfig
from whis_box.knowledge.embedder import MODEL_FILE, Embedder
from whis_box.knowledge.evidence import EvidenceSelector
from whis_box.knowledge.retriever import Retriever
from whis_box.knowledge.techniques import Catalogue
from whis_box.paths import file_sha256, state_dir
from whis_box.schemas import Lineage

POLICY = Path("configs/policy.yaml")


@contextmanager
def open_box(folder: Path, rag: RagConfig | None = None, adapter: Path | None = None) -> Iterator[Copilot]:
    """A verified, loaded box; its engine's child ends with the context. `rag` replaces the box's own settings
    of retrieval, for experiments; `adapter` is one LoRA over its base, with its list of leaks beside it.

    Raises: NotReadyError, VerificationError, ConfigError, StorageError, EngineError.
    """
    manifest, digest = verify(folder)
    box = load_config(folder / "configs" / "box.yaml", BoxConfig)
    model = load_config(folder / "configs" / "model.whis.yaml", ModelConfig)
    rag = rag or load_config(folder / "configs" / "rag.yaml", RagConfig)
    gate = open_guards(folder, box, [] if adapter is None else [adapter])
    lane = LaneSpec("base") if adapter is None else LaneSpec("base", str(adapter.absolute()))
    base_sha256 = manifest.sha256_of(box.base_model.as_posix())
    engine = Engine(engine_spec(folder / box.base_model, model, (lane,), base_sha256))
    # The child loads the weights while this process loads the embedder.
    with ExitStack() as undo, ThreadPoolExecutor(max_workers=1) as pool:
        engine_started = pool.submit(engine.start)
        try:
            retriever = open_retriever(folder, box, rag, manifest)
            undo.callback(retriever.close)
            engine_started.result()
            yield Copilot(
                Parts(
                    engine=engine,
                    retriever=retriever,
                    selector=EvidenceSelector(retriever, rag.evidence, rag.abstain),
                    catalogue=Catalogue(folder / box.catalogue),
                    model=model,
                    box=box,
                    lineage=_lineage(manifest, digest, box, adapter),
                    gate=gate,
                    may_decline=adapter is not None,
                )
            )
        finally:
            engine.stop()


def open_guards(folder: Path, box: BoxConfig, adapters: Iterable[Path] = ()) -> Gate:
    """The box's guards by its policy; a box without them does not open, nor with an adapter without its list.

    Raises: NotReadyError, VerificationError, ConfigError.
    """
    policy = load_config(folder / POLICY, PolicyConfig).guards
    leak_files = [leak_file(one) for one in adapters]
    return open_gate(folder / box.guards, folder / box.catalogue, policy, leak_files)


def open_retriever(folder: Path, box: BoxConfig, rag: RagConfig, manifest: Manifest) -> Retriever:
    """The box's search, without the model."""
    embedder = open_embedder(folder, box, rag)
    digest = manifest.sha256_of((box.embedder / MODEL_FILE).as_posix())
    return Retriever(folder / box.index, embedder, digest, rag.retriever)


def open_lineage(manifest: Manifest, digest: str, box: BoxConfig) -> Lineage:
    """The digests of what a box was built with, without an adapter."""
    return _lineage(manifest, digest, box, None)


def open_embedder(folder: Path, box: BoxConfig, rag: RagConfig) -> Embedder:
    """The box's embedder; several retrievers may share it."""
    return Embedder(folder / box.embedder, rag.embedder_dim, cpu.thread_count())


def engine_spec(
    model_path: Path,
    model: ModelConfig,
    lanes: tuple[LaneSpec, ...] = (LaneSpec("base"),),
    base_sha256: str = "",
) -> EngineSpec:
    """What to start the engine's child with on this machine.

    Raises: NotReadyError when no CPU backend works; VerificationError for a damaged model file.
    """
    engine = model.engine
    sizing = size_engine(model_path, model, len(lanes))
    gpu_path = gpu.choose(model_path, state_dir() / "gpu-backend.json").path
    return EngineSpec(
        model_path=str(model_path.absolute()),
        backend_path=cpu.choose(model_path, state_dir() / "cpu-variant.json").path,
        n_threads=engine.n_threads or cpu.thread_count(),
        n_ctx=sizing.n_ctx,
        n_batch=engine.n_batch,
        flash_attention=engine.flash_attention,
        lanes=lanes,
        n_slots=sizing.n_slots,
        kv_type=sizing.kv_type,
        pinned=prompts.static_prefixes(),
        prefix_bytes=engine.prefix_cache_mb * 1024 * 1024,
        max_waiting=engine.max_waiting,
        n_draft=engine.n_draft,
        # GPU drivers map far more address space than they use.
        memory_limit_bytes=0 if gpu_path else sizing.memory_limit_bytes,
        gpu_path=gpu_path,
        base_sha256=base_sha256,
    )


def read_lineage(folder: Path, adapter: Path | None = None) -> Lineage:
    """The digests that `open_box` would answer with, without loading anything.

    Raises: NotReadyError, VerificationError, ConfigError, StorageError.
    """
    manifest, digest = verify(folder)
    return _lineage(manifest, digest, load_config(folder / "configs" / "box.yaml", BoxConfig), adapter)


def size_engine(model_path: Path, model: ModelConfig, n_lanes: int = 1) -> Sizing:
    """Slots, context and KV type for this machine's memory."""
    engine = model.engine
    kv_type = engine.kv_type if engine.flash_attention else "f16"
    header = read_header(model_path)
    return plan(header, engine.n_ctx, n_lanes, available_memory(), engine.n_slots, kv_type)


def _lineage(manifest: Manifest, digest: str, box: BoxConfig, adapter: Path | None) -> Lineage:
    return Lineage(
        box=digest,
        base=manifest.sha256_of(box.base_model.as_posix()),
        adapter="none" if adapter is None else file_sha256(adapter, "convert it or name another adapter"),
        index=manifest.sha256_of(box.index.as_posix()),
        embedder=manifest.sha256_of((box.embedder / MODEL_FILE).as_posix()),
        prompt=prompts.prompt_sha256(),
        policy=manifest.sha256_of(POLICY.as_posix()),
    )
