"""Every error Whis Box raises on purpose, as one small tree.

    WhisError                      1  anything below
    ├── InputError                 2  a question, alert or argument that cannot be used
    ├── ConfigError                2  a config file that does not validate
    ├── StorageError               1  a disk that is full, a file that may not be read or written
    ├── NotReadyError              4  a model, index or box that is not there yet
    ├── VerificationError          5  a file whose hash, header or manifest does not match
    └── EngineError                1  the model process
        ├── BusyError              1  its queue is too long; try again after `retry_after_s`
        ├── QuarantinedError       1  the request ended the process twice and is not tried again
        ├── EngineCrashedError     1  it died; the request may be tried again
        ├── DeadlineError          1  the request ran out of time
        └── RequestCancelledError  130  the caller gave up

Invariant: a message says what failed, the value, the limit, where, and what to do. The number is the exit
code.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import ClassVar

EXIT_OK = 0
EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_REFUSED = 3
EXIT_NOT_READY = 4
EXIT_VERIFICATION = 5
EXIT_INTERRUPTED = 130


class WhisError(Exception):
    """Base of every deliberate error."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = EXIT_ERROR
    retryable: ClassVar[bool] = False


class InputError(WhisError):
    """A question, alert or argument that cannot be used as it is."""

    code = "invalid_input"
    exit_code = EXIT_USAGE


class ConfigError(WhisError):
    """One or more config values that do not validate; the message lists all of them."""

    code = "invalid_config"
    exit_code = EXIT_USAGE


class StorageError(WhisError):
    """The file system refused: full, read-only, not permitted, or an I/O error."""

    code = "storage"


class NotReadyError(WhisError):
    """Something the box needs has not been built or copied yet."""

    code = "not_ready"
    exit_code = EXIT_NOT_READY


class VerificationError(WhisError):
    """A file is not what the manifest, lock file or format says it is."""

    code = "verification_failed"
    exit_code = EXIT_VERIFICATION


class EngineError(WhisError):
    """The model process refused or failed a request."""

    code = "engine"


class BusyError(EngineError):
    """More requests wait than can be answered in time."""

    code = "busy"
    retryable = True

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QuarantinedError(EngineError):
    """The same request ended the model process twice; it is refused until the program starts again."""

    code = "quarantined"


class EngineCrashedError(EngineError):
    """The model process died while it worked; it is started again for the next request."""

    code = "engine_crashed"
    retryable = True


class DeadlineError(EngineError):
    """The request did not finish before its deadline."""

    code = "deadline_exceeded"
    retryable = True


class RequestCancelledError(EngineError):
    """The caller cancelled the request."""

    code = "cancelled"
    exit_code = EXIT_INTERRUPTED


def storage_error(action: str, path: Path, cause: OSError) -> StorageError:
    """Turn an `OSError` into a StorageError that names the file and the remedy."""
    remedies = {
        errno.ENOSPC: "the disk is full: free some space and run the command again",
        errno.EDQUOT: "the quota is used up: free some space and run the command again",
        errno.EACCES: "permission denied: check the owner and mode of the file and its folder",
        errno.EPERM: "not permitted: check the owner and mode of the file and its folder",
        errno.EROFS: "the file system is read-only: choose a writable folder",
        errno.ENOENT: "no such file or folder: check the path",
        errno.EISDIR: "a folder is in the way: name a file",
    }
    remedy = remedies.get(cause.errno or 0, f"{cause.strerror or cause}")
    return StorageError(f"{path}: cannot {action}: {remedy}")
