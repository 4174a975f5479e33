"""Every setting, with its default, in one place; loaded once and passed to constructors.

Invariant: unknown keys and bad values are all reported together, with file and key, before anything starts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from whis_box.errors import ConfigError, InputError
from whis_box.paths import GET_IT_AGAIN, read_text


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ChunkingConfig(Section):
    """How records are cut."""

    max_tokens: int = Field(200, ge=32, le=256)
    """Tokens per chunk, as the embedder counts; it reads at most 256."""


class FusionWeights(Section):
    """Weights of one kind of question: of the place in each list, then of cosines and the title."""

    identifier: float = 30.0
    """Place among the chunks that hold the question's identifiers; documents about them come first."""
    prose: float = 10.0
    """Place by BM25 over stemmed words."""
    exact: float = 10.0
    """Place by BM25 over whole identifiers, file names and codes."""
    chunk_dense: float = 10.0
    """Place by the section's embedding."""
    sentence_dense: float = 10.0
    """Place by the embedding of the section's best sentence."""
    chunk_cosine: float = 0.0
    """Cosine of question and section."""
    sentence_cosine: float = 0.0
    """Cosine of question and the section's best sentence."""
    record_cosine: float = 0.0
    """Mean cosine of question and the document's eight best sentences."""
    title: float = 0.0
    """Share of the title's words (by idf) that the question uses."""


class RetrieverConfig(Section):
    """How the lists are made and fused; see whis_box/knowledge/fusion.py."""

    top_k: int = Field(5, ge=1, le=50)
    """Hits handed on."""
    max_per_record: int = Field(2, ge=1, le=50)
    """Of the hits that are shown, chunks of one document: a long one must not crowd out the others."""
    candidates: int = Field(80, ge=1, le=400)
    """Depth of each list."""
    sentences: int = Field(200, ge=1, le=1000)
    """Sentences that are looked at; vec0's top-k costs O(k * n)."""
    max_postings: int = Field(8_000, ge=100)
    """Chunks that a full-text list may look at; the commonest words of a question are left out above it."""
    rrf_k: float = Field(10.0, gt=0)
    """Flattens the ranks; Source: Cormack et al. 2009 use 60, short lists favour less."""
    question: FusionWeights = FusionWeights()
    """Weights where somebody asks."""
    statement: FusionWeights = FusionWeights()
    """Weights where something is told: a report's sentence, a rule's description, an event."""
    bm25_title: float = Field(4.0, ge=0)
    """Column weight of the title in BM25."""
    bm25_heading: float = Field(2.0, ge=0)
    """Column weight of the heading path."""
    bm25_body: float = Field(1.0, ge=0)
    """Column weight of the passage."""


class EvidenceConfig(Section):
    """Which sentences of the hits go into the prompt: a linear score over five features in 0..1."""

    max_sentences: int = Field(8, ge=1, le=32)
    """Numbered sentences in a prompt."""
    max_tokens: int = Field(420, ge=64, le=4096)
    """Their tokens together, as the embedder counts."""
    weight_cosine: float = 1.0
    """Embedding similarity of question and sentence."""
    weight_coverage: float = 1.0
    """Share of the question's words (by idf) in the sentence."""
    weight_context: float = 0.5
    """The same with title and heading counted in."""
    weight_rank: float = 0.5
    """How well the sentence's chunk ranked."""
    weight_identifier: float = 0.5
    """Whether the sentence holds an identifier of the question."""


class AbstainConfig(Section):
    """The "nothing relevant here" decision: a logistic model of whether the evidence holds an answer.

    The weights come from `tests/bench/calibrate.py` on data/golden/dev.ndjson; docs/measurements.md has the
    run.
    """

    bias: float = -5.21
    """Intercept."""
    weight_sentence_cosine: float = 3.21
    """Best cosine of question and sentence."""
    weight_chunk_cosine: float = 1.22
    """Best cosine of question and section."""
    weight_coverage: float = 2.24
    """Share of the question's words (by idf) found in the best section, title included."""
    weight_sentence_coverage: float = 1.77
    """The same for the best sentence, title included."""
    weight_unknown: float = -2.06
    """Share of the question's words (by idf) that occur nowhere in the index."""
    weight_missing_identifier: float = -1.26
    """1 when the question names an identifier that the index does not hold."""
    weight_concentration: float = 2.4
    """Largest share of the hits that come from one document."""
    threshold: float = Field(0.5, ge=0, le=1)
    """Below it the box answers `insufficient_evidence` without calling the model."""


class RagConfig(Section):
    """configs/rag.yaml."""

    embedder_dim: int = Field(384, ge=8, le=8192)
    """Dimensions of the embedder."""
    chunking: ChunkingConfig = ChunkingConfig()
    """How records are cut."""
    retriever: RetrieverConfig = RetrieverConfig()
    """How the lists are made and fused."""
    evidence: EvidenceConfig = EvidenceConfig()
    """Which sentences go into the prompt."""
    abstain: AbstainConfig = AbstainConfig()
    """When to say that nothing relevant is here."""


class EngineConfig(Section):
    """The model process."""

    n_ctx: int = Field(2048, ge=256, le=131072)
    """Context in tokens."""
    n_batch: int = Field(256, ge=16, le=4096)
    """Prompt tokens per decode; also the longest wait for a cancel."""
    n_threads: int = Field(0, ge=0, le=512)
    """Threads; 0 takes affinity and cgroup quota."""
    flash_attention: bool = True
    """Faster attention, and the condition for a quantized KV cache."""
    n_slots: int = Field(0, ge=0, le=64)
    """Requests decoded together, each with `n_ctx` tokens of KV cache; 0 takes up to 4, as RAM allows."""
    kv_type: Literal["auto", "f16", "q8_0"] = "auto"
    """Numbers in the KV cache; `auto` takes q8_0 where memory is short."""
    prefix_cache_mb: int = Field(64, ge=0, le=65536)
    """RAM for prompt beginnings that several requests share."""
    max_waiting: int = Field(256, ge=1, le=100_000)
    """Requests that may wait; one more is refused as busy."""
    n_draft: int = Field(4, ge=0, le=16)
    """Tokens guessed ahead from the prompt; 0 turns it off (docs/engine.md)."""


class GenerationConfig(Section):
    """Limits of one generation."""

    max_tokens_answer: int = Field(110, ge=8, le=4096)
    """Tokens of an answer."""
    max_tokens_summary: int = Field(80, ge=8, le=4096)
    """Tokens of a triage summary."""
    max_sentences: int = Field(3, ge=1, le=10)
    """Sentences of an answer."""
    style: Literal["select", "compose"] = "select"
    """`select`: the model picks sentences and code quotes them; `compose`: it also writes sentences."""
    temperature: float = Field(0.0, ge=0, le=2)
    """0 is greedy, and reproducible."""
    seed: int = 0
    """For temperatures above 0."""
    deadline_s: float = Field(30.0, gt=0, le=3600)
    """Longest time for one generation."""


class GroundingConfig(Section):
    """When a sentence counts as supported by what it cites."""

    min_support: float = Field(0.95, ge=0, le=1)
    """Support a composed sentence needs; 1.0 is a cited sentence, or that sentence shortened."""
    companion_share: float = Field(0.85, ge=0, le=1)
    """Passages that score at least this share of the best one are quoted too (docs/measurements.md)."""


class ModelConfig(Section):
    """configs/model.whis.yaml."""

    engine: EngineConfig = EngineConfig()
    """The model process."""
    generation: GenerationConfig = GenerationConfig()
    """Limits of one generation."""
    grounding: GroundingConfig = GroundingConfig()
    """When a sentence counts as supported."""


class LimitsConfig(Section):
    """Sizes above which input is refused."""

    max_question_chars: int = Field(4000, ge=16, le=1_000_000)
    """Characters of a question."""
    max_event_bytes: int = Field(5_000_000, ge=1024)
    """Bytes of an alert."""


class BoxConfig(Section):
    """configs/box.yaml: what lies where inside a box, relative to its folder."""

    base_model: Path = Path("models/base.gguf")
    """Base GGUF."""
    embedder: Path = Path("embedder")
    """Folder of the ONNX embedder."""
    index: Path = Path("index/whis.sqlite")
    """The index."""
    catalogue: Path = Path("catalogue/attack-enterprise.tsv")
    """ATT&CK ids and names."""
    guards: Path = Path("guards")
    """Folder of the detector and of the rules for requests."""
    limits: LimitsConfig = LimitsConfig()
    """Sizes above which input is refused."""


Config = TypeVar("Config", bound=Section)
Line = TypeVar("Line", bound=BaseModel)


def load_config(path: Path, kind: type[Config]) -> Config:
    """Read one YAML file.

    Raises: NotReadyError if it is missing; ConfigError naming every bad key; StorageError.
    """
    try:
        fields = yaml.safe_load(read_text(path, "copy it from the repository's configs/"))
    except (yaml.YAMLError, UnicodeDecodeError) as cause:
        raise ConfigError(f"{path}: not valid YAML: {cause}") from None
    if not isinstance(fields, dict):
        raise ConfigError(f"{path}: must hold a mapping of settings, not {type(fields).__name__}")
    try:
        return kind.model_validate(fields)
    except ValidationError as cause:
        raise ConfigError(describe_validation(str(path), cause)) from None


def read_lines(
    path: Path, kind: type[Line], remedy: str = GET_IT_AGAIN, most: int | None = None
) -> list[Line]:
    """Every line of an NDJSON file as `kind`.

    Raises: NotReadyError with `remedy` if it is missing; StorageError; InputError listing every bad line, or
    the first `most` complaints.
    """
    values, complaints = [], []
    for number, line in enumerate(read_text(path, remedy).splitlines(), start=1):
        try:
            values.append(kind.model_validate_json(line))
        except ValidationError as cause:
            complaints.append(describe_validation(f"{path}: line {number}", cause))
    if complaints:
        raise InputError("\n".join(complaints[:most]))
    return values


def describe_validation(where: str, cause: ValidationError) -> str:
    """All of pydantic's complaints, one per line: place, key, value, rule."""
    lines = []
    for problem in cause.errors(include_url=False):
        key = ".".join(str(part) for part in problem["loc"]) or "(top level)"
        value = problem.get("input")
        shown = "" if isinstance(value, dict | list) else f" is {value!r}"
        lines.append(f"{where}: {key}{shown}: {problem['msg']}")
    return "\n".join(lines)
