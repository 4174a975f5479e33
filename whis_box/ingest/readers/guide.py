"""Our field guide's files: Markdown with YAML front matter. Markdown without it is plain prose.

Invariant: the text is the body, untouched; front matter that is there must be complete and right.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from whis_box.ingest.markdown import split_front_matter
from whis_box.ingest.readers.documents import read_markdown
from whis_box.ingest.readers.draft import Draft, Item, Limits, RawFile, decode


def read_guide(file: RawFile, limits: Limits) -> Iterator[Item]:
    """One document.

    Raises: InputError naming file and key when the front matter is there and wrong: somebody meant it.
    """
    text = decode(file.data)[0].replace("\r\n", "\n")
    head, separator, _ = text.removeprefix("---\n").partition("\n---\n")
    if not text.startswith("---\n") or not separator or "\nid:" not in f"\n{head}":
        yield from read_markdown(file, limits)
        return
    header, body = split_front_matter(file.name, unicodedata.normalize("NFC", text))
    yield Draft(
        key=header.id,
        title=header.title,
        text=body,
        labels=tuple(header.labels),
        record_id=header.id,
        license=header.license,
        tlp=header.tlp,
    )
