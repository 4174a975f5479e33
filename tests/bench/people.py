"""The people-finder on templates and values that it was not trained on: quality by type and threshold.

    python -m tests.bench.people

The thresholds of convert/ner.py are chosen from this table and from nothing else; the public labelled set of
`tests.bench.redaction` is not looked at for it.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from train.ner import held_out_examples
from whis_box.engine.cpu import cpu_model
from whis_box.ingest.sanitize.ner import PeopleFinder
from whis_box.paths import repository_root, source_commit

THRESHOLDS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
Spans = list[tuple[str, int, int, float]]


class EveryFinding(PeopleFinder):
    """All findings, whatever their score."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._settings = self._settings.model_copy(
            update={"thresholds": dict.fromkeys(self.entity_types, 0.0)}
        )


def main() -> None:
    """Print F1 by type at each threshold, and the best of them."""
    finder = EveryFinding(repository_root() / "data" / "ner")
    right: dict[tuple[str, float], int] = defaultdict(int)
    found: dict[tuple[str, float], int] = defaultdict(int)
    gold: dict[str, int] = defaultdict(int)
    examples = held_out_examples()
    for example in examples:
        entities = {(kind, start, end) for kind, start, end in example.entities}
        for kind, _, _ in entities:
            gold[kind] += 1
        for span in finder.find(example.text):
            for limit in THRESHOLDS:
                if span.score >= limit:
                    found[span.entity_type, limit] += 1
                    right[span.entity_type, limit] += (span.entity_type, span.start, span.end) in entities
    print(
        f"{cpu_model()} · commit {source_commit()[:12]} · {len(examples)} held-out texts, exact borders, F1"
    )
    print(f"{'':<16} {'n':>5} " + " ".join(f"{limit:>5}" for limit in THRESHOLDS))
    for kind in sorted(gold, key=lambda one: -gold[one]):
        row = [2 * right[kind, limit] / max(1, found[kind, limit] + gold[kind]) for limit in THRESHOLDS]
        print(f"{kind:<16} {gold[kind]:>5} " + " ".join(f"{value:.3f}" for value in row))


if __name__ == "__main__":
    main()
