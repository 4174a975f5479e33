"""Prometheus metrics of one server; names end in their unit, and no text of anybody stands in a label."""

from __future__ import annotations

import time
from collections import deque

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.registry import Collector

from whis_box.schemas import Answer, Triage
from whis_box.server.wire import MetricsSummary

SECONDS = (0.005, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 20, 30, 60)
RECENT = 1000
KNOWN_FINDINGS = 200  # labels of one metric; guards name their findings from a closed list


class Metrics:
    """Counts what happens; one registry a server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._started = time.monotonic()
        self._requests: dict[str, int] = {}
        self._refusals: dict[str, int] = {}
        self._findings: dict[str, int] = {}
        self._recent: deque[tuple[float, float]] = deque(maxlen=RECENT)
        self._tokens = {"prompt": 0, "cached": 0, "completion": 0}
        self._writing_s = 0.0
        registry = self.registry
        self.requests = Counter(
            "whis_http_requests", "Requests by route and status.", ["route", "status"], registry=registry
        )
        self.duration = Histogram(
            "whis_http_request_seconds", "Whole requests.", ["route"], buckets=SECONDS, registry=registry
        )
        self.ttft = Histogram(
            "whis_ttft_seconds", "Time to the first token.", ["release"], buckets=SECONDS, registry=registry
        )
        self.total = Histogram(
            "whis_answer_seconds",
            "Retrieval and generation of one answer.",
            ["kind", "release"],
            buckets=SECONDS,
            registry=registry,
        )
        self.retrieval = Histogram(
            "whis_retrieval_seconds", "Retrieval of one answer.", buckets=SECONDS, registry=registry
        )
        self.tokens = Counter(
            "whis_tokens", "Tokens by kind: prompt, cached, completion.", ["kind"], registry=registry
        )
        self.outcomes = Counter(
            "whis_outcomes", "Answers by status, triages by verdict.", ["kind", "outcome"], registry=registry
        )
        self.refusals = Counter(
            "whis_refusals", "Requests that got an error, by its code.", ["code"], registry=registry
        )
        self.findings = Counter("whis_guard_findings", "Findings of the guards.", ["code"], registry=registry)
        self.jobs = Counter(
            "whis_jobs", "Jobs by kind and state reached.", ["kind", "state"], registry=registry
        )
        self.shadow = Counter(
            "whis_rollout_comparisons", "Shadow and canary comparisons.", ["outcome"], registry=registry
        )

    def gauge(self, name: str, text: str, read: object) -> None:
        """A value that is read when it is asked for."""
        gauge = Gauge(name, text, registry=self.registry)
        gauge.set_function(read)  # type: ignore[arg-type]

    def collect_with(self, collector: Collector) -> None:
        """Add a source of metrics."""
        self.registry.register(collector)

    def note_request(self, route: str, status: int, seconds: float) -> None:
        """One finished request."""
        self.requests.labels(route, str(status)).inc()
        self.duration.labels(route).observe(seconds)
        self._requests[str(status)] = self._requests.get(str(status), 0) + 1

    def note_refusal(self, code: str) -> None:
        """One error answer."""
        self.refusals.labels(code).inc()
        self._refusals[code] = self._refusals.get(code, 0) + 1

    def note_result(self, result: Answer | Triage, release: str) -> None:
        """One answer or triage."""
        kind, outcome = (
            ("ask", result.status) if isinstance(result, Answer) else ("triage", str(result.verdict))
        )
        timings = result.timings
        self.outcomes.labels(kind, outcome).inc()
        self.total.labels(kind, release).observe(timings.total_ms / 1000)
        self.retrieval.observe(timings.retrieve_ms / 1000)
        if timings.prompt_tokens:
            self.ttft.labels(release).observe(timings.ttft_ms / 1000)
            self._recent.append((timings.ttft_ms, timings.total_ms))
            self._writing_s += max(0.0, timings.total_ms - timings.ttft_ms) / 1000
        for name, count in (
            ("prompt", timings.prompt_tokens),
            ("cached", timings.cached_tokens),
            ("completion", timings.completion_tokens),
        ):
            self.tokens.labels(name).inc(count)
            self._tokens[name] += count
        for finding in result.findings:
            code = finding.code if len(self._findings) < KNOWN_FINDINGS else "other"
            self.findings.labels(code).inc()
            self._findings[code] = self._findings.get(code, 0) + 1

    def text(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)

    def summary(self, jobs: dict[str, int], busy: int, waiting: int) -> MetricsSummary:
        """The same as figures; None where nothing was measured."""
        ttft = sorted(one for one, _ in self._recent)
        total = sorted(one for _, one in self._recent)
        written = self._tokens["completion"]
        return MetricsSummary(
            uptime_s=round(time.monotonic() - self._started, 1),
            requests=dict(self._requests),
            refusals=dict(self._refusals),
            findings=dict(self._findings),
            jobs=jobs,
            seats_busy=busy,
            waiting=waiting,
            ttft_ms_p50=quantile(ttft, 0.5),
            ttft_ms_p95=quantile(ttft, 0.95),
            total_ms_p50=quantile(total, 0.5),
            total_ms_p95=quantile(total, 0.95),
            prompt_tokens=self._tokens["prompt"],
            cached_tokens=self._tokens["cached"],
            completion_tokens=written,
            tokens_per_s=round(written / self._writing_s, 1) if self._writing_s else None,
        )


def quantile(ordered: list[float], share: float) -> float | None:
    """Nearest rank of sorted values; None of nothing."""
    if not ordered:
        return None
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)
