"""Which reader a file gets: by its bytes first, then by its name, then by what its JSON says it is.

Invariant: no file is silently ignored: a file nobody reads gives a Skip.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import PurePosixPath

from whis_box.ingest.readers import documents, events, guide, html, mail, rules, stix, vulnerabilities
from whis_box.ingest.readers.archives import is_docx
from whis_box.ingest.readers.draft import Item, Limits, RawFile, Reader, Skip, decode

BY_SUFFIX: dict[str, Reader] = {
    ".md": guide.read_guide,
    ".markdown": guide.read_guide,
    ".txt": documents.read_text,
    ".log": documents.read_text,
    ".html": html.read_html,
    ".htm": html.read_html,
    ".csv": events.read_csv,
    ".tsv": events.read_csv,
    ".vtt": documents.read_transcript,
    ".srt": documents.read_transcript,
    ".eml": mail.read_mail,
    ".yml": rules.read_yaml,
    ".yaml": rules.read_yaml,
}
JSON_SUFFIXES = {".json", ".ndjson", ".jsonl", ".stix"}
MAGIC: dict[bytes, Reader] = {b"ElfFile\x00": events.read_evtx, b"%PDF-": documents.read_pdf}


def read(file: RawFile, limits: Limits) -> Iterator[Item]:
    """Documents of one file (not an archive), at most `limits.max_drafts` of them."""
    for number, item in enumerate(_read(file, limits)):
        if number >= limits.max_drafts:
            yield Skip(file.name, f"holds more than {limits.max_drafts} documents; the rest was not read")
            return
        yield item


def _read(file: RawFile, limits: Limits) -> Iterator[Item]:
    if not file.data:
        yield Skip(file.name, "the file is empty")
        return
    for magic, reader in MAGIC.items():
        if file.data.startswith(magic):
            yield from reader(file, limits)
            return
    suffix = PurePosixPath(file.name.rpartition("!")[2]).suffix.lower()
    if is_docx(file):
        yield from documents.read_docx(file, limits)
    elif suffix in JSON_SUFFIXES:
        yield from _read_json(file, limits)
    elif suffix in BY_SUFFIX:
        yield from BY_SUFFIX[suffix](file, limits)
    else:
        yield Skip(file.name, f"no reader for {suffix or 'a file without a suffix'}")


def _read_json(file: RawFile, limits: Limits) -> Iterator[Item]:
    text = decode(file.data)[0]
    try:
        whole = json.loads(text)
    except RecursionError:
        yield Skip(file.name, f"nested deeper than {limits.max_depth}; it was not read")
        return
    except ValueError:
        yield from events.read_lines(file, text, limits)  # one object a line, or broken: it reports where
        return
    if isinstance(whole, dict) and whole.get("type") == "bundle" and "objects" in whole:
        yield from stix.read_bundle(whole, file, limits)
    elif isinstance(whole, dict) and whole.get("dataType") == "CVE_RECORD":
        yield from vulnerabilities.read_cve(whole, file, limits)
    elif (
        isinstance(whole, dict)
        and isinstance(whole.get("vulnerabilities"), list)
        and "catalogVersion" in whole
    ):
        yield from vulnerabilities.read_kev(whole, file, limits)
    else:
        yield from events.objects(whole, file, limits)
