"""JSON lines on stderr, with the request they belong to; no text of a question, an alert or a key.

Source: trace context as in W3C Trace Context, https://www.w3.org/TR/trace-context/ (Recommendation 2021).
"""

from __future__ import annotations

import json
import logging
import re
import sys
import uuid
from contextvars import ContextVar
from datetime import UTC, datetime

REQUEST_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")
TRACEPARENT = re.compile(r"^[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}$")

request_id: ContextVar[str] = ContextVar("request_id", default="")
trace_id: ContextVar[str] = ContextVar("trace_id", default="")


def begin(headers: dict[str, str]) -> str:
    """Take the caller's request id, or the trace's, or a new one; it is the context's from now on."""
    trace = TRACEPARENT.match(headers.get("traceparent", ""))
    trace_id.set(trace.group(1) if trace else "")
    given = headers.get("x-request-id", "")
    chosen = given if REQUEST_ID.match(given) else (trace.group(1) if trace else uuid.uuid4().hex)
    request_id.set(chosen)
    return chosen


class JsonFormatter(logging.Formatter):
    """One JSON object a line; an exception is named by type and place, not by its message."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id.get():
            fields["request_id"] = request_id.get()
        if trace_id.get():
            fields["trace_id"] = trace_id.get()
        fields.update(getattr(record, "fields", {}))
        if record.exc_info and record.exc_info[0] is not None:
            frame = record.exc_info[2]
            while frame is not None and frame.tb_next is not None:
                frame = frame.tb_next
            where = f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}" if frame else ""
            fields["error"] = {"type": record.exc_info[0].__name__, "at": where}
        return json.dumps(fields, ensure_ascii=False, default=str)


def set_up(level: str = "INFO") -> None:
    """Send every logger's lines to stderr as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("httpx").setLevel("WARNING")
