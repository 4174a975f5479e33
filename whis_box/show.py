"""What people read on a terminal. Nothing here is parsed by a program; `--json` is for that."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from whis_box.errors import WhisError
from whis_box.schemas import Answer, Citation, Finding, Hit, Lineage, Timings, Triage

if TYPE_CHECKING:
    from whis_box.doctor import Report

WIDTH = 100
# What could move the cursor, recolour the screen or reorder what is read; tab and line feed may stay.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def answer(value: Answer) -> str:
    """An answer with its quotes, sources, findings and timings."""
    lines = [_wrap(value.answer), ""]
    lines += [_citation(citation) for citation in value.citations]
    lines += _findings(value.findings)
    lines.append(f"confidence {value.confidence:.2f} · {value.status} · TLP:{value.tlp.upper()}")
    lines += [_timings(value.timings), _lineage(value.lineage)]
    return printable("\n".join(lines))


def triage(value: Triage) -> str:
    """A triage as a case summary."""
    reason = f" ({value.abstain_reason})" if value.abstain_reason else ""
    lines = [
        f"Alert {value.alert_id}: {value.verdict}{reason}",
        f"severity {value.severity} · confidence {value.confidence:.2f}",
        _wrap(value.summary),
        "",
    ]
    if value.techniques:
        lines.append("Techniques")
        lines += [
            f"  {one.score:.2f}  {one.id} {one.name}{_marks(one.citations)}" for one in value.techniques
        ]
    for heading, steps in (
        ("First steps", value.recommended_steps),
        ("Check before you call it malicious", value.false_positive_checks),
    ):
        if steps:
            lines.append(heading)
            lines += [_wrap(f"{step.text}{_marks(step.citations)}", "  - ") for step in steps]
    if value.observables:
        lines.append("Observables")
        lines += [_wrap(f"{one.role} {one.type}: {one.value}", "  ") for one in value.observables[:20]]
    lines.append("Sources")
    lines += [f"  [{one.n}] {_where(one)}" for one in value.citations]
    lines += _findings(value.findings)
    return printable("\n".join([*lines, _timings(value.timings), _lineage(value.lineage)]))


def hits(values: Sequence[Hit]) -> str:
    """Search results with the lists that found them."""
    lines = []
    for rank, hit in enumerate(values, start=1):
        found = ", ".join(f"{name} #{place}" for name, place in hit.found_by.items())
        heading = " > ".join([hit.title, *hit.chunk.heading_path])
        lines += [f"{rank}. {heading}  ({hit.chunk.record_id}, score {hit.score:.3f}: {found})"]
        lines += [_wrap(" ".join(hit.chunk.text.split())[:400], "   "), ""]
    return printable("\n".join(lines))


def explanation(value: Mapping[str, Any]) -> str:
    """A search with its reasons: the lists, then each hit with what put it there."""
    lines = [f"identifiers: {', '.join(value['identifiers']) or 'none'}"]
    if value["not_in_the_index"]:
        lines.append(f"not in the index: {', '.join(value['not_in_the_index'])}")
    lines.append(f"words: {' '.join(value['words']) or 'none'}")
    if value["words_left_out"]:
        lines.append(f"too common to look up: {' '.join(value['words_left_out'])}")
    for name, one in value["lists"].items():
        lines.append(f"  {name:<15} found {one['found']:>3}  {one['ms']:>7.2f} ms")
    lines.append(
        f"  {value['candidates']} candidates weighed as a {value['kind']} in {value['fusion_ms']:.2f} ms"
    )
    for hit in value["hits"]:
        lines += ["", f"{hit['rank']}. {' > '.join(hit['heading_path'])}  ({hit['record_id']})"]
        places = ", ".join(f"{name} #{place}" for name, place in hit["places"].items())
        adds = " + ".join(f"{name} {added:.2f}" for name, added in hit["adds"].items())
        lines += [f"   score {hit['score']:.3f}; {places}", f"   {adds}"]
        lines.append(_wrap(" ".join(hit["text"].split())[:240], "   "))
    return printable("\n".join(lines))


def mapping(value: Mapping[str, object]) -> str:
    """Key and value, one per line."""
    return "\n".join(f"{key}: {item}" for key, item in value.items())


def report(value: Report) -> str:
    """The doctor's findings, each with its remedy when it is not well."""
    marks = {"ok": "ok  ", "warning": "warn", "failed": "FAIL"}
    lines = []
    for check in value.checks:
        lines.append(f"{marks[check.state]}  {check.name}: {check.detail}")
        if check.remedy and check.state != "ok":
            lines.append(f"      remedy: {check.remedy}")
    return "\n".join(lines)


def bench(result: Mapping[str, Any]) -> str:
    """The bench's table: figure, value, limit, whether it was met."""
    lines = [f"{key}: {value}" for key, value in result["environment"].items()] + [""]
    for row in result["figures"]:
        met = {True: "met", False: "NOT MET", None: "-"}[row["met"]]
        lines.append(f"{row['name']:<58} {row['value']:>12}  {row['limit']:>12}  {met}")
    return "\n".join(lines)


def progress(done: int, total: int, what: str) -> None:
    """A progress line on stderr: rewritten on a terminal, one in ten in a log."""
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\r\x1b[K[{done}/{total}] {what}", end=end, file=sys.stderr, flush=True)
    elif done == total or done % max(1, total // 10) == 0:
        print(f"[{done}/{total}] {what}", file=sys.stderr, flush=True)


def note(text: str) -> None:
    """One line for people, on stderr."""
    print(printable(text), file=sys.stderr, flush=True)


def error(value: WhisError, as_json: bool) -> int:
    """Report an error and give its exit code; with `--json` it is also an object on stdout."""
    if as_json:
        body = {"message": str(value), "type": type(value).__name__, "param": None, "code": value.code}
        print(json.dumps({"error": body}, ensure_ascii=False))
    print(f"whis: {printable(str(value))}", file=sys.stderr)
    return value.exit_code


def printable(text: str) -> str:
    """`text` with each control character as its escape, `\\x1b`: documents and alerts are not trusted."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def _citation(citation: Citation) -> str:
    quoted = (
        textwrap.indent(citation.quote, "      ")
        if "\n" in citation.quote
        else _wrap(f"“{citation.quote}”", "      ")
    )
    return f"  [{citation.n}] {_where(citation)}\n{quoted}\n"


def _where(citation: Citation) -> str:
    place = " > ".join([citation.title, *citation.heading_path])
    span = f"{citation.record_id}:{citation.start}-{citation.end}"
    return f"{place}  ({span}, {citation.license}, TLP:{citation.tlp.upper()})"


def _marks(numbers: Sequence[int]) -> str:
    return "".join(f" [{n}]" for n in numbers)


def _findings(findings: Sequence[Finding]) -> list[str]:
    return [_wrap(f"{one.severity}: {one.message} ({one.code})", "  ! ") for one in findings]


def _timings(timings: Timings) -> str:
    return (
        f"{timings.total_ms / 1000:.2f} s in all · retrieval {timings.retrieve_ms:.0f} ms · first token "
        f"{timings.ttft_ms:.0f} ms · {timings.prompt_tokens} prompt tokens "
        f"({timings.cached_tokens} cached) · {timings.completion_tokens} generated"
    )


def _lineage(lineage: Lineage) -> str:
    digests = (
        ("box", lineage.box),
        ("base", lineage.base),
        ("index", lineage.index),
        ("prompt", lineage.prompt),
    )
    return " · ".join(f"{name} {digest[:12]}" for name, digest in digests)


def _wrap(text: str, indent: str = "") -> str:
    hanging = " " * len(indent)
    return textwrap.fill(
        text, WIDTH, initial_indent=indent, subsequent_indent=hanging, break_on_hyphens=False
    )
