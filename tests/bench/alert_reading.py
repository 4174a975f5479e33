"""Which fields an analyst expects are found in alerts, by family: golden alerts, and real events beside them.

    python -m tests.bench.alert_reading [EVENTS_ZIP…]

What is expected of an event is looked up in the event itself by a reader of this file that knows nothing of
the families: a value counts as an address, hash, command and so on by its form or its key, and as found when
a named field or an observable with a role of its own holds it. Only code is measured.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import statistics
import time
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from whis_box.errors import InputError
from whis_box.evaluation.bench import environment
from whis_box.ingest.alerts import Alert, observables, parse_event, read_alert
from whis_box.paths import repository_root

GOLDEN = repository_root() / "data" / "golden" / "alerts.ndjson"
MAX_PER_FILE = 300
NOTHING = frozenset(
    {"", "-", "null", "none", "unknown", "127.0.0.1", "::1", "0.0.0.0", "::", "true", "false"}
)
# What to expect: the key (last name of a path, without "_", "-", ".", in lower case) and the value's form.
EXPECTED: tuple[tuple[str, re.Pattern[str], re.Pattern[str]], ...] = tuple(
    (kind, re.compile(key), re.compile(form, re.DOTALL))
    for kind, key, form in (
        ("address", r"ips?$|addr(?:ess)?$|ipv4$|^id(?:orig|resp)h$|^src$|^dst$", r"(?:\d{1,3}\.){3}\d{1,3}"),
        ("hash", r".*", r"[0-9A-Fa-f]{32}|[0-9A-Fa-f]{40}|[0-9A-Fa-f]{64}"),
        ("command", r"commandline$|cmdline$|^command$", r".*\S.*"),
        ("process", r"^(?:new)?(?:image|processname|exe|executable)$|^sourceimage$", r"(?:\w:)?[\\/].+"),
        ("user", r"^(?:user|username|accountname|subjectusername|userprincipalname)$", r"[^{}\n]{2,}"),
        ("host", r"^(?:computer|hostname|computername|devicename)$", r"[\w.-]{2,}"),
        ("domain", r"^(?:query|queryname|rrname|sni|servername)$", r"[\w-]+(?:\.[\w-]+)+"),
        ("file", r"^(?:targetfilename|filepath|folderpath)$", r".*[\\/].*"),
        ("registry", r"^targetobject$", r".+"),
        ("url", r"^(?:url|requesturl)$", r"\w+://.+"),
        ("technique", r"(?:^|.*technique(?:s|id|ids|uid)?|^id)$", r"T\d{4}(?:\.\d{3})?"),
    )
)  # fmt: skip
# Keys that name something else: hash-like ids and the sensor's own data.
IDS = re.compile(
    r"(?:^|\.)(?:\w*guid|\w*uuid|id|\w+id|deviceid|reportid|rule_?id|token\w*|accesskeyid)$|kibana|manager",
    re.I,
)


def main() -> None:
    """Print a table per source of events: family, events, and found / expected of each kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archives", type=Path, nargs="*", metavar="EVENTS_ZIP")
    parser.add_argument("--box", type=Path, default=repository_root() / "build" / "box")
    parser.add_argument("--missed", action="store_true", help="name what was not found")
    options = parser.parse_args()
    for key, value in environment(options.box).items():
        print(f"{key}: {value}")
    golden = [json.loads(line) for line in GOLDEN.read_text().splitlines()]
    table(GOLDEN.name, [(one["id"], json.dumps(one["event"]).encode()) for one in golden], options.missed)
    for archive in options.archives:
        table(archive.name, list(events(archive.name, archive.read_bytes())), options.missed)


def events(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """Every JSON event of an archive, of archives in it, and of its NDJSON files."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for inner in sorted(archive.namelist()):
            if inner.endswith(".zip"):
                yield from events(inner, archive.read(inner))
            elif inner.endswith((".json", ".log")):
                raw = archive.read(inner)
                lines = raw.splitlines() if raw.count(b"\n{") and b"\n " not in raw[:200] else [raw]
                yield from (
                    (f"{inner}:{n}", line) for n, line in enumerate(lines[:MAX_PER_FILE], start=1) if line
                )


def table(name: str, raw_events: list[tuple[str, bytes]], name_missed: bool) -> None:
    """Read every event, and print what was found by family."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    expected: dict[str, Counter[str]] = defaultdict(Counter)
    refused = 0
    reading_ms: list[float] = []
    for where, raw in raw_events:
        started = time.process_time()
        try:
            event = parse_event(raw, where)
        except InputError as error:
            refused += 1
            print(f"refused: {error}"[:160])
            continue
        alert = read_alert(event)
        observables(alert)
        reading_ms.append((time.process_time() - started) * 1000)
        for kind, value in [*looked_for(event), ("title", ""), ("time", "")]:
            hit = holds(alert, kind, value)
            expected[alert.family][kind] += 1
            found[alert.family][kind] += hit
            if name_missed and not hit:
                print(f"  missed in {where} ({alert.family}): {kind} {value}"[:200])
        expected[alert.family]["events"] += 1
    p50, p95 = statistics.median(reading_ms), sorted(reading_ms)[int(0.95 * len(reading_ms))]
    print(
        f"\n{name}: {len(raw_events)} events, {refused} refused; from bytes to fields and observables "
        f"p50 {p50:.2f} ms, p95 {p95:.2f} ms of one core"
    )
    for family in sorted(expected):
        kinds = [kind for kind in expected[family] if kind != "events"]
        cells = " ".join(f"{kind} {found[family][kind]}/{expected[family][kind]}" for kind in kinds)
        print(f"{family:<11} {expected[family]['events']:>4} events  {cells}")
    total = sum((counts for counts in expected.values()), Counter[str]())
    hits = sum((counts for counts in found.values()), Counter[str]())
    cells = " ".join(f"{kind} {hits[kind]}/{total[kind]}" for kind in total if kind != "events")
    print(f"{'all':<11} {total['events']:>4} events  {cells}")


def looked_for(event: Any) -> set[tuple[str, str]]:
    """(kind, value) of everything in the event that has the key and the form of a kind."""
    wanted: set[tuple[str, str]] = set()
    waiting: list[tuple[str, Any]] = [("", event)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(f"{path}.{key}" if path else str(key), child) for key, child in value.items()]
        elif isinstance(value, list):
            waiting += [(path, child) for child in value]
        elif isinstance(value, str) and value.strip().lower() not in NOTHING:
            key = re.sub(
                r"[_\-.]", "", path.lower() if path.startswith("id.") else path.rpartition(".")[2].lower()
            )
            for kind, key_form, form in EXPECTED:
                fits = key_form.search(key) and form.fullmatch(value.strip())
                if fits and not (kind == "hash" and IDS.search(path)):
                    wanted.add((kind, value.strip()))
    return wanted


def holds(alert: Alert, kind: str, value: str) -> bool:
    """Whether the alert holds the value as a named field, an observable with a role, or a technique."""
    if kind == "title":
        return alert.title != f"{alert.family} event"
    if kind == "time":
        return alert.occurred_at is not None
    if kind == "technique":
        return value in alert.technique_ids
    named = [text.lower() for name, text in alert.fields.items() if name in alert.sources or name in DERIVED]
    named += [one.value.lower() for one in observables(alert) if one.role != "mentioned"]
    forms = {value.lower().removeprefix("::ffff:"), value.lower().replace("\\\\", "\\")}
    return any(
        wanted == text or wanted.endswith(f"\\{text}") or (kind != "user" and wanted in text)
        for text in named
        for wanted in forms
    )


DERIVED = frozenset({"user.name", "user.target.name", "group.member", "host.name", "process.parent.user"})

if __name__ == "__main__":
    main()
