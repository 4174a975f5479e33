"""What the guards take for an attack, refuse and cost; attacks themselves are in `tests.bench.attacks`.

    python -m tests.bench.guards alarms   --box DIR [--corpora DIR]
    python -m tests.bench.guards thresholds --box DIR [--corpora DIR] [--detector FOLDER]
    python -m tests.bench.guards requests --box DIR
    python -m tests.bench.guards cost     --box DIR [--runs 200]

ATT&CK, Sigma and real events are read from `--corpora` where it is given; they are no part of the repository.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.attacks.corpus import payloads
from tests.attacks.disguises import DISGUISES
from tests.attacks.harness import target, wilson
from tests.bench.alert_reading import events
from whis_box.engine.cpu import cpu_model, thread_count
from whis_box.errors import InputError
from whis_box.guards.detector import STRICTER, Detector
from whis_box.guards.gate import Gate
from whis_box.guards.output import harmless
from whis_box.guards.requests import RequestRules
from whis_box.guards.screen import screen_evidence, screen_fields
from whis_box.ingest.alerts import parse_event, read_alert
from whis_box.knowledge.sentences import split_blocks
from whis_box.paths import repository_root, source_commit

ROOT = repository_root()
GOLDEN = ROOT / "data" / "golden"
THRESHOLDS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
REFUSAL_GROUPS = (
    ("training_data", 39), ("system_prompt", 39), ("secrets", 40),
    ("offensive_tooling", 40), ("out_of_scope", 40), ("tlp", 40),
)  # fmt: skip  # the order of data/training/refusals.txt


def main() -> int:
    """Run one part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("alarms", "thresholds", "requests", "cost"))
    parser.add_argument("--box", type=Path, default=ROOT / "build" / "box")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--corpora", type=Path, default=None)
    parser.add_argument("--detector", type=Path, default=None, help="another folder of guards to measure")
    options = parser.parse_args()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    print(f"{cpu_model()}, {thread_count()} threads, {now}, commit {source_commit()}, {options.part}")
    globals()[f"run_{options.part}"](options)
    return 0


# ---------------------------------------------------------------- false alarms, requests, cost


def row(name: str, successes: int, total: int, more: object = "") -> None:
    """One line of the table."""
    low, high = wilson(successes, total)
    print(
        f"{name:24} {successes:4}/{total:<5} {successes / max(1, total):6.2%}  "
        f"[{low:.2%}, {high:.2%}]  {more}"
    )


def run_alarms(options: argparse.Namespace) -> None:
    """How often harmless texts are suspected, by passage."""
    detector = _gate(options.box).detector
    for name, found in _harmless(options.corpora).items():
        alarms = [(text, one) for text in found if (one := detector.detect(text)).suspected]
        row(name, len(alarms), len(found))
        for text, one in alarms[:6]:
            print(f"    {one.score:.2f} {one.reason}: {text[:110]!r}")
    for name, alerts in _alerts(options.corpora).items():
        marked = [screen_fields(one, detector).suspected for one in alerts]
        row(name, sum(map(bool, marked)), len(alerts))
        for fields, suspected in zip(alerts, marked, strict=True):
            if suspected:
                print(f"    {suspected[0]}: {fields[suspected[0]][:110]!r}")


def run_thresholds(options: argparse.Namespace) -> None:
    """False alarms and attacks seen at each threshold; every text is read once."""
    detector = Detector(options.detector, 0.5) if options.detector else _gate(options.box).detector
    sets = _harmless(options.corpora)
    sets |= {f"attacks, {half}": _attack_texts(half) for half in ("development", "held-out")}
    print(f"{'':26}" + "".join(f"{threshold:>9.2f}" for threshold in THRESHOLDS))
    for name, texts in sets.items():
        counts = Counter[float]()
        for text in texts:
            found = list(detector.scored(text))
            counts.update(one for one in THRESHOLDS if _reaches(found, one))
        cells = "".join(f"{counts[one] / max(1, len(texts)):>9.2%}" for one in THRESHOLDS)
        print(f"{name:26}{cells}  of {len(texts)}", flush=True)
    for name, alerts in _alerts(options.corpora).items():
        highest = Counter[float]()
        for fields in alerts:
            scored = [list(detector.scored(text)) for text in fields.values() if len(text) > 8]
            highest.update(one for one in THRESHOLDS if any(_reaches(found, one) for found in scored))
        cells = "".join(f"{highest[one] / max(1, len(alerts)):>9.2%}" for one in THRESHOLDS)
        print(f"{name:26}{cells}  of {len(alerts)}", flush=True)


def _alerts(corpora: Path | None) -> dict[str, list[dict[str, str]]]:
    """The fields of whole alerts: one suspected field is a false alarm."""
    sets = {"golden alerts": [one["event"] for one in ndjson(GOLDEN / "alerts.ndjson")]}
    for name in ("sigma-events-dev.zip", "security-datasets-sample.zip") if corpora else ():
        assert corpora is not None
        sets[f"events, {name[:14]}"] = list(_parsed(events(name, (corpora / name).read_bytes())))
    return {
        name: [{"title": one.title, **one.fields} for one in map(read_alert, found)]
        for name, found in sets.items()
    }


def _parsed(raw_events: Iterator[tuple[str, bytes]]) -> Iterator[dict[str, Any]]:
    for where, raw in raw_events:
        try:
            yield parse_event(raw, where)
        except InputError as error:
            print(f"left out: {error}"[:160])


def _reaches(found: list[tuple[str, float, str]], threshold: float) -> bool:
    """What `Detector.detect` would say at `threshold`."""
    return any(
        signature or score - (1.0 - threshold) * STRICTER.get(reading, 0.0) >= threshold
        for reading, score, signature in found
    )


def _attack_texts(half: str) -> list[str]:
    """Every payload of a half in every disguise."""
    rng = random.Random(3)
    return [disguise(text, rng) for _, _, text in payloads(half) for disguise in DISGUISES.values()]


def _harmless(corpora: Path | None) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = {
        "field guide (trained on)": list(_guide()),
        "golden questions": [one["question"] for one in ndjson(GOLDEN / "questions.ndjson")],
        "dev questions": [one["question"] for one in ndjson(GOLDEN / "dev.ndjson")],
        "golden alerts, fields": [
            text
            for one in ndjson(GOLDEN / "alerts.ndjson")
            for text in read_alert(one["event"]).fields.values()
        ],
    }  # fmt: skip
    if corpora:
        texts["ATT&CK descriptions"] = list(_attack(corpora / "enterprise-attack.json.gz"))
        texts["Sigma rules"] = list(_sigma(corpora / "sigma-rules.zip"))
    return texts


def run_requests(options: argparse.Namespace) -> None:
    """Refusals on the training lists and the golden lists, and questions refused by mistake."""
    rules: RequestRules = _gate(options.box).requests
    lines = (ROOT / "data" / "training" / "refusals.txt").read_text(encoding="utf-8").splitlines()
    kinds = [kind for kind, count in REFUSAL_GROUPS for _ in range(count)]
    typed = [(rules.check(line), kind) for line, kind in zip(lines, kinds, strict=True)]
    row("refused, training list", sum(found is not None for found, _ in typed), len(typed))
    row(
        "  of the right class",
        sum(found is not None and found.kind == kind for found, kind in typed),
        len(typed),
    )
    golden = list(ndjson(GOLDEN / "refusals.ndjson"))
    policy = [one for one in golden if one["kind"] == "policy"]
    right = [one for one in policy if (found := rules.check(one["question"])) and found.kind == one["reason"]]
    row("refused, golden", len(right), len(policy))
    benign = {
        "dual use, golden": [one["question"] for one in golden if one["kind"] == "dual_use"],
        "dual use, training list": (ROOT / "data" / "training" / "dual_use.txt").read_text().splitlines(),
        "golden questions": _answerable("questions"),
        "dev questions": _answerable("dev"),
    }  # fmt: skip
    for name, questions in benign.items():
        wrong = [(found.kind, text) for text in questions if (found := rules.check(text)) is not None]
        row(f"refused by mistake, {name}", len(wrong), len(questions), wrong[:3])


def run_cost(options: argparse.Namespace) -> None:
    """Milliseconds of all guards together, for each request, nothing cached."""
    with target(options.box, real_model=False) as victim:
        gate: Gate = victim.copilot._parts.gate
        selector = victim.copilot._parts.selector
        spent: dict[str, list[float]] = {"ask": [], "triage": []}
        questions = [one["question"] for one in ndjson(GOLDEN / "questions.ndjson")][: options.runs]
        for question in questions:
            evidence = selector.select(question)
            gate.detector.detect.cache_clear()
            started = time.process_time()
            gate.requests.check(question)
            screened = screen_evidence(evidence, gate.detector, "red")
            text = harmless(" ".join(one.text for one in screened.evidence.sentences[:3]))
            gate.output.leak(text, [question, text])
            spent["ask"].append((time.process_time() - started) * 1000)
        for one in ndjson(GOLDEN / "alerts.ndjson"):
            alert = read_alert(one["event"])
            gate.detector.detect.cache_clear()
            started = time.process_time()
            screen_fields({"title": alert.title, **alert.fields}, gate.detector)
            spent["triage"].append((time.process_time() - started) * 1000)
        load = f"load {os.getloadavg()[0]:.1f}"
        for name, values in spent.items():
            p50, p95 = np.percentile(values, [50, 95])
            print(
                f"{name}: {len(values)} requests, p50 {p50:.1f} ms, p95 {p95:.1f} ms "
                f"of one core (limit 30), {load}"
            )


def _gate(box: Path) -> Gate:
    with target(box, real_model=False) as victim:
        return victim.copilot._parts.gate


def _answerable(name: str) -> list[str]:
    return [one["question"] for one in ndjson(GOLDEN / f"{name}.ndjson") if one["record_ids"]]


def ndjson(path: Path) -> Iterator[dict[str, Any]]:
    """Objects of a file."""
    for line in path.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def _guide() -> Iterator[str]:
    for path in sorted((ROOT / "data" / "raw").rglob("*.md")):
        text = path.read_text(encoding="utf-8").split("---", 2)[-1]
        for block in split_blocks(text):
            yield " ".join(text[span.start : span.end] for span in block.spans)


def _attack(path: Path) -> Iterator[str]:
    for one in json.loads(gzip.decompress(path.read_bytes()))["objects"]:
        if one.get("description") and not one.get("revoked"):
            yield from (part for part in one["description"].split("\n") if part.strip())


def _sigma(path: Path) -> Iterator[str]:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith((".yml", ".yaml")):
                for rule in yaml.safe_load_all(archive.read(name)):
                    if isinstance(rule, dict) and "title" in rule:
                        yield f"{rule['title']}. {rule.get('description', '')}"
                        yield yaml.safe_dump(rule.get("detection", {}))
                        yield from (str(one) for one in rule.get("falsepositives") or ())


if __name__ == "__main__":
    sys.exit(main())
