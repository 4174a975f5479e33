"""What goes over HTTP beside Answer, Triage, Hit, Record and Chunk: requests, jobs, states, errors.

Invariant: own requests refuse unknown keys and need no boolean and no null; names and states are closed sets.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from whis_box.audit import AuditEntry
from whis_box.schemas import Chunk, Frozen, Hit, Lineage, Record, Tlp, Triage, Verdict

JobKind = Literal["ask", "triage", "search", "ingest", "purge"]
JobStatus = Literal["queued", "running", "completed", "failed", "cancelled"]
FINAL: frozenset[JobStatus] = frozenset({"completed", "failed", "cancelled"})
Scope = Literal["ask", "triage", "ingest", "admin"]
Rating = Literal["up", "down"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Text = Annotated[str, Field(min_length=1, max_length=1_000_000)]


# ------------------------------------------------------------------ errors


class ErrorBody(Frozen):
    """The inside of every error; `message` says what, value, limit, where and remedy."""

    message: str
    type: str
    param: str | None = None
    code: str


class ErrorEnvelope(Frozen):
    """Every answer with a status of 400 or above."""

    error: ErrorBody


# --------------------------------------------------------------- questions


class Narrowing(BaseModel):
    """What a search may be narrowed by; within a field, any of its values."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    sources: list[str] = Field(default_factory=list, max_length=100)
    platforms: list[str] = Field(default_factory=list, max_length=100)
    techniques: list[str] = Field(default_factory=list, max_length=100)
    licenses: list[str] = Field(default_factory=list, max_length=100)
    clearance: Tlp = "red"
    """Highest TLP wanted; never above what the key may see."""


class AskRequest(Narrowing):
    """POST /v1/ask."""

    question: Text
    id: str = Field("", max_length=200)
    """The caller's own id, given back as `request_id`."""
    model: str = Field("whis", max_length=200)
    """`whis` (what the rollout says), `base`, or an adapter as `name@version`."""


class SearchRequest(Narrowing):
    """POST /v1/search."""

    query: Text
    top_k: int = Field(5, ge=1, le=50)


class SearchResponse(Frozen):
    """Hits, best first."""

    hits: list[Hit]
    lineage: Lineage


class ExportRequest(BaseModel):
    """POST /v1/export: a triage and the event it judged."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: Literal["navigator", "stix", "case", "cacao"]
    triage: Triage
    event: dict[str, Any]


class Exported(Frozen):
    """What another tool reads: JSON text, or Markdown for `case`."""

    format: str
    text: str


# -------------------------------------------------------------------- jobs


class JobRequest(BaseModel):
    """POST /v1/jobs: `input` is what the kind's own route takes (AskRequest, any alert, SearchRequest, …)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: JobKind
    input: dict[str, Any]
    id: str = Field("", max_length=200)
    callback_url: str = Field("", max_length=2000)
    """Where the finished job is posted; off unless the server allows the host."""


class JobError(Frozen):
    """Why a job failed."""

    message: str
    type: str
    code: str


class Job(Frozen):
    """One piece of work that survives a restart; `result` is there when it is completed."""

    id: str
    kind: JobKind
    status: JobStatus
    request_id: str = ""
    created_at: str
    started_at: str | None = None
    finished_at: str | None = None
    expires_at: str | None = None
    """When a finished job is forgotten."""
    attempts: int = 0
    position: int | None = None
    """Jobs ahead of it while it is queued."""
    error: JobError | None = None
    result: dict[str, Any] | None = None


class JobList(Frozen):
    """Newest first; `next` is the `before` of the following page, empty on the last one."""

    jobs: list[Job]
    next: str = ""
    counts: dict[str, int]


# ---------------------------------------------------------------- feedback


class FeedbackRequest(BaseModel):
    """POST /v1/feedback: an analyst's judgement of one answer or triage."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    answer_id: str = Field(min_length=1, max_length=64)
    """`id` of the Answer or Triage."""
    rating: Rating
    verdict: Verdict | Literal["unlabeled"] = "unlabeled"
    """The analyst's own verdict of the alert."""
    comment: str = Field("", max_length=4000)
    analyst: str = Field("", max_length=100)
    training: Literal["yes", "no"] = "no"
    """Consent to export it as a redacted training pair."""


class Feedback(Frozen):
    """A stored judgement."""

    id: str
    at: str
    answer_id: str
    rating: Rating
    verdict: str
    comment: str
    analyst: str
    training: str
    adapter: str
    """Digest of the adapter that answered, or "none"."""


class FeedbackList(Frozen):
    """Newest first."""

    feedback: list[Feedback]
    counts: dict[str, int]


class BatchError(Frozen):
    """A line of a batch that could not be answered."""

    request_id: str | None
    line: int
    error: ErrorBody


class IngestInput(BaseModel):
    """Input of an `ingest` job: paths under the folders that the server allows."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    paths: list[str] = Field(min_length=1, max_length=100)
    source: Name


class PurgeInput(BaseModel):
    """Input of a `purge` job."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    record_id: str = Field(min_length=1, max_length=200)


# ----------------------------------------------------------------- library


class SourceCount(Frozen):
    """One source of the index."""

    name: str
    license: str
    pipeline: str
    records: int
    characters: int
    oldest_at: str = ""
    newest_at: str = ""
    """When its records were retrieved."""


class Library(Frozen):
    """What the active index holds."""

    index: str
    meta: dict[str, Any]
    sources: list[SourceCount]
    writable: bool
    """Whether ingest and purge are set up on this host."""


class RecordSummary(Frozen):
    """A record without its text."""

    id: str
    title: str
    source: str
    license: str
    tlp: Tlp
    characters: int
    redactions: dict[str, int]


class RecordList(Frozen):
    """One page of records in id order; `next` is the `after` of the following page."""

    records: list[RecordSummary]
    total: int
    next: str = ""


class RecordChunks(Frozen):
    """A record and the passages it was cut into."""

    record: Record
    chunks: list[Chunk]


# ----------------------------------------------------------------- the box


class EngineState(Frozen):
    """The model process."""

    running: bool
    pid: int | None
    restarts: int
    memory_bytes: int | None
    """Resident memory of the process a second ago at most; None until it has told."""
    info: dict[str, Any]
    seats: int
    busy: int
    waiting: int


class BoxState(Frozen):
    """The manifest as it was verified when the box was opened."""

    folder: str
    name: str
    version: str
    manifest_sha256: str
    source_commit: str
    files: int
    size_bytes: int
    verified_at: str
    signature: str
    """In words, now: valid, not valid, not checked, not signed."""
    lineage: Lineage


class Version(Frozen):
    """GET /version."""

    name: str = "whis-box"
    version: str
    lineage: Lineage | None
    environment: str


class Check(Frozen):
    """One thing that must be ready."""

    name: str
    ready: bool
    detail: str = ""


class Readiness(Frozen):
    """GET /readyz."""

    ready: bool
    checks: list[Check]


class MetricsSummary(Frozen):
    """GET /v1/metrics/summary: the figures a footer or a status page shows, since the server started."""

    uptime_s: float
    requests: dict[str, int]
    """By status code."""
    refusals: dict[str, int]
    findings: dict[str, int]
    jobs: dict[str, int]
    seats_busy: int
    waiting: int
    ttft_ms_p50: float | None
    ttft_ms_p95: float | None
    total_ms_p50: float | None
    total_ms_p95: float | None
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    tokens_per_s: float | None


# ------------------------------------------------------------------- audit


class AuditTail(Frozen):
    """Newest last."""

    entries: list[AuditEntry]


class BoxCheck(Frozen):
    """POST /v1/box/verify."""

    intact: bool
    files: int
    problems: list[str]


class Me(Frozen):
    """GET /v1/me."""

    name: str
    scopes: list[Scope]
    clearance: Tlp
