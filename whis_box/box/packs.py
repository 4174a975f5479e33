"""Content packs: a newer release, told as the difference to the one that is installed.

    PACK/manifest.json, SHA256SUMS and signatures   of the release that results
    PACK/pack.json and signature                    which release it starts from, and the payload by sha256
    PACK/payload/<n>.zst                            a changed file, whole or as a delta to the same path
    PACK/trust/                                     root files, as in a box

Invariant: a pack is never more than a way to bring bytes: what results is verified against the signed
manifest of the whole release and installed like any other, so it is as atomic and as reversible.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import zstandard
from pydantic import Field, ValidationError

from whis_box.box import minisign, trust
from whis_box.box.install import (
    Gate,
    Migrate,
    Options,
    Outcome,
    Request,
    authenticate,
    bring_in,
    keep_root,
    no_state,
    trusted_root,
)
from whis_box.box.manifest import (
    UNLISTED,
    FileEntry,
    Manifest,
    SafePath,
    read_bounded,
    read_manifest,
    verify,
)
from whis_box.box.minisign import SIGNATURE_SUFFIX, PublicKey, SecretKey
from whis_box.box.slots import Home, settle
from whis_box.box.staging import BLOCK_BYTES, Progress
from whis_box.config import describe_validation
from whis_box.durable import Disk, write_file
from whis_box.errors import InputError, NotReadyError, VerificationError, storage_error
from whis_box.paths import file_sha256
from whis_box.schemas import Frozen, Sha256

PACK_NAME = "pack.json"
PAYLOAD_FOLDER = "payload"
MAX_PACK_BYTES = 4 * 1024 * 1024
# A delta holds its base in memory; larger files go whole.
MAX_DELTA_BYTES = 1 << 30
_LEVEL = 9
_WINDOW_LOG_MAX = 31
# Tables that hold every place of the base, or what moved in it is not found; 512 MB while a pack is built.
_TABLE_LOG_MAX = 26


class Payload(Frozen):
    """How one file of the resulting release comes about."""

    path: SafePath
    kind: Literal["delta", "whole"]
    size_bytes: int = Field(ge=0)
    """Bytes of the payload file."""
    sha256: Sha256
    """Hash of the payload file, compared before it is unpacked."""
    base: SafePath | None = None
    """The file of the base release that a delta is to, where it has another name."""


class Pack(Frozen):
    """pack.json."""

    format_version: int = Field(ge=1, le=1)
    base_sequence: int = Field(ge=1)
    base_manifest: Sha256
    result_manifest: Sha256
    payloads: list[Payload] = Field(max_length=100_000)

    @property
    def size_bytes(self) -> int:
        """All payload files together."""
        return sum(one.size_bytes for one in self.payloads)


@dataclass(frozen=True)
class OpenPack:
    """An authentic pack, and the release it results in."""

    folder: Path
    pack: Pack
    manifest: Manifest
    newest: trust.Root
    warnings: list[str]


def build_pack(old: Path, new: Path, target: Path, key: SecretKey) -> Pack:
    """Write the difference between two signed boxes into the new folder `target`.

    Raises: InputError, NotReadyError, VerificationError, StorageError.
    """
    keys = [key.public]
    (old_manifest, old_digest), (new_manifest, new_digest) = verify(old, keys), verify(new, keys)
    if new_manifest.sequence <= old_manifest.sequence or target.exists():
        raise InputError(
            f"{target}: must be a new folder, and release {new_manifest.sequence} newer than "
            f"{old_manifest.sequence}"
        )
    disk = Disk()
    before = {entry.path: entry for entry in old_manifest.files}
    changed = [one for one in new_manifest.files if not _same(before.get(one.path), one)]
    gone = before.keys() - {one.path for one in new_manifest.files}
    payloads = [
        _write_payload(disk, old, new, target, entry, number, _renamed_from(entry.path, before.keys(), gone))
        for number, entry in enumerate(changed)
    ]
    pack = Pack(
        format_version=1,
        base_sequence=old_manifest.sequence,
        base_manifest=old_digest,
        result_manifest=new_digest,
        payloads=payloads,
    )
    for name in UNLISTED:
        write_file(disk, target / name, [(new / name).read_bytes()])
    if (new / trust.TRUST_FOLDER).is_dir():
        shutil.copytree(new / trust.TRUST_FOLDER, target / trust.TRUST_FOLDER)
    raw = (pack.model_dump_json(indent=1, exclude_none=True) + "\n").encode()
    write_file(disk, target / PACK_NAME, [raw])
    text = key.sign(raw, f"pack {pack.base_sequence} to {new_manifest.sequence}", PACK_NAME)
    write_file(disk, target / (PACK_NAME + SIGNATURE_SUFFIX), [text.encode()])
    return pack


def open_pack(folder: Path, root: trust.Root, options: Options) -> OpenPack:
    """Check signatures, order and every payload's hash; nothing is unpacked.

    Raises: NotReadyError, VerificationError, StorageError.
    """
    manifest, newest, warnings = authenticate(folder, root, options)
    pack = _read_pack(folder, newest.signers())
    if pack.result_manifest != read_manifest(folder)[1] or manifest.sequence <= pack.base_sequence:
        raise VerificationError(
            f"{folder / PACK_NAME}: does not belong to the manifest beside it; get it again"
        )
    listed = {entry.path for entry in manifest.files}
    problems = [f"{one.path}: is not in the manifest" for one in pack.payloads if one.path not in listed]
    for number, payload in enumerate(pack.payloads):
        path = payload_path(folder, number)
        if path.is_symlink() or not path.is_file() or path.stat().st_size != payload.size_bytes:
            problems.append(f"{path}: is missing, a link or not {payload.size_bytes} bytes")
        elif file_sha256(path) != payload.sha256:
            problems.append(f"{path}: does not have the sha256 that the pack says")
    expected = {payload_path(folder, number) for number in range(len(pack.payloads))}
    expected |= {folder / name for name in (*UNLISTED, PACK_NAME, PACK_NAME + SIGNATURE_SUFFIX)}
    for path in folder.rglob("*"):
        in_trust = path.parent == folder / trust.TRUST_FOLDER and not path.is_symlink()
        if (path.is_symlink() or not path.is_dir()) and path not in expected and not in_trust:
            problems.append(f"{path}: is not part of the pack; remove it")
    if problems:
        raise VerificationError("\n".join(f"{one}; copy the pack again" for one in problems))
    return OpenPack(folder, pack, manifest, newest, warnings)


def apply_pack(
    folder: Path, home: Home, options: Options, gate: Gate, progress: Progress, migrate: Migrate = no_state
) -> Outcome:
    """Make the resulting release from the one in use, and install it.

    Raises: as `install`; NotReadyError if another release than the pack's base is in use; under the lock.
    """
    settle(home)
    opened = open_pack(folder, trusted_root(home), options)
    source = PackSource(opened, base_release(home, opened))
    request = Request(opened.manifest, opened.newest.signers(), options, gate, progress, migrate)
    outcome = bring_in(source, request, home)
    outcome.warnings = opened.warnings + outcome.warnings
    keep_root(home, opened.newest)
    return outcome


def base_release(home: Home, opened: OpenPack) -> Path:
    """The installed release that the pack starts from.

    Raises: NotReadyError, VerificationError, StorageError.
    """
    active = home.active()
    wanted = opened.pack.base_sequence
    if active not in (wanted, opened.manifest.sequence) or not home.release(wanted).is_dir():
        raise NotReadyError(
            f"the pack leads from release {wanted} to {opened.manifest.sequence}, in use is "
            f"{'none' if active is None else active}; install release {wanted} or get the fitting pack"
        )
    if read_manifest(home.release(wanted))[1] != opened.pack.base_manifest:
        raise VerificationError(f"{home.release(wanted)}: is not the release that the pack was made from")
    return home.release(wanted)


@dataclass(frozen=True)
class PackSource:
    """Files of the resulting release: from the pack, or the same file of the base."""

    opened: OpenPack
    base: Path

    def blocks(self, entry: FileEntry) -> Iterator[bytes]:
        """Raises: VerificationError if a payload does not unpack; StorageError."""
        number, payload = self._payload(entry)
        path = payload_path(self.opened.folder, number)
        base = b"" if payload.kind == "whole" else (self.base / (payload.base or entry.path)).read_bytes()
        unpacker = zstandard.ZstdDecompressor(
            dict_data=_dictionary(base) if base else None, max_window_size=1 << _WINDOW_LOG_MAX
        )
        try:
            with path.open("rb") as stream, unpacker.stream_reader(stream) as reader:
                while block := reader.read(BLOCK_BYTES):
                    yield block
        except zstandard.ZstdError as cause:
            raise VerificationError(f"{path}: does not unpack: {cause}; get the pack again") from None
        except OSError as cause:
            raise storage_error("read from the pack", path, cause) from cause

    def twin(self, entry: FileEntry) -> Path | None:
        """The base's file, where the pack brings none."""
        if any(one.path == entry.path for one in self.opened.pack.payloads):
            return None
        return self.base / entry.path

    def unlisted(self, name: str) -> bytes:
        """Raises: StorageError."""
        try:
            return (self.opened.folder / name).read_bytes()
        except OSError as cause:
            raise storage_error("read from the pack", self.opened.folder / name, cause) from cause

    def _payload(self, entry: FileEntry) -> tuple[int, Payload]:
        for number, payload in enumerate(self.opened.pack.payloads):
            if payload.path == entry.path:
                return number, payload
        raise VerificationError(f"{entry.path}: neither in the pack nor unchanged; get the pack again")


def payload_path(folder: Path, number: int) -> Path:
    """Where the payload of the pack's n-th file lies."""
    return folder / PAYLOAD_FOLDER / f"{number}.zst"


def _renamed_from(path: str, before: Iterable[str], gone: Iterable[str]) -> str | None:
    """For a file whose name holds a digest: the one of the same folder and ending that goes away."""
    place = Path(path)
    alike = [one for one in gone if Path(one).parent == place.parent and Path(one).suffix == place.suffix]
    return alike[0] if path not in before and len(alike) == 1 else None


def _write_payload(
    disk: Disk, old: Path, new: Path, target: Path, entry: FileEntry, number: int, renamed_from: str | None
) -> Payload:
    base = old / (renamed_from or entry.path)
    fits = base.is_file() and base.stat().st_size <= MAX_DELTA_BYTES and entry.size_bytes <= MAX_DELTA_BYTES
    path = payload_path(target, number)
    write_file(disk, path, _packed(new / entry.path, base if fits else None))
    return Payload(
        path=entry.path,
        kind="delta" if fits and base.stat().st_size else "whole",
        size_bytes=path.stat().st_size,
        sha256=file_sha256(path),
        base=renamed_from,
    )


def _packed(path: Path, base: Path | None) -> Iterator[bytes]:
    known = base.read_bytes() if base is not None else b""
    size = path.stat().st_size
    window_log = min(_WINDOW_LOG_MAX, max(20, (len(known) + size).bit_length()))
    table_log = min(_TABLE_LOG_MAX, window_log)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        _LEVEL, source_size=size, window_log=window_log, hash_log=table_log, chain_log=table_log
    )
    packer = zstandard.ZstdCompressor(
        compression_params=parameters, dict_data=_dictionary(known) if known else None
    )
    with path.open("rb") as stream:
        yield from packer.read_to_iter(stream, size=size, read_size=BLOCK_BYTES)


def _dictionary(base: bytes) -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def _same(old: FileEntry | None, new: FileEntry) -> bool:
    return old is not None and (old.sha256, old.executable) == (new.sha256, new.executable)


def _read_pack(folder: Path, keys: list[PublicKey]) -> Pack:
    path = folder / PACK_NAME
    raw = read_bounded(path, MAX_PACK_BYTES)
    where = path.with_name(path.name + SIGNATURE_SUFFIX)
    signature = read_bounded(where, minisign.MAX_SIGNATURE_BYTES)
    if raw is None or signature is None:
        raise NotReadyError(f"{folder}: no content pack here ({path.name} or its signature is missing)")
    minisign.verify(raw, signature, keys, where)
    try:
        return Pack.model_validate_json(raw, strict=True)
    except ValidationError as cause:
        raise VerificationError(describe_validation(str(path), cause)) from None
