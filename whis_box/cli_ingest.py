"""The build host's commands of `whis`: ingest documents, redact text, build the index.

Invariant: as in cli.py, stdout carries results only; nothing is decided here.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whis_box import batch, show
from whis_box.errors import EXIT_OK, InputError
from whis_box.paths import repository_root
from whis_box.schemas import written_now

if TYPE_CHECKING:
    from whis_box.ingest.corpus import Corpus
    from whis_box.ingest.sanitize.policy import PolicyConfig

ROOT = repository_root()
CORPUS = ROOT / "build" / "corpus" / "corpus.sqlite"


def ingest(options: argparse.Namespace) -> int:
    """`whis ingest PATH... --source NAME`."""
    from whis_box.ingest.corpus import Corpus
    from whis_box.ingest.intake import Intake
    from whis_box.ingest.sanitize.policy import read_policy
    from whis_box.ingest.sanitize.pseudonyms import fingerprint, load_key
    from whis_box.ingest.sources import find_source

    policy = read_policy(options.configs)
    source = find_source(options.sources, options.source, policy)
    key, where = load_key(options.key_file)
    began_at = written_now()
    with Corpus(options.corpus) as corpus:
        pseudonyms = corpus.pseudonyms(key, fingerprint(key))
        intake = Intake(options.source, source, policy, corpus, pseudonyms, show.note)
        summary = intake.run(options.paths, options.workers)
        logs = corpus.export(options.corpus.parent)
        review = _review_of(corpus, options.source, began_at, policy) if options.review else {}
    result: dict[str, Any] = {
        "corpus": str(options.corpus),
        "source": options.source,
        "license": source.license,
        "tlp": source.tlp,
        "pseudonym_key": where,
        **summary.as_dict(),
        "logs": [str(path) for path in logs],
        **review,
    }
    print(json.dumps(result, ensure_ascii=False) if options.json else show.mapping(result))
    return EXIT_OK


def _review_of(corpus: Corpus, source: str, since: str, policy: PolicyConfig) -> dict[str, Any]:
    """`--review`: what a person should look at."""
    from whis_box.guards.detector import Detector
    from whis_box.ingest.review import import_review

    show.note("looking for passages to review")
    detector = Detector(ROOT / "data" / "guards", policy.guards.detector_threshold)
    return {"review": import_review(corpus, source, since, detector).model_dump()}


def redact(options: argparse.Namespace) -> int:
    """`whis redact FILE|-`."""
    from whis_box.guards.text import clean_text
    from whis_box.ingest.readers.draft import decode
    from whis_box.ingest.sanitize.analyzer import Analyzer
    from whis_box.ingest.sanitize.policy import read_policy
    from whis_box.ingest.sanitize.pseudonyms import Pseudonyms, load_key
    from whis_box.ingest.sanitize.redact import redact as redact_text

    policy = read_policy(options.configs)
    data = batch.read_bytes(options.file)
    if len(data) > batch.MAX_LINE_BYTES:
        raise InputError(
            f"{options.file}: more than {batch.MAX_LINE_BYTES} bytes; use `whis ingest` for files"
        )
    text = clean_text(decode(data)[0].replace("\r\n", "\n"), "text")[0]
    pseudonyms = Pseudonyms(load_key(options.key_file)[0])
    redacted = redact_text("stdin", text, Analyzer(policy).find(text), policy, pseudonyms)
    if options.json:
        log = [entry.model_dump() for entry in redacted.log]
        result = {"text": redacted.text, "redactions": redacted.counts, "log": log}
        print(json.dumps(result, ensure_ascii=False))
    else:
        print(redacted.text, end="" if redacted.text.endswith("\n") else "\n")
        show.note(", ".join(f"{kind} {count}" for kind, count in redacted.counts.items()) or "nothing found")
    return EXIT_OK


def index_build(options: argparse.Namespace) -> int:
    """`whis index build`."""
    from whis_box.ingest.build import build_if_needed

    summary, changed = build_if_needed(
        options.corpus, options.out, options.embedder, options.configs, show.progress, options.workers
    )
    state = "built" if changed else "unchanged"
    to_review = _review(options) if changed else None
    result = {
        "index": str(summary.path),
        "state": state,
        "records": summary.n_records,
        "chunks": summary.n_chunks,
        "sentences": summary.n_sentences,
        "sections_to_review": to_review,
    }
    if to_review:
        show.note(f"{to_review} sections look like orders to a model: read {_review_list(options.out)}")
    counts = f"{summary.n_records} records, {summary.n_chunks} chunks, {summary.n_sentences} sentences"
    print(json.dumps(result) if options.json else f"{summary.path}: {state}, {counts}")
    return EXIT_OK


def _review_list(index: Path) -> Path:
    return index.with_name(f"{index.name}.review.ndjson")


def _review(options: argparse.Namespace) -> int:
    """List the sections that the guards suspect."""
    from whis_box.guards.detector import Detector
    from whis_box.ingest.corpus import open_existing
    from whis_box.ingest.review import write_review
    from whis_box.ingest.sanitize.policy import read_policy

    threshold = read_policy(options.configs).guards.detector_threshold
    with open_existing(options.corpus) as corpus:
        return write_review(
            _review_list(options.out), corpus.records(), Detector(ROOT / "data" / "guards", threshold)
        )


def index_purge(options: argparse.Namespace) -> int:
    """`whis index purge --record ID`: erase, build again, prove."""
    from whis_box.ingest.build import build_if_needed
    from whis_box.ingest.lineage import Lineage
    from whis_box.ingest.purge import purge_record

    known = Lineage(options.corpus, options.out, options.datasets, options.adapters).of_record(options.record)
    erasure = purge_record(options.corpus, options.record)
    build_if_needed(
        options.corpus, options.out, options.embedder, options.configs, show.progress, options.workers
    )
    corpus: Path = options.corpus
    vectors = options.out.with_name(f"{options.out.name}.vectors")
    files = [corpus, corpus.with_name(f"{corpus.name}-wal"), options.out, vectors]
    searched = erasure.prove(files)
    result = {
        "record": options.record,
        "passages_searched_for": len(erasure.passages),
        "passages_found": 0,
        "bytes_searched": searched,
        "still_in_datasets": known["datasets"],
        "still_in_adapters": known["adapters"],
        "next": "assemble and install a new box, make the datasets again and train the adapters anew",
    }
    print(json.dumps(result) if options.json else show.mapping(result))
    return EXIT_OK


def index_lineage(options: argparse.Namespace) -> int:
    """`whis index lineage`: where a record is, or what a dataset or an adapter was made from."""
    from whis_box.ingest.lineage import Lineage

    known = Lineage(options.corpus, options.out, options.datasets, options.adapters)
    if options.record:
        result = known.of_record(options.record)
    else:
        result = known.of_dataset(options.dataset) if options.dataset else known.of_adapter(options.adapter)
    print(json.dumps(result, ensure_ascii=False) if options.json else show.mapping(result))
    return EXIT_OK


def corpus_info(options: argparse.Namespace) -> int:
    """`whis index sources`: what the corpus holds, by source and licence."""
    from whis_box.ingest.corpus import open_existing

    with open_existing(options.corpus) as corpus:
        info = corpus.summary()
    print(json.dumps(info, ensure_ascii=False) if options.json else show.mapping(info))
    return EXIT_OK


def add_corpus_options(command: argparse.ArgumentParser) -> None:
    """Options that ingest and redact share."""
    command.add_argument("--configs", type=Path, default=ROOT / "configs", metavar="DIR")
    command.add_argument(
        "--key-file", type=Path, default=None, metavar="FILE", help="pseudonym key; else WHIS_PSEUDONYM_KEY"
    )
