"""The words every part speaks: records, chunks, hits, answers, triages.

Invariant: models are frozen and refuse unknown keys. Offsets (`start`, `end`) count Unicode code points of
the record's text, so that `record.text[start:end]` is the quoted text itself. Times are UTC ISO-8601.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Score = Annotated[float, Field(ge=0.0, le=1.0)]
Tlp = Literal["clear", "green", "amber", "amber+strict", "red"]
Status = Literal["answered", "insufficient_evidence", "refused"]
Verdict = Literal[
    "true_positive", "benign_true_positive", "false_positive", "benign", "needs_review", "escalate"
]
AlertSeverity = Literal["informational", "low", "medium", "high", "critical"]

TLP_ORDER: tuple[Tlp, ...] = ("clear", "green", "amber", "amber+strict", "red")
SEVERITY_ORDER: tuple[AlertSeverity, ...] = ("informational", "low", "medium", "high", "critical")


def written_now() -> str:
    """The time as records and logs hold it, `2026-11-30T22:15:03Z`; as texts they sort as times do."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Frozen(BaseModel):
    """A value object: immutable, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Frozen):
    """Where a record came from."""

    name: str
    uri: str
    revision: str
    retrieved_at: str


class Record(Frozen):
    """One accountable document: what it says, where it came from, what may be done with it."""

    id: str = Field(min_length=1, max_length=200)
    source: Source
    title: str
    text: str
    labels: list[str] = Field(default_factory=list)
    license: str
    tlp: Tlp
    lang: str = "en"
    sha256_raw: Sha256
    sha256_text: Sha256
    redactions: dict[str, int] = Field(default_factory=dict)
    pipeline_version: str


class ChunkMeta(Frozen):
    """What a chunk can be found and filtered by."""

    technique_ids: list[str] = Field(default_factory=list)
    cve_ids: list[str] = Field(default_factory=list)
    event_ids: list[str] = Field(default_factory=list)
    platforms: list[str] = Field(default_factory=list)
    license: str
    tlp: Tlp


class Chunk(Frozen):
    """A passage of one record: `record.text[start:end] == text`."""

    id: str
    record_id: str
    ordinal: int = Field(ge=0)
    heading_path: list[str]
    text: str
    start: int = Field(ge=0)
    end: int = Field(ge=0)
    meta: ChunkMeta
    n_tokens: int = Field(ge=0)
    sha256: Sha256


class Hit(Frozen):
    """A retrieved chunk; `score` is the fused score, higher is better, and only ranks within one query."""

    chunk: Chunk
    title: str
    score: float
    found_by: dict[str, int] = Field(default_factory=dict)
    """Rank (1 is best) of the chunk in each retriever that returned it."""


class Finding(Frozen):
    """What a guard saw or did, in words an analyst can read."""

    code: str
    severity: Literal["info", "warning", "error"]
    message: str


class Citation(Frozen):
    """A verbatim quote: the record's text from `start` to `end`, with its own hash."""

    n: int = Field(ge=1)
    chunk_id: str
    record_id: str
    title: str
    heading_path: list[str]
    quote: str
    start: int = Field(ge=0)
    end: int = Field(ge=0)
    sha256: Sha256
    license: str
    tlp: Tlp


class Claim(Frozen):
    """One sentence of an answer and the citations that carry it; `support` is 1.0 for a verbatim sentence."""

    text: str
    citations: list[int]
    support: Score


class Identifiers(Frozen):
    """Identifiers in the answer, each present in a cited passage or in the question."""

    technique_ids: list[str] = Field(default_factory=list)
    cve_ids: list[str] = Field(default_factory=list)
    event_ids: list[str] = Field(default_factory=list)


class Lineage(Frozen):
    """Digests (sha256, or the word "none") of everything that shaped an answer."""

    box: str
    base: str
    adapter: str
    index: str
    embedder: str
    prompt: str
    policy: str


class Timings(Frozen):
    """Where the time went, in milliseconds and tokens; zero where a stage did not run."""

    retrieve_ms: float = 0.0
    ttft_ms: float = 0.0
    total_ms: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


class Answer(Frozen):
    """What `ask` returns. Every quote has been compared with the record after decoding."""

    id: str
    request_id: str | None = None
    status: Status
    answer: str
    claims: list[Claim] = Field(default_factory=list)
    citations: list[Citation] = Field(default_factory=list)
    identifiers: Identifiers = Identifiers()
    tlp: Tlp = "clear"
    confidence: Score
    findings: list[Finding] = Field(default_factory=list)
    lineage: Lineage
    timings: Timings


class TechniqueMatch(Frozen):
    """An ATT&CK technique that the alert and a cited passage share evidence for."""

    id: str
    name: str
    score: Score
    citations: list[int]


class Observable(Frozen):
    """A value read from the alert by code; `role` says which side of the event it belongs to."""

    type: str
    value: str
    role: str


class Step(Frozen):
    """A recommended step, verbatim from a cited passage."""

    text: str
    citations: list[int]


class Triage(Frozen):
    """What `triage` returns. A verdict that closes an alert is never given on the model's word alone."""

    id: str
    request_id: str | None = None
    alert_id: str
    verdict: Verdict
    severity: AlertSeverity
    confidence: Score
    abstained: bool
    abstain_reason: str = ""
    summary: str
    techniques: list[TechniqueMatch] = Field(default_factory=list)
    observables: list[Observable] = Field(default_factory=list)
    recommended_steps: list[Step] = Field(default_factory=list)
    false_positive_checks: list[Step] = Field(default_factory=list)
    citations: list[Citation] = Field(default_factory=list)
    findings: list[Finding] = Field(default_factory=list)
    lineage: Lineage
    timings: Timings
