"""How fast documents come in, with one process and with two, and how many documents redaction touches.

    python -m tests.bench.ingest_throughput SOURCE=PATH [SOURCE=PATH ...]

Prints for each source and number of workers: seconds, documents/s, MB/s of read bytes, the share of documents
that were changed, and then the time of an import in which nothing has changed, and the peak memory.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

from whis_box.evaluation.bench import environment
from whis_box.ingest.corpus import Corpus
from whis_box.ingest.intake import Intake, Summary
from whis_box.ingest.sanitize.policy import read_policy
from whis_box.ingest.sources import find_source
from whis_box.paths import default_box, repository_root

KEY = b"a key for a corpus that is thrown away"


def main() -> None:
    """Measure every source with one and two workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs="+", metavar="SOURCE=PATH")
    options = parser.parse_args()
    for key, value in environment(default_box()).items():
        print(f"{key}: {value}")
    for one in options.sources:
        name, _, path = one.partition("=")
        for workers in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                corpus = Path(folder) / "corpus.sqlite"
                summary, seconds, touched = run(name, Path(path), corpus, workers)
                _, again_s, _ = run(name, Path(path), corpus, workers)
            n, megabytes = summary.counts["drafts"], summary.counts["text_bytes"] / 1e6
            print(
                f"{name:<16} {workers} workers {seconds:7.1f} s  {n / seconds:7.1f} documents/s  "
                f"{megabytes / seconds:6.3f} MB/s  {touched} of {n} changed ({touched / max(1, n):.2%})  "
                f"unchanged again {again_s:.2f} s"
            )
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"peak memory of the main process {own:.0f} MB")


def run(name: str, path: Path, corpus_path: Path, workers: int) -> tuple[Summary, float, int]:
    """(summary, seconds, documents that redaction changed) of one import."""
    root = repository_root()
    policy = read_policy(root / "configs")
    source = find_source(root / "data" / "sources.yaml", name, policy)
    started = time.perf_counter()
    with Corpus(corpus_path) as corpus:
        intake = Intake(name, source, policy, corpus, corpus.pseudonyms(KEY, "bench"), lambda _: None)
        summary = intake.run([path], workers)
    seconds = time.perf_counter() - started
    with Corpus(corpus_path) as corpus:
        touched = sum(1 for record in corpus.records() if record.redactions)
        return summary, seconds, touched


if __name__ == "__main__":
    main()
