"""The link to a server: found or started, waited for, lost and found again; its state in words.

Invariant: an area uses a client only while the link is ready, or in trouble that leaves the server answering.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Literal

from tui.words import counted
from whis_box.errors import WhisError

if TYPE_CHECKING:
    from tui.app import WhisTui
    from tui.client import Client
    from tui.local_server import PrivateServer

LinkState = Literal["connecting", "loading", "ready", "gone", "trouble"]
POLL_S = 0.25


class Link:
    """One app's link."""

    def __init__(self, app: WhisTui) -> None:
        self._app = app
        self.state: LinkState = "connecting"
        self.words = "looking for a server"
        self.problem = ""
        self._was_lost = False
        self._client: Client | None = None
        self._server: PrivateServer | None = None

    @property
    def client(self) -> Client | None:
        """The server, once the model is loaded."""
        return self._client if self.state in ("ready", "trouble") else None

    @property
    def server_lines(self) -> list[str]:
        """The last lines of a private server."""
        return self._server.lines if self._server else []

    async def connect(self) -> None:
        """Find or start a server and wait for its model; what fails becomes a page that says what to do."""
        self._set("connecting", "looking for a server")
        try:
            client = await self._find_or_start()
            self._set("loading", "loading the model")
            waited = 0.0
            while not await client.ready():
                await asyncio.sleep(POLL_S)
                waited += POLL_S
                if waited > self._app.config.server.start_timeout_s:
                    self._set("loading", f"still loading after {waited:.0f} s")
            await self._welcome(client)
        except WhisError as error:
            self._set("trouble", "no server: F8 tries again, F1 helps", str(error))
            self._app.open_trouble()

    def lost(self, words: str) -> None:
        """The connection broke: say so, and find or start a server again."""
        if self.state == "ready":
            self._was_lost = True
            self._set("gone", "connection lost, trying again", words)
            self._app.action_reconnect()

    async def close(self) -> None:
        """End what was started."""
        if self._client is not None:
            await self._client.close()
        if self._server is not None:
            await self._server.stop()

    async def _find_or_start(self) -> Client:
        from tui.client import Client
        from tui.connection import Target
        from tui.local_server import PrivateServer, find

        api_key = os.environ.get("WHIS_API_KEY", "")
        if self._client is not None:
            await self._client.close()
        self._client = None
        url = self._app.config.server.url
        if url:
            self._client = Client(Target(url), api_key)
            await self._client.is_whis()
            return self._client
        self._client = await find(api_key)
        if self._client is None:
            self._set("connecting", "starting a private server")
            if self._server is not None:
                await self._server.stop()
            self._server = PrivateServer(self._app.box)
            self._client = await self._server.start("")
        return self._client

    async def _welcome(self, client: Client) -> None:
        box, library = await asyncio.gather(client.box(), client.library())
        engine = await client.engine()
        records = sum(one.records for one in library.sources)
        if not engine.running:
            words, problem = "the engine does not run: F8 tries again", "engine: the model process ended"
        elif not records:
            words, problem = "the index is empty: F1 helps", "index: no document is in the index"
        else:
            again, self._was_lost = self._was_lost, False
            self._set("ready", f"ready · {counted(records, 'document')} · {box.name} {box.version}")
            if again:
                self._app.say("connected again; what was not answered is still here")
            return
        self._set("trouble", words, problem)
        self._app.open_trouble()

    def _set(self, state: LinkState, words: str, problem: str = "") -> None:
        self.state, self.words, self.problem = state, words, problem
        self._app.link_changed()
