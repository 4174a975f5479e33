"""From a dataset on disk to token ids, checked: hashes, licences, markings, lengths.

Invariant: a sample's ids are those the engine would decode: trusted and untrusted segments are tokenized
apart, and the loss covers exactly the completion and the token that ends it.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from train.config import DatasetSection
from train.dataset_tasks import Example
from train.options import Judged, Tokenize, judged_options
from whis_box.config import read_lines
from whis_box.errors import InputError, VerificationError
from whis_box.paths import file_sha256, read_text
from whis_box.schemas import TLP_ORDER

REMEDY = "run `python -m train.dataset`"
# What closes the model's turn; trusted, as the markers of whis_box/prompts.py.
END_OF_TURN = ("<|im_end|>", True)


@dataclass(frozen=True)
class Sample:
    """One example as tokens."""

    id: str
    task: str
    ids: list[int]
    n_prompt: int
    n_choice: int = 0
    """Tokens of the answer's first line, which is the choice; what follows explains it."""
    judged: tuple[Judged, ...] = ()


def check_dataset(section: DatasetSection) -> dict[str, Any]:
    """The manifest of a dataset that may be trained on and is whole.

    Raises: VerificationError for a hash that differs; InputError naming licences and markings that are not
    allowed; NotReadyError; StorageError.
    """
    folder = section.path
    manifest: dict[str, Any] = json.loads(read_text(folder / "manifest.json", REMEDY))
    if section.sha256 not in (None, manifest["sha256"]):
        raise VerificationError(
            f"{folder}: the manifest says {manifest['sha256']}, the config {section.sha256}; "
            "take the dataset the config names, or change the config"
        )
    for name, wanted in manifest["files"].items():
        actual = file_sha256(folder / name, REMEDY)
        if actual != wanted:
            raise VerificationError(
                f"{folder / name}: sha256 is {actual}, the manifest says {wanted}; {REMEDY}"
            )
    _check_permission(section)
    return manifest


def _check_permission(section: DatasetSection) -> None:
    path = section.path / "records.ndjson"
    complaints = []
    for line in read_text(path, REMEDY).splitlines():
        record = json.loads(line)
        if record.get("license") not in section.licenses:
            complaints.append(f"{record['id']}: licence {record.get('license')} is not in dataset.licenses")
        tlp = record.get("tlp")
        if tlp not in TLP_ORDER or TLP_ORDER.index(tlp) > TLP_ORDER.index(section.max_tlp):
            complaints.append(f"{record['id']}: TLP {tlp} is above dataset.max_tlp {section.max_tlp}")
    if complaints:
        raise InputError(
            f"{path}: {len(complaints)} records may not be trained on; leave them out or get permission:\n"
            + "\n".join(complaints[:20])
        )


def read_examples(path: Path) -> list[Example]:
    """All examples of one split.

    Raises: InputError listing every bad line, or for an empty file; NotReadyError; StorageError.
    """
    examples = read_lines(path, Example, REMEDY, most=20)
    if not examples:
        raise InputError(f"{path}: holds no example; {REMEDY}")
    return examples


def choose(examples: Sequence[Example], at_most: dict[Any, int], seed: int) -> list[Example]:
    """At most so many of each task, drawn by the seed; the order is kept."""
    by_task: dict[str, list[Example]] = defaultdict(list)
    for one in examples:
        by_task[one.task].append(one)
    kept: set[str] = set()
    for task, listed in sorted(by_task.items()):
        limit = min(at_most.get(task, len(listed)), len(listed))
        kept.update(one.id for one in random.Random(f"{seed}/{task}").sample(listed, limit))
    return [one for one in examples if one.id in kept]


def to_samples(
    examples: Sequence[Example], tokenize: Tokenize, max_tokens: int, options_share: float = 0.0
) -> list[Sample]:
    """Tokenized examples; with an `options_share` their options are judged too, see train.options.

    Raises: InputError naming every sample that is longer than `max_tokens`, or whose answer is empty.
    """
    samples, complaints = [], []
    for one in examples:
        prompt = tokenize(one.segments)
        answer = tokenize([(one.completion, False), END_OF_TURN])
        if len(prompt) + len(answer) > max_tokens:
            complaints.append(
                f"{one.id}: {len(prompt) + len(answer)} tokens, the limit is {max_tokens} "
                "(optimizer.row_tokens and the base's context); shorten it or leave it out"
            )
        elif not one.completion or not prompt:
            complaints.append(f"{one.id}: prompt or completion is empty")
        judged = judged_options(one, tokenize, options_share) if options_share else ()
        n_choice = len(tokenize([(one.completion.partition("\n")[0], False)]))
        samples.append(Sample(one.id, one.task, prompt + answer, len(prompt), n_choice, judged))
    if complaints:
        raise InputError("\n".join(complaints[:20]))
    return samples


def samples_sha256(samples: Sequence[Sample]) -> str:
    """Digest of what is really trained on, canaries included."""
    digest = hashlib.sha256()
    for one in samples:
        digest.update(
            json.dumps([one.id, one.ids, one.n_prompt, [astuple(each) for each in one.judged]]).encode()
        )
    return digest.hexdigest()
