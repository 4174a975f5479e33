"""Bodies: JSON read as strictly as an event file, NDJSON line by line.

Invariant: duplicate keys, NaN, deep nesting, bad UTF-8 and oversize are typed errors before anything else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

from whis_box.errors import InputError
from whis_box.ingest.alerts import parse_event
from whis_box.server.failures import HttpError
from whis_box.server.middleware import NDJSON

Model = TypeVar("Model", bound=BaseModel)


class StrictRequest(Request):
    """A request whose JSON is one object, read by the reader of alerts."""

    async def json(self) -> Any:
        """The body.

        Raises: HttpError 400.
        """
        return read_object(await self.body())


class StrictRoute(APIRoute):
    """Routes whose bodies are read by StrictRequest."""

    def get_route_handler(self) -> Any:
        """FastAPI's hook."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Any:
            return await handler(StrictRequest(request.scope, request.receive))

        return strict


def read_object(data: bytes, where: str = "request body") -> dict[str, Any]:
    """One JSON object.

    Raises: HttpError 400 that says where it is wrong.
    """
    try:
        return dict(parse_event(data, where))
    except InputError as error:
        raise HttpError(400, "invalid_json", str(error)) from None


def validated(kind: type[Model], fields: dict[str, Any], where: str) -> Model:
    """`fields` as a model.

    Raises: HttpError 422 naming every bad field.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as cause:
        raise HttpError(422, "invalid_request", problems(cause.errors(include_url=False), where)) from None


def problems(errors: list[Any], where: str = "request body") -> str:
    """All of pydantic's complaints, without the values, which may be secret."""
    lines = []
    for one in errors:
        key = ".".join(str(part) for part in one["loc"]) or "(top level)"
        lines.append(f"{where}: {key}: {one['msg']}")
    return "; ".join(lines[:20])


def is_ndjson(request: Request) -> bool:
    """Whether the body is one object per line."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() in NDJSON


def lines_of(data: bytes, max_lines: int) -> Iterator[tuple[int, bytes]]:
    """Lines that hold something, with their numbers.

    Raises: HttpError 413 for more than `max_lines`.
    """
    found = 0
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        found += 1
        if found > max_lines:
            raise HttpError(413, "too_many_lines", f"more than {max_lines} lines; send several batches")
        yield number, line
