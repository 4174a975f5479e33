"""What the field guide says that reference data does not confirm: ids, names, event ids, fields.

    python -m tests.bench.guide_facts [--sigma rules.zip]

Technique ids and names are checked against data/catalogue. With Sigma's rules also: every event id and
every `FieldName` of a Windows document that no rule uses; these are to be looked at, they need not be wrong.
"""

from __future__ import annotations

import argparse
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

from whis_box.paths import repository_root

ROOT = repository_root()
TECHNIQUE = re.compile(r"\b(T\d{4}(?:\.\d{3})?)\b")
NAMED = re.compile(r"\b(T\d{4}(?:\.\d{3})?) \(?(?=[A-Z][a-z])")
EVENT = re.compile(r"\b(?:Security |System )?[Ee]vents? (?:id )?(\d{1,5})\b")
FIELD = re.compile(r"`([A-Z][a-z]+(?:[A-Z][a-z0-9]+)+)`")
CODE_BLOCK = re.compile(r"```.*?```", re.DOTALL)


def main() -> None:
    """Print each disagreement with its file; then the totals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sigma", type=Path, help="a zip of Sigma rules")
    options = parser.parse_args()
    names = catalogue()
    documents = sorted((ROOT / "data" / "raw").rglob("*.md"))
    wrong = [problem for path in documents for problem in technique_problems(path, names)]
    for problem in wrong:
        print(f"wrong    {problem}")
    print(f"{len(documents)} documents, {len(names)} techniques known, {len(wrong)} disagreements")
    if options.sigma:
        open_points = [one for path in documents for one in unconfirmed(path, sigma_text(options.sigma))]
        for point in open_points:
            print(f"look at  {point}")
        print(f"{len(open_points)} event ids and fields that no Sigma rule uses")


def catalogue() -> dict[str, str]:
    """Technique id to name."""
    text = (ROOT / "data" / "catalogue" / "attack-enterprise.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines() if TECHNIQUE.match(line))
    return {row[0]: row[1] for row in rows}


def technique_problems(path: Path, names: dict[str, str]) -> Iterator[str]:
    """Unknown ids, and names that follow an id without being its name, its parent's or a part of it."""
    text = CODE_BLOCK.sub("", path.read_text(encoding="utf-8"))
    for technique_id in sorted(set(TECHNIQUE.findall(text)) - set(names)):
        yield f"{path.name}: {technique_id} is not a current technique"
    for match in NAMED.finditer(text):
        known, said = names.get(match[1], ""), text[match.end() : match.end() + 80]
        parts = [known, *known.split(": ")]
        if known and not any(said.casefold().startswith(part.casefold()) for part in parts):
            yield f"{path.name}: {match[1]} is called {said.splitlines()[0]!r}, the catalogue says {known!r}"


def unconfirmed(path: Path, sigma: str) -> Iterator[str]:
    """Event ids and field names of a Windows document that no rule holds."""
    if "windows" not in path.parent.name:
        return
    text = CODE_BLOCK.sub("", path.read_text(encoding="utf-8"))
    for event_id in sorted(set(EVENT.findall(text)), key=int):
        if int(event_id) > 255 and not re.search(rf"\b{event_id}\b", sigma):
            yield f"{path.name}: event {event_id}"
    for field in sorted(set(FIELD.findall(text))):
        if field not in sigma:
            yield f"{path.name}: field {field}"


_sigma: dict[Path, str] = {}


def sigma_text(path: Path) -> str:
    """All rules as one text."""
    if path not in _sigma:
        with zipfile.ZipFile(path) as archive:
            rules = [archive.read(name) for name in archive.namelist() if name.endswith(".yml")]
        _sigma[path] = b"\n".join(rules).decode("utf-8", "replace")
    return _sigma[path]


if __name__ == "__main__":
    main()
