"""HTML to Markdown-like text: headings, paragraphs, lists, tables, code; no scripts, styles or navigation."""

from __future__ import annotations

from collections.abc import Iterator

from bs4 import BeautifulSoup
from bs4.element import Comment, NavigableString, Tag

from whis_box.ingest.readers.draft import Draft, Item, Limits, RawFile, Skip, decode, fenced, first_heading

DROPPED = ("script", "style", "noscript", "template", "nav", "footer", "iframe", "object", "svg", "form")
BLOCKS = ("h1", "h2", "h3", "h4", "h5", "h6", "p", "li", "pre", "tr", "blockquote", "dt", "dd")
MAX_ELEMENTS = 200_000


def read_html(file: RawFile, limits: Limits) -> Iterator[Item]:
    """The page as one document."""
    title, text = html_text(decode(file.data)[0])
    if not text.strip():
        yield Skip(file.name, "the page holds no readable text")
        return
    yield Draft(key="page", title=title or first_heading(text, file.name), text=text)


def html_text(markup: str) -> tuple[str, str]:
    """(title, text) of a page; loose text outside of blocks is kept too."""
    soup = BeautifulSoup(markup, "lxml")
    title = " ".join(soup.title.get_text().split())[:200] if soup.title else ""
    for dropped in soup(DROPPED):
        dropped.decompose()
    lines: list[str] = []
    body = soup.body or soup
    for count, element in enumerate(body.descendants):
        if count > MAX_ELEMENTS:
            break
        line = _line(element)
        if line:
            lines.append(line)
    return title, "\n\n".join(lines)


def _line(element: object) -> str:
    if isinstance(element, Tag):
        if element.name not in BLOCKS or element.find(BLOCKS[6:]) is not None and element.name != "tr":
            return ""  # its inner blocks speak for themselves
        if element.name == "pre":
            return fenced(element.get_text())
        if element.name == "tr":
            cells = [" ".join(cell.get_text(" ").split()) for cell in element.find_all(("td", "th"))]
            return f"- {' | '.join(cell for cell in cells if cell)}" if any(cells) else ""
        words = " ".join(element.get_text(" ").split())
        if not words or element.find_parent(("pre", "tr")) is not None:
            return ""
        if element.name[0] == "h":
            return f"{'#' * max(2, int(element.name[1]))} {words}"
        return f"- {words}" if element.name in ("li", "dd") else words
    if isinstance(element, NavigableString) and not isinstance(element, Comment):
        inside = element.find_parent(BLOCKS)
        words = " ".join(element.split())
        return words if words and inside is None and len(words) > 1 else ""
    return ""
