"""The same value is the same pseudonym: `USER_7` wherever that user appears in one corpus.

Invariant: only keyed HMAC tokens are kept, never a value; without the key nobody can test a guess.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from whis_box.errors import ConfigError, storage_error
from whis_box.paths import state_dir

KEY_VARIABLE = "WHIS_PSEUDONYM_KEY"
MIN_KEY_CHARS = 16
LABELS = {"ACCOUNT": "USER", "EMAIL_ADDRESS": "EMAIL", "INTERNAL_IP": "IP", "PHONE_NUMBER": "PHONE"}


def load_key(key_file: Path | None) -> tuple[bytes, str]:
    """The key and where it came from: the file named, the environment, or one made once in the state folder.

    Raises: ConfigError if it is too short; StorageError.
    """
    if key_file is None and (given := os.environ.get(KEY_VARIABLE)):
        return _checked(given.encode(), f"the variable {KEY_VARIABLE}")
    path = key_file or state_dir() / "pseudonym.key"
    try:
        if key_file is None and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w") as stream:
                stream.write(secrets.token_hex(32))
        return _checked(path.read_bytes().strip(), str(path))
    except OSError as cause:
        raise storage_error("read or make the pseudonym key", path, cause) from cause


def fingerprint(key: bytes) -> str:
    """Tells one key from another without telling the key."""
    return hmac.new(key, b"whis-box pseudonym key", hashlib.sha256).hexdigest()[:16]


def canonical(entity_type: str, value: str) -> str:
    """One spelling of a thing: `CORP\\JDoe`, `jdoe@corp.local` and `jdoe` are one user."""
    plain = " ".join(value.split()).casefold()
    if entity_type == "ACCOUNT":
        return plain.rpartition("\\")[2].partition("@")[0]
    if entity_type == "HOST":
        return plain.removesuffix("$").partition(".")[0]
    return plain


class Pseudonyms:
    """Numbers the tokens of each label from 1, in the order they are met."""

    def __init__(self, key: bytes, known: dict[tuple[str, str], int] | None = None) -> None:
        self._key = key
        self.numbers = dict(known or {})
        self._new: dict[tuple[str, str], int] = {}
        self._last: dict[str, int] = {}
        for (label, _), number in self.numbers.items():
            self._last[label] = max(number, self._last.get(label, 0))

    def take_new(self) -> dict[tuple[str, str], int]:
        """The numbers given since the last call, by label and token."""
        taken, self._new = self._new, {}
        return taken

    def token(self, entity_type: str, value: str) -> str:
        """HMAC-SHA256 of the value's canonical form, 16 hex digits."""
        message = f"{label_of(entity_type)}\x00{canonical(entity_type, value)}".encode()
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()[:16]

    def name(self, entity_type: str, value: str) -> str:
        """`USER_7`; a value that is met for the first time gets the next number."""
        label = label_of(entity_type)
        key = (label, self.token(entity_type, value))
        if key not in self.numbers:
            self._last[label] = self._last.get(label, 0) + 1
            self.numbers[key] = self._new[key] = self._last[label]
        return f"{label}_{self.numbers[key]}"


def label_of(entity_type: str) -> str:
    """The word a pseudonym begins with."""
    return LABELS.get(entity_type, entity_type)


def _checked(key: bytes, where: str) -> tuple[bytes, str]:
    if len(key) < MIN_KEY_CHARS:
        raise ConfigError(f"{where}: a pseudonym key of {len(key)} characters; give at least {MIN_KEY_CHARS}")
    return key, where
