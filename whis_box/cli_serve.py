"""`whis serve`, `whis keys` and `whis audit`: parse, call the server's parts, show."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from whis_box import show
from whis_box.audit import tail, verify_log
from whis_box.config import load_config
from whis_box.errors import EXIT_OK, EXIT_VERIFICATION
from whis_box.paths import default_box, repository_root, state_dir


def add_commands(commands: Any) -> None:
    """Register the commands."""
    serve = commands.add_parser("serve", help="answer over HTTP", description="Answer over HTTP.")
    serve.set_defaults(run=_serve)
    serve.add_argument("--box", type=Path, default=default_box(), metavar="DIR", help="the box to use")
    serve.add_argument("--config", type=Path, default=None, metavar="FILE", help="server.yaml")
    serve.add_argument("--host", metavar="ADDRESS", help="address to listen on")
    serve.add_argument("--port", type=int, metavar="N", help="TCP port; 0 takes a free one")
    serve.add_argument("--uds", type=Path, metavar="PATH", help="Unix socket instead of TCP")
    serve.add_argument("--tls-cert", type=Path, metavar="FILE", help="PEM certificate chain")
    serve.add_argument("--tls-key", type=Path, metavar="FILE", help="PEM private key")
    serve.add_argument("--plain-http", action="store_true", help="allow other addresses without TLS")
    _keys_commands(commands)
    _audit_commands(commands)


def default_config(box: Path, name: str = "server.yaml") -> Path:
    """The box's own file, else the repository's."""
    inside = box / "configs" / name
    return inside if inside.is_file() else repository_root() / "configs" / name


def _serve(options: argparse.Namespace) -> int:
    from whis_box.rollout.config import RolloutConfig
    from whis_box.server.serve import serve
    from whis_box.server.settings import ServerConfig

    path = options.config or default_config(options.box)
    config = load_config(path, ServerConfig)
    given = {
        name: getattr(options, name)
        for name in ("host", "port", "uds", "tls_cert", "tls_key")
        if getattr(options, name) is not None
    }
    if options.plain_http:
        given["plain_http"] = True
    rollout = load_config(default_config(options.box, "rollout.yaml"), RolloutConfig)
    serve(options.box, path, config.listen.model_copy(update=given), config, rollout)
    return EXIT_OK


def _keys_commands(commands: Any) -> None:
    group = commands.add_parser("keys", help="API keys of the HTTP endpoint")
    actions = group.add_subparsers(dest="action", required=True, metavar="ACTION")
    new = actions.add_parser("new", help="make a key; it is shown once, its digest goes into the keys file")
    new.set_defaults(run=_keys_new)
    new.add_argument("id", help="name of the key, as the log and the metrics show it")
    new.add_argument("--scopes", default="ask,triage", help="of ask, triage, ingest, admin")
    new.add_argument("--clearance", default="clear", help="highest TLP it may see")
    new.add_argument("--json", action="store_true", help="print one JSON object")


def _keys_new(options: argparse.Namespace) -> int:
    from whis_box.server.access import KeyEntry, new_key
    from whis_box.server.body import validated

    key, sha256 = new_key()
    fields = {
        "id": options.id,
        "sha256": sha256,
        "scopes": [one.strip() for one in options.scopes.split(",") if one.strip()],
        "clearance": options.clearance,
    }
    entry = validated(KeyEntry, fields, "whis keys new").model_dump(mode="json", exclude_none=True)
    if options.json:
        print(json.dumps({"key": key, "entry": entry}))
        return EXIT_OK
    show.note("the key, shown once:")
    print(key)
    show.note(f"add to the keys file, under `keys:`, and send SIGHUP:\n  - {json.dumps(entry)}")
    return EXIT_OK


def _audit_commands(commands: Any) -> None:
    group = commands.add_parser("audit", help="verify or show the audit log")
    actions = group.add_subparsers(dest="action", required=True, metavar="ACTION")
    verify = actions.add_parser("verify", help="read the whole chain")
    verify.set_defaults(run=_audit_verify)
    last = actions.add_parser("show", help="the last entries")
    last.set_defaults(run=_audit_show)
    last.add_argument("--last", type=int, default=20, metavar="N", help="number of entries")
    for action in (verify, last):
        action.add_argument("--json", action="store_true", help="print one JSON object")
        action.add_argument("--log", type=Path, default=state_dir() / "audit", metavar="DIR")


def _audit_verify(options: argparse.Namespace) -> int:
    result = verify_log(options.log)
    print(result.model_dump_json() if options.json else show.mapping(result.model_dump()))
    return EXIT_OK if result.intact else EXIT_VERIFICATION


def _audit_show(options: argparse.Namespace) -> int:
    entries = tail(options.log, max(1, options.last))
    if options.json:
        print(json.dumps([entry.model_dump() for entry in entries], ensure_ascii=False))
        return EXIT_OK
    for entry in entries:
        print(f"{entry.seq:>7}  {entry.at}  {entry.actor:<12} {entry.action:<16} {entry.subject}")
    return EXIT_OK
