"""Does prompt lookup pay? Tokens per second with 0, 2, 4 and 8 guessed tokens.

    python -m tests.bench.engine_speculation [--box DIR] [--runs N]

Three kinds of output: a triage summary under its grammar, an answer composed under its grammar, and free text
that is asked to repeat a passage. Greedy, one stream, the ways in turn; outputs must not differ in length
only because of a draft, so tokens per second are compared and changed outputs are counted.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from pathlib import Path

from tests.bench.engine_parts import generate, open_lane, open_model
from whis_box.box.opening import engine_spec
from whis_box.config import ModelConfig
from whis_box.engine.grammar import GrammarCompiler
from whis_box.engine.protocol import GenerateRequest
from whis_box.evaluation.bench import environment
from whis_box.paths import repository_root
from whis_box.prompts import answer_prompt, chat, triage_prompt

N_TOKENS = 80
DRAFTS = (0, 2, 4, 8)
ALERT = (
    "rule: Suspicious rundll32\nhost: ws-017\nuser: svc-backup\n"
    "command: rundll32.exe C:\\Windows\\System32\\comsvcs.dll MiniDump 640 C:\\Temp\\out.dmp full"
)
FACTS = [
    "Event 1102 is written to the Security log when the audit log is cleared.",
    "Event 104 is written to the System log when another log is cleared.",
    "Clearing logs is technique T1070.001, Clear Windows Event Logs.",
]


def workloads() -> dict[str, list[GenerateRequest]]:
    """Requests by kind of output."""
    techniques = [("T1003.001", "LSASS Memory"), ("T1218.011", "Rundll32")]
    triage = triage_prompt(ALERT, techniques)
    answers = [
        answer_prompt(question, FACTS, "compose", 3) for question in ("Which event?", "Which technique?")
    ]
    repeat = chat("You repeat text exactly.", "Repeat this text: " + " ".join(FACTS) + " " + ALERT)
    return {
        "triage": [GenerateRequest(triage.segments, triage.grammar, max_tokens=N_TOKENS, deadline_s=600)],
        "compose": [
            GenerateRequest(one.segments, one.grammar, max_tokens=N_TOKENS, deadline_s=600) for one in answers
        ],
        "repeat": [GenerateRequest(repeat, max_tokens=N_TOKENS, deadline_s=600)],
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--box", type=Path, default=repository_root() / "build" / "box")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0 takes what the machine has")
    options = parser.parse_args()
    spec = engine_spec(options.box / "models" / "base.gguf", ModelConfig())
    spec = replace(spec, n_threads=options.threads or spec.n_threads)
    binding, model = open_model(spec)
    compiler = GrammarCompiler(binding, model.vocab)
    lanes = {n: open_lane(model, replace(spec, n_draft=n, n_slots=1)) for n in DRAFTS}
    for key, value in environment(options.box).items():
        print(f"{key}: {value}")
    for kind, requests in workloads().items():
        rates: dict[int, list[float]] = {n: [] for n in DRAFTS}
        drafted, accepted, changed = (
            dict.fromkeys(DRAFTS, 0),
            dict.fromkeys(DRAFTS, 0),
            dict.fromkeys(DRAFTS, 0),
        )
        for _ in range(options.runs):
            for request in requests:
                plain: list[int] = []
                for n, lane in lanes.items():
                    constraint = compiler.compile(request.grammar) if request.grammar else None
                    one, rate = generate(lane, model, request, constraint, spec.n_threads)
                    plain = plain or one.output
                    rates[n].append(rate)
                    drafted[n] += one.n_drafted
                    accepted[n] += one.n_accepted
                    changed[n] += one.output != plain
        base = statistics.median(rates[0])
        for n in DRAFTS:
            median = statistics.median(rates[n])
            share = accepted[n] / drafted[n] if drafted[n] else 0.0
            print(
                f"{kind:<8} {n} guessed  {median:7.1f} tokens/s  ratio {median / base:5.3f}  "
                f"accepted {share:5.2f}  outputs changed {changed[n]}"
            )


if __name__ == "__main__":
    main()
