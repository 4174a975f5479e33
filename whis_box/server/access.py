"""Who is calling and what they may do: API keys hashed at rest, scopes, clearance, rate and concurrency.

Invariant: a key is compared in constant time with every stored digest, and never logged; without a key only
a caller on loopback or the Unix socket gets in.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field

from whis_box.config import Section, load_config
from whis_box.errors import ConfigError
from whis_box.schemas import TLP_ORDER, Sha256, Tlp
from whis_box.server.failures import HttpError
from whis_box.server.settings import AccessConfig, HttpLimits
from whis_box.server.wire import Scope

ALL_SCOPES: tuple[Scope, ...] = ("ask", "triage", "ingest", "admin")
KEY_ENV = "WHIS_API_KEY"
KEY_BYTES = 32


class KeyEntry(Section):
    """One key as it is stored: random 256 bits, so one sha256 is enough."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    sha256: Sha256
    scopes: list[Scope] = Field(min_length=1)
    clearance: Tlp = "clear"
    not_after: datetime | None = None
    """When it stops working; two entries with one id make a rotation."""
    rate_per_minute: int | None = Field(None, ge=1)
    concurrency: int | None = Field(None, ge=1)


class KeysFile(Section):
    """The keys file."""

    keys: list[KeyEntry]


class Caller:
    """Whoever sent a request."""

    def __init__(self, name: str, scopes: frozenset[Scope], clearance: Tlp, rate: int, at_once: int) -> None:
        self.name, self.scopes, self.clearance = name, scopes, clearance
        self.rate_per_minute, self.concurrency = rate, at_once

    def may(self, scope: Scope) -> bool:
        """Whether `scope` is granted; admin grants all."""
        return scope in self.scopes or "admin" in self.scopes

    def narrowed(self, wanted: Tlp) -> Tlp:
        """The lower of what was asked for and what may be seen."""
        return min(wanted, self.clearance, key=TLP_ORDER.index)


def new_key() -> tuple[str, str]:
    """A fresh key and its sha256."""
    key = f"whis_{secrets.token_urlsafe(KEY_BYTES)}"
    return key, digest(key)


def digest(key: str) -> str:
    """What is stored of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def read_keys(config: AccessConfig) -> list[KeyEntry]:
    """The keys of the file and of the environment, whose variable is removed.

    Raises: ConfigError, also when others can read the file; NotReadyError, StorageError.
    """
    entries: list[KeyEntry] = []
    if config.keys_file is not None:
        path = config.keys_file.expanduser()
        entries = load_config(path, KeysFile).keys
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path}: others may read it; run `chmod 600 {path}`")
    from_environment = os.environ.pop(KEY_ENV, "")
    if from_environment:
        if len(from_environment) < 16:
            raise ConfigError(f"{KEY_ENV}: shorter than 16 characters; make one with `whis keys new`")
        entries.append(
            KeyEntry(
                id="environment", sha256=digest(from_environment), scopes=list(ALL_SCOPES), clearance="red"
            )
        )
    return entries


class Doorkeeper:
    """Names the caller of a request, and counts."""

    def __init__(self, keys: list[KeyEntry], config: AccessConfig, limits: HttpLimits, local: bool) -> None:
        """`local`: the server listens on loopback or a Unix socket, where no key is needed."""
        self._keys, self._config, self._limits, self._local = keys, config, limits, local
        self._environment = [one for one in keys if one.id == "environment"]
        self._lock = threading.Lock()
        self._tokens: dict[str, tuple[float, float]] = {}
        self._at_once: dict[str, int] = {}

    def reload(self, keys: list[KeyEntry], config: AccessConfig, limits: HttpLimits) -> None:
        """Use other keys and limits from now on; the key from the environment stays."""
        self._keys, self._config, self._limits = [*keys, *self._environment], config, limits

    def name(self, headers: dict[str, str]) -> Caller:
        """The caller behind lower-case `headers`.

        Raises: HttpError 401.
        """
        key = _presented(headers, self._config.key_header)
        if key is None or (self._local and not self._keys):  # some clients always send a key
            if self._local:
                limits = self._limits
                scopes = frozenset(ALL_SCOPES)
                return Caller(
                    "local", scopes, self._config.local_clearance, limits.rate_per_minute, limits.concurrency
                )
            raise _unauthorized(
                "missing_key", f"no API key; send Authorization: Bearer or {self._config.key_header}"
            )
        found = self._match(key)
        if found is None:
            raise _unauthorized("invalid_key", "this API key is not known, or has expired; ask for a new one")
        return Caller(
            found.id,
            frozenset(found.scopes),
            found.clearance,
            found.rate_per_minute or self._limits.rate_per_minute,
            found.concurrency or self._limits.concurrency,
        )

    def _match(self, key: str) -> KeyEntry | None:
        presented = digest(key)
        found: KeyEntry | None = None
        for entry in self._keys:  # every entry, so that the time says nothing about which one matched
            if hmac.compare_digest(entry.sha256, presented) and _valid(entry):
                found = entry
        return found

    @contextmanager
    def counted(self, caller: Caller) -> Iterator[None]:
        """Take one of the caller's requests.

        Raises: HttpError 429 with the seconds until the next one.
        """
        with self._lock:
            now = time.monotonic()
            per_second = caller.rate_per_minute / 60
            left, seen_at = self._tokens.get(caller.name, (float(caller.rate_per_minute), now))
            left = min(float(caller.rate_per_minute), left + (now - seen_at) * per_second)
            if left < 1:
                wait_s = int((1 - left) / per_second) + 1
                message = f"more than {caller.rate_per_minute} requests a minute; wait {wait_s} s"
                raise HttpError(429, "rate_limited", message, retry_after_s=wait_s)
            running = self._at_once.get(caller.name, 0)
            if running >= caller.concurrency:
                message = f"{running} requests run, the limit is {caller.concurrency}; wait for one of them"
                raise HttpError(429, "too_many_at_once", message, retry_after_s=1)
            self._tokens[caller.name] = (left - 1, now)
            self._at_once[caller.name] = running + 1
        try:
            yield
        finally:
            with self._lock:
                self._at_once[caller.name] -= 1


def is_local(host: str, uds: Path | None) -> bool:
    """Whether only this machine can reach the address."""
    return uds is not None or host in {"localhost", "::1"} or host.startswith("127.")


def _presented(headers: dict[str, str], own_header: str) -> str | None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme:
        return token.strip() if scheme.lower() == "bearer" else f"{scheme} {token}"
    return headers.get("x-api-key") or headers.get(own_header.lower()) or None


def _valid(entry: KeyEntry) -> bool:
    if entry.not_after is None:
        return True
    ends = entry.not_after if entry.not_after.tzinfo else entry.not_after.replace(tzinfo=UTC)
    return datetime.now(UTC) < ends


def _unauthorized(code: str, message: str) -> HttpError:
    error = HttpError(401, code, message)
    error.headers["WWW-Authenticate"] = 'Bearer realm="whis-box"'
    return error
