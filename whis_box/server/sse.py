"""Server-sent events: deltas of a draft while it is written, then one final full object.

Source: HTML Living Standard, section 9.2 (server-sent events).
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from pydantic import BaseModel
from starlette.responses import StreamingResponse

from whis_box.errors import WhisError
from whis_box.server.failures import as_envelope

PING_S = 15.0
MEDIA_TYPE = "text/event-stream"


def event(name: str, data: str, event_id: str = "") -> str:
    """One event; `data` must not hold a line break, as JSON never does."""
    return f"{f'id: {event_id}{chr(10)}' if event_id else ''}event: {name}\ndata: {data}\n\n"


class Draft:
    """Carries deltas from a seat's thread to the event loop; setting `cancelled` stops the seat."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[str | None] = asyncio.Queue()
        self.cancelled = threading.Event()

    def __call__(self, delta: str) -> None:
        """From the seat's thread."""
        self._loop.call_soon_threadsafe(self._queue.put_nowait, delta)

    async def around(self, work: Awaitable[Any]) -> AsyncIterator[str | Any]:
        """Deltas as they come, "" when nothing came for a while, then what `work` returns.

        Raises: what `work` raises. Leaving early cancels the work.
        """
        task = asyncio.ensure_future(work)
        task.add_done_callback(lambda _: self._queue.put_nowait(None))
        try:
            while True:
                try:
                    async with asyncio.timeout(PING_S):
                        delta = await self._queue.get()
                except TimeoutError:
                    yield ""
                    continue
                if delta is None:
                    break
                yield delta
            yield task.result()
        finally:
            self.cancelled.set()
            if not task.done():
                task.cancel()


def stream(events: AsyncIterator[str]) -> StreamingResponse:
    """An answer of events."""
    return StreamingResponse(events, media_type=MEDIA_TYPE, headers={"X-Accel-Buffering": "no"})


async def draft_events(
    draft: Draft, work: Awaitable[BaseModel], final: str, on_error: Callable[[str], None]
) -> AsyncIterator[str]:
    """`delta` events, then one `final` event with the whole object, or one `error`."""
    try:
        async for piece in draft.around(work):
            if isinstance(piece, BaseModel):
                yield event(final, piece.model_dump_json())
            elif piece:
                yield event("delta", _delta(piece))
            else:
                yield ": still working\n\n"
    except WhisError as error:
        on_error(as_envelope(error).error.code)
        yield event("error", as_envelope(error).model_dump_json())


class Delta(BaseModel):
    """A piece of a draft that was not checked yet; the final object replaces all of them."""

    text: str


def dumps(value: dict[str, Any]) -> str:
    """JSON on one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _delta(text: str) -> str:
    return Delta(text=text).model_dump_json()
