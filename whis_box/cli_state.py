"""`whis state`: look at the state folder, bring it forward, and take reviewed extracts of it out.

Invariant: as in cli.py, stdout carries results only. Migrating requeues and ends nothing: a server may run.
"""

from __future__ import annotations

import argparse
import getpass
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from whis_box import show
from whis_box.errors import EXIT_OK, NotReadyError
from whis_box.paths import repository_root, state_dir

Command = Callable[..., argparse.ArgumentParser]


def add_commands(commands: Any, command: Command) -> None:
    """Register the commands."""
    group = commands.add_parser("state", help="audit, jobs, ratings and keys: their version")
    actions = group.add_subparsers(dest="action", required=True, metavar="ACTION")
    info = command(actions, "info", _info, "the versions of what is in the state folder")
    migrate = command(actions, "migrate", _migrate, "bring the state folder forward to this release")
    for one in (info, migrate):
        one.add_argument("--state", type=Path, default=state_dir(), metavar="DIR", help="the state folder")

    export = command(actions, "export", _export, "extracts for the build host, with a list to review")
    export.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    export.add_argument("--state", type=Path, default=state_dir(), metavar="DIR", help="the state folder")
    over = command(actions, "hand-over", _hand_over, "copy what the review released to a medium")
    over.add_argument("folder", type=Path, metavar="DIR", help="what `whis state export` wrote")
    over.add_argument("--medium", type=Path, required=True, metavar="DIR", help="a new folder on the medium")


def _info(options: argparse.Namespace) -> int:
    from whis_box.state import read_note

    _print({"state": str(options.state), **read_note(options.state).model_dump()}, options)
    return EXIT_OK


def _migrate(options: argparse.Namespace) -> int:
    _print({"state": str(options.state), **migrate(options.state)}, options)
    return EXIT_OK


def migrate(folder: Path) -> dict[str, Any]:
    """Bring every store forward and see that the rest can be read; the versions now.

    Raises: NotReadyError, VerificationError, StorageError, ConfigError; then each file is old or new.
    """
    from whis_box.audit import tail
    from whis_box.durable import Disk, make_folders
    from whis_box.ingest.sanitize.pseudonyms import load_key
    from whis_box.rollout import store
    from whis_box.rollout.transaction import open_store, version_of
    from whis_box.server import job_rows
    from whis_box.state import read_note, write_note

    read_note(folder)
    versions: dict[str, Any] = {}
    for name, steps in (("jobs.sqlite", job_rows.STEPS), ("rollout.sqlite", store.STEPS)):
        if (folder / name).is_file():
            connection = open_store(folder / name, steps)
            versions[name] = version_of(connection)
            connection.close()
    for name in ("audit", "audit-cli"):
        versions[name] = [one.seq for one in tail(folder / name, 1)]
    if (folder / "pseudonym.key").is_file():
        load_key(folder / "pseudonym.key")
    make_folders(Disk(), folder, 0o700)
    return {**versions, **write_note(folder, Disk()).model_dump()}


def _export(options: argparse.Namespace) -> int:
    from whis_box.ingest.sanitize.pseudonyms import load_key
    from whis_box.outgoing import prepare, redactor
    from whis_box.state import read_note

    read_note(options.state)
    key, redact = load_key(None)[0], None
    try:
        redact = redactor(repository_root() / "configs", key)
    except NotReadyError as error:
        show.note(str(error))
    counts = prepare(options.out, options.state, key, redact)
    _print({"folder": str(options.out), "texts_redacted": redact is not None, **counts}, options)
    return EXIT_OK


def _hand_over(options: argparse.Namespace) -> int:
    from whis_box.audit import AuditLog
    from whis_box.outgoing import hand_over

    result = hand_over(options.folder, options.medium)
    log = AuditLog(state_dir() / "audit-cli")
    log.append("export.handed_over", f"cli:{getpass.getuser()}", detail=result)
    log.close()
    _print({"medium": str(options.medium), **result}, options)
    return EXIT_OK


def _print(result: dict[str, Any], options: argparse.Namespace) -> None:
    print(json.dumps(result) if options.json else show.mapping(result))
