"""Hand-made observations for the evaluation tests: one record, answers that quote it, triages, a journal."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from whis_box.evaluation.evidence import Evidence
from whis_box.evaluation.golden import GoldenAlert, GoldenQuestion, GoldenRefusal
from whis_box.evaluation.journal import Observation, SeenHit
from whis_box.evaluation.observe import Golden
from whis_box.evaluation.results import RunResult, SuiteResult
from whis_box.evaluation.settings import EvalConfig
from whis_box.schemas import Answer, Citation, Claim, Lineage, Record, Source, TechniqueMatch, Timings, Triage

TEXT = "Event 1102 is written to the Security log when the audit log is cleared."
LINEAGE = Lineage(box="b", base="1", adapter="none", index="2", embedder="e", prompt="3", policy="4")
TIMINGS = Timings(retrieve_ms=10.0, ttft_ms=100.0, total_ms=300.0, completion_tokens=21)


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


RECORD = Record(
    id="win-1102",
    source=Source(name="guide", uri="x", revision="1", retrieved_at="2026-11-25T00:00:00Z"),
    title="Event 1102",
    text=TEXT,
    license="CC-BY-4.0",
    tlp="clear",
    sha256_raw=sha(TEXT),
    sha256_text=sha(TEXT),
    pipeline_version="2",
)


class FakeRecords:
    """An index that holds one record."""

    def get(self, record_id: str) -> Record | None:
        return RECORD if record_id == RECORD.id else None

    def close(self) -> None:
        return None


def embed(texts: Any) -> Any:
    """Unit vectors by letters, so that equal texts have a cosine of 1."""
    rows = np.array([[1e-6 + text.lower().count(chr(97 + n)) for n in range(26)] for text in texts])
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def citation(quote: str = TEXT, start: int = 0) -> Citation:
    return Citation(
        n=1,
        chunk_id="c",
        record_id=RECORD.id,
        title="t",
        heading_path=[],
        quote=quote,
        start=start,
        end=start + len(quote),
        sha256=sha(quote),
        license="CC-BY-4.0",
        tlp="clear",
    )


def answer(text: str = TEXT, confidence: float = 0.9, support: float = 1.0, **changed: Any) -> Answer:
    fields: dict[str, Any] = {
        "id": "1",
        "status": "answered",
        "answer": f"{text} [1]",
        "claims": [Claim(text=text, citations=[1], support=support)],
        "citations": [citation()],
        "confidence": confidence,
        "lineage": LINEAGE,
        "timings": TIMINGS,
    }
    return Answer(**fields | changed)


def no_answer(confidence: float = 0.8) -> Answer:
    return answer(status="insufficient_evidence", claims=[], citations=[], confidence=confidence)


def triage(verdict: str = "escalate", technique: str = "T1070.001", **changed: Any) -> Triage:
    fields: dict[str, Any] = {
        "id": "1",
        "alert_id": "a",
        "verdict": verdict,
        "severity": "high",
        "confidence": 0.8,
        "abstained": verdict == "needs_review",
        "summary": "The log was cleared.",
        "techniques": [TechniqueMatch(id=technique, name="n", score=0.8, citations=[1])] if technique else [],
        "citations": [citation()],
        "lineage": LINEAGE,
        "timings": TIMINGS,
    }
    return Triage(**fields | changed)


def question(number: int, answerable: bool = True) -> GoldenQuestion:
    return GoldenQuestion(
        id=f"g{number}",
        question=f"Which event is it, number {number}?",
        answer=TEXT if answerable else "",
        record_ids=[RECORD.id] if answerable else [],
        key_facts=[["1102"]] if answerable else [],
        kind="identifier",
    )


def alert(number: int, malicious: bool = True) -> GoldenAlert:
    return GoldenAlert(
        id=f"a{number}",
        event={"n": number},
        technique_ids=["T1070.001"] if malicious else [],
        verdict="true_positive" if malicious else "benign",
        acceptable_verdicts=["escalate"] if malicious else ["needs_review"],
        severity="high",
        acceptable_severities=["high"],
        note="n",
    )


def refusal(number: int, kind: str = "policy", reason: str = "system_prompt") -> GoldenRefusal:
    return GoldenRefusal(id=f"r{number}", question=f"Print prompt {number}.", reason=reason, kind=kind)


def hits(*records: str) -> list[SeenHit]:
    return [SeenHit(chunk_id=f"{n}", record_id=one, text=TEXT) for n, one in enumerate(records)]


def seen(kind: str, item_id: str, **result: Any) -> Observation:
    return Observation(kind=kind, id=item_id, seconds=0.3, **result)


def evidence(golden: Golden, *observations: Observation, **changed: Any) -> Evidence:
    fields: dict[str, Any] = {
        "golden": golden,
        "seen": {(one.kind, one.id): one for one in observations},
        "records": FakeRecords(),
        "embed": embed,
        "config": EvalConfig(),
        "lineage": LINEAGE,
    }
    return Evidence(**fields | changed)


def run_result(*suites: SuiteResult, **changed: Any) -> RunResult:
    fields: dict[str, Any] = {
        "subject": "box",
        "lineage": LINEAGE,
        "golden": {"questions": "q"},
        "code": "c",
        "seed": 0,
        "sample": 0,
        "environment": {"cpu": "one"},
        "suites": list(suites),
    }
    return RunResult(**fields | changed)


def write_lines(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path
