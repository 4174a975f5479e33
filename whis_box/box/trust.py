"""Which keys may sign a box: a root file, itself signed, that can be replaced only by enough of its keys.

Invariant: the first root is pinned by a fingerprint that came another way; every later one carries
signatures of `threshold` keys of the one before it and of `threshold` of its own.
Source: The Update Framework 1.0.33, section 5.3 (root update), reduced to two roles.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field, ValidationError

from whis_box.box.manifest import UtcTime
from whis_box.box.minisign import (
    MAX_SIGNATURE_BYTES,
    SIGNATURE_SUFFIX,
    PublicKey,
    SecretKey,
    parse_public_key,
    verify,
)
from whis_box.config import describe_validation
from whis_box.durable import Disk, write_file
from whis_box.errors import InputError, NotReadyError, VerificationError, storage_error
from whis_box.schemas import Frozen

TRUST_FOLDER = "trust"
MAX_ROOT_BYTES = 64 * 1024
MAX_ROTATIONS = 1000
EARLIEST_CLOCK = datetime(2025, 1, 1, tzinfo=UTC)


class Root(Frozen):
    """Who may sign boxes, and who may change that."""

    format_version: int = Field(ge=1, le=1)
    version: int = Field(ge=1, le=2**31)
    expires_at: UtcTime
    threshold: int = Field(ge=1, le=16)
    root_keys: list[str] = Field(min_length=1, max_length=16)
    """minisign public keys that sign the next root file."""
    release_keys: list[str] = Field(min_length=1, max_length=16)
    """minisign public keys that sign boxes and packs."""

    def signers(self) -> list[PublicKey]:
        """The keys that sign boxes."""
        return [parse_public_key(text, "release key") for text in self.release_keys]

    def changers(self) -> list[PublicKey]:
        """The keys that sign the next root."""
        return [parse_public_key(text, "root key") for text in self.root_keys]


def root_name(version: int) -> str:
    """File name of one root."""
    return f"root.{version}.json"


def fingerprint(raw: bytes) -> str:
    """What two people compare over the telephone: sha256 in groups of four."""
    digest = hashlib.sha256(raw).hexdigest()
    return " ".join(digest[at : at + 4] for at in range(0, 64, 4))


def write_root(folder: Path, root: Root, signers: list[SecretKey], disk: Disk | None = None) -> bytes:
    """Write one root and its signatures into `folder`; its bytes.

    Raises: InputError if it could never be accepted; StorageError.
    """
    parse_root((raw := (root.model_dump_json(indent=1) + "\n").encode()), folder / root_name(root.version))
    own = {key.key_id for key in root.changers()}
    if len(own & {key.public.key_id for key in signers}) < root.threshold:
        raise InputError(f"root {root.version} needs {root.threshold} of its own root keys as signers")
    name = root_name(root.version)
    disk = disk or Disk()
    write_file(disk, folder / name, [raw])
    for key in signers:
        signed_name = f"{name}.{key.public.key_id}"
        text = key.sign(raw, f"whis-box root {root.version} sha256 {_sha(raw)}", signed_name)
        write_file(disk, folder / (signed_name + SIGNATURE_SUFFIX), [text.encode()])
    return raw


def parse_root(raw: bytes, where: Path) -> Root:
    """Raises: VerificationError."""
    try:
        root = Root.model_validate_json(raw, strict=True)
        keys = {key.key_id: key.raw for key in root.changers()}
        root.signers()
    except ValidationError as cause:
        raise VerificationError(describe_validation(str(where), cause)) from None
    except InputError as cause:
        raise VerificationError(f"{where}: {cause}") from None
    if len(keys) != len(root.root_keys) or root.threshold > len(keys):
        raise VerificationError(
            f"{where}: threshold {root.threshold} of {len(keys)} different root keys cannot be met"
        )
    return root


def read_pinned(path: Path, sha256: str) -> tuple[Root, bytes]:
    """The first root, accepted because its fingerprint is the one that came another way.

    Raises: NotReadyError, VerificationError, StorageError.
    """
    raw = _read(path, MAX_ROOT_BYTES)
    wanted = "".join(sha256.split()).lower()
    if _sha(raw) != wanted:
        raise VerificationError(
            f"{path}: its fingerprint is {fingerprint(raw)}, not {sha256}; do not use it, ask its sender"
        )
    return parse_root(raw, path), raw


def follow(root: Root, folder: Path) -> tuple[Root, bytes | None]:
    """The newest root that `folder` leads to from a trusted one; its bytes, None when nothing is newer.

    Raises: VerificationError for a rotation that too few keys have signed; StorageError.
    """
    newest: bytes | None = None
    for _ in range(MAX_ROTATIONS):
        path = folder / root_name(root.version + 1)
        if not path.is_file():
            return root, newest
        raw = _read(path, MAX_ROOT_BYTES)
        # The keys of the old root speak before the new one is parsed.
        _enough(path, raw, root.changers(), root.threshold, f"root {root.version}")
        following = parse_root(raw, path)
        if following.version != root.version + 1:
            raise VerificationError(f"{path}: says it is root {following.version}; get the box again")
        _enough(path, raw, following.changers(), following.threshold, f"root {following.version} itself")
        root, newest = following, raw
    raise VerificationError(f"{folder}: more than {MAX_ROTATIONS} root files; get the box again")


def _enough(path: Path, raw: bytes, keys: list[PublicKey], threshold: int, whose: str) -> None:
    signed = 0
    for key in keys:
        where = path.with_name(f"{path.name}.{key.key_id}{SIGNATURE_SUFFIX}")
        if where.is_file():
            verify(raw, _read(where, MAX_SIGNATURE_BYTES), [key], where)
            signed += 1
    if signed < threshold:
        raise VerificationError(
            f"{path}: signed by {signed} keys of {whose}, {threshold} are needed; ask the builder"
        )


def check_time(what: str, issued_at: str, expires_at: str, now: datetime) -> list[str]:
    """Warnings about a clock that cannot be right; an air-gapped clock is often wrong, so it only warns.

    Raises: VerificationError when `expires_at` has passed.
    """
    if now < EARLIEST_CLOCK:
        return [f"the clock says {now:%Y-%m-%d}: set it; whether {what} has expired was not checked"]
    if expires_at and now >= datetime.fromisoformat(expires_at):
        raise VerificationError(
            f"{what} has expired at {expires_at}; install a newer one, or allow it with --allow-expired"
        )
    if issued_at and now < datetime.fromisoformat(issued_at):
        return [f"the clock says {now:%Y-%m-%dT%H:%MZ}, before {what} was issued ({issued_at}): set it"]
    return []


def _sha(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as stream:
            raw = stream.read(limit + 1)
    except FileNotFoundError:
        raise NotReadyError(f"{path}: missing; get it from the builder of the box") from None
    except OSError as cause:
        raise storage_error("read", path, cause) from cause
    if len(raw) > limit:
        raise VerificationError(f"{path}: is longer than {limit} bytes; get it again")
    return raw
