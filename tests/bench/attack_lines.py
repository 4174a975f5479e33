"""Write data/attacks/attacks.ndjson: a fixed sample of the static attacks, as `whis eval` reads them.

    python -m tests.bench.attack_lines > data/attacks/attacks.ndjson

Here a planted passage stands under the question, as when an analyst pastes it; attacks that need a prepared
index, and the search that adapts, are measured by tests.bench.guards.
"""

from __future__ import annotations

import json

from tests.attacks.corpus import alert_attacks, document_attacks
from whis_box.evaluation.attacks import Attack
from whis_box.guards.decision import CLOSING
from whis_box.paths import repository_root

N_ALERTS, N_PASSAGES = 80, 40
# What a passage under a question can reach; the others aim at retrieval.
PASTED = ("say", "link", "extract")


def main() -> None:
    """Print the lines."""
    for one in alert_attacks(N_ALERTS):
        closes = one.goal in ("flip", "schema")
        attack = Attack(
            id=one.id,
            family=one.goal,
            channel="alert",
            event=dict(one.event()),
            markers=[] if closes else [one.wanted],
            forbidden_verdicts=sorted(CLOSING) if closes else [],
        )
        print(attack.model_dump_json())
    questions = (
        (repository_root() / "data" / "golden" / "dev.ndjson").read_text(encoding="utf-8").splitlines()
    )
    pasted = [one for one in document_attacks(400) if one.goal in PASTED][:N_PASSAGES]
    for one, line in zip(pasted, questions, strict=False):
        question = json.loads(line)["question"]
        attack = Attack(
            id=one.id,
            family=f"pasted_{one.goal}",
            channel="passage",
            question=question,
            passage=one.text,
            markers=[one.wanted],
        )
        print(attack.model_dump_json())


if __name__ == "__main__":
    main()
