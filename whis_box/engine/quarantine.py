"""Requests that were there when the model process died.

Invariant: one death makes a request suspect, and it then runs alone; a second death is therefore its own, and
it is refused from then on. A success clears it.
"""

from __future__ import annotations

import collections
import hashlib
import threading
from collections.abc import Iterable

from whis_box.engine.protocol import GenerateRequest
from whis_box.errors import QuarantinedError

MAX_DEATHS = 2
REMEMBERED = 1000


class Quarantine:
    """Counts deaths by request. Thread-safe."""

    def __init__(self) -> None:
        self._deaths: collections.OrderedDict[str, int] = collections.OrderedDict()
        self._lock = threading.Lock()

    def admit(self, key: str) -> bool:
        """Whether the request must run alone.

        Raises: QuarantinedError.
        """
        with self._lock:
            deaths = self._deaths.get(key, 0)
        if deaths >= MAX_DEATHS:
            raise QuarantinedError(
                f"request {key} ended the model process {deaths} times and is not tried again; "
                "send something else, or restart the program to try it once more"
            )
        return deaths > 0

    def blame(self, keys: Iterable[str]) -> None:
        """Note the requests that ran when the process died."""
        with self._lock:
            for key in set(keys):
                self._deaths[key] = self._deaths.pop(key, 0) + 1
            while len(self._deaths) > REMEMBERED:
                self._deaths.popitem(last=False)

    def clear(self, key: str) -> None:
        """Note that a request came to its end."""
        with self._lock:
            self._deaths.pop(key, None)


def request_key(request: GenerateRequest) -> str:
    """A short digest that names a request without showing its text."""
    parts = (request.prompt, request.grammar, request.lane, request.max_tokens, request.temperature)
    return hashlib.sha256(repr(parts).encode("utf-8", "replace")).hexdigest()[:16]
