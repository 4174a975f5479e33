"""configs/server.yaml: where the server listens, whom it lets in, and its limits.

Invariant: no secret stands here; keys come from the environment or a file that only its owner can read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from whis_box.config import Section
from whis_box.schemas import Tlp


class ListenConfig(Section):
    """Where to listen; flags of `whis serve` win."""

    host: str = "127.0.0.1"
    """Address; any other than loopback needs keys, and TLS or `plain_http`."""
    port: int = Field(8088, ge=0, le=65535)
    """TCP port; 0 lets the system choose, and the line on stderr says which."""
    uds: Path | None = None
    """Unix socket instead of TCP."""
    tls_cert: Path | None = None
    """PEM certificate chain."""
    tls_key: Path | None = None
    """PEM private key."""
    plain_http: bool = False
    """Allow an address other than loopback without TLS."""
    allowed_hosts: list[str] = Field(default_factory=list)
    """Host names a request may carry beside loopback names and the address itself."""


class AccessConfig(Section):
    """Who may do what."""

    keys_file: Path | None = None
    """API keys, hashed (`whis keys add`); reloaded on SIGHUP."""
    key_header: str = "ph-auth-token"
    """Accepted beside `Authorization: Bearer` and `X-API-Key`; this one is Splunk SOAR's default."""
    local_clearance: Tlp = "red"
    """Highest TLP for a caller on loopback or the Unix socket without a key."""


class HttpLimits(Section):
    """Sizes and times above which a request is refused."""

    max_body_bytes: int = Field(5_000_000, ge=1024)
    """Bytes of one request body; a batch may have `max_batch_bytes`."""
    max_batch_bytes: int = Field(64_000_000, ge=1024)
    """Bytes of an NDJSON batch."""
    max_batch_lines: int = Field(10_000, ge=1)
    """Lines of an NDJSON batch."""
    body_timeout_s: float = Field(20.0, gt=0)
    """Time for a body to arrive."""
    request_timeout_s: float = Field(120.0, gt=0)
    """Time for an answer; a job has its own."""
    max_waiting: int = Field(64, ge=1)
    """Requests that wait for a seat before 503."""
    max_connections: int = Field(512, ge=1)
    """Open connections before 503."""
    rate_per_minute: int = Field(600, ge=1)
    """Requests of one key or local caller."""
    concurrency: int = Field(32, ge=1)
    """Requests of one key or local caller at a time."""


class JobsConfig(Section):
    """The job store."""

    path: Path | None = None
    """SQLite file; jobs.sqlite in the state folder if not given."""
    max_queued: int = Field(10_000, ge=1)
    """Queued jobs before 503."""
    keep_hours: float = Field(72.0, gt=0)
    """How long a finished job, and its idempotency key, is kept."""
    max_attempts: int = Field(5, ge=1)
    """Starts of one job before it counts as failed."""


class CallbackConfig(Section):
    """Posting finished jobs, signed by Standard Webhooks."""

    hosts: list[str] = Field(default_factory=list)
    """Host names (with :port if not the scheme's own) that may be called; none switches callbacks off."""
    timeout_s: float = Field(10.0, gt=0)
    """Time for one delivery."""
    retries_s: list[float] = Field(default_factory=lambda: [0.0, 5.0, 30.0, 300.0])
    """Wait before each try."""


class AuditConfig(Section):
    """The audit log."""

    content: Literal["digests", "full"] = "digests"
    """What is kept of questions, alerts and answers: their sha256, or the text itself."""
    rotate_bytes: int = Field(50_000_000, ge=10_000)
    """Size at which a new file is begun; the chain goes on."""


class WatchConfig(Section):
    """Hashing the box again while it runs."""

    round_s: float = Field(21_600.0, gt=0)
    """Time in which every file of the box is looked at once."""
    on_change: Literal["refuse", "report"] = "refuse"
    """After a file differs: answer nothing until the next start, or only say so in log, audit and metrics."""


class LibraryConfig(Section):
    """Ingest and purge over HTTP; only where the build half is installed."""

    corpus: Path | None = None
    """The corpus file; none switches ingest and purge off."""
    index: Path | None = None
    """The index that a purge builds again; the build half's own if not given."""
    allowed_folders: list[Path] = Field(default_factory=list)
    """Folders whose files may be ingested."""


class ServerConfig(Section):
    """configs/server.yaml."""

    seats: int = Field(2, ge=1, le=64)
    """Requests worked on at a time; each seat holds its own connection to the index."""
    listen: ListenConfig = ListenConfig()
    """Where to listen."""
    access: AccessConfig = AccessConfig()
    """Who may do what."""
    limits: HttpLimits = HttpLimits()
    """Sizes and times."""
    jobs: JobsConfig = JobsConfig()
    """The job store."""
    callbacks: CallbackConfig = CallbackConfig()
    """Signed callbacks."""
    audit: AuditConfig = AuditConfig()
    """The audit log."""
    watch: WatchConfig = WatchConfig()
    """Hashing the box again."""
    library: LibraryConfig = LibraryConfig()
    """Ingest and purge."""
    drain_s: float = Field(30.0, ge=0)
    """Time that requests under way get after SIGTERM; jobs go back to the queue."""
