"""`whis eval`: run the suites, gate a box, compare two, write the report.

Invariant: as in cli.py, stdout carries results only; nothing is decided here.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whis_box import show
from whis_box.errors import EXIT_ERROR, EXIT_OK
from whis_box.paths import repository_root

if TYPE_CHECKING:
    from whis_box.evaluation.run import Settings

ROOT = repository_root()
OUT = ROOT / "build" / "eval"


def run(options: argparse.Namespace) -> int:
    """`whis eval run [--suite NAME ...]`."""
    from whis_box.evaluation.report import write_report
    from whis_box.evaluation.run import run as evaluate
    from whis_box.evaluation.subject import parse_subject
    from whis_box.evaluation.tables import rows_table

    settings = _settings(options)
    result, folder = evaluate(parse_subject(options.subject, options.box, options.out / "boxes"), settings)
    write_report(folder, result, settings.config)
    print(result.model_dump_json() if options.json else rows_table(result))
    show.note(f"{folder}: results.json, observations.ndjson, report.md, report.html")
    return EXIT_OK


def gate(options: argparse.Namespace) -> int:
    """`whis eval gate [RUN]`: 0 if every row holds, 1 if one does not."""
    from whis_box.evaluation.gate import gate_run
    from whis_box.evaluation.run import newest_run
    from whis_box.evaluation.settings import EvalConfig
    from whis_box.evaluation.tables import gate_table

    config = _config(options, EvalConfig)
    verdict = gate_run(options.run_folder or newest_run(options.out), config)
    print(verdict.model_dump_json() if options.json else gate_table(verdict))
    return EXIT_OK if verdict.passed else EXIT_ERROR


def compare(options: argparse.Namespace) -> int:
    """`whis eval compare A B`: B against A, question by question."""
    from whis_box.evaluation.compare import compare_runs
    from whis_box.evaluation.run import run_or_read
    from whis_box.evaluation.tables import comparison_table

    settings = _settings(options)
    a, b = (run_or_read(text, options.box, settings) for text in (options.a, options.b))
    comparison = compare_runs(a, b, settings.config.seed)
    print(comparison.model_dump_json() if options.json else comparison_table(comparison))
    return EXIT_OK


def _config(options: argparse.Namespace, kind: Any) -> Any:
    from whis_box.config import load_config

    return load_config(options.eval_config, kind)


def _settings(options: argparse.Namespace) -> Settings:
    from whis_box.evaluation.run import Settings, default_dataset
    from whis_box.evaluation.settings import EvalConfig

    config = _config(options, EvalConfig)
    if options.judge is not None:
        judge = config.judge.model_copy(update={"model": options.judge})
        config = config.model_copy(update={"judge": judge})
    return Settings(
        config=config,
        golden=options.golden,
        dataset=options.dataset or default_dataset(),
        out=options.out,
        suites=options.suite,
        attacks=options.attacks,
        sample=options.sample,
        allow_missing=options.allow_missing_records,
        undefended=options.undefended,
    )


def add_commands(commands: Any, command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `eval run|gate|compare` to the command line."""
    group = commands.add_parser("eval", help="measure a box, gate it, compare two")
    actions = group.add_subparsers(dest="action", required=True, metavar="ACTION")
    running = command(actions, "run", run, "ask the golden questions and score what comes back")
    running.add_argument(
        "--subject", default="box", help="box, NAME@VERSION, or adapter|index|base|configs|box:PATH"
    )
    comparing = command(actions, "compare", compare, "compare B with A: subjects, or folders of runs")
    comparing.add_argument("a", metavar="A")
    comparing.add_argument("b", metavar="B")
    gating = command(actions, "gate", gate, "hold a run against configs/eval.yaml; exit 1 if it fails")
    gating.add_argument("run_folder", type=Path, nargs="?", metavar="RUN", help="a run's folder (the newest)")
    for one in (running, comparing):
        one.add_argument("--suite", action="append", default=[], metavar="NAME", help="a suite (repeatable)")
        one.add_argument("--golden", type=Path, default=ROOT / "data" / "golden", metavar="DIR")
        one.add_argument(
            "--attacks", type=Path, default=ROOT / "data" / "attacks" / "attacks.ndjson", metavar="FILE"
        )
        one.add_argument(
            "--dataset", type=Path, default=None, metavar="DIR", help="for fine_tune and leakage"
        )
        one.add_argument("--sample", type=_count, default=0, metavar="N", help="N of each golden set; 0 all")
        one.add_argument("--judge", default=None, metavar="MODEL", help="box, none, a GGUF or a local URL")
        one.add_argument("--undefended", type=Path, default=None, metavar="RUN", help="a run without guards")
        one.add_argument("--allow-missing-records", action="store_true", help="score them as misses")
    for one in (running, comparing, gating):
        one.add_argument("--out", type=Path, default=OUT, metavar="DIR", help="where runs are kept")
        one.add_argument("--eval-config", type=Path, default=ROOT / "configs" / "eval.yaml", metavar="FILE")


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is negative")
    return value
