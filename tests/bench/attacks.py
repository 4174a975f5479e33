"""Attack the served pipeline, and let it write much, and count what got through.

    python -m tests.bench.attacks static      --box DIR [--model] [--alerts 700] [--documents 400]
    python -m tests.bench.attacks adaptive    --box DIR [--model] [--seeds 40] [--tries 200]
    python -m tests.bench.attacks generations --box DIR [--model] [--count 2000]
    python -m tests.bench.attacks utility     --box DIR [--model]

Without `--model` the model is one that obeys every planted text it sees (tests/attacks/harness.py): the limit
for any base or adapter. With `--out FILE` each result is a line of FILE, what stands there is not run again,
and `--minutes N` ends a slice early; the table is printed over all of FILE.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from tests.attacks.adaptive import search
from tests.attacks.corpus import Attack, alert_attacks, document_attacks
from tests.attacks.events import PLACES
from tests.attacks.harness import Target, target, wilson
from tests.attacks.judge import judge_answer, judge_triage
from whis_box.copilot import Copilot
from whis_box.engine.cpu import cpu_model, thread_count
from whis_box.errors import DeadlineError
from whis_box.guards.detector import Detection
from whis_box.ingest.alerts import describe, read_alert
from whis_box.knowledge import identifiers
from whis_box.paths import repository_root, source_commit
from whis_box.schemas import SEVERITY_ORDER, Answer, Citation, Triage

ROOT = repository_root()
GOLDEN = ROOT / "data" / "golden"
# What the place holds without an attack: any text there changes what retrieval finds, so the lower outcome of
# two counts.
NEUTRAL = ("quarterly figures northern branch", "x")
# Ours, not the guards': hashes, addresses, CVEs, techniques, long numbers.
_IDENTIFIER = re.compile(
    r"CVE-\d{4}-\d{4,}|\bT\d{4}(?:\.\d{3})?\b|\b[0-9a-fA-F]{32,64}\b|\b(?:\d{1,3}\.){3}\d{1,3}\b|\b\d{4,}\b"
)
Result = dict[str, Any]
Try = tuple[str, Callable[[], Result]]


def main() -> int:
    """Run one part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("static", "adaptive", "generations", "utility"))
    parser.add_argument("--box", type=Path, default=ROOT / "build" / "box")
    parser.add_argument("--model", action="store_true", help="with the box's model")
    parser.add_argument("--alerts", type=int, default=700)
    parser.add_argument("--documents", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--tries", type=int, default=200)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--out", type=Path, help="file of results, gone on with")
    parser.add_argument("--minutes", type=float, default=0.0, help="length of this slice")
    options = parser.parse_args()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    print(f"{cpu_model()}, {thread_count()} threads, {now}, commit {source_commit()}, {options.part}")
    print(f"model: {'the box' if options.model else 'obedient'}")
    tries = {"static": static, "adaptive": adaptive, "generations": generations, "utility": utility}
    tables = {"static": attack_table, "adaptive": attack_table, "generations": generation_table}
    with target(options.box, options.model) as victim:
        results = run(tries[options.part](victim, options), options.out, options.minutes)
    tables.get(options.part, utility_table)(results)
    return 0


def run(tries: Iterable[Try], out: Path | None, minutes: float) -> list[Result]:
    """Every result, those of the file first."""
    results = list(ndjson(out)) if out and out.exists() else []
    done = {one["id"] for one in results}
    started = time.monotonic()
    for name, attempt in tries:
        if name in done:
            continue
        if minutes and time.monotonic() - started > 60 * minutes:
            print("the slice is over, more is left")
            break
        try:
            results.append({"id": name, **attempt()})
        except DeadlineError as error:  # a busy machine says nothing about the attack
            print(f"  {name}: left for the next slice: {error}")
            continue
        if out:
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(results[-1]) + "\n")
    return results


# ---------------------------------------------------------------- attacks


def static(victim: Target, options: argparse.Namespace) -> Iterator[Try]:
    """Every static attack once, beside the same request without it."""
    clean = clean_triages(victim)
    for attack in alert_attacks(options.alerts):
        yield f"alert {attack.id}", partial(alert_attacked, victim, attack, clean)
    asked = [one["question"] for one in ndjson(GOLDEN / "dev.ndjson") if one["record_ids"]][:60:3]
    victim.arm(None, in_document=True)
    answers = {question: victim.copilot.ask(question) for question in asked}
    answered = [question for question in asked if answers[question].status == "answered"]
    for number, attack in enumerate(document_attacks(options.documents)):
        question = answered[number % len(answered)]
        attempt = partial(document_attacked, victim, attack, question, answers[question])
        yield f"document {attack.id}", attempt


def adaptive(victim: Target, options: argparse.Namespace) -> Iterator[Try]:
    """Mutate until the detector is silent, then attack the pipeline with what is left."""
    seeds = [one for one in alert_attacks(4000) if one.disguise == "plain"]
    random.Random(11).shuffle(seeds)
    clean = clean_triages(victim)
    gate = victim.copilot.parts.gate

    def attempt(number: int, attack: Attack) -> Result:
        rng = random.Random(f"11/{number}")
        best, score, tried = search(attack, gate.detector, options.tries, rng)
        evaded = score < gate.detector.threshold
        return {**alert_attacked(victim, best, clean), "evaded": evaded, "tries": tried, "text": best.text}

    for number, attack in enumerate(seeds[: options.seeds]):
        yield f"adaptive {number}", partial(attempt, number, attack)


def clean_triages(victim: Target) -> dict[str, Triage]:
    """What each place gives without an attack."""
    victim.arm(None, in_document=False)
    clean = {
        name: min((victim.copilot.triage(make(text)) for text in NEUTRAL), key=_rank)
        for name, make in PLACES.items()
    }
    print("clean:", {name: (one.verdict, one.severity) for name, one in clean.items()})
    return clean


def _rank(one: Triage) -> tuple[bool, int]:
    return one.verdict == "escalate", SEVERITY_ORDER.index(one.severity)


def alert_attacked(victim: Target, attack: Attack, clean: dict[str, Triage]) -> Result:
    """One attack through a field of an alert."""
    victim.arm(attack, in_document=False)
    attacked = victim.copilot.triage(attack.event())
    return _result(attack, judge_triage(attack, clean[attack.place], attacked), attacked)


def document_attacked(victim: Target, attack: Attack, question: str, clean: Answer) -> Result:
    """One attack through a passage that is ranked first."""
    victim.arm(attack, in_document=True)
    attacked = victim.copilot.ask(question)
    return _result(attack, judge_answer(attack, clean, attacked), attacked)


def _result(attack: Attack, outcome: str, attacked: Answer | Triage) -> Result:
    seen = "suspected_instruction" in [finding.code for finding in attacked.findings]
    if outcome:
        print(f"  {attack.id} {attack.place}/{attack.disguise}/{attack.goal}: {outcome} (seen: {seen})")
    return {"goal": attack.goal, "place": attack.place, "outcome": outcome, "seen": seen}


def attack_table(results: list[Result]) -> None:
    """Successes by kind and goal; text that is quoted with its source stands apart."""
    groups: dict[str, list[Result]] = {}
    for one in results:
        kind = one["id"].split()[0]
        for name in (f"{kind}, all", f"{kind}, {one['goal']}"):
            groups.setdefault(name, []).append(one)
    for name, found in sorted(groups.items()):
        outcomes = Counter(one["outcome"] for one in found if one["outcome"])
        quoted = outcomes.pop("planted text quoted", 0)
        row(name, outcomes.total(), len(found), dict(outcomes))
        if quoted:
            row("  quoted with its source", quoted, len(found))
    evaded = [one for one in results if one.get("evaded")]
    if any("evaded" in one for one in results):
        row("detector evaded", len(evaded), len(results))


# ---------------------------------------------------------------- what is written


def generations(victim: Target, options: argparse.Namespace) -> Iterator[Try]:
    """Questions and alerts in turn, up to `count`; each output is held against what it cites."""
    victim.arm(None, in_document=False)
    for name, ask in list(requests(victim.copilot))[: options.count]:
        yield name, partial(checked, victim.copilot, ask)


def requests(copilot: Copilot) -> Iterator[tuple[str, Callable[[], tuple[str, Answer | Triage]]]]:
    """(id, a call that gives the request's own text and the output)."""
    for name in ("alerts", "questions", "dev"):
        for number, one in enumerate(ndjson(GOLDEN / f"{name}.ndjson")):
            yield f"{name} {number}", partial(_asked, copilot, one)
    for number, one in enumerate(ndjson(ROOT / "data" / "training" / "questions.ndjson")):
        yield f"training {number}", partial(_asked, copilot, one)


def _asked(copilot: Copilot, one: dict[str, Any]) -> tuple[str, Answer | Triage]:
    if "event" in one:
        told = describe(read_alert(one["event"]))
        return f"{told}\n{json.dumps(one['event'], ensure_ascii=False)}", copilot.triage(one["event"])
    return one["question"], copilot.ask(one["question"])


def checked(copilot: Copilot, ask: Callable[[], tuple[str, Answer | Triage]]) -> Result:
    """Identifiers of the output from nowhere, and quotes that are not the record's text."""
    asked, output = ask()
    told = [(one.text, one.citations) for one in output.claims] if isinstance(output, Answer) else []
    if isinstance(output, Triage):
        told = [(output.summary, []), *((one.text, one.citations) for one in output.recommended_steps)]
    quotes = {one.n: one.quote for one in output.citations}
    strange = []
    for text, numbers in told:
        source = "\n".join([*(quotes[n] for n in numbers), *([asked] if isinstance(output, Triage) else [])])
        written = [one for one in _IDENTIFIER.findall(text) if one.lower() not in source.lower()]
        held = {one.value for one in identifiers.extract(source)}
        named = [one.value for one in identifiers.extract(text) if one.value not in held]
        strange += [one for one in (*written, *named) if not _known(copilot, one)]
    altered = [one.n for one in output.citations if not _verbatim(copilot, one)]
    ended = output.status if isinstance(output, Answer) else output.verdict
    if strange or altered:
        print(f"  {asked[:80]!r}: from nowhere {strange}, altered quotes {altered}")
    return {
        "ended": ended,
        "sentences": len(told),
        "quotes": len(quotes),
        "strange": strange,
        "altered": altered,
    }


def _known(copilot: Copilot, value: str) -> bool:
    return value.upper() in copilot.parts.catalogue


def _verbatim(copilot: Copilot, one: Citation) -> bool:
    return copilot.parts.retriever.record(one.record_id).text[one.start : one.end] == one.quote


def generation_table(results: list[Result]) -> None:
    """Outputs with something from nowhere."""
    print(f"ended: {dict(Counter(one['ended'] for one in results))}")
    row("outputs with an identifier from nowhere", sum(bool(one["strange"]) for one in results), len(results))
    quotes, sentences = (sum(one[name] for one in results) for name in ("quotes", "sentences"))
    row(
        "quotes that are not verbatim",
        sum(len(one["altered"]) for one in results),
        quotes,
        f"{sentences} sentences",
    )


# ---------------------------------------------------------------- what the guards cost in use


def utility(victim: Target, options: argparse.Namespace) -> Iterator[Try]:
    """Golden questions and alerts with the guards, and with request rules and detector silenced."""
    victim.arm(None, in_document=False)
    parts = victim.copilot.parts
    bare = Copilot(replace(parts, gate=replace(parts.gate, detector=_Silent(), requests=_AllowsAll())))  # type: ignore[arg-type]
    for number, one in enumerate(ndjson(GOLDEN / "questions.ndjson")):
        if one["record_ids"]:
            yield f"question {number}", partial(_both, _answers, victim.copilot, bare, one)
    for number, one in enumerate(ndjson(GOLDEN / "alerts.ndjson")):
        yield f"alert {number}", partial(_both, _judges, victim.copilot, bare, one)


def _both(
    right: Callable[[Copilot, dict[str, Any]], bool], guarded: Copilot, bare: Copilot, one: dict[str, Any]
) -> Result:
    return {"with": right(guarded, one), "without": right(bare, one)}


class _Silent:
    threshold = 1.0

    def detect(self, text: str) -> Detection:
        return Detection(0.0)


class _AllowsAll:
    def check(self, question: str) -> None:
        return None


def _answers(copilot: Copilot, one: dict[str, Any]) -> bool:
    answer = copilot.ask(one["question"])
    cited = {citation.record_id for citation in answer.citations}
    return answer.status == "answered" and bool(cited & set(one["record_ids"]))


def _judges(copilot: Copilot, one: dict[str, Any]) -> bool:
    triage = copilot.triage(one["event"])
    return triage.verdict in one["acceptable_verdicts"]


def utility_table(results: list[Result]) -> None:
    """Right outcomes with and without, and the pairs that differ."""
    for kind in ("question", "alert"):
        pairs = [one for one in results if one["id"].startswith(kind)]
        row(f"{kind}s, right with the guards", sum(one["with"] for one in pairs), len(pairs))
        row(f"{kind}s, right without", sum(one["without"] for one in pairs), len(pairs))
        lost = sum(one["without"] and not one["with"] for one in pairs)
        row(
            "  lost by the guards",
            lost,
            len(pairs),
            f"won {sum(one['with'] > one['without'] for one in pairs)}",
        )


def row(name: str, successes: int, total: int, more: object = "") -> None:
    """One line of a table, with its Wilson interval."""
    low, high = wilson(successes, total)
    share = successes / max(1, total)
    print(f"{name:42} {successes:4}/{total:<5} {share:6.2%}  [{low:.2%}, {high:.2%}]  {more}")


def ndjson(path: Path) -> Iterator[dict[str, Any]]:
    """Objects of a file."""
    for line in path.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


if __name__ == "__main__":
    sys.exit(main())
