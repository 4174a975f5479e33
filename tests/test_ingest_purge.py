"""A purged record is gone from every byte of the corpus and of the index, and stays away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import FAKE_SHA256, HashingEmbedder
from tests.test_ingest_intake import ingest, texts
from whis_box.config import RagConfig
from whis_box.errors import InputError, VerificationError
from whis_box.ingest.corpus import open_existing
from whis_box.ingest.pipeline import build_index
from whis_box.ingest.purge import purge_record
from whis_box.knowledge.store import describe

SECRET_LINE = "The red marmot incident was handled by the night shift of plant four."


def build(corpus: Path, index: Path) -> None:
    """An index of the corpus with the hashing embedder."""
    embedder: Any = HashingEmbedder()
    with open_existing(corpus) as opened:
        build_index(
            opened.records(), index, embedder, FAKE_SHA256, RagConfig(), lambda *_: None, opened.count()
        )


def test_purge_erases_the_bytes_and_the_record_stays_away(tmp_path: Path) -> None:
    (tmp_path / "gone.txt").write_text(SECRET_LINE + "\n" + "filler line of some length for the page\n" * 400)
    (tmp_path / "kept.txt").write_text("The blue heron incident was handled by the day shift of plant two.\n")
    corpus, index = tmp_path / "out" / "c.sqlite", tmp_path / "out" / "i.sqlite"
    roots = [tmp_path / "gone.txt", tmp_path / "kept.txt"]
    ingest(corpus, *roots)
    build(corpus, index)
    assert SECRET_LINE.encode() in corpus.read_bytes() and SECRET_LINE.encode() in index.read_bytes()
    record_id = next(one for one, text in texts(corpus).items() if "marmot" in text)
    erasure = purge_record(corpus, record_id)
    with pytest.raises(VerificationError, match="still holds"):
        erasure.prove([index])
    build(corpus, index)
    assert set(erasure.prove([corpus, index])) == {"c.sqlite", "i.sqlite"}
    assert b"red marmot" not in corpus.read_bytes() + index.read_bytes()
    (tmp_path / "gone.txt").write_text(SECRET_LINE + " again\n")
    assert ingest(corpus, *roots).counts["rejected"] == 1 and len(texts(corpus)) == 1
    with pytest.raises(InputError, match="no record"):
        purge_record(corpus, record_id)


def test_index_info_lists_sources_with_their_licences(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("The blue heron incident was handled by the day shift of plant two.\n")
    corpus, index = tmp_path / "out" / "c.sqlite", tmp_path / "out" / "i.sqlite"
    ingest(corpus, tmp_path / "kept.txt")
    build(corpus, index)
    sources: Any = describe(index)["sources"]
    assert [(one["name"], one["license"], one["records"]) for one in sources] == [
        ("own", "LicenseRef-Internal", 1)
    ]
    with open_existing(corpus) as opened:
        summary = opened.summary()
    assert summary["records_by_source"] == {"own": 1} and json.dumps(summary)
