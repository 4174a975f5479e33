"""Make a training dataset from the corpus and our own lists: split by document, versioned, hashed, carded.

    python -m train.dataset [--corpus FILE] [--name whis-soc] [--version 2]

writes data/datasets/<name>/<version>/{train,val,test}.ndjson, manifest.json, records.ndjson and README.md.
Invariant: the same inputs and embedder give the same bytes; no document, command, refusal or payload stands
in two splits; nothing that the golden sets ask is learned; only records that allow training are read.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from train import dataset_tasks as tasks
from train.dataset_tasks import Command, Example, Observed, Question, Split, Task
from train.overlap import GoldenTexts
from train.served_facts import ServedFacts, served_facts
from whis_box import prompts
from whis_box.config import RagConfig, load_config, read_lines
from whis_box.errors import InputError, VerificationError, WhisError
from whis_box.ingest.corpus import open_existing
from whis_box.ingest.sources import SourcesConfig
from whis_box.knowledge.embedder import MODEL_FILE, Embedder
from whis_box.knowledge.techniques import Catalogue
from whis_box.paths import file_sha256, read_text, repository_root, source_commit, written_beside
from whis_box.schemas import Record

ROOT = repository_root()
CODE_VERSION = "2"
SEED = 20
SPLITS: tuple[Split, ...] = get_args(Split)


def main() -> int:
    """Build one dataset and print its card's figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, default=ROOT / "build" / "corpus" / "corpus.sqlite")
    parser.add_argument("--lists", type=Path, default=ROOT / "data" / "training")
    parser.add_argument("--golden", type=Path, default=ROOT / "data" / "golden")
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "datasets")
    parser.add_argument("--embedder", type=Path, default=ROOT / "build" / "embedder")
    parser.add_argument("--name", default="whis-soc")
    parser.add_argument("--version", default="2")
    options = parser.parse_args()
    try:
        rag = load_config(ROOT / "configs" / "rag.yaml", RagConfig)
        retrieval = Retrieval(
            Embedder(options.embedder, rag.embedder_dim, len(os.sched_getaffinity(0))),
            file_sha256(options.embedder / MODEL_FILE),
            rag,
        )
        target = options.out / options.name / options.version
        manifest = build(options.corpus, options.lists, options.golden, target, retrieval)
    except WhisError as error:
        print(f"train.dataset: {error}", file=sys.stderr)
        return error.exit_code
    print(
        json.dumps({name: manifest[name] for name in ("sha256", "examples", "dropped_as_golden")}, indent=1)
    )
    return 0


@dataclass(frozen=True)
class Retrieval:
    """What finds the facts beside a question, as in serving."""

    embedder: Embedder
    embedder_sha256: str
    rag: RagConfig


def build(corpus: Path, lists: Path, golden: Path, target: Path, retrieval: Retrieval) -> dict[str, object]:
    """Write one version of one dataset below `target` and give its manifest.

    Raises: InputError for a bad list; VerificationError if this version exists with other content.
    """
    records = trainable(corpus)
    by_split: dict[Split, list[Record]] = {split: [] for split in SPLITS}
    for record in records:
        by_split[split_of(record.id)].append(record)
    asked = GoldenTexts(golden)
    dropped: Counter[str] = Counter()
    files: dict[str, bytes] = {}
    counts: dict[str, dict[str, int]] = {}
    used: set[str] = set()
    for split in SPLITS:
        kept: dict[str, Example] = {}
        for task, record_ids, prompt, completion in _made(split, by_split[split], lists, retrieval):
            body = prompt.segments[3][0]
            if asked.holds(_asked_of(task, body)):
                dropped[task] += 1
                continue
            example = _example(task, split, record_ids, prompt, completion)
            kept[example.id] = example
            used.update(record_ids)
        ordered = [kept[name] for name in sorted(kept)]
        files[f"{split}.ndjson"] = _lines(ordered)
        counts[split] = dict(sorted(Counter(one.task for one in ordered).items()))
    _refuse_leaks(files)
    lineage = [record for record in records if record.id in used]
    files["records.ndjson"] = b"".join(
        json.dumps(
            {
                "id": one.id,
                "source": one.source.name,
                "license": one.license,
                "tlp": one.tlp,
                "sha256_text": one.sha256_text,
            }
        ).encode()
        + b"\n"
        for one in lineage
    )
    manifest: dict[str, object] = {
        "name": target.parent.name,
        "version": target.name,
        "sha256": _digest(files),
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())},
        "examples": counts,
        "dropped_as_golden": dict(sorted(dropped.items())),
        "golden_texts": asked.n_texts,
        "records_by_source": dict(sorted(Counter(one.source.name for one in lineage).items())),
        "records_by_license": dict(sorted(Counter(one.license for one in lineage).items())),
        "pipeline_version": sorted({one.pipeline_version for one in lineage}),
        "prompt_sha256": prompts.prompt_sha256(),
        "embedder_sha256": retrieval.embedder_sha256,
        "code_version": CODE_VERSION,
        "seed": SEED,
        "commit": source_commit(),
    }
    _write(target, files, manifest)
    return manifest


def trainable(corpus: Path) -> list[Record]:
    """Records whose source may be trained on, by id.

    Raises: NotReadyError without a corpus; InputError for a source that is not listed.
    """
    listed = load_config(ROOT / "data" / "sources.yaml", SourcesConfig).sources
    with open_existing(corpus) as opened:
        records = list(opened.records())
    unknown = {record.source.name for record in records} - set(listed)
    if unknown:
        raise InputError(f"{corpus}: sources {', '.join(sorted(unknown))} are not in data/sources.yaml")
    return [record for record in records if "train" in listed[record.source.name].uses]


def split_of(key: str) -> Split:
    """80 % train, 10 % val, 10 % test; decided by the key alone, so that it never changes."""
    bucket = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % 10
    return "test" if bucket == 0 else "val" if bucket == 1 else "train"


def _made(split: Split, records: Sequence[Record], lists: Path, retrieval: Retrieval) -> tasks.Made:
    with served_facts(records, retrieval.embedder, retrieval.embedder_sha256, retrieval.rag) as served:
        yield from _with_facts(split, records, lists, served)


def _with_facts(split: Split, records: Sequence[Record], lists: Path, served: ServedFacts) -> tasks.Made:
    rng = random.Random(f"{SEED}/{split}")
    ids = {record.id for record in records}
    questions = [one for one in read_lines(lists / "questions.ndjson", Question) if one.record_id in ids]
    _check_verbatim(questions, served)
    commands = [
        one for one in read_lines(lists / "commands.ndjson", Command) if split_of(one.command_line) == split
    ]
    observed = [
        one
        for one in read_lines(lists / "events.ndjson", Observed)
        if split_of(json.dumps(one.event, sort_keys=True)) == split
    ]
    payloads = [line for line in _text_lines(lists / "injections.txt") if split_of(line) == split]
    forbidden = [line for line in _text_lines(lists / "refusals.txt") if split_of(line) == split]
    allowed = [line for line in _text_lines(lists / "dual_use.txt") if split_of(line) == split]
    catalogue = Catalogue(ROOT / "data" / "catalogue" / "attack-enterprise.tsv")
    yield from tasks.grounded(questions, served, rng)
    yield from tasks.injected(questions, served, payloads, rng)
    yield from tasks.refusals(forbidden, served, rng)
    yield from tasks.dual_use(allowed, served, rng)
    yield from tasks.rules(records, served, rng)
    yield from tasks.queries(records, served, rng)
    events = [*(one.occurred(rng) for one in commands), *observed]
    yield from tasks.triage(events, served, catalogue, rng)


def _check_verbatim(questions: Sequence[Question], served: ServedFacts) -> None:
    wrong = [
        f"{one.record_id}: not a sentence of it: {text!r}"
        for one in questions
        for text in one.sentences
        if text not in {sentence.text for sentence in served.of_record[one.record_id]}
    ]
    if wrong:
        raise InputError("questions.ndjson: " + "\n".join(wrong[:20]))


def _asked_of(task: Task, body: str) -> str:
    """The part of a prompt that is the question, or the alert; facts may say what golden questions ask."""
    if task == "triage":
        return body.partition("command line: ")[2].partition("\n")[0]
    return body.rpartition("Question: ")[2]


def _example(
    task: Task, split: Split, record_ids: list[str], prompt: prompts.Prompt, completion: str
) -> Example:
    segments = list(prompt.segments)
    digest = hashlib.sha256(json.dumps([task, segments, completion]).encode()).hexdigest()[:16]
    return Example(
        id=digest, task=task, split=split, record_ids=record_ids, segments=segments, completion=completion
    )


def _lines(values: Sequence[Example]) -> bytes:
    return b"".join(one.model_dump_json().encode() + b"\n" for one in values)


def _refuse_leaks(files: dict[str, bytes]) -> None:
    """No record in two splits; the lists are split by the same hash, so this is the documents' turn."""
    of_split = {
        split: {
            record_id
            for line in files[f"{split}.ndjson"].splitlines()
            for record_id in json.loads(line)["record_ids"]
        }
        for split in SPLITS
    }
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        both = of_split[one] & of_split[other]  # type: ignore[index]
        if both:
            raise VerificationError(f"{sorted(both)[:3]} stand in {one} and {other}; report this")


def _digest(files: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, data in sorted(files.items()):
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()


def _write(target: Path, files: dict[str, bytes], manifest: dict[str, object]) -> None:
    held = target / "manifest.json"
    if held.is_file() and json.loads(held.read_bytes())["sha256"] != manifest["sha256"]:
        raise VerificationError(
            f"{target}: this version exists with other content (its inputs changed); "
            "give a new --version, or delete the folder if nothing was trained on it"
        )
    for name, data in files.items():
        with written_beside(target / name) as beside:
            beside.write_bytes(data)
    with written_beside(target / "README.md") as beside:
        beside.write_text(card(manifest))
    with written_beside(held) as beside:
        beside.write_text(json.dumps(manifest, indent=1) + "\n")


def card(manifest: dict[str, object]) -> str:
    """The dataset card, from the manifest alone."""
    counts: dict[str, dict[str, int]] = manifest["examples"]  # type: ignore[assignment]
    rows = [
        f"| {task} | " + " | ".join(str(counts[split].get(task, 0)) for split in SPLITS) + " |"
        for task in get_args(Task)
    ]
    sources: dict[str, int] = manifest["records_by_source"]  # type: ignore[assignment]
    licenses: dict[str, int] = manifest["records_by_license"]  # type: ignore[assignment]
    return "\n".join(
        [
            f"# Dataset {manifest['name']}, version {manifest['version']}",
            "",
            f"sha256 `{manifest['sha256']}` over all files; the files' own hashes are in `manifest.json`.",
            "",
            "| task | " + " | ".join(SPLITS) + " |",
            "|---|" + "---:|" * len(SPLITS),
            *rows,
            "",
            "Documents, commands, refusals and planted instructions are split, not examples: "
            "none stands in two splits.",
            "",
            "Records by source: " + ", ".join(f"{name} {n}" for name, n in sources.items()) + ".",
            "Records by licence: " + ", ".join(f"{name} {n}" for name, n in licenses.items()) + ".",
            f"Ingest pipeline {', '.join(manifest['pipeline_version'])}, "  # type: ignore[arg-type]
            f"prompts `{manifest['prompt_sha256']}`, made at commit `{manifest['commit']}`.",
            f"Left out because a golden set asks the same: {manifest['dropped_as_golden'] or 'none'} "
            f"(runs of six words, {manifest['golden_texts']} golden texts).",
            "",
            "Each line: id, task, split, record_ids, segments (text, trusted) as the engine gets them, "
            "completion. `records.ndjson` lists every record that went in.",
            "",
        ]
    )


def _text_lines(path: Path) -> list[str]:
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


if __name__ == "__main__":
    sys.exit(main())
