"""`whis adapters`: look at and change the rollout; a running server follows within a second.

Invariant: as in cli.py, stdout carries results only; nothing is decided here.
"""

from __future__ import annotations

import argparse
import getpass
import json
from pathlib import Path
from typing import Any

from whis_box import show
from whis_box.audit import AuditLog
from whis_box.config import BoxConfig, load_config
from whis_box.errors import EXIT_OK
from whis_box.paths import default_box, repository_root, state_dir
from whis_box.rollout.config import RolloutConfig
from whis_box.rollout.control import Control
from whis_box.rollout.releases import Artifact, Shelf, gate_of, read_shelf
from whis_box.rollout.state import Action, RolloutReport, RolloutRequest, RolloutState
from whis_box.rollout.store import RolloutStore
from whis_box.state import read_note

ACTIONS: dict[Action, str] = {
    "activate": "make an adapter or index stable at once",
    "canary": "give a share of the traffic to another release",
    "shadow": "let another release answer a copy of the traffic, unseen",
    "promote": "make the canary, or else the shadow, stable",
    "rollback": "end the canary, or else take stable back",
    "stop": "end the canary and the shadow",
}


def add_commands(commands: Any) -> None:
    """Register the commands."""
    group = commands.add_parser("adapters", help="what answers: stable, canary, shadow, and the way back")
    actions = group.add_subparsers(dest="action", required=True, metavar="ACTION")
    for action, text in ACTIONS.items():
        command = _command(actions, action, text)
        command.set_defaults(run=_act)
        command.add_argument("--reason", default="", help="why, for the record")
        if action in ("activate", "canary", "shadow"):
            command.add_argument("adapter", nargs="?", default="", metavar="NAME@VERSION", help="the adapter")
            command.add_argument("--index", default="", metavar="NAME@VERSION", help="the index")
        if action == "canary":
            command.add_argument("--percent", type=int, default=10, help="share of the traffic")
            command.add_argument("--sticky", choices=("alert", "key"), default="alert")
    _command(actions, "list", "adapters and indexes on this host").set_defaults(run=_list)
    _command(actions, "report", "figures of each release, and how far they agree").set_defaults(run=_report)
    _command(actions, "history", "every change, newest first").set_defaults(run=_history)
    export = _command(actions, "export", "redacted training pairs from the analysts' ratings, as NDJSON")
    export.set_defaults(run=_export)
    export.add_argument("--store", type=Path, default=state_dir() / "rollout.sqlite", metavar="FILE")


def _command(actions: Any, name: str, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.add_argument("--box", type=Path, default=default_box(), metavar="DIR", help="the box to use")
    command.add_argument("--environment", default="", help="another one than configs/rollout.yaml says")
    return command


def _control(options: argparse.Namespace) -> Control:
    inside = options.box / "configs" / "rollout.yaml"
    path = inside if inside.is_file() else repository_root() / "configs" / "rollout.yaml"
    config = load_config(path, RolloutConfig)
    if options.environment:
        fields = {**config.model_dump(), "environment": options.environment}
        config = RolloutConfig.model_validate(fields)
    read_note(state_dir())
    return Control(config, RolloutStore(state_dir() / "rollout.sqlite"))


def _shelf(box: Path) -> Shelf:
    from whis_box.box.manifest import read_manifest
    from whis_box.box.opening import open_lineage

    manifest, digest = read_manifest(box)
    config = load_config(box / "configs" / "box.yaml", BoxConfig)
    return read_shelf(box, state_dir(), box / config.index, open_lineage(manifest, digest, config))


def _act(options: argparse.Namespace) -> int:
    fields = {
        name: getattr(options, name)
        for name in ("adapter", "index", "percent", "sticky", "reason")
        if hasattr(options, name)
    }
    control = _control(options)
    actor = f"cli:{getpass.getuser()}"
    shelf = None if options.action in ("rollback", "stop") else _shelf(options.box)
    state = control.act(options.action, RolloutRequest.model_validate(fields), shelf, actor)
    # A folder of its own: the server's chain has one writer.
    log = AuditLog(state_dir() / "audit-cli")
    detail = {"revision": state.revision, "state": state.model_dump(mode="json")}
    log.append(f"rollout.{options.action}", actor, subject=state.environment, detail=detail)
    log.close()
    _print_state(state, options.json)
    return EXIT_OK


def _print_state(state: RolloutState, as_json: bool) -> None:
    if as_json:
        print(state.model_dump_json())
        return
    print(f"{state.environment} (revision {state.revision})")
    print(f"  stable  {state.stable}")
    for name in ("canary", "shadow", "previous"):
        if (release := getattr(state, name)) is not None:
            share = f"  {state.canary_percent} %, sticky by {state.sticky}" if name == "canary" else ""
            print(f"  {name:<8}{release}{share}")


def _list(options: argparse.Namespace) -> int:
    shelf, state = _shelf(options.box), _control(options).state()
    held = [*shelf.adapters.values(), *shelf.indexes.values()]
    if options.json:
        rows = [{**one.model_dump(mode="json"), "gate": _gate_word(one)} for one in held]
        print(json.dumps({"state": state.model_dump(mode="json"), "held": rows}))
        return EXIT_OK
    _print_state(state, as_json=False)
    for one in held:
        print(f"  {one.reference:<30} {one.sha256[:12]:<13} {one.origin:<6} {_gate_word(one)}")
    return EXIT_OK


def _gate_word(artifact: Artifact) -> str:
    gate = gate_of(artifact)
    return "no gate" if gate is None else ("passed" if gate.passed else "refused")


def _report(options: argparse.Namespace) -> int:
    report = _control(options).report(_shelf(options.box))
    print(report.model_dump_json() if options.json else _report_text(report))
    return EXIT_OK


def _report_text(report: RolloutReport) -> str:
    lines = [f"{report.state.environment}, the last {report.window_s:g} s"]
    for arm in report.arms:
        times = "not measured" if arm.p95_ms is None else f"p50 {arm.p50_ms:.0f} ms, p95 {arm.p95_ms:.0f} ms"
        lines.append(f"  {arm.arm:<7} {arm.release}: errors {arm.errors}, findings {arm.findings}, {times}")
    if report.comparison is not None:
        lines += [f"  {name.replace('_', ' ')}: {value}" for name, value in report.comparison]
    if report.gate_problem:
        lines.append(f"  not to be promoted: {report.gate_problem}")
    return "\n".join(lines)


def _history(options: argparse.Namespace) -> int:
    control = _control(options)
    events = control.store.events(control.config.environment, 100)
    if options.json:
        print(json.dumps([one.model_dump(mode="json") for one in events]))
        return EXIT_OK
    for one in events:
        print(f"{one.seq:>5}  {one.at}  {one.actor:<12} {one.action:<9} {one.reason}")
    return EXIT_OK


def _export(options: argparse.Namespace) -> int:
    """Only ratings whose analyst agreed to training; needs the build half's recognizers."""
    from whis_box.ingest.sanitize.pseudonyms import load_key
    from whis_box.outgoing import pair, redactor

    redact = redactor(repository_root() / "configs", load_key(None)[0])
    rows = [row for row in RolloutStore(options.store).ratings(1_000_000) if row["training"] == "yes"]
    for row in rows:
        print(json.dumps(pair(row, redact), ensure_ascii=False))
    show.note(f"{len(rows)} pairs")
    return EXIT_OK
