"""The suites by name. Each has NEEDS, the kinds of observation it scores, and score(), which asks nothing."""

from __future__ import annotations

from collections.abc import Callable

from whis_box.evaluation.evidence import Evidence
from whis_box.evaluation.results import SuiteResult
from whis_box.evaluation.suites import (
    answers,
    calibration,
    fine_tune,
    guards,
    latency,
    leakage,
    ragas,
    retrieval,
    triage,
)

Score = Callable[[Evidence], SuiteResult]

SUITES: dict[str, tuple[tuple[str, ...], Score]] = {
    "retrieval": (retrieval.NEEDS, retrieval.score),
    "answers": (answers.NEEDS, answers.score),
    "triage": (triage.NEEDS, triage.score),
    "ragas": (ragas.NEEDS, ragas.score),
    "guards": (guards.NEEDS, guards.score),
    "leakage": (leakage.NEEDS, leakage.score),
    "latency": (latency.NEEDS, latency.score),
    "calibration": (calibration.NEEDS, calibration.score),
    "fine_tune": (fine_tune.NEEDS, fine_tune.score),
}
