"""Fit the guards' detector, and write it as a plain file of n-grams and weights.

    python -m train.detector [FOLDER]   writes data/guards/detector.tsv, or FOLDER/detector.tsv

It tells orders to a model from what documents, alerts and questions say. The figures printed are out of fold:
a line is scored by a model that never saw its template or its document. No public benchmark and no golden
question is trained on.
"""

from __future__ import annotations

import codecs
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from whis_box.errors import WhisError
from whis_box.guards.linear import HEADER, grams
from whis_box.guards.views import plain
from whis_box.knowledge.sentences import split_blocks
from whis_box.paths import repository_root, written_beside

DATA = repository_root() / "data"
FOLDS = 5
SEED = 20261125
MAX_GRAMS = 9_000
FILLINGS = 14  # of each template of our own
_CHOICE = re.compile(r"\{([^{}]*\|[^{}]*)\}")


@dataclass(frozen=True)
class Example:
    """A line, its label ("" is none), and what it must not be split from."""

    text: str
    label: str
    group: str


@dataclass
class Fitted:
    """A model as it is written."""

    labels: list[str]
    vocabulary: list[str]
    bias: NDArray[np.float64]  # (labels,)
    weights: NDArray[np.float64]  # (n-grams, labels)

    def scores(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Probabilities, shape (texts, labels)."""
        logits = _matrix(texts, self.vocabulary) @ self.weights + self.bias
        return np.asarray(1.0 / (1.0 + np.exp(-logits)))


def main() -> int:
    """Fit, report out of fold, write."""
    try:
        found = list(injections())
        print(f"{len(found)} lines, {dict(Counter(one.label or 'harmless' for one in found))}")
        report(found)
        write(Path(sys.argv[1] if sys.argv[1:] else DATA / "guards") / "detector.tsv", fit(found))
    except WhisError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def injections() -> Iterator[Example]:
    """Orders to a model, and everything a box reads that is none."""
    for number, line in enumerate(_lines("training/injections.txt")):
        yield Example(line, "injection", f"i{number}")
    rng = random.Random(SEED)
    for number, template in enumerate(_lines("guards/training/instructions.txt")):
        for filled in dict.fromkeys(_filled(template, rng) for _ in range(FILLINGS)):
            yield Example(filled, "injection", f"t{number}")
    for number, one in enumerate(_harmless()):
        yield one
        if number % 4 == 0:  # what the readings of disguises look like when there is none
            words = plain(one.text)
            yield Example(codecs.encode(words, "rot13"), "", one.group)
            yield Example(words[::-1], "", one.group)
    yield from _values(rng)
    for name in ("reports", "values"):
        for number, template in enumerate(_lines(f"guards/training/{name}.txt")):
            for filled in dict.fromkeys(_filled(template, rng) for _ in range(FILLINGS)):
                yield Example(filled, "", f"{name}{number}")
    for line in _lines("catalogue/attack-enterprise.tsv")[1:]:  # fields of alerts name techniques
        technique_id, name, *_ = line.split("\t")
        yield Example(name, "", technique_id.partition(".")[0])
    for number, line in enumerate(_lines("guards/training/mentions.txt")):
        yield Example(line, "", f"m{number}")


def _harmless() -> Iterator[Example]:
    for path in sorted((DATA / "raw").rglob("*.md")):
        text = path.read_text(encoding="utf-8").split("---", 2)[2]
        for block in split_blocks(text):
            for span in block.spans:
                yield Example(text[span.start : span.end], "", path.stem)
    yield from _questions()
    for line in _lines("training/commands.ndjson"):
        fields = json.loads(line)
        for name in ("image", "command_line", "parent", "summary"):
            if fields.get(name):
                yield Example(fields[name], "", f"c-{fields.get('technique_id')}")


def _values(rng: random.Random) -> Iterator[Example]:
    """Fields of events that hold no sentence."""
    for number in range(300):
        digits = rng.randbytes(16).hex()
        guid = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
        yield Example(guid.upper(), "", f"v{number}")
        name = rng.choice(("SYSTEM", "Administrator", "svc_web", "NT AUTHORITY\\SYSTEM", "Machine", "User"))
        provider = rng.choice(("Microsoft-Windows-Sysmon", "Microsoft-Windows-Security-Auditing", "auditd"))
        yield Example(f"{name} {guid} {provider}/Operational {rng.randrange(9999)}", "", f"v{number}")
        yield Example(f"C:\\Users\\{digits[:6]}\\{digits[6:12]}.exe {digits}", "", f"v{number}")


def _questions() -> Iterator[Example]:
    for line in _lines("training/questions.ndjson"):
        fields = json.loads(line)
        yield Example(fields["question"], "", f"q-{fields['record_id']}")


def _lines(name: str) -> list[str]:
    lines = (DATA / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("# ")]


def _filled(template: str, rng: random.Random) -> str:
    return " ".join(_CHOICE.sub(lambda found: rng.choice(found[1].split("|")), template).split())


# ---------------------------------------------------------------- fitting


def fit(examples: Sequence[Example]) -> Fitted:
    """One-against-rest logistic regressions over the n-grams that tell most."""
    texts = [plain(one.text) for one in examples]
    labels = sorted({one.label for one in examples} - {""})
    counts = Counter(gram for text in texts for gram in grams(text))
    vocabulary = sorted(gram for gram, count in counts.items() if count >= 3 and _writable(gram))
    first = _regressions(texts, examples, labels, vocabulary)
    strength = np.abs(first.weights).max(axis=1)
    kept = sorted(vocabulary[at] for at in np.argsort(-strength, kind="stable")[:MAX_GRAMS])
    return _regressions(texts, examples, labels, kept)


def _regressions(
    texts: Sequence[str], examples: Sequence[Example], labels: list[str], vocabulary: list[str]
) -> Fitted:
    features = _matrix(texts, vocabulary)
    bias, columns = [], []
    for label in labels:
        wanted = np.array([one.label == label for one in examples])
        model = LogisticRegression(C=30.0, class_weight={True: 3.0, False: 1.0}, max_iter=400)
        model.fit(features, wanted)
        bias.append(float(model.intercept_[0]))
        columns.append(model.coef_[0])
    return Fitted(labels, vocabulary, np.array(bias), np.array(columns).T)


def _matrix(texts: Sequence[str], vocabulary: Sequence[str]) -> csr_matrix:
    row_of = {gram: at for at, gram in enumerate(vocabulary)}
    pointers, columns, values = [0], [], []
    for text in texts:
        known = sorted(row_of[gram] for gram in grams(text) if gram in row_of)
        columns += known
        values += [1.0 / np.sqrt(max(1, len(known)))] * len(known)
        pointers.append(len(columns))
    return csr_matrix((values, columns, pointers), shape=(len(texts), len(vocabulary)))


def _writable(gram: str) -> bool:
    return gram.isprintable() and "\t" not in gram


def report(examples: Sequence[Example]) -> None:
    """Recall and false alarms out of fold at several thresholds."""
    groups = sorted({one.group for one in examples})
    random.Random(SEED).shuffle(groups)
    fold_of = {group: at % FOLDS for at, group in enumerate(groups)}
    best, guessed = np.zeros(len(examples)), [""] * len(examples)
    for fold in range(FOLDS):
        model = fit([one for one in examples if fold_of[one.group] != fold])
        held = [at for at, one in enumerate(examples) if fold_of[one.group] == fold]
        scores = model.scores([plain(examples[at].text) for at in held])
        best[held] = scores.max(axis=1)
        for at, row in zip(held, scores, strict=True):
            guessed[at] = model.labels[int(row.argmax())]
    wanted = np.array([bool(one.label) for one in examples])
    right = np.array([guess == one.label for guess, one in zip(guessed, examples, strict=True)])
    for threshold in (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95):
        hit, alarms = best >= threshold, int((best[~wanted] >= threshold).sum())
        recall, typed = (hit & wanted).sum() / wanted.sum(), (hit & right & wanted).sum() / wanted.sum()
        share = alarms / (~wanted).sum()
        print(f"  {threshold:.2f}: recall {recall:.3f}, of the right class {typed:.3f}; "
              f"false alarms {alarms} ({share:.2%})")  # fmt: skip


def write(path: Path, model: Fitted) -> None:
    """The file that `whis_box.guards.linear` reads."""
    rows = [f"{HEADER}\t{len(model.vocabulary)}", "\t".join(["label", *model.labels])]
    for gram, weights in zip(["bias", *model.vocabulary], [model.bias, *model.weights], strict=True):
        rows.append("\t".join([gram, *(f"{value:.2f}" for value in weights)]))
    with written_beside(path) as beside:
        beside.write_text("\n".join(rows) + "\n", encoding="utf-8")
    print(f"{path}: {len(model.vocabulary)} n-grams, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    sys.exit(main())
