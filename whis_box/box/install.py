"""Installing a box from a medium: authenticate, copy, verify, check headers, try out, switch, confirm.

Invariant: nothing of the medium is parsed before its signature and hash were checked; the release in use
stays in use until the new one has answered; a run that was cut off is resumed by running it again.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from whis_box.box import trust
from whis_box.box.manifest import (
    MANIFEST_NAME,
    Manifest,
    read_manifest,
    verify,
)
from whis_box.box.minisign import SIGNATURE_SUFFIX, PublicKey
from whis_box.box.slots import (
    Home,
    begin_switch,
    confirm,
    discard,
    prune,
    settle,
    sweep,
)
from whis_box.box.staging import MediumSource, Progress, Source, check_room, stage
from whis_box.durable import write_file
from whis_box.errors import (
    InputError,
    NotReadyError,
    VerificationError,
    WhisError,
    storage_error,
)

Gate = Callable[[Path], list[str]]
Migrate = Callable[[Path, Path], list[str]]


@dataclass(frozen=True)
class Options:
    """What the operator allows by an explicit flag."""

    allow_downgrade: bool = False
    allow_expired: bool = False


@dataclass
class Outcome:
    """What an install did; `warnings` are for people."""

    sequence: int
    changed: bool
    copied_bytes: int = 0
    resumed_bytes: int = 0
    removed: list[int] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Request:
    """An authentic manifest, and how it is brought in."""

    manifest: Manifest
    keys: list[PublicKey]
    options: Options
    gate: Gate
    progress: Progress
    migrate: Migrate


def pin(home: Home, root_path: Path, sha256: str) -> trust.Root:
    """Trust a root file whose fingerprint came another way; only where none is trusted yet.

    Raises: InputError, NotReadyError, VerificationError, StorageError; under the lock.
    """
    root, raw = trust.read_pinned(root_path, sha256)
    place = home.control / "root.json"
    if place.exists() and place.read_bytes() != raw:
        raise InputError(f"{place}: another root is trusted here; a new one must come signed, inside a box")
    write_file(home.disk, place, [raw])
    return root


def trusted_root(home: Home) -> trust.Root:
    """The root that is trusted here.

    Raises: NotReadyError if none is; VerificationError, StorageError.
    """
    place = home.control / "root.json"
    try:
        return trust.parse_root(place.read_bytes(), place)
    except FileNotFoundError:
        raise NotReadyError(
            f"{place}: no key is trusted yet; run `whis box trust ROOT.json --fingerprint SHA256`"
        ) from None
    except OSError as cause:
        raise storage_error("read", place, cause) from cause


def signature_state(folder: Path, home: Home) -> str:
    """In words: whether a key that is trusted here signed the manifest; a bad one is said, not raised."""
    if not (folder / (MANIFEST_NAME + SIGNATURE_SUFFIX)).is_file():
        return "not signed"
    if not (home.control / "root.json").is_file():
        return "signed, not checked: no key is trusted here"
    try:
        manifest, _ = read_manifest(folder, trusted_root(home).signers())
    except WhisError as error:
        return f"not valid: {error}"
    return f"valid, release {manifest.sequence}"


def authenticate(folder: Path, root: trust.Root, options: Options) -> tuple[Manifest, trust.Root, list[str]]:
    """The signed manifest of `folder`, by the newest root it leads to; and warnings about the clock.

    Raises: NotReadyError, VerificationError, StorageError.
    """
    now = datetime.now(UTC)
    newest, raw = trust.follow(root, folder / trust.TRUST_FOLDER)
    warnings = trust.check_time(
        "the root of trust", "", "" if options.allow_expired else newest.expires_at, now
    )
    manifest, _ = read_manifest(folder, newest.signers())
    expires_at = "" if options.allow_expired else manifest.expires_at
    warnings += trust.check_time(f"release {manifest.sequence}", manifest.issued_at, expires_at, now)
    here = this_platform()
    if manifest.platform and manifest.platform != here:
        raise VerificationError(
            f"{folder}: made for {manifest.platform}, this machine is {here}; get that box"
        )
    return manifest, newest, warnings


def this_platform() -> str:
    """Operating system and CPU family, as manifests name them."""
    return f"{platform.system().lower()}-{platform.machine()}"


def no_state(_release: Path, _state: Path) -> list[str]:
    """For boxes that bring no program of their own."""
    return []


def install(
    medium: Path, home: Home, options: Options, gate: Gate, progress: Progress, migrate: Migrate = no_state
) -> Outcome:
    """Install the box on `medium`, or do nothing if it is the one in use.

    Raises: NotReadyError, VerificationError, StorageError, InputError; under the lock. Whatever is raised,
    the release in use is the old one.
    """
    settle(home)
    manifest, newest, warnings = authenticate(medium, trusted_root(home), options)
    request = Request(manifest, newest.signers(), options, gate, progress, migrate)
    outcome = bring_in(MediumSource(medium), request, home)
    outcome.warnings = warnings + outcome.warnings
    keep_root(home, newest)
    return outcome


def keep_root(home: Home, newest: trust.Root) -> None:
    """Trust the newer root from now on.

    Raises: StorageError.
    """
    if newest.version > trusted_root(home).version:
        write_file(
            home.disk, home.control / "root.json", [(newest.model_dump_json(indent=1) + "\n").encode()]
        )


def bring_in(source: Source, request: Request, home: Home) -> Outcome:
    """From an authentic manifest to a confirmed release.

    Raises: as `install`.
    """
    sequence = request.manifest.sequence
    outcome = Outcome(sequence, changed=False)
    _check_order(home, request)
    if not _is_installed(home, request):
        check_room(home, request.manifest, source)
        sweep(home, keep_staging=sequence)
        outcome.copied_bytes, outcome.resumed_bytes = stage(
            source, request.manifest, request.keys, home, request.progress
        )
    elif home.active() == sequence:
        return outcome
    _try_out(home, request)
    outcome.changed = True
    outcome.removed = prune(home)
    return outcome


def _is_installed(home: Home, request: Request) -> bool:
    """Whether this very box is whole on the disk; a damaged one is removed, unless it is in use."""
    sequence = request.manifest.sequence
    folder = home.release(sequence)
    if not folder.is_dir():
        return False
    try:
        present, _ = verify(folder, request.keys)
    except VerificationError as cause:
        if home.active() == sequence:
            raise VerificationError(
                f"{cause}\n{folder}: in use; `whis box rollback`, then install again"
            ) from None
        discard(home, sequence)
        return False
    if present != request.manifest:
        raise VerificationError(
            f"{folder}: another box is installed as release {sequence}; a sequence is used only once"
        )
    return True


def _check_order(home: Home, request: Request) -> None:
    sequence, last_seen = request.manifest.sequence, home.record().last_seen
    if sequence < 1:
        raise VerificationError(
            "the box has sequence 0, it was never released; build it with `whis box build --sequence N`"
        )
    if sequence < last_seen and not request.options.allow_downgrade:
        raise VerificationError(
            f"release {sequence} is older than {last_seen}, which was in use here; "
            "install it with --allow-downgrade if that is what you want"
        )


def _try_out(home: Home, request: Request) -> None:
    """Health check, state, switch, health check; the old release stays, or comes back, when one fails.

    The state is brought forward first, by the new release's own program; what it adds leaves the old one able
    to read.
    """
    sequence = request.manifest.sequence
    release = home.release(sequence)
    if problems := request.gate(release) or request.migrate(release, home.state):
        raise _refused(home, sequence, problems)
    begin_switch(home, sequence, "install")
    try:
        problems = request.gate(home.current)
    except WhisError:
        settle(home)
        raise
    if problems:
        settle(home)
        raise _refused(home, sequence, problems)
    confirm(home)


def _refused(home: Home, sequence: int, problems: list[str]) -> VerificationError:
    active = home.active()
    home.write_record(home.record().noting("refused", sequence, "; ".join(problems)))
    if active != sequence:
        discard(home, sequence)
    kept = "nothing is" if active is None else f"release {active} stays"
    return VerificationError(
        f"release {sequence} did not pass its health check ({'; '.join(problems)}); {kept} in use"
    )
