"""A narrowed search: nothing outside of what was asked, in small indexes and in coded ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import FAKE_SHA256, HashingEmbedder, write_document
from whis_box.config import RagConfig
from whis_box.ingest.pipeline import build_index, read_folder
from whis_box.knowledge.facets import Filter
from whis_box.knowledge.retriever import Retriever


@pytest.fixture(params=["scanned", "coded"])
def narrowable(
    request: pytest.FixtureRequest, guide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Retriever]:
    """The three documents and thirty alike ones, with and without codes."""
    if request.param == "coded":
        for module in ("codes", "store", "writer"):
            monkeypatch.setattr(f"whis_box.knowledge.{module}.EXACT_ROWS", 2)
    for number in range(30):
        body = "## One\n\nThe password of lsass.exe was read from memory once more.\n"
        write_document(guide, f"n{number}", f"Note {number}", body, techniques="T1110", tlp="red")
    path = tmp_path / "f.sqlite"
    embedder: Any = HashingEmbedder()
    build_index(read_folder(guide), path, embedder, FAKE_SHA256, RagConfig(), lambda *_: None, 33)
    opened = Retriever(path, embedder, FAKE_SHA256, RagConfig().retriever)
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("narrowed", "expected"),
    [
        (Filter(techniques=["t1003.001"]), {"lsass"}),
        (Filter(techniques=["T1003"]), {"lsass"}),
        (Filter(techniques=["T1003", "T1190"]), {"lsass", "log4shell"}),
        (Filter(clearance="clear"), {"lsass", "win-1102"}),
        (Filter(clearance="amber"), {"lsass", "win-1102", "log4shell"}),
        (Filter(clearance="amber", techniques=["T1190"], platforms=["Windows"]), {"log4shell"}),
        (Filter(platforms=["solaris"]), set()),
        (Filter(sources=["somebody else"]), set()),
        (Filter(licenses=["MIT"]), set()),
    ],
)
def test_a_search_finds_all_and_only_what_the_filter_lets_through(
    narrowable: Retriever, narrowed: Filter, expected: set[str]
) -> None:
    for query in ("password read from memory of lsass.exe", "T1003.001 and T1110"):
        hits = narrowable.search(query, 50, narrowed)
        assert {hit.chunk.record_id for hit in hits} == expected


def test_an_open_filter_changes_nothing(narrowable: Retriever) -> None:
    query = "password read from memory of lsass.exe"
    plain = [hit.chunk.id for hit in narrowable.search(query)]
    assert Filter().is_open and [hit.chunk.id for hit in narrowable.search(query, None, Filter())] == plain
    assert any(hit.chunk.meta.tlp == "red" for hit in narrowable.search(query))
