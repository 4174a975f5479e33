"""How long an analyst waits, and how much memory the box takes.

Times were taken while the questions were asked, one at a time, after a warm-up.
"""

from __future__ import annotations

import numpy as np

from whis_box.evaluation.evidence import Evidence
from whis_box.evaluation.results import Row, SuiteResult, not_measured, plain
from whis_box.schemas import Answer, Triage

NEEDS = ("ask", "triage")
QUANTILES = (50, 95, 99)
LONG_TOKENS = 8  # shorter completions say nothing about the rate


def score(evidence: Evidence) -> SuiteResult:
    """Quantiles over every question and alert that was asked."""
    asked = [one for (kind, _), one in evidence.seen.items() if kind == "ask"]
    alerts = [one for (kind, _), one in evidence.seen.items() if kind == "triage"]
    results = [one.answer or one.triage for one in (*asked, *alerts)]
    first = [one.timings.ttft_ms / 1000 for one in results if one is not None and one.timings.ttft_ms]
    rates = [rate for one in results if one is not None and (rate := _tokens_per_s(one))]
    retrieved = [one.answer.timings.retrieve_ms / 1000 for one in asked if one.answer is not None]
    rows = [
        *_quantiles("ask", [one.seconds for one in asked]),
        *_quantiles("triage", [one.seconds for one in alerts]),
        *_quantiles("ttft", first),
        *_quantiles("retrieve", retrieved),
        plain("tokens_per_s", float(np.median(rates)), len(rates), unit="tokens/s")
        if rates
        else not_measured("tokens_per_s", f"no completion had {LONG_TOKENS} tokens"),
        plain("peak_memory_mb", evidence.memory_mb, 1, "lower", "MB")
        if evidence.memory_mb is not None
        else not_measured("peak_memory_mb", "the answers were read from an earlier run", "lower"),
    ]
    return SuiteResult(
        suite="latency",
        rows=rows,
        plots={"ask_s": [one.seconds for one in asked], "triage_s": [one.seconds for one in alerts]},
    )


def _quantiles(name: str, seconds: list[float]) -> list[Row]:
    if not seconds:
        return [not_measured(f"{name}_p{q}_s", "nothing was asked", "lower") for q in QUANTILES]
    values = np.percentile(seconds, QUANTILES)
    return [
        plain(f"{name}_p{q}_s", float(value), len(seconds), "lower", "s")
        for q, value in zip(QUANTILES, values, strict=True)
    ]


def _tokens_per_s(result: Answer | Triage) -> float:
    """Rate after the first token, 0 for a completion that is too short to tell."""
    timings = result.timings
    spent_ms = timings.total_ms - timings.ttft_ms
    if timings.completion_tokens < LONG_TOKENS or spent_ms <= 0:
        return 0.0
    return (timings.completion_tokens - 1) / spent_ms * 1000
