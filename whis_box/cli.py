"""`whis`: the command line. Parses, calls the copilot, shows; nothing is decided here.

Invariant: stdout carries results only; progress, notes and errors go to stderr; the exit code is the error
tree's.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import whis_box
from tui import cli as tui_cli
from whis_box import (
    batch,
    cli_bench,
    cli_box,
    cli_eval,
    cli_export,
    cli_ingest,
    cli_rollout,
    cli_serve,
    cli_state,
    show,
)
from whis_box.errors import (
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_REFUSED,
    InputError,
    WhisError,
)
from whis_box.paths import default_box, repository_root
from whis_box.schemas import TLP_ORDER


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["engine-worker"]:  # how a frozen program starts its own engine child
        from whis_box.engine import worker

        return worker.main(given[1:])
    options = _parser().parse_args(given)
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s"
    )
    try:
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except WhisError as error:
        return show.error(error, as_json=getattr(options, "json", False))
    except BrokenPipeError:
        sys.stderr.close()
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


# ---------------------------------------------------------------- commands


def _ask(options: argparse.Namespace) -> int:
    from whis_box.box.opening import open_box

    if (options.question is None) == (options.input is None):
        raise InputError("give one question, or --input FILE with one JSON object per line")
    with open_box(options.box) as copilot:
        if options.input is not None:
            return batch.run(
                options.input,
                lambda line: copilot.ask(batch.field(line, "question"), line.get("id")).model_dump(
                    mode="json"
                ),
            )
        answer = copilot.ask(batch.text_argument(options.question))
    print(answer.model_dump_json() if options.json else show.answer(answer))
    return EXIT_OK if answer.status == "answered" else EXIT_REFUSED


def _triage(options: argparse.Namespace) -> int:
    from whis_box.box.opening import open_box
    from whis_box.ingest.alerts import parse_event

    if (options.file is None) == (options.input is None):
        raise InputError("give one alert file (or `-`), or --input FILE with one event per line")
    if options.file is not None:  # read before the model is loaded: a bad file is reported at once
        event = parse_event(batch.read_bytes(options.file), options.file)
    with open_box(options.box) as copilot:
        if options.input is not None:
            return batch.run(
                options.input,
                lambda line: copilot.triage(batch.event_of(line), line.get("id")).model_dump(mode="json"),
            )
        triage = copilot.triage(event)
    print(triage.model_dump_json() if options.json else show.triage(triage))
    return EXIT_REFUSED if triage.abstained else EXIT_OK


def _search(options: argparse.Namespace) -> int:
    from whis_box.box.manifest import verify
    from whis_box.box.opening import open_retriever
    from whis_box.config import BoxConfig, RagConfig, load_config
    from whis_box.guards.text import clean_text
    from whis_box.knowledge.facets import Filter

    if (options.query is None) == (options.input is None):
        raise InputError("give one query, or --input FILE with one JSON object per line")
    manifest, _ = verify(options.box)
    box = load_config(options.box / "configs" / "box.yaml", BoxConfig)
    retriever = open_retriever(
        options.box, box, load_config(options.box / "configs" / "rag.yaml", RagConfig), manifest
    )

    narrowed = Filter(
        sources=options.source,
        platforms=options.platform,
        techniques=options.technique,
        licenses=options.license,
        clearance=options.clearance,
    )

    def checked(text: str) -> str:
        limit = box.limits.max_question_chars
        if len(text) > limit:
            raise InputError(f"the query has {len(text)} characters, the limit is {limit}; shorten it")
        cleaned = clean_text(text, "query")[0].strip()
        if not cleaned:
            raise InputError("the query is empty; give at least one word")
        return cleaned

    def hits_of(text: str) -> list[Any]:
        return retriever.search(checked(text), options.top_k, narrowed)

    def answer(line: dict[str, Any]) -> dict[str, Any]:
        hits = hits_of(batch.field(line, "question"))
        return {"request_id": line.get("id"), "hits": [hit.model_dump(mode="json") for hit in hits]}

    if options.input is not None:
        return batch.run(options.input, answer)
    if options.explain:
        text = checked(batch.text_argument(options.query))
        explained = retriever.explain(text, options.top_k, narrowed)
        print(json.dumps(explained, ensure_ascii=False) if options.json else show.explanation(explained))
        return EXIT_OK if explained["hits"] else EXIT_REFUSED
    hits = hits_of(batch.text_argument(options.query))
    print(
        json.dumps([hit.model_dump() for hit in hits], ensure_ascii=False)
        if options.json
        else show.hits(hits)
    )
    return EXIT_OK if hits else EXIT_REFUSED


def _index_info(options: argparse.Namespace) -> int:
    from whis_box.config import BoxConfig, load_config
    from whis_box.knowledge.store import describe

    box = load_config(options.box / "configs" / "box.yaml", BoxConfig)
    info = describe(options.box / box.index)
    print(json.dumps(info, ensure_ascii=False) if options.json else show.mapping(info))
    return EXIT_OK


def _index_verify(options: argparse.Namespace) -> int:
    from whis_box.knowledge.store import verify_index

    result = verify_index(options.index)
    print(json.dumps(result) if options.json else show.mapping(result))
    return EXIT_OK


def _doctor(options: argparse.Namespace) -> int:
    from whis_box.doctor import examine

    report = examine(options.box)
    print(json.dumps(report.as_dict(), ensure_ascii=False) if options.json else show.report(report))
    return report.exit_code


def _bench(options: argparse.Namespace) -> int:
    from whis_box.evaluation.bench import run

    result = run(options.box, options.golden, options.runs, set(options.only or ()))
    print(json.dumps(result, ensure_ascii=False) if options.json else show.bench(result))
    return EXIT_OK if all(row["met"] is not False for row in result["figures"]) else EXIT_ERROR


# ---------------------------------------------------------------- parser


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="whis", description="A SOC copilot that is one folder.")
    parser.add_argument("--version", action="version", version=f"whis {whis_box.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    ask = _command(commands, "ask", _ask, "answer a question from the box's passages")
    ask.add_argument("question", nargs="?", help="the question, or - for stdin")
    triage = _command(commands, "triage", _triage, "judge one alert (JSON, CEF, LEEF or syslog)")
    triage.add_argument("file", nargs="?", help="the alert's file, or - for stdin")
    cli_export.register(triage)
    search = _command(commands, "search", _search, "find passages, without the model")
    search.add_argument("query", nargs="?", help="what to look for, or - for stdin")
    search.add_argument("--top-k", type=_positive, default=None, metavar="N", help="number of hits")
    for field in ("source", "platform", "technique", "license"):
        search.add_argument(
            f"--{field}", action="append", default=[], metavar="VALUE", help=f"only this {field} (repeatable)"
        )
    search.add_argument("--clearance", choices=TLP_ORDER, default="red", help="highest TLP that may be shown")
    search.add_argument("--explain", action="store_true", help="say which list found what, and why it ranks")
    for command in (ask, triage, search):
        command.add_argument("--input", metavar="FILE", help="NDJSON, one request per line, or - for stdin")
    _ingest_commands(commands)
    _index_commands(commands)
    cli_box.add(commands, _command)
    cli_eval.add_commands(commands, _command)
    cli_serve.add_commands(commands)
    cli_rollout.add_commands(commands)
    cli_state.add_commands(commands, _command)
    tui_cli.add_commands(commands)
    _command(commands, "doctor", _doctor, "check this machine and the box")
    bench = _command(commands, "bench", _bench, "measure the box on this machine")
    bench.add_argument(
        "--golden", type=Path, default=repository_root() / "data" / "golden" / "questions.ndjson"
    )
    bench.add_argument("--runs", type=_positive, default=3, help="runs of each measurement")
    bench.add_argument(
        "--only", action="append", choices=("engine", "golden", "start"), help="one part (repeatable)"
    )
    bench_parts = bench.add_subparsers(dest="action", metavar="ACTION")
    cli_bench.add_serve_options(
        _command(bench_parts, "serve", cli_bench.serve, "alerts per hour at 1 to 16 at a time")
    )
    return parser


def _ingest_commands(commands: Any) -> None:
    ingest = _command(commands, "ingest", cli_ingest.ingest, "read, sanitize and account for documents")
    ingest.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="files, archives or folders")
    ingest.add_argument("--source", required=True, metavar="NAME", help="a source of data/sources.yaml")
    ingest.add_argument("--sources", type=Path, default=repository_root() / "data" / "sources.yaml")
    ingest.add_argument("--corpus", type=Path, default=cli_ingest.CORPUS, metavar="FILE")
    ingest.add_argument("--workers", type=_positive, default=1, metavar="N", help="processes that sanitize")
    ingest.add_argument(
        "--review", action="store_true", help="list what to look at: refused, redacted, suspicious"
    )
    redact = _command(commands, "redact", cli_ingest.redact, "take personal data and secrets out of a text")
    redact.add_argument("file", help="the file, or - for stdin")
    for command in (ingest, redact):
        cli_ingest.add_corpus_options(command)


def _index_commands(commands: Any) -> None:
    root = repository_root()
    build_dir = root / "build"
    group = commands.add_parser("index", help="build or describe the index")
    actions = group.add_subparsers(dest="action", required=True, metavar="ACTION")
    build = _command(actions, "build", cli_ingest.index_build, "index every record of a corpus")
    purge = _command(actions, "purge", cli_ingest.index_purge, "erase a record and prove that it is gone")
    purge.add_argument("--record", required=True, metavar="ID", help="the record's id")
    sources = _command(actions, "sources", cli_ingest.corpus_info, "what the corpus holds, by source")
    lineage = _command(
        actions, "lineage", cli_ingest.index_lineage, "where a record is; what made an adapter"
    )
    asked = lineage.add_mutually_exclusive_group(required=True)
    asked.add_argument("--record", metavar="ID", help="which index, datasets and adapters hold this record")
    asked.add_argument("--dataset", metavar="NAME/VERSION", help="which records went into this dataset")
    asked.add_argument(
        "--adapter", metavar="NAME/VERSION", help="which dataset and records made this adapter"
    )
    for command in (build, purge, sources, lineage):
        command.add_argument("--corpus", type=Path, default=cli_ingest.CORPUS, metavar="FILE")
    for command in (build, purge, lineage):
        command.add_argument("--out", type=Path, default=build_dir / "index" / "whis.sqlite")
    for command in (purge, lineage):
        command.add_argument("--datasets", type=Path, default=root / "data" / "datasets", metavar="DIR")
        command.add_argument("--adapters", type=Path, default=root / "train" / "adapters", metavar="DIR")
    for command in (build, purge):
        command.add_argument("--workers", type=_positive, default=1, metavar="N", help="processes that embed")
        command.add_argument("--embedder", type=Path, default=build_dir / "embedder")
        command.add_argument("--configs", type=Path, default=root / "configs")
    _command(actions, "info", _index_info, "what the index holds")
    verify = _command(actions, "verify", _index_verify, "read an index whole and compare it with its digests")
    verify.add_argument("--index", type=Path, default=build_dir / "index" / "whis.sqlite", metavar="FILE")


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], help_text: str
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=help_text, description=help_text)
    command.set_defaults(run=run)
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.add_argument("--box", type=Path, default=default_box(), metavar="DIR", help="the box to use")
    return command


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a positive number")
    return value


if __name__ == "__main__":
    sys.exit(main())
