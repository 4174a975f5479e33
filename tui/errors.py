"""What can go wrong with a server, as the screens see it.

WhisError
├── ServerGoneError     nobody answers, or the connection broke
├── RequestFailedError  the server said no
└── ContractError       the server said what this program does not know
"""

from __future__ import annotations

from whis_box.errors import WhisError


class ServerGoneError(WhisError):
    """Nobody answers, or the connection broke."""

    code = "server_gone"
    retryable = True


class RequestFailedError(WhisError):
    """The server said no; `code` and `status` are its own."""

    def __init__(self, message: str, status: int, code: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.status, self.reason, self.retry_after_s = status, code, retry_after_s


class ContractError(WhisError):
    """The server's answer is not what this program knows."""

    code = "contract"
