"""The sections of the Box area: each asks the server and lays out what it says."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from textual.content import Content

from tui.safe_text import safe, safe_line
from tui.widgets.hanging import HANG
from tui.widgets.rows import Column
from tui.widgets.sparkline import sparkline
from tui.words import duration, milliseconds, size
from whis_box.rollout.state import AdapterState, ArmFigures, Rate
from whis_box.server.wire import BoxCheck, MetricsSummary

if TYPE_CHECKING:
    from tui.client import Client

Part = str | tuple[str, str]
NOT_MEASURED = "not measured"
ADAPTER_COLUMNS: list[Column[AdapterState]] = [
    Column("adapter", 0, lambda one: safe_line(one.reference, 80)),
    Column("gate", 15, lambda one: gate_word(one.gate_passed)),
    Column("roles", 16, lambda one: ", ".join(one.roles)),
]
history: dict[str, deque[float]] = {name: deque(maxlen=60) for name in ("answers/s", "tokens/s", "waiting")}
_last: dict[str, float] = {}


def table(*rows: tuple[str, Any]) -> list[Part]:
    """Name and value, one a line."""
    parts: list[Part] = []
    for name, value in rows:
        parts += [(f"{name:<16} ", "$muted"), f"{HANG}{safe_line(shown(value), 300)}\n"]
    return parts


def shown(value: Any) -> str:
    """A value as people read it."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def heading(text: str) -> Part:
    """A line above a group."""
    return (f"\n{text}\n", "bold $accent")


def gate_word(passed: bool | None) -> str:
    """A gate in words."""
    return {True: "✓ passed", False: "✗ refused", None: "○ no gate file"}[passed]


async def manifest(client: Client) -> Content:
    """The manifest as it was verified at the start."""
    box = await client.box()
    parts = table(
        ("box", f"{box.name} {box.version}"),
        ("folder", box.folder),
        ("files", f"{box.files}, {size(box.size_bytes)}"),
        ("manifest", box.manifest_sha256),
        ("signature", box.signature),
        ("verified", f"{box.verified_at}, when it was opened; v does it now"),
        ("source commit", box.source_commit),
    )
    parts.append(heading("What shapes an answer (sha256)"))
    return Content.assemble(*parts, *table(*box.lineage.model_dump().items()))


def check(result: BoxCheck) -> Content:
    """A verification that was asked for."""
    if result.intact:
        return Content.assemble((f"✓ intact: {result.files} files are what the manifest says\n", "$success"))
    return Content.assemble(
        ("✗ the box was changed; do not work with it\n", "bold $error"), safe("\n".join(result.problems))
    )


async def engine(client: Client) -> Content:
    """The model process."""
    state, figures = await asyncio.gather(client.engine(), client.metrics())
    info = state.info
    lanes = info.get("lanes", [])
    parts = table(
        ("state", f"{'● runs' if state.running else '○ does not run; it starts with the next question'}"),
        ("process", state.pid or "none"),
        ("memory", size(state.memory_bytes) if state.memory_bytes is not None else NOT_MEASURED),
        ("speed", speed(figures)),
        ("restarts", state.restarts),
        ("seats", f"{state.busy} of {state.seats} work, {state.waiting} requests wait"),
        ("lanes", ", ".join(map(str, lanes)) if isinstance(lanes, list) else lanes),
    )
    parts.append(heading("What it says of itself"))
    return Content.assemble(
        *parts, *table(*((name, value) for name, value in info.items() if name != "lanes"))
    )


async def index(client: Client) -> Content:
    """The active index."""
    return Content.assemble(*table(*(await client.index()).items()))


async def rollout(client: Client) -> Content:
    """Which release answers, and the figures of each."""
    report = await client.rollout_report()
    state = report.state
    parts = table(
        ("environment", state.environment),
        ("stable", state.stable),
        ("previous", state.previous or "none: nothing to go back to"),
        (
            "canary",
            f"{state.canary}, {state.canary_percent} percent by {state.sticky}" if state.canary else "none",
        ),
        ("shadow", state.shadow or "none"),
        ("changed", f"{state.changed_at} {state.reason}".strip() or "never"),
        ("revision", state.revision),
    )
    parts.append(heading(f"Figures of the last {duration(report.window_s)}"))
    for arm in report.arms:
        parts += _arm(arm)
    if report.comparison is not None:
        told = report.comparison
        parts += table(
            ("pairs", told.pairs),
            ("agreement", told.agreement),
            ("last 50", told.agreement_trailing_50),
            ("abstained", told.abstained),
            ("recall malicious", told.recall_on_malicious),
            ("with analysts", told.analyst_agreement),
        )
    if report.gate_problem:
        parts.append((f"\n! may not be promoted yet: {safe_line(report.gate_problem, 400)}\n", "$warning"))
    parts.append(heading("Changes"))
    for event in (await client.rollout_events())[:10]:
        parts.append(
            f"{event.at[:19]}  {event.action:<9} {safe_line(event.actor, 20)}  {safe_line(event.reason)}\n"
        )
    return Content.assemble(*parts)


def _arm(arm: ArmFigures) -> list[Part]:
    def rate(value: Rate) -> str:
        return str(value)

    p50 = milliseconds(arm.p50_ms) if arm.p50_ms is not None else NOT_MEASURED
    p95 = milliseconds(arm.p95_ms) if arm.p95_ms is not None else NOT_MEASURED
    return table(
        (arm.arm, arm.release),
        ("  errors", rate(arm.errors)),
        ("  findings", rate(arm.findings)),
        ("  p50 / p95", f"{p50} / {p95}"),
    )


async def adapters(client: Client) -> Content:
    """Adapters and indexes on this host."""
    held = await client.adapters()
    parts: list[Part] = []
    for name, group in (("Adapters", held.adapters), ("Indexes", held.indexes)):
        parts.append(heading(name))
        for one in group:
            roles = ", ".join(one.roles) or "no role"
            parts.append(f"{safe_line(one.reference):<20} {HANG}{gate_word(one.gate_passed):<15} {roles} ")
            parts.append((f"({one.origin}, {one.sha256[:12]})\n", "$muted"))
    return Content.assemble(*parts)


async def gates(client: Client) -> Content:
    """Every gate file, rule by rule."""
    held = await client.gates()
    parts: list[Part] = []
    for reference, gate in held.items():
        parts += [
            heading(f"{reference}: {gate_word(gate.get('passed'))}"),
            f"made {gate.get('created_at', '')}\n",
        ]
        for row in gate.get("rows", []):
            mark = {True: "✓", False: "✗"}.get(row.get("passed"), "○ not run")
            parts.append(
                f"  {mark} {safe_line(str(row.get('metric'))):<34} {safe_line(str(row.get('limit')), 40)}\n"
            )
    return (
        Content.assemble(*parts)
        if parts
        else Content("No gate file is on this host: nothing may be promoted.")
    )


async def metrics(client: Client) -> Content:
    """Figures since the server started; the lines grow while this section is shown."""
    now = await client.metrics()
    answered = float(sum(count for code, count in now.requests.items() if code.startswith("2")))
    if _last and now.uptime_s > _last["uptime"]:
        rate = (answered - _last["answered"]) / (now.uptime_s - _last["uptime"])
        history["answers/s"].append(max(0.0, rate))
        history["tokens/s"].append(now.tokens_per_s or 0.0)
        history["waiting"].append(float(now.waiting))
    _last.update(uptime=now.uptime_s, answered=answered)
    parts = table(
        ("up", duration(now.uptime_s)),
        ("requests", counts(now.requests)),
        ("refusals", counts(now.refusals)),
        ("findings", counts(now.findings)),
        ("jobs", counts(now.jobs)),
        ("seats", f"{now.seats_busy} work, {now.waiting} wait"),
        ("first token", spread(now.ttft_ms_p50, now.ttft_ms_p95)),
        ("whole answer", spread(now.total_ms_p50, now.total_ms_p95)),
        (
            "tokens",
            f"{now.prompt_tokens} prompt, {now.cached_tokens} cached, {now.completion_tokens} written",
        ),
        ("speed", speed(now)),
    )
    parts.append(heading("While this is shown, every 5 s"))
    for name, values in history.items():
        ends = (
            f"{min(values):.2f} to {max(values):.2f}, now {values[-1]:.2f}"
            if values
            else "wait for the next reading"
        )
        parts += [(f"{name:<16} ", "$muted"), f"{HANG}{sparkline(list(values))}  {ends}\n"]
    return Content.assemble(*parts)


async def audit(client: Client) -> Content:
    """The log's tail, newest first."""
    tail = await client.audit()
    lines = [
        f"{one.seq:>7}  {one.at[:19]}  {safe_line(one.actor, 12):<12} {safe_line(one.action, 18):<18} "
        f"{HANG}{safe_line(one.subject, 60)}"
        for one in reversed(tail.entries)
    ]
    return Content("\n".join(lines) or "no entry")


async def jobs(client: Client) -> Content:
    """The server's newest jobs."""
    page = await client.jobs(limit=100)
    parts: list[Part] = [f"{counts(page.counts)}\n"]
    for one in page.jobs:
        name = safe_line(one.request_id or one.id, 60)
        parts.append(f"{one.created_at[:19]}  {one.kind:<7} {one.status:<9} {name}\n")
    return Content.assemble(*parts)


def speed(figures: MetricsSummary) -> str:
    """Tokens written a second."""
    return f"{figures.tokens_per_s:.1f} tokens/s" if figures.tokens_per_s is not None else NOT_MEASURED


def counts(values: dict[str, int]) -> str:
    """`name 3, other 1`."""
    return ", ".join(f"{name} {count}" for name, count in sorted(values.items()) if count) or "none"


def spread(p50: float | None, p95: float | None) -> str:
    """Median and 95th percentile, or that there is none."""
    if p50 is None or p95 is None:
        return NOT_MEASURED
    return f"p50 {milliseconds(p50)}, p95 {milliseconds(p95)}"
