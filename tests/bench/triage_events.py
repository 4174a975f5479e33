"""Triage of real events beside the rule that matched each one.

    python -m tests.bench.triage_events EVENTS_ZIP RULES_ZIP [--box DIR]

EVENTS_ZIP holds `info.yml` files (rule ids) beside event JSONs, RULES_ZIP the Sigma rules with their
technique tags, as the SigmaHQ project publishes both. Only code is measured, and no model is loaded: what it
says changes no technique.
"""

from __future__ import annotations

import argparse
import json
import zipfile
from pathlib import Path, PurePosixPath

import yaml

from tests.attacks.harness import target
from whis_box.errors import InputError
from whis_box.evaluation.bench import environment
from whis_box.ingest.alerts import parse_event
from whis_box.paths import repository_root


def main() -> None:
    """Print how often the first technique, or any, agrees with the rule's tags."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("events", type=Path)
    parser.add_argument("rules", type=Path)
    parser.add_argument("--box", type=Path, default=repository_root() / "build" / "box")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    tags = _rule_techniques(options.rules)
    guide = {
        line
        for path in (repository_root() / "data" / "raw").rglob("*.md")
        for line in path.read_text().split()
    }
    counts = dict.fromkeys(("events", "tagged", "covered", "proposed", "first", "any", "escalate"), 0)
    with target(options.box, real_model=False) as victim:
        copilot = victim.copilot
        for name, rule_ids, raw in _events(options.events):
            wanted = {technique for rule_id in rule_ids for technique in tags.get(rule_id, [])}
            try:
                triage = copilot.triage(parse_event(raw, name))
            except InputError as error:
                print(f"refused: {error}"[:160])
                continue
            found = [one.id for one in triage.techniques]
            counts["events"] += 1
            counts["tagged"] += bool(wanted)
            counts["covered"] += any(any(one in word for word in guide) for one in wanted)
            counts["proposed"] += bool(wanted and found)
            counts["first"] += bool(found and _agree(found[:1], wanted))
            counts["any"] += bool(_agree(found, wanted))
            counts["escalate"] += triage.verdict == "escalate"
            if options.verbose:
                scores = [(one.id, one.score) for one in triage.techniques]
                print(PurePosixPath(name).parent.name, sorted(wanted), scores, triage.verdict)
    for key, value in environment(options.box).items():
        print(f"{key}: {value}")
    print(json.dumps(counts))


def _agree(found: list[str], wanted: set[str]) -> bool:
    """Whether a parent technique is shared."""
    return bool({one.split(".")[0] for one in found} & {one.split(".")[0] for one in wanted})


def _rule_techniques(path: Path) -> dict[str, list[str]]:
    tags: dict[str, list[str]] = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".yml"):
                for rule in yaml.safe_load_all(archive.read(name)):
                    if isinstance(rule, dict) and "id" in rule:
                        named = [tag.removeprefix("attack.").upper() for tag in rule.get("tags") or []]
                        tags[rule["id"]] = [tag for tag in named if tag[:1] == "T" and tag[1:2].isdigit()]
    return tags


def _events(path: Path) -> list[tuple[str, list[str], bytes]]:
    with zipfile.ZipFile(path) as archive:
        infos = {
            str(PurePosixPath(name).parent): [
                one["id"] for one in yaml.safe_load(archive.read(name))["rule_metadata"]
            ]
            for name in archive.namelist()
            if name.endswith("info.yml")
        }
        return [
            (name, infos.get(str(PurePosixPath(name).parent), []), archive.read(name))
            for name in sorted(archive.namelist())
            if name.endswith(".json")
        ]


if __name__ == "__main__":
    main()
