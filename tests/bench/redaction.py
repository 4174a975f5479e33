"""How well the sanitizer finds what it must, and how much it takes that it must not.

    python -m tests.bench.redaction [--pii pii-synthetic-dev.json] [--indicators FILE ...]

The labelled set is only read here and in no training. Entities are compared one to one: the same type, and at
least half of the two spans together in common (intersection over union >= 0.5). Neighbours of one type with
nothing but spaces and signs between them are one entity, in the labels as in the findings, because the labels
cut addresses by the fields of the form they were filled from (Source: presidio-evaluator's SpanEvaluator does
the same). The figures for exact borders, any type, and by token stand beside it. `--indicators` counts the
indicators of compromise that documents hold before and do not hold after redaction, and the documents that
redaction changes at all.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from tests.secret_set import planted_secrets
from whis_box.engine.cpu import cpu_model
from whis_box.errors import InputError
from whis_box.guards.text import clean_text
from whis_box.ingest.intake import TITLE_END
from whis_box.ingest.readers.archives import open_file, unpack
from whis_box.ingest.readers.detect import read
from whis_box.ingest.readers.draft import RawFile, Skip
from whis_box.ingest.sanitize.analyzer import INDICATORS, Analyzer
from whis_box.ingest.sanitize.policy import PolicyConfig, read_policy
from whis_box.ingest.sanitize.pseudonyms import Pseudonyms
from whis_box.ingest.sanitize.redact import redact
from whis_box.ingest.sanitize.secrets import find_secrets
from whis_box.ingest.sanitize.spans import Span
from whis_box.paths import repository_root, source_commit

ROOT = repository_root()
# The labelled set's names for what we call otherwise.
SAME = {
    "GPE": "LOCATION",
    "PHONE_NUMBER": "PHONE_NUMBER",
    "US_SSN": "NATIONAL_ID",
    "US_DRIVER_LICENSE": "NATIONAL_ID",
    "IP_ADDRESS": "IP_ADDRESS",
    "INTERNAL_IP": "IP_ADDRESS",
    "DOMAIN_NAME": "DOMAIN_NAME",
    "URL": "DOMAIN_NAME",
    "HOST": "DOMAIN_NAME",
}
PATTERNED = ("EMAIL_ADDRESS", "IBAN_CODE", "CREDIT_CARD", "PHONE_NUMBER", "NATIONAL_ID")

PROTECTED = {
    "DOMAIN_NAME": re.compile(r"https?://"),
    "IP_ADDRESS": re.compile(r"(?:\d{1,3}\.){3}\d{1,3}$"),
    "DATE_TIME": re.compile(r"\d{4}-\d{2}-\d{2}[T ]"),
}
INDICATOR = re.compile(
    r"\b(?:T\d{4}(?:\.\d{3})?|CVE-\d{4}-\d{4,7})\b|\b[0-9a-fA-F]{32,64}\b|\bhttps?://[^\s)\"'<>]+"
    r"|\b(?:\d{1,3}\.){3}\d{1,3}\b|\bHK(?:LM|CU|EY_\w+)\\\\[^\s\"']+|[\w.-]+\.(?:exe|dll|ps1|sys|bat|vbs|js|sh)\b"
    r"|\b(?:[a-z0-9-]+\.)+(?:com|net|org|io|ru|cn|xyz|top|info)\b",
    re.IGNORECASE,
)
PRIVATE = re.compile(r"10\.|192\.168\.|172\.(?:1[6-9]|2\d|3[01])\.")

Finder = Callable[[str], Sequence[Span]]
Counts = dict[str, tuple[int, int, int]]
Entity = tuple[str, tuple[int, int]]
TOKEN = re.compile(r"\w+|[^\w\s]")


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pii", type=Path)
    parser.add_argument("--indicators", type=Path, nargs="*", default=[])
    parser.add_argument("--show", action="store_true", help="print each value that redaction takes out")
    options = parser.parse_args()
    policy = read_policy(ROOT / "configs")
    print(f"{cpu_model()} · commit {source_commit()[:12]}")
    if options.pii:
        print_quality(options.pii, policy)
    secrets = [one for seed in range(5) for one in planted_secrets(seed)]
    found = sum(covered(one.text, one.start, one.end) for one in secrets)
    print(
        f"own set of 100 secrets, five times with other values: {found} of {len(secrets)} found (limit: all)"
    )
    for path in options.indicators:
        print_survival(path, policy, options.show)


def print_quality(path: Path, policy: PolicyConfig) -> None:
    """Precision, recall and F1 by type, and the totals."""
    samples = json.loads(path.read_text(encoding="utf-8"))
    analyzer = Analyzer(policy.model_copy(update={"actions": {}}))  # what the policy keeps must be found too

    def find(text: str) -> list[Span]:
        return [*analyzer.find(text), *protected(text)]

    started = time.perf_counter()
    counts = measure(samples, find, half_common)
    seconds = time.perf_counter() - started
    report(counts)
    exact = measure(samples, find, identical)
    blind = measure(samples, find, half_common, any_type=True)
    precision, recall = by_token(samples, find)
    f2 = 5 * precision * recall / (4 * precision + recall)
    n_characters = sum(len(one["full_text"]) for one in samples)
    print(f"{path.name}, {len(samples)} texts: F1 over all spans {f1(counts.values()):.3f} (limit 0.80)")
    print(f"   exact borders   {f1(exact.values()):.3f}")
    print(f"   any type        {f1(blind.values()):.3f}")
    print(f"   patterned types {f1(counts[name] for name in PATTERNED if name in counts):.3f} (limit 0.95)")
    print(
        f"   by token, any type: precision {precision:.3f}, recall {recall:.3f}, F2 {f2:.3f} "
        "(presidio's published F2 on such texts: 0.618 with spaCy's large model, 0.845 with a transformer)"
    )
    print(f"   {n_characters / seconds / 1e3:.0f} thousand characters/s in one process")


def protected(text: str) -> Iterator[Span]:
    """What the analyzer recognizes and keeps whatever the policy says: addresses, links, times."""
    for match in INDICATORS.finditer(text):
        value = match[0].rstrip(".,;:!?)\"'")
        kind = next((kind for kind, form in PROTECTED.items() if form.match(value)), None)
        if kind:
            yield Span(kind, match.start(), match.start() + len(value), 1.0, "indicator")


def covered(text: str, start: int, end: int) -> bool:
    """Whether every character of a planted secret lies in a finding."""
    marked = {at for span in find_secrets(text) for at in range(span.start, span.end)}
    return all(at in marked for at in range(start, end) if not text[at].isspace())


def print_survival(path: Path, policy: PolicyConfig, show: bool) -> None:
    """Indicators and documents of one file before and after redaction."""
    analyzer, pseudonyms = Analyzer(policy), Pseudonyms(b"a key that is thrown away", {})
    documents = changed = before = 0
    lost: list[str] = []
    kinds: Counter[str] = Counter()
    for raw in unpack(opened(path, policy), policy.limits):
        if isinstance(raw, Skip):
            continue
        for draft in read(raw, policy.limits):
            if isinstance(draft, Skip):
                continue
            documents += 1
            title, body = clean_text(draft.title, "title")[0], clean_text(draft.text, "document")[0]
            text = f"{title}{TITLE_END}{body}"  # what an import looks at
            spans = analyzer.find(text)
            redacted = redact("bench", text, spans, policy, pseudonyms).text
            kinds.update(span.entity_type for span in spans)
            if show:
                for span in spans:
                    print(f"   {draft.record_id}: {span.entity_type} {text[span.start : span.end]!r}")
            changed += redacted != text
            held = indicators(text)
            before += held.total()
            lost += (held - indicators(redacted)).elements()
    print(
        f"{path.name}: {documents} documents, {changed} changed "
        f"({changed / max(documents, 1):.2%}, limit 1 %); "
        f"{len(lost)} of {before} indicators lost (limit 0) {lost[:5]}"
    )
    print(f"   findings {dict(kinds)}")


def opened(path: Path, policy: PolicyConfig) -> RawFile:
    """The file, which must be readable."""
    file = open_file(path, path.name, policy.limits)
    if isinstance(file, Skip):
        raise InputError(f"{path}: {file.reason}")
    return file


def indicators(text: str) -> Counter[str]:
    """Public addresses, URLs, domains, hashes, CVE and technique ids, file names and registry keys."""
    found = Counter(match[0] for match in INDICATOR.finditer(text))
    return Counter({value: n for value, n in found.items() if not PRIVATE.match(value)})


def measure(
    samples: Iterable[dict[str, object]],
    find: Finder,
    matches: Callable[[tuple[int, int], tuple[int, int]], bool],
    any_type: bool = False,
) -> Counts:
    """(found rightly, found wrongly, missed) by type."""
    right: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    for sample in samples:
        text = str(sample["full_text"])
        gold = merged(text, [("ANY", span) if any_type else (kind, span) for kind, span in labelled(sample)])
        found = [("ANY" if any_type else kind_of(one), (one.start, one.end)) for one in find(text)]
        for kind, span in merged(text, found):
            match = next((one for one in gold if one[0] == kind and matches(one[1], span)), None)
            if match is None:
                wrong[kind] += 1
            else:
                right[kind] += 1
                gold.remove(match)
        missed.update(kind for kind, _ in gold)
    return {kind: (right[kind], wrong[kind], missed[kind]) for kind in {*right, *wrong, *missed}}


def labelled(sample: dict[str, object]) -> list[Entity]:
    """The labels of one text, with our names for the types."""
    spans: list[dict[str, object]] = sample["spans"]  # type: ignore[assignment]
    return [
        (
            SAME.get(str(one["entity_type"]), str(one["entity_type"])),
            (int(str(one["start_position"])), int(str(one["end_position"]))),
        )
        for one in spans
    ]


def kind_of(span: Span) -> str:
    """The type under which a finding is compared."""
    return SAME.get(span.entity_type, span.entity_type)


def merged(text: str, entities: list[Entity]) -> list[Entity]:
    """Neighbours of one type as one entity, where only spaces and signs stand between them."""
    joined: list[Entity] = []
    for kind, (start, end) in sorted(entities, key=lambda one: one[1]):
        if joined and joined[-1][0] == kind and not any(c.isalnum() for c in text[joined[-1][1][1] : start]):
            joined[-1] = (kind, (joined[-1][1][0], max(end, joined[-1][1][1])))
        else:
            joined.append((kind, (start, end)))
    return joined


def by_token(samples: Iterable[dict[str, object]], find: Finder) -> tuple[float, float]:
    """(precision, recall) over tokens, whatever the type: a token counts as marked if a span touches it."""
    right = wrong = missed = 0
    for sample in samples:
        text = str(sample["full_text"])
        gold = [span for _, span in labelled(sample)]
        found = [(one.start, one.end) for one in find(text)]
        for token in TOKEN.finditer(text):
            is_gold, is_found = (
                any(start < token.end() and token.start() < end for start, end in spans)
                for spans in (gold, found)
            )
            right += is_gold and is_found
            wrong += is_found and not is_gold
            missed += is_gold and not is_found
    return right / max(right + wrong, 1), right / max(right + missed, 1)


def half_common(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether the two spans have half of their union in common."""
    common = min(one[1], other[1]) - max(one[0], other[0])
    return common * 2 >= max(one[1], other[1]) - min(one[0], other[0])


def identical(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether the two spans have the same borders."""
    return one == other


def f1(counts: Iterable[tuple[int, int, int]]) -> float:
    """Harmonic mean of precision and recall over all given types together."""
    right, wrong, missed = (sum(column) for column in zip(*counts, strict=True))
    return 2 * right / max(2 * right + wrong + missed, 1)


def report(counts: Counts) -> None:
    """One line for each type, the most frequent first."""
    for kind, (right, wrong, missed) in sorted(counts.items(), key=lambda item: -item[1][0] - item[1][2]):
        precision, recall = right / max(right + wrong, 1), right / max(right + missed, 1)
        one = f1([(right, wrong, missed)])
        print(
            f"{kind:<16} n {right + missed:>4}  precision {precision:.3f}  recall {recall:.3f}  F1 {one:.3f}"
        )


if __name__ == "__main__":
    main()
