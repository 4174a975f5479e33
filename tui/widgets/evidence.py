"""The evidence pane: one cited passage with its quote marked, and everything that tells where it is from."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content

from tui import words
from tui.errors import RequestFailedError
from tui.keymap import key
from tui.safe_text import safe, safe_line
from tui.widgets.hanging import HANG, Hanging
from whis_box.schemas import Chunk, Citation, Hit, Record

if TYPE_CHECKING:
    from tui.client import Client

Part = str | tuple[str, str]
WHY_TOP_K = 50


class EvidencePane(VerticalScroll, can_focus=True):
    """Shows one citation at a time; the passage and the reasons are fetched when it is shown."""

    BINDINGS = [
        key("rows.down", "scroll_down"),
        key("rows.up", "scroll_up"),
        key("rows.page_down", "page_down"),
        key("rows.page_up", "page_up"),
    ]

    def __init__(self, hint: str) -> None:
        super().__init__(id="evidence")
        self._hint = hint
        self.citation: Citation | None = None
        self._why: dict[str, dict[str, Hit]] = {}

    def compose(self) -> ComposeResult:
        yield Hanging(self._hint, id="passage")

    def clear(self) -> None:
        """Nothing is cited."""
        self.citation = None
        self.query_one(Hanging).show(self._hint)

    async def show(self, citation: Citation, of: int, query: str, client: Client | None) -> None:
        """The quote at once, then its passage, source and reasons."""
        self.citation = citation
        self._draw(citation, of, None, None, "")
        self.scroll_home(animate=False)
        if client is None:
            return
        try:
            chunk, record = await asyncio.gather(
                client.chunk(citation.chunk_id), client.record(citation.record_id)
            )
            self._draw(citation, of, chunk, record, "")
            why = await self._reason(citation, query, client)
        except RequestFailedError as error:
            self._draw(citation, of, None, None, f"the passage could not be read: {error}")
            return
        if self.citation is citation:
            self._draw(citation, of, chunk, record, why)

    async def _reason(self, citation: Citation, query: str, client: Client) -> str:
        """Score and lists of the passage in a search for the question."""
        if not query:
            return ""
        if query not in self._why:
            hits = await client.search(query, WHY_TOP_K)
            self._why = {query: {hit.chunk.id: hit for hit in hits}}
        hit = self._why[query].get(citation.chunk_id)
        if hit is None:
            return f"not among the first {WHY_TOP_K} passages of a search; picked for what it cites"
        place = list(self._why[query]).index(citation.chunk_id) + 1
        found = words.found_by(hit.found_by)
        return f"rank {place}, score {hit.score:.2f} (ranks only within this search); {found}"

    def _draw(
        self, citation: Citation, of: int, chunk: Chunk | None, record: Record | None, why: str
    ) -> None:
        place = " > ".join(safe_line(one) for one in [citation.title, *citation.heading_path])
        parts: list[Part] = [(f"[{citation.n}] of {of}  ", "bold $accent"), (f"{place}\n", "bold")]
        if chunk is None:
            parts += [("» ", "$accent"), (safe(citation.quote), "bold"), (" «\n", "$accent")]
        else:
            parts += quoted(chunk, citation)
        parts.append("\n")
        facts = [("record", citation.record_id)]
        if record is not None:
            facts += [("source", f"{record.source.name}, {record.source.uri}")]
            facts += [("retrieved", f"{record.source.retrieved_at}, revision {record.source.revision}")]
        facts += [("licence", citation.license), ("TLP", citation.tlp.upper())]
        facts += [("place", f"characters {citation.start} to {citation.end}, sha256 {citation.sha256[:16]}…")]
        if why:
            facts.append(("why found", why))
        for name, value in facts:
            parts += [(f"\n{name:<10}", "$muted"), f"{HANG}{safe_line(value, 400)}"]
        self.query_one(Hanging).show(Content.assemble(*parts))


def quoted(chunk: Chunk, citation: Citation) -> list[Part]:
    """The passage with the quote between marks; the marks say it without colour."""
    start, end = citation.start - chunk.start, citation.end - chunk.start
    if not 0 <= start < end <= len(chunk.text) or chunk.text[start:end] != citation.quote:
        return [("» ", "$accent"), (safe(citation.quote), "bold"), (" «\n", "$accent")]
    return [
        safe(chunk.text[:start]),
        ("» ", "bold $accent"),
        (safe(chunk.text[start:end]), "bold on $quote-back"),
        (" «", "bold $accent"),
        safe(chunk.text[end:]),
        "\n",
    ]
