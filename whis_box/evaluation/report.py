"""The report: one HTML file that works offline, and the same as Markdown.

Invariant: everything that came from a question, an alert, a document or the model is escaped; no script, no
link and nothing outside the file is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from whis_box.evaluation import plots
from whis_box.evaluation.compare import Comparison
from whis_box.evaluation.results import Case, RunResult, SuiteResult
from whis_box.evaluation.settings import EvalConfig
from whis_box.evaluation.tables import figure
from whis_box.gates import GateFile
from whis_box.paths import written_beside
from whis_box.show import printable

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#1c2733}"
    "table{border-collapse:collapse;margin:.6rem 0}td,th{border:1px solid #d7dde4;padding:.2rem .6rem;"
    "text-align:left;vertical-align:top}th{background:#f2f5f8}.fail{color:#a3161d;font-weight:600}"
    ".none{color:#5d6b79}details{margin:.4rem 0}code{font-size:13px}svg{margin:.5rem 1rem .5rem 0}"
)
COLUMNS = ("figure", "value", "95 % interval", "of")


def write_report(
    folder: Path,
    result: RunResult,
    config: EvalConfig,
    gate: GateFile | None = None,
    comparison: Comparison | None = None,
) -> tuple[Path, Path]:
    """Write report.html and report.md into the run's folder.

    Raises: StorageError.
    """
    pages = {
        folder / "report.html": _html(result, config, gate, comparison),
        folder / "report.md": _markdown(result, config, gate, comparison),
    }
    for path, text in pages.items():
        with written_beside(path) as beside:
            beside.write_text(text, encoding="utf-8")
    html, markdown = pages
    return html, markdown


def _facts(result: RunResult) -> list[tuple[str, str]]:
    """Environment and lineage."""
    return [
        ("subject", result.subject),
        *result.environment.items(),
        *((f"{name} (lineage)", digest) for name, digest in result.lineage.model_dump().items()),
        *((f"golden {name}", digest) for name, digest in result.golden.items()),
        ("program", result.code),
        ("seed", str(result.seed)),
        ("sample of each set", str(result.sample) if result.sample else "all"),
        ("records that questions name and the index lacks", ", ".join(result.missing_records) or "none"),
    ]


# ---------------------------------------------------------------------- HTML


def _html(result: RunResult, config: EvalConfig, gate: GateFile | None, comparison: Comparison | None) -> str:
    parts = [f"<h1>Evaluation of {_e(result.subject)}</h1>"]
    if gate is not None:
        verdict = "passes" if gate.passed else "is REFUSED by"
        parts.append(f"<h2>Gate</h2><p>This subject {verdict} the gate.</p>{_html_gate(gate)}")
    if comparison is not None:
        parts.append(_html_comparison(comparison))
    for suite in result.suites:
        parts += _html_suite(suite, config.worst_cases)
    rows = "".join(f"<tr><td>{_e(name)}</td><td><code>{_e(v)}</code></td></tr>" for name, v in _facts(result))
    parts.append(f"<h2>Environment and lineage</h2><table>{rows}</table>")
    body = "\n".join(parts)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Evaluation of '
        f"{_e(result.subject)}</title><style>{STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def _html_suite(suite: SuiteResult, n_worst: int) -> Iterator[str]:
    yield f"<h2>{_e(suite.suite)}</h2>"
    yield _html_table(COLUMNS, [figure(row) for row in suite.rows])
    yield from (f"<p>{_e(note)}</p>" for note in suite.notes)
    yield "".join(_plots(suite.plots))
    if suite.worst:
        yield f"<details><summary>The worst {min(n_worst, len(suite.worst))} cases</summary>"
        yield from (_html_case(case) for case in suite.worst[:n_worst])
        yield "</details>"


def _html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["".join(f"<th>{_e(one)}</th>" for one in head)]
    for row in rows:
        mark = ' class="none"' if any(cell.startswith("not measured") for cell in row) else ""
        lines.append("".join(f"<td{mark}>{_e(cell)}</td>" for cell in row))
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _html_gate(gate: GateFile) -> str:
    lines = ["<tr><th></th><th>figure</th><th>value</th><th>limit</th><th>margin</th><th>interval</th></tr>"]
    for row in sorted(gate.rows, key=lambda one: one.passed):
        value, margin, interval = _gate_cells(row.value, row.margin, row.low, row.high)
        cells = (
            "pass" if row.passed else "FAIL",
            row.metric,
            row.reason or value,
            row.limit,
            margin,
            interval,
        )
        mark = "" if row.passed else ' class="fail"'
        lines.append("<tr>" + "".join(f"<td{mark}>{_e(cell)}</td>" for cell in cells) + "</tr>")
    return f"<table>{''.join(lines)}</table>"


def _gate_cells(
    value: float | None, margin: float | None, low: float | None, high: float | None
) -> tuple[str, str, str]:
    return (
        f"{value:.3f}" if value is not None else "",
        f"{margin:+.3f}" if margin is not None else "",
        f"{low:.3f} to {high:.3f}" if low is not None and high is not None else "",
    )


def _html_comparison(comparison: Comparison) -> str:
    head = ("metric", "A", "B", "B - A", "95 % interval", "win/tie/loss", "")
    return f"<h2>Compared</h2><p>A is {_e(comparison.a)}, B is {_e(comparison.b)}.</p>" + _html_table(
        head, _comparison_rows(comparison)
    )


def _comparison_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    return [
        (
            one.metric,
            f"{one.a:.3f}",
            f"{one.b:.3f}",
            f"{one.difference:+.3f}",
            f"{one.low:+.3f} to {one.high:+.3f}",
            f"{one.wins}/{one.ties}/{one.losses}",
            one.verdict,
        )
        for one in comparison.metrics
    ]


def _html_case(case: Case) -> str:
    evidence = "".join(f"<li>{_e(one)}</li>" for one in case.evidence)
    return (
        f"<p><b>{_e(case.id)}</b> {_e(case.asked)}<br>expected: {_e(case.expected)}<br>"
        f"got: {_e(case.got)}</p><ul>{evidence}</ul>"
    )


def _plots(data: dict[str, Any]) -> Iterator[str]:
    """Every picture that there is data for."""
    if curve := data.get("hit_curve"):
        yield plots.hit_curve(curve)
    for name in ("ask_s", "triage_s"):
        if seconds := data.get(name):
            yield plots.histogram(f"time of {name.removesuffix('_s')}", seconds)
    for name, bins in (data.get("reliability") or {}).items():
        if bins:
            yield plots.reliability(f"confidence of {name}", bins)
    if matrix := data.get("confusion"):
        yield plots.confusion(matrix["labels"], matrix["table"])
    if losses := data.get("loss_curve"):
        yield plots.loss_curve(losses)


def _e(text: str) -> str:
    return escape(printable(text))


# ------------------------------------------------------------------ Markdown


def _markdown(
    result: RunResult, config: EvalConfig, gate: GateFile | None, comparison: Comparison | None
) -> str:
    lines = [f"# Evaluation of {_cell(result.subject)}", ""]
    if gate is not None:
        lines += [f"## Gate: {'passed' if gate.passed else 'REFUSED'}", "", *_markdown_gate(gate), ""]
    if comparison is not None:
        head = ("metric", "A", "B", "B - A", "95 % interval", "win/tie/loss", "")
        lines += [f"## {_cell(comparison.b)} against {_cell(comparison.a)}", ""]
        lines += [*_markdown_table(head, _comparison_rows(comparison)), ""]
    for suite in result.suites:
        lines += [f"## {suite.suite}", "", *_markdown_table(COLUMNS, [figure(row) for row in suite.rows]), ""]
        lines += [f"{_cell(note)}\n" for note in suite.notes]
        if suite.worst:
            lines += [f"The worst {min(config.worst_cases, len(suite.worst))} of {len(suite.worst)}:", ""]
            lines += [
                f"- **{_cell(one.id)}** {_cell(one.asked, 200)} Expected: {_cell(one.expected, 200)} "
                f"Got: {_cell(one.got, 200)}"
                for one in suite.worst[: config.worst_cases]
            ]
            lines.append("")
    lines += ["## Environment and lineage", "", *_markdown_table(("what", "value"), _facts(result)), ""]
    return "\n".join(lines)


def _markdown_gate(gate: GateFile) -> list[str]:
    rows = []
    for row in sorted(gate.rows, key=lambda one: one.passed):
        value, margin, interval = _gate_cells(row.value, row.margin, row.low, row.high)
        verdict = "pass" if row.passed else "**FAIL**"
        rows.append((verdict, row.metric, row.reason or value, row.limit, margin, interval))
    return _markdown_table(("", "figure", "value", "limit", "margin", "95 % interval"), rows)


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]


def _cell(text: str, limit: int = 1000) -> str:
    """One line that no Markdown reader takes for markup or HTML."""
    flat = " ".join(printable(text).split())
    shown = flat if len(flat) <= limit else flat[: limit - 1] + "…"
    return escape(shown, quote=False).replace("|", "\\|").replace("`", "\\`")
