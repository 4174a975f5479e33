"""The library's right side: a document with its passages, a search with its reasons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textual.content import Content

from tui.safe_text import safe, safe_line
from tui.widgets.hanging import HANG
from whis_box.server.wire import RecordChunks

Part = str | tuple[str, str]
MAX_PASSAGE_CHARS = 300


def record_page(held: RecordChunks) -> Content:
    """A document: where it is from, then every passage under its heading."""
    record = held.record
    parts: list[Part] = [(f"{safe_line(record.title, 300)}\n", "bold")]
    facts = (
        ("id", record.id),
        ("source", f"{record.source.name}, {record.source.uri}"),
        ("retrieved", f"{record.source.retrieved_at}, revision {record.source.revision}"),
        ("licence", record.license),
        ("TLP", record.tlp.upper()),
        ("labels", ", ".join(record.labels) or "none"),
        ("redacted", ", ".join(f"{name} {count}" for name, count in record.redactions.items()) or "nothing"),
        ("size", f"{len(record.text)} characters, {len(held.chunks)} passages"),
        ("sha256", record.sha256_text),
    )
    for name, value in facts:
        parts += [(f"{name:<10}", "$muted"), f"{HANG}{safe_line(value, 300)}\n"]
    for chunk in held.chunks:
        heading = " > ".join(safe_line(one) for one in chunk.heading_path) or "(no heading)"
        parts += [(f"\n{heading}", "bold $accent"), (f"  {chunk.n_tokens} tokens\n", "$muted")]
        parts.append(f"{safe(chunk.text).strip()}\n")
    return Content.assemble(*parts)


def explained(value: Mapping[str, Any]) -> Content:
    """A search: what was looked up, what each list found, and why each hit stands where it does."""
    parts: list[Part] = [
        (f"{safe_line(str(value['query']), 300)}\n", "bold"),
        ("identifiers ", "$muted"),
        f"{safe_line(', '.join(value['identifiers']) or 'none', 300)}\n",
        ("words       ", "$muted"),
        f"{safe_line(' '.join(value['words']) or 'none', 300)}\n",
    ]
    if value["not_in_the_index"]:
        parts.append(
            (f"not in the index: {safe_line(', '.join(value['not_in_the_index']), 300)}\n", "$warning")
        )
    for name, one in value["lists"].items():
        parts.append((f"  {safe_line(name):<16} found {one['found']:>3}  {one['ms']:>7.2f} ms\n", "$muted"))
    for hit in value["hits"]:
        heading = " > ".join(safe_line(one) for one in hit["heading_path"])
        places = ", ".join(f"{name} #{place}" for name, place in hit["places"].items())
        adds = " + ".join(f"{name} {added:.2f}" for name, added in hit["adds"].items())
        parts += [
            (f"\n{hit['rank']}. {heading}\n", "bold $accent"),
            f"   {HANG}score {hit['score']:.3f}; {places}\n",
        ]
        parts.append((f"   {HANG}{adds}\n", "$muted"))
        parts.append(f"   {HANG}{safe_line(hit['text'], MAX_PASSAGE_CHARS)}\n")
    return Content.assemble(*parts)
