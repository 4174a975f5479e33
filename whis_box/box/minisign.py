"""Signatures in minisign's format: Ed25519 over BLAKE2b-512, with a signed comment.

Invariant: only the prehashed kind ("ED") is accepted, only from the key that is asked for, and only in the
one spelling that this program writes, so that no byte of a signature file can change unnoticed.
Source: minisign 0.11, https://jedisct1.github.io/minisign/ ("Signature format", "Secret key format").
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import struct
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from whis_box.errors import InputError, VerificationError

SIGNATURE_SUFFIX = ".minisig"
MAX_SIGNATURE_BYTES = 4096
MAX_COMMENT_CHARS = 1024
UNTRUSTED = "untrusted comment: "
TRUSTED = "trusted comment: "
# libsodium's crypto_pwhash_scryptsalsa208sha256 OPSLIMIT_SENSITIVE and MEMLIMIT_SENSITIVE, as minisign uses.
_OPSLIMIT, _MEMLIMIT = 33_554_432, 1_073_741_824
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 1 << 20, 8, 1  # what libsodium derives from these two
_SECRET = struct.Struct("<2s2s2s32sQQ104s")


@dataclass(frozen=True)
class PublicKey:
    """A verifying key; `key_id` is minisign's, 16 hex digits."""

    key_id: str
    raw: bytes

    def text(self) -> str:
        """The one-line form that `minisign -P` takes."""
        return _base64(b"Ed" + _id_bytes(self.key_id) + self.raw)

    def file_text(self) -> str:
        """The two-line form that `minisign -p` takes."""
        return f"{UNTRUSTED}minisign public key {self.key_id}\n{self.text()}\n"


@dataclass(frozen=True)
class SecretKey:
    """A signing key."""

    public: PublicKey
    seed: bytes

    def sign(self, data: bytes, trusted_comment: str, name: str) -> str:
        """The text of `name`.minisig.

        Raises: InputError if the comment has a line break or is too long.
        """
        if len(trusted_comment) > MAX_COMMENT_CHARS or not trusted_comment.isprintable():
            raise InputError(f"a signed comment is one line of at most {MAX_COMMENT_CHARS} characters")
        private = Ed25519PrivateKey.from_private_bytes(self.seed)
        signature = private.sign(hashlib.blake2b(data).digest())
        whole = private.sign(signature + trusted_comment.encode())
        body = _base64(b"ED" + _id_bytes(self.public.key_id) + signature)
        head = _untrusted_line(name, self.public.key_id)
        return f"{head}\n{body}\n{TRUSTED}{trusted_comment}\n{_base64(whole)}\n"

    def file_text(self, passphrase: str) -> str:
        """minisign's secret key file; an empty passphrase leaves it unencrypted."""
        key_id = _id_bytes(self.public.key_id)
        pair = self.seed + self.public.raw
        checksum = hashlib.blake2b(b"Ed" + key_id + pair, digest_size=32).digest()
        payload = key_id + pair + checksum
        salt, limits, kdf = bytes(32), (0, 0), b"\0\0"
        if passphrase:
            salt, limits, kdf = secrets.token_bytes(32), (_OPSLIMIT, _MEMLIMIT), b"Sc"
            payload = _xor(payload, _stretch(passphrase, salt))
        packed = _SECRET.pack(b"Ed", kdf, b"B2", salt, *limits, payload)
        kind = "encrypted" if passphrase else "unencrypted"
        return f"{UNTRUSTED}minisign {kind} secret key\n{_base64(packed)}\n"


def create_key() -> SecretKey:
    """A new key from the system's random source."""
    private = Ed25519PrivateKey.generate()
    key_id = secrets.token_bytes(8)[::-1].hex().upper()
    return SecretKey(PublicKey(key_id, private.public_key().public_bytes_raw()), private.private_bytes_raw())


def parse_public_key(text: str, where: str) -> PublicKey:
    """A public key in its one-line or two-line form.

    Raises: InputError.
    """
    lines = text.strip().splitlines()
    raw = _decode(lines[-1] if lines else "", 42)
    if raw is None or raw[:2] != b"Ed" or len(lines) > 2:
        raise InputError(
            f"{where}: not a minisign public key; it is the line after its comment, 56 characters"
        )
    return PublicKey(raw[2:10][::-1].hex().upper(), raw[10:])


def parse_secret_key(text: str, passphrase: str, where: str) -> SecretKey:
    """A secret key file; the passphrase is ignored when the key is not encrypted.

    Raises: InputError, also for a wrong passphrase.
    """
    lines = text.strip().splitlines()
    raw = _decode(lines[-1] if lines else "", _SECRET.size)
    if raw is None:
        raise InputError(f"{where}: not a minisign secret key")
    algorithm, kdf, check, salt, opslimit, memlimit, payload = _SECRET.unpack(raw)
    if algorithm != b"Ed" or check != b"B2" or kdf not in (b"Sc", b"\0\0"):
        raise InputError(f"{where}: a kind of secret key that is not supported; make one with `whis box key`")
    if kdf == b"Sc":
        if (opslimit, memlimit) != (_OPSLIMIT, _MEMLIMIT):
            raise InputError(f"{where}: its scrypt limits are not minisign's; make a key with `whis box key`")
        payload = _xor(payload, _stretch(passphrase, salt))
    key_id, seed, public, checksum = payload[:8], payload[8:40], payload[40:72], payload[72:]
    expected = hashlib.blake2b(b"Ed" + key_id + seed + public, digest_size=32).digest()
    if not hmac.compare_digest(checksum, expected):
        raise InputError(f"{where}: the passphrase is wrong, or the key file is damaged")
    return SecretKey(PublicKey(key_id[::-1].hex().upper(), public), seed)


def verify(data: bytes, signature: bytes, keys: list[PublicKey], where: Path) -> tuple[str, str]:
    """Check a signature file over `data`; the signed comment and the id of the key.

    Raises: VerificationError.
    """

    def refused(why: str) -> VerificationError:
        return VerificationError(f"{where}: {why}; get the box again from its builder")

    lines = _lines(signature)
    if lines is None:
        raise refused("not a minisign signature of four lines")
    untrusted, body, comment, whole = lines
    raw, global_signature = _decode(body, 74), _decode(whole, 64)
    if raw is None or global_signature is None or not comment.startswith(TRUSTED):
        raise refused("not a minisign signature")
    if raw[:2] != b"ED":
        raise refused(f"signature kind {raw[:2]!r} is not the prehashed ED")
    key_id = raw[2:10][::-1].hex().upper()
    key = next((one for one in keys if one.key_id == key_id), None)
    if key is None:
        trusted = ", ".join(one.key_id for one in keys) or "none"
        raise refused(f"signed with key {key_id}, which is not trusted here (trusted: {trusted})")
    signed_name = where.name.removesuffix(SIGNATURE_SUFFIX)
    if untrusted != _untrusted_line(signed_name, key_id):
        raise refused("its first line is not the one that this program writes")
    trusted_comment = comment.removeprefix(TRUSTED)
    try:
        public = Ed25519PublicKey.from_public_bytes(key.raw)
        public.verify(raw[10:], hashlib.blake2b(data).digest())
        public.verify(global_signature, raw[10:] + trusted_comment.encode())
    except InvalidSignature:
        raise refused(f"the signature of key {key_id} does not fit {signed_name}") from None
    return trusted_comment, key_id


def _lines(signature: bytes) -> list[str] | None:
    try:
        text = signature[: MAX_SIGNATURE_BYTES + 1].decode("utf-8")
    except UnicodeDecodeError:
        return None
    lines = text.split("\n")
    whole = len(signature) <= MAX_SIGNATURE_BYTES and len(lines) == 5 and lines[4] == ""
    return lines[:4] if whole else None


def _untrusted_line(name: str, key_id: str) -> str:
    return f"{UNTRUSTED}{name}, signed with key {key_id}"


def _decode(text: str, size: int) -> bytes | None:
    """Strict base64 of exactly `size` bytes: a second spelling of the same bytes is refused."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) == size and _base64(raw) == text else None


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _id_bytes(key_id: str) -> bytes:
    return bytes.fromhex(key_id)[::-1]


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def _stretch(passphrase: str, salt: bytes) -> bytes:
    return hashlib.scrypt(
        passphrase.encode(),
        salt=salt,
        n=_SCRYPT_N,
        r=_SCRYPT_R,
        p=_SCRYPT_P,
        maxmem=_MEMLIMIT + (64 << 20),
        dklen=104,
    )
