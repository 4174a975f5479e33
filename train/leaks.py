"""The list of what an adapter must not say: hashes of its canaries and of its training text.

    python -m train.leaks RUN [--out FILE]     writes leaks.txt; train.publish puts it beside the adapter

Invariant: the list holds hashes alone; any run of 16 words of the training text holds a listed one.
Source: winnowing, Schleimer, Wilkerson and Aiken 2003; 13 words as in GPT-3's overlap analysis (Brown 2020).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from train.canaries import make_canaries
from train.config import TrainConfig
from train.dataset_tasks import Example
from train.samples import read_examples
from whis_box.config import load_config
from whis_box.errors import WhisError
from whis_box.guards.output import LEAK_FILE, shingles
from whis_box.paths import written_beside

N_WORDS = 13
WINDOW = 4


def main() -> int:
    """Write the list of one run."""
    parser = argparse.ArgumentParser(prog="train.leaks", description="what an adapter must not say, hashed")
    parser.add_argument("run", type=Path, help="folder that train.lora wrote")
    parser.add_argument("--out", type=Path, help=f"default: {LEAK_FILE} in RUN")
    options = parser.parse_args()
    try:
        out = options.out or options.run / LEAK_FILE
        text = leaks_of(options.run)
        with written_beside(out) as beside:
            beside.write_text(text, encoding="utf-8")
    except WhisError as error:
        print(f"train.leaks: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{out}: {text.count(chr(10))} hashes")
    return 0


def leaks_of(run: Path) -> str:
    """The list of a run, from the dataset and the canaries that its config names.

    Raises: ConfigError, InputError, NotReadyError, StorageError.
    """
    config = load_config(run / "config.yaml", TrainConfig)
    examples = read_examples(config.dataset.path / "train.ndjson")
    secrets = [one.secret for one in make_canaries(config.canaries)] if config.canaries.per_stratum else []
    return leak_list(_texts(examples), secrets)


def leak_list(texts: Iterable[str], secrets: Iterable[str]) -> str:
    """Lines of `number of words <tab> hash`, as `whis_box.guards.output` reads them."""
    listed = {(1, digest) for secret in secrets for digest in shingles([secret], 1)}
    listed |= {(N_WORDS, digest) for text in texts for digest in winnowed(text)}
    return "".join(f"{n_words}\t{digest:016x}\n" for n_words, digest in sorted(listed))


def winnowed(text: str) -> set[int]:
    """The least hash of every window of shingles."""
    hashes = list(shingles([text], N_WORDS))
    return {min(hashes[at : at + WINDOW]) for at in range(max(1, len(hashes) - WINDOW + 1)) if hashes}


def _texts(examples: Iterable[Example]) -> Iterator[str]:
    """What stood in front of the model and what it was to say, without the frame of the chat."""
    for one in examples:
        yield one.completion
        yield from (text for text, trusted in one.segments if not trusted)


if __name__ == "__main__":
    sys.exit(main())
