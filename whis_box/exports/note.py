"""A case note in Markdown, for a ticket.

Invariant: nothing from the alert or the model can become markup, a link or a picture: text is escaped, values
stand in code spans, and the event itself in a fence longer than any in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from whis_box.exports.case import PRODUCT, Case, timestamp
from whis_box.ingest.alert_text import plain
from whis_box.schemas import Citation, Step

MAX_EVENT_CHARS = 20_000
MAX_OBSERVABLES = 60
MAX_VALUE_CHARS = 500
MARKUP = re.compile(r"([\\`*_{}\[\]<>#|!~&@])|(?<=\w)(:)(?=//)|(?<=www)(\.)", re.IGNORECASE)


def case_note(case: Case) -> str:
    """The note: verdict, summary, techniques, steps, checks, observables, sources, findings, the event."""
    return "\n".join(_lines(case)) + "\n"


def _lines(case: Case) -> Iterator[str]:
    triage, alert = case.triage, case.alert
    yield f"# {_text(case.title)}"
    yield ""
    yield from _table(
        ("Alert", _code(triage.alert_id)),
        (
            "Verdict",
            _text(triage.verdict) + (f" ({_text(triage.abstain_reason)})" if triage.abstain_reason else ""),
        ),
        (
            "Severity",
            triage.severity + (f" (source: {_code(alert.severity_source)})" if alert.severity_source else ""),
        ),
        ("Confidence", f"{triage.confidence:.2f}"),
        ("Occurred", _code(alert.occurred_at or "not stated")),
        ("Source", _text(f"{alert.provider or alert.family} ({alert.family})")),
        ("TLP of the quotes", f"TLP:{case.tlp.upper()}"),
        ("Written", f"{timestamp(case.made_at)} by {PRODUCT}"),
    )
    yield from ("", "## Summary", "", f"> {_text(triage.summary)}")
    if triage.techniques:
        yield from ("", "## ATT&CK techniques", "")
        for one in triage.techniques:
            yield f"- {one.id} {_text(one.name)}, score {one.score:.2f}{_marks(one.citations)}"
    yield from _steps("Check before you call it malicious", triage.false_positive_checks)
    yield from _steps("First steps (proposed, not done)", triage.recommended_steps)
    if triage.observables:
        yield from ("", "## Observables", "")
        for seen in triage.observables[:MAX_OBSERVABLES]:
            yield f"- {_text(seen.role)} {_text(seen.type)}: {_code(seen.value)}"
        if len(triage.observables) > MAX_OBSERVABLES:
            yield f"- and {len(triage.observables) - MAX_OBSERVABLES} more"
    if triage.citations:
        yield from ("", "## Sources", "")
        for cited in triage.citations:
            yield _source(cited)
    if triage.findings:
        yield from ("", "## What the guards say", "")
        yield from (f"- {_text(one.code)} ({one.severity}): {_text(one.message)}" for one in triage.findings)
    yield from ("", "## The event as it came", "")
    yield from _fenced(json.dumps(case.event, ensure_ascii=False, indent=2, default=str))
    yield from (
        "",
        f"Box {triage.lineage.box[:16]}, index {triage.lineage.index[:16]}, base {triage.lineage.base[:16]}.",
    )


def _table(*rows: tuple[str, str]) -> Iterator[str]:
    yield "| | |"
    yield "|---|---|"
    yield from (f"| {name} | {value} |" for name, value in rows)


def _source(cited: Citation) -> str:
    place = _text(" > ".join([cited.title, *cited.heading_path]))
    terms = f"{_code(cited.record_id)}, {_text(cited.license)}, TLP:{cited.tlp.upper()}"
    return f'{cited.n}. {place}: "{_text(cited.quote)}" ({terms})'


def _steps(heading: str, steps: Sequence[Step]) -> Iterator[str]:
    if steps:
        yield from ("", f"## {heading}", "")
        yield from (f"- [ ] {_text(step.text)}{_marks(step.citations)}" for step in steps)


def _marks(numbers: Sequence[int]) -> str:
    return "".join(f" \\[{n}\\]" for n in numbers)


def _text(text: str) -> str:
    """One line in which no character means anything to Markdown or HTML."""
    return MARKUP.sub(lambda match: "\\" + match[0], " ".join(plain(text).split()))


def _code(text: str) -> str:
    """A code span; its fence is longer than any run of backticks inside, and `|` cannot end a table cell."""
    value = " ".join(plain(text[:MAX_VALUE_CHARS]).split()) or " "
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", value)), default=0))
    pad = " " if value.startswith("`") or value.endswith("`") else ""
    return f"{fence}{pad}{value.replace('|', chr(0x2223))}{pad}{fence}"


def _fenced(text: str) -> Iterator[str]:
    cut = text[:MAX_EVENT_CHARS]
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", cut)), default=0))
    yield f"{fence}json"
    yield from (plain(line) if line.strip() else "" for line in cut.splitlines())
    yield fence
    if len(text) > MAX_EVENT_CHARS:
        yield f"The event has {len(text)} characters; the first {MAX_EVENT_CHARS} are shown."
