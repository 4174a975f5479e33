"""`whis box`: keys, building, signing and verifying; installing is in cli_install.py.

Invariant: as in cli.py, stdout carries results only; nothing is decided here.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whis_box import cli_install, show
from whis_box.errors import EXIT_OK, EXIT_VERIFICATION, InputError
from whis_box.paths import default_home, read_text, repository_root

if TYPE_CHECKING:
    from whis_box.box.minisign import PublicKey, SecretKey

PASSPHRASE_FILE = "WHIS_KEY_PASSPHRASE_FILE"
Command = Callable[..., argparse.ArgumentParser]


def add(commands: Any, command: Command) -> None:
    """Register `whis box …`."""
    build_dir = repository_root() / "build"
    group = commands.add_parser("box", help="build, sign, verify, install and roll back boxes")
    actions = group.add_subparsers(dest="action", required=True, metavar="ACTION")
    _build_options(command(actions, "build", _build, "put a box together"), build_dir)
    verify = command(actions, "verify", _verify, "compare every file with the manifest, and the signature")
    verify.add_argument("--key", action="append", default=[], metavar="KEY", help="a public key, or its file")
    sign = command(actions, "sign", _sign, "sign a box that was put together")
    sign.add_argument("--secret-key", type=Path, required=True, metavar="FILE")
    key = command(actions, "key", _key, "create a key pair (FILE and FILE.pub)")
    key.add_argument("file", type=Path, metavar="FILE")
    key.add_argument("--no-passphrase", action="store_true", help="leave the secret key unencrypted")
    root = command(actions, "root", _root, "write a root file: who may sign boxes")
    root.add_argument("folder", type=Path, metavar="FOLDER", help="where root files are kept")
    root.add_argument("--release-key", action="append", required=True, metavar="PUB")
    root.add_argument("--root-key", action="append", required=True, metavar="PUB")
    root.add_argument("--threshold", type=int, default=1, metavar="N")
    root.add_argument("--expires-at", required=True, metavar="TIME", help="like 2031-01-01T00:00:00Z")
    root.add_argument("--signer", action="append", type=Path, required=True, metavar="SECRET")
    command(actions, "self-test", _self_test, "ask the box its own questions")
    sbom = command(actions, "sbom", _sbom, "print the inventory of the box (CycloneDX)")
    sbom.add_argument("--document", choices=("inventory", "flaws", "licenses"), default="inventory")
    cli_install.add(actions, command)
    group = actions.add_parser("pack", help="content packs: signed differences between releases")
    packs = group.add_subparsers(dest="pack_action", required=True, metavar="ACTION")
    build = command(packs, "build", _pack_build, "write the difference between two signed boxes")
    build.add_argument("--from", dest="old", type=Path, required=True, metavar="BOX")
    build.add_argument("--to", dest="new", type=Path, required=True, metavar="BOX")
    build.add_argument("--out", type=Path, required=True, metavar="PACK")
    build.add_argument("--secret-key", type=Path, required=True, metavar="FILE")
    cli_install.add_packs(packs, command)


def _build_options(build: argparse.ArgumentParser, build_dir: Path) -> None:
    root = repository_root()
    build.add_argument("--base", type=Path, default=build_dir / "models" / "base.gguf")
    build.add_argument("--embedder", type=Path, default=build_dir / "embedder")
    build.add_argument("--index", type=Path, default=build_dir / "index" / "whis.sqlite")
    build.add_argument("--configs", type=Path, default=root / "configs")
    build.add_argument("--self-test", type=Path, default=root / "data" / "golden" / "selftest.ndjson")
    build.add_argument("--program", type=Path, default=None, metavar="DIR", help="the frozen program")
    build.add_argument("--trust", type=Path, default=None, metavar="DIR", help="root files to carry along")
    build.add_argument(
        "--adapter",
        action="append",
        type=Path,
        default=[],
        metavar="DIR",
        help="a published adapter's folder",
    )
    build.add_argument("--sequence", type=int, default=0, metavar="N", help="number of this release")
    build.add_argument("--issued-at", default="", metavar="TIME", help="like 2026-01-31T00:00:00Z")
    build.add_argument("--valid-days", type=int, default=365, metavar="N")
    build.add_argument("--out", type=Path, default=build_dir / "box")


# ---------------------------------------------------------------- build host


def _build(options: argparse.Namespace) -> int:
    from whis_box.box.assemble import BoxParts, Release, assemble
    from whis_box.config import BoxConfig, load_config

    config = load_config(options.configs / "box.yaml", BoxConfig)
    root = repository_root()
    parts = BoxParts(
        base_model=options.base,
        embedder=options.embedder,
        index=options.index,
        configs=options.configs,
        catalogue=root / "data" / "catalogue" / "attack-enterprise.tsv",
        license=root / "LICENSE",
        guards=root / "data" / "guards",
        self_test=options.self_test,
        program=options.program,
        trust=options.trust,
        adapters=tuple(options.adapter),
    )
    release = Release(options.sequence, options.issued_at, options.valid_days)
    manifest, changed = assemble(parts, options.out, config, release)
    state = "assembled" if changed else "unchanged"
    number = f", release {manifest.sequence}" if manifest.sequence else ""
    size_mb = manifest.size_bytes / 1e6
    print(f"{options.out}: {state}, {len(manifest.files)} files, {size_mb:.1f} MB{number}")
    return EXIT_OK


def _sign(options: argparse.Namespace) -> int:
    from whis_box.box.manifest import verify, write_manifest

    key = _secret_key(options.secret_key)
    manifest, digest = verify(options.box)
    write_manifest(options.box, manifest, key)
    result = {"box": str(options.box), "key": key.public.key_id, "manifest_sha256": digest}
    print(json.dumps(result) if options.json else show.mapping(result))
    return EXIT_OK


def _key(options: argparse.Namespace) -> int:
    from whis_box.box.minisign import create_key
    from whis_box.durable import Disk, write_file

    public_path = options.file.with_name(options.file.name + ".pub")
    if options.file.exists() or public_path.exists():
        raise InputError(f"{options.file}: exists; a key is never overwritten, name another file")
    passphrase = "" if options.no_passphrase else _passphrase(options.file, repeat=True)
    key = create_key()
    write_file(Disk(), options.file, [key.file_text(passphrase).encode()], 0o600)
    write_file(Disk(), public_path, [key.public.file_text().encode()])
    result = {"key": key.public.key_id, "public": key.public.text(), "secret_file": str(options.file)}
    print(json.dumps(result) if options.json else show.mapping(result))
    return EXIT_OK


def _root(options: argparse.Namespace) -> int:
    from whis_box.box import trust

    signers = [_secret_key(path) for path in options.signer]
    version = 1 + sum(1 for _ in options.folder.glob("root.*.json"))
    root = trust.Root(
        format_version=1,
        version=version,
        expires_at=options.expires_at,
        threshold=options.threshold,
        root_keys=[_public_key(text).text() for text in options.root_key],
        release_keys=[_public_key(text).text() for text in options.release_key],
    )
    raw = trust.write_root(options.folder, root, signers)
    path = options.folder / trust.root_name(version)
    result = {"root": str(path), "version": version, "fingerprint": trust.fingerprint(raw)}
    print(json.dumps(result) if options.json else show.mapping(result))
    return EXIT_OK


def _pack_build(options: argparse.Namespace) -> int:
    from whis_box.box.packs import build_pack

    pack = build_pack(options.old, options.new, options.out, _secret_key(options.secret_key))
    result = {"pack": str(options.out), "files": len(pack.payloads), "bytes": pack.size_bytes}
    print(json.dumps(result) if options.json else show.mapping(result))
    return EXIT_OK


# ---------------------------------------------------------------- everywhere


def _verify(options: argparse.Namespace) -> int:
    from whis_box.box.install import trusted_root
    from whis_box.box.manifest import verify
    from whis_box.box.slots import home_at

    keys = [_public_key(text) for text in options.key]
    home = home_at(default_home())
    if not keys and (home.control / "root.json").is_file():
        keys = trusted_root(home).signers()
    manifest, digest = verify(options.box, keys or None)
    signature = "valid" if keys else "not checked: no key is trusted here; give one with --key"
    result = {
        "box": str(options.box),
        "manifest_sha256": digest,
        "files": len(manifest.files),
        "sequence": manifest.sequence,
        "signature": signature,
        "verified": True,
    }
    text = f"{options.box}: all {len(manifest.files)} files match {digest[:16]}…; signature {signature}"
    print(json.dumps(result) if options.json else text)
    return EXIT_OK


def _self_test(options: argparse.Namespace) -> int:
    from whis_box.box.selftest import self_test

    problems = self_test(options.box)
    result = {"box": str(options.box), "passed": not problems, "problems": problems}
    print(json.dumps(result, ensure_ascii=False) if options.json else "\n".join(problems) or "passed")
    return EXIT_VERIFICATION if problems else EXIT_OK


def _sbom(options: argparse.Namespace) -> int:
    names = {"inventory": "whis-box.cdx.json", "flaws": "vex.cdx.json", "licenses": "licenses.tsv"}
    remedy = "the box was built without --sequence, and only a release has an inventory"
    sys.stdout.write(read_text(options.box / "sbom" / names[options.document], remedy))
    return EXIT_OK


# ---------------------------------------------------------------- keys


def _public_key(text_or_file: str) -> PublicKey:
    from whis_box.box.minisign import parse_public_key

    path = Path(text_or_file)
    text = read_text(path) if len(text_or_file) < 256 and path.is_file() else text_or_file
    return parse_public_key(text, text_or_file)


def _secret_key(path: Path) -> SecretKey:
    from whis_box.box.minisign import parse_secret_key

    text = read_text(path, "create one with `whis box key FILE`")
    is_open = "unencrypted" in text.splitlines()[0]
    return parse_secret_key(text, "" if is_open else _passphrase(path, repeat=False), str(path))


def _passphrase(path: Path, repeat: bool) -> str:
    """From the file that the environment names, else asked for."""
    named = os.environ.get(PASSPHRASE_FILE)
    if named:
        return read_text(Path(named)).rstrip("\n")
    passphrase = getpass.getpass(f"passphrase of {path}: ")
    if not passphrase or (repeat and getpass.getpass("again: ") != passphrase):
        raise InputError(f"no passphrase, or two different ones; set {PASSPHRASE_FILE}, or try again")
    return passphrase
