"""`whis box` where boxes are installed: trusting, installing, content packs, going back.

Invariant: as in cli.py, stdout carries results only; nothing is decided here.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whis_box import show
from whis_box.errors import EXIT_OK
from whis_box.paths import default_home

if TYPE_CHECKING:
    from whis_box.box.packs import OpenPack

Command = Callable[..., argparse.ArgumentParser]


def add(actions: Any, command: Command) -> None:
    """Register the commands of an installed box."""
    trust = command(actions, "trust", _trust, "trust a root file whose fingerprint came another way")
    trust.add_argument("root", type=Path, metavar="ROOT.json")
    trust.add_argument("--fingerprint", required=True, metavar="SHA256")
    install = command(actions, "install", _install, "install the box on a medium")
    install.add_argument("medium", type=Path, metavar="MEDIUM")
    install.add_argument("--allow-downgrade", action="store_true", help="accept an older release")
    install.add_argument("--allow-expired", action="store_true", help="accept an expired release")
    rollback = command(actions, "rollback", _rollback, "use an older release that is still here")
    rollback.add_argument("--to", type=int, default=None, metavar="SEQUENCE")
    listing = command(actions, "list", _list, "the installed releases and the history")
    for one in (trust, install, rollback, listing):
        one.add_argument(
            "--home", type=Path, default=default_home(), metavar="DIR", help="where it is installed"
        )


def add_packs(packs: Any, command: Command) -> None:
    """Register `whis box pack …`, but for building one."""
    verify = command(packs, "verify", _pack_verify, "check a pack's signatures and hashes")
    diff = command(packs, "diff", _pack_diff, "what a pack would change")
    apply = command(packs, "apply", _pack_apply, "install what a pack results in")
    for one in (verify, diff, apply):
        one.add_argument("pack", type=Path, metavar="PACK")
        one.add_argument("--allow-expired", action="store_true", help="accept an expired release")
    revert = command(packs, "revert", _rollback, "use the release from before the pack")
    revert.add_argument("--to", type=int, default=None, metavar="SEQUENCE")
    for one in (verify, diff, apply, revert):
        one.add_argument("--home", type=Path, default=default_home(), metavar="DIR")


def _trust(options: argparse.Namespace) -> int:
    from whis_box.box.install import pin
    from whis_box.box.slots import home_at, locked

    home = home_at(options.home)
    with locked(home):
        root = pin(home, options.root, options.fingerprint)
    result = {"home": str(home.folder), "root": root.version, "release_keys": root.release_keys}
    print(json.dumps(result) if options.json else show.mapping(result))
    return EXIT_OK


def _install(options: argparse.Namespace) -> int:
    from whis_box.box.install import Options, install
    from whis_box.box.selftest import health_check, migrate_state
    from whis_box.box.slots import home_at, locked

    home, gate = home_at(options.home), partial(health_check, tell=show.note)
    allowed = Options(options.allow_downgrade, options.allow_expired)
    with locked(home):
        outcome = install(options.medium, home, allowed, gate, _progress, migrate_state)
    for warning in outcome.warnings:
        show.note(f"warning: {warning}")
    result = vars(outcome) | {"home": str(home.folder)}
    print(json.dumps(result) if options.json else show.mapping(result))
    return EXIT_OK


def _rollback(options: argparse.Namespace) -> int:
    from whis_box.box.slots import home_at, locked, rollback

    home = home_at(options.home)
    with locked(home):
        sequence = rollback(home, options.to)
    print(json.dumps({"sequence": sequence}) if options.json else f"release {sequence} is in use")
    return EXIT_OK


def _list(options: argparse.Namespace) -> int:
    from whis_box.box.slots import home_at

    home = home_at(options.home)
    record = home.record()
    result = {
        "home": str(home.folder),
        "active": home.active(),
        "installed": home.installed(),
        "last_seen": record.last_seen,
        "pending": record.pending.model_dump() if record.pending else None,
        "history": [event.model_dump() for event in record.history],
    }
    print(json.dumps(result) if options.json else show.mapping(result))
    return EXIT_OK


def _pack_verify(options: argparse.Namespace) -> int:
    opened = _open_pack(options)
    result = {
        "pack": str(options.pack),
        "from": opened.pack.base_sequence,
        "to": opened.manifest.sequence,
        "bytes": opened.pack.size_bytes,
        "verified": True,
    }
    print(json.dumps(result) if options.json else show.mapping(result))
    return EXIT_OK


def _pack_diff(options: argparse.Namespace) -> int:
    from whis_box.box.changes import changes
    from whis_box.box.packs import base_release
    from whis_box.box.slots import home_at

    opened = _open_pack(options)
    result = changes(opened, base_release(home_at(options.home), opened))
    print(json.dumps(result, ensure_ascii=False) if options.json else show.mapping(result))
    return EXIT_OK


def _pack_apply(options: argparse.Namespace) -> int:
    from whis_box.box.install import Options
    from whis_box.box.packs import apply_pack
    from whis_box.box.selftest import health_check, migrate_state
    from whis_box.box.slots import home_at, locked

    home, gate = home_at(options.home), partial(health_check, tell=show.note)
    with locked(home):
        allowed = Options(allow_expired=options.allow_expired)
        outcome = apply_pack(options.pack, home, allowed, gate, _progress, migrate_state)
    result = vars(outcome) | {"home": str(home.folder)}
    print(json.dumps(result) if options.json else show.mapping(result))
    return EXIT_OK


def _open_pack(options: argparse.Namespace) -> OpenPack:
    from whis_box.box.install import Options, trusted_root
    from whis_box.box.packs import open_pack
    from whis_box.box.slots import home_at

    root = trusted_root(home_at(options.home))
    opened = open_pack(options.pack, root, Options(allow_expired=options.allow_expired))
    for warning in opened.warnings:
        show.note(f"warning: {warning}")
    return opened


def _progress(path: str, size_bytes: int) -> None:
    show.note(f"{size_bytes / 1e6:9.1f} MB  {path}") if size_bytes > 1_000_000 else None
