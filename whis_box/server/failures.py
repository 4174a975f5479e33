"""Errors as HTTP: one envelope, a status for each kind, and when to try again."""

from __future__ import annotations

import math

from whis_box import errors
from whis_box.server.wire import ErrorBody, ErrorEnvelope


class HttpError(errors.WhisError):
    """An error that only exists over HTTP."""

    def __init__(
        self, status: int, code: str, message: str, param: str | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.param, self.retry_after_s = status, code, param, retry_after_s
        self.headers: dict[str, str] = {}


TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "unavailable_error",
}
# Where an error of the tree goes, most special first: status, seconds until a retry makes sense.
STATUSES: tuple[tuple[type[errors.WhisError], int, int | None], ...] = (
    (errors.InputError, 400, None),
    (errors.RequestCancelledError, 503, 1),
    (errors.DeadlineError, 503, 5),
    (errors.EngineCrashedError, 503, 2),
    (errors.BusyError, 503, 1),
    (errors.EngineError, 500, None),
    (errors.NotReadyError, 503, 5),
    (errors.StorageError, 503, 30),
    (errors.ConfigError, 500, None),
    (errors.VerificationError, 500, None),
)


def envelope(status: int, code: str, message: str, param: str | None = None) -> ErrorEnvelope:
    """The body of an error answer."""
    kind = TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return ErrorEnvelope(error=ErrorBody(message=message, type=kind, param=param, code=code))


def status_of(error: errors.WhisError) -> tuple[int, dict[str, str]]:
    """The status and headers for an error of the tree."""
    if isinstance(error, HttpError):
        status, retry_after_s, headers = error.status, error.retry_after_s, dict(error.headers)
    else:
        headers = {}
        status, retry_after_s = next(
            ((status, wait) for kind, status, wait in STATUSES if isinstance(error, kind)),
            (503, 2) if error.retryable else (500, None),
        )
    if isinstance(error, errors.BusyError):
        retry_after_s = max(1, math.ceil(error.retry_after_s))
    if retry_after_s is not None:
        headers["Retry-After"] = str(retry_after_s)
    return status, headers


def as_envelope(error: errors.WhisError) -> ErrorEnvelope:
    """The body for an error of the tree."""
    status, _ = status_of(error)
    code = error.kind if isinstance(error, HttpError) else error.code
    return envelope(status, code, str(error), error.param if isinstance(error, HttpError) else None)
