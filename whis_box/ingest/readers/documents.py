"""Prose formats: Markdown, plain text, PDF, DOCX, transcripts. One file is one document."""

from __future__ import annotations

import io
import logging
import re
import zipfile
from collections.abc import Iterator

import docx
import pypdf
import webvtt
from docx.opc.exceptions import PackageNotFoundError
from pypdf.errors import PyPdfError
from webvtt.errors import MalformedCaptionError, MalformedFileError

from whis_box.ingest.readers.draft import Draft, Item, Limits, RawFile, Skip, decode, first_heading, long_line

MAX_DOCX_BYTES = 200_000_000
logging.getLogger("pypdf").setLevel(logging.ERROR)  # it warns about every oddity of every file


def read_markdown(file: RawFile, limits: Limits) -> Iterator[Item]:
    """Markdown without our front matter."""
    yield from _prose(file, decode(file.data)[0], limits)


def read_text(file: RawFile, limits: Limits) -> Iterator[Item]:
    """Plain text and logs; blank lines separate paragraphs."""
    if b"\x00" in file.data[:8192] and not file.data.startswith((b"\xff\xfe", b"\xfe\xff")):
        yield Skip(file.name, "binary content in a text file")
        return
    yield from _prose(file, decode(file.data)[0], limits)


def read_pdf(file: RawFile, limits: Limits) -> Iterator[Item]:
    """The text layer, one section a page; scanned pages have none and are reported."""
    try:
        reader = pypdf.PdfReader(io.BytesIO(file.data), strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            yield Skip(file.name, "encrypted; remove the password first")
            return
        total = len(reader.pages)
        title = str((reader.metadata.title if reader.metadata else "") or "").strip()
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as cause:
        yield Skip(file.name, f"not a readable PDF ({type(cause).__name__}: {cause}); get it again")
        return
    sections = []
    for number in range(min(total, limits.max_pages)):
        try:
            words = reader.pages[number].extract_text().strip()
        except (
            PyPdfError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            IndexError,
            RecursionError,
        ) as bad:
            yield Skip(f"{file.name}, page {number + 1}", f"damaged page ({type(bad).__name__}: {bad})")
            continue
        if words:
            sections.append(f"## Page {number + 1}\n\n{_rejoined(words)}")
        else:
            yield Skip(f"{file.name}, page {number + 1}", "no text on the page; it may be a scan")
    if total > limits.max_pages:
        yield Skip(f"{file.name}, page {limits.max_pages + 1}", f"only {limits.max_pages} pages are read")
    if sections:
        text = "\n\n".join(sections)
        first = first_heading(text.partition("\n\n")[2], file.name)
        yield Draft(key="document", title=(title or first)[:200], text=text)


def read_docx(file: RawFile, limits: Limits) -> Iterator[Item]:
    """Paragraphs with their heading levels, lists, and tables row by row."""
    try:
        with zipfile.ZipFile(io.BytesIO(file.data)) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_DOCX_BYTES:
            yield Skip(file.name, f"unpacks to {size} bytes, more than {MAX_DOCX_BYTES}")
            return
        document = docx.Document(io.BytesIO(file.data))
    # lxml's XMLSyntaxError is a SyntaxError.
    except (PackageNotFoundError, SyntaxError, zipfile.BadZipFile, KeyError, ValueError, OSError) as cause:
        yield Skip(file.name, f"not a readable DOCX ({type(cause).__name__}: {cause}); get it again")
        return
    lines = []
    for paragraph in document.paragraphs:
        style = (paragraph.style.name if paragraph.style is not None else "") or ""
        words = paragraph.text.strip()
        if not words:
            continue
        level = re.fullmatch(r"Heading (\d)", style)
        if level or style == "Title":
            lines.append(f"{'#' * max(2, int(level[1]) if level else 2)} {words}")
        else:
            lines.append(f"- {words}" if style.startswith("List") else words)
    for table in document.tables:
        for row in table.rows:
            cells = list(
                dict.fromkeys(" ".join(cell.text.split()) for cell in row.cells if cell.text.strip())
            )
            if cells:
                lines.append(f"- {' | '.join(cells)}")
    if not lines:
        yield Skip(file.name, "the document holds no text")
        return
    text = "\n\n".join(lines)
    title = (document.core_properties.title or "").strip() or first_heading(text, file.name)
    yield Draft(key="document", title=title[:200], text=text)


def read_transcript(file: RawFile, limits: Limits) -> Iterator[Item]:
    """VTT or SRT captions: one paragraph for each run of captions of one speaker, with its start time."""
    text = decode(file.data)[0].replace("\r\n", "\n")
    try:
        buffer = io.StringIO(text)
        is_vtt = text.lstrip().startswith("WEBVTT")
        captions = (
            webvtt.from_buffer(buffer) if is_vtt else webvtt.from_buffer(buffer, format="srt")
        ).captions
    except (MalformedFileError, MalformedCaptionError, ValueError, IndexError) as cause:
        yield Skip(file.name, f"not readable captions ({cause}); check the first lines")
        return
    paragraphs: list[str] = []
    speaker = None
    for caption in captions:
        words = " ".join(caption.text.split())
        if not words:
            continue
        voice = caption.voice or ""
        if paragraphs and voice == speaker and len(paragraphs[-1]) < 600:
            paragraphs[-1] += f" {words}"
        else:
            said = f"{voice}: " if voice else ""
            paragraphs.append(f"[{caption.start.partition('.')[0]}] {said}{words}")
        speaker = voice
    if not paragraphs:
        yield Skip(file.name, "holds no captions")
        return
    name = file.name.rpartition("/")[2]
    yield Draft(key="transcript", title=f"Transcript {name}", text="\n\n".join(paragraphs))


def _prose(file: RawFile, text: str, limits: Limits) -> Iterator[Item]:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    too_long = long_line(text, limits)
    if too_long is not None:
        yield too_long
        return
    if not text.strip():
        yield Skip(file.name, "the file is empty")
        return
    name = file.name.rpartition("/")[2]
    for number, start in enumerate(range(0, len(text), limits.max_text_chars)):
        part = text[start : start + limits.max_text_chars]
        title = first_heading(part, name)
        place = f"character {start}"
        yield Draft(key=f"part-{number}", title=title, text=part.strip("\n") + "\n", position=place)


def _rejoined(words: str) -> str:
    """Words that a line end cut at a hyphen, and lines that end in the middle of a sentence, in one piece."""
    joined = re.sub(r"(?<=[a-z])-\n(?=[a-z])", "", words)
    return re.sub(r"(?<=[a-z,;])\n(?=[a-z(])", " ", joined)
