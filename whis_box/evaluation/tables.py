"""What people read on a terminal: figures, gates and comparisons as aligned columns."""

from __future__ import annotations

from collections.abc import Sequence

from whis_box.evaluation.compare import Comparison
from whis_box.evaluation.results import Row, RunResult
from whis_box.gates import GateFile
from whis_box.show import printable


def rows_table(result: RunResult) -> str:
    """Every suite's rows."""
    lines = []
    for suite in result.suites:
        lines += [f"\n{suite.suite}", *columns([figure(row) for row in suite.rows])]
        lines += [f"  {note}" for note in suite.notes]
    return printable("\n".join(lines).strip("\n"))


def figure(row: Row) -> tuple[str, str, str, str]:
    """Name, value, interval and count, as text."""
    if row.value is None:
        return row.name, row.reason, "", ""
    interval = f"{row.low:.3f} to {row.high:.3f}" if row.low is not None and row.high is not None else ""
    return row.name, f"{row.value:.3f}{' ' + row.unit if row.unit else ''}", interval, f"n {row.n}"


def gate_table(gate: GateFile) -> str:
    """Failed rows first, each with its margin and interval."""
    lines = ["the gate is passed" if gate.passed else "the gate REFUSES this box"]
    ordered = sorted(gate.rows, key=lambda one: one.passed)
    lines += columns(
        [
            (
                "pass" if one.passed else "FAIL",
                one.metric,
                one.reason or f"{one.value:.3f}",
                one.limit,
                f"margin {one.margin:+.3f}" if one.margin is not None else "",
                f"{one.low:.3f} to {one.high:.3f}" if one.low is not None and one.high is not None else "",
            )
            for one in ordered
        ]
    )
    return printable("\n".join(lines))


def comparison_table(comparison: Comparison) -> str:
    """One line for each metric: both means, the paired difference and who won."""
    lines = [f"A  {comparison.a}", f"B  {comparison.b}", ""]
    head = ("metric", "A", "B", "B - A", "95 % interval", "win/tie/loss", "p", "")
    body = [
        (
            one.metric,
            f"{one.a:.3f}",
            f"{one.b:.3f}",
            f"{one.difference:+.3f}",
            f"{one.low:+.3f} to {one.high:+.3f}",
            f"{one.wins}/{one.ties}/{one.losses}",
            f"{one.p:.3f}",
            one.verdict,
        )
        for one in comparison.metrics
    ]
    shown = sum(one.verdict != "no difference shown" for one in comparison.metrics)
    note = f"{shown} of {len(body)} metrics differ; of equal ones about one in twenty would, by chance"
    return printable("\n".join([*lines, *columns([head, *body]), note]))


def columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows with their columns aligned."""
    if not rows:
        return []
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
