"""Chunking, the store and the search, with the hashing embedder."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import apsw
import pytest
from conftest import FAKE_SHA256, HashingEmbedder, write_document
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from whis_box.config import AbstainConfig, EvidenceConfig, FusionWeights, RagConfig, RetrieverConfig
from whis_box.errors import InputError, NotReadyError, StorageError, VerificationError
from whis_box.ingest.pipeline import build_index, read_folder
from whis_box.knowledge import fusion
from whis_box.knowledge.chunking import chunk_record
from whis_box.knowledge.evidence import EvidenceSelector
from whis_box.knowledge.retriever import Retriever
from whis_box.knowledge.store import describe
from whis_box.knowledge.writer import IndexWriter


def build(guide: Path, path: Path) -> None:
    embedder: Any = HashingEmbedder()
    build_index(read_folder(guide), path, embedder, FAKE_SHA256, RagConfig(), lambda *_: None, 3)


def test_chunks_are_spans_of_their_record(guide: Path) -> None:
    for record in read_folder(guide):
        chunked = chunk_record(record, 20, lambda text: len(text.split()))
        assert chunked.chunks
        for chunk in chunked.chunks:
            assert record.text[chunk.start : chunk.end] == chunk.text


def test_repeated_passages_have_ids_of_their_own(tmp_path: Path) -> None:
    write_document(tmp_path, "log", "A log", "## One\n\n" + "The same line of a log again.\n\n" * 30)
    chunks = chunk_record(read_folder(tmp_path)[0], 32, lambda text: len(text.split())).chunks
    assert len({chunk.id for chunk in chunks}) == len(chunks) > 1


def test_a_long_section_is_cut_at_sentence_ends(tmp_path: Path) -> None:
    body = "## One\n\n" + " ".join(f"Sentence number {n} has exactly seven words." for n in range(20))
    write_document(tmp_path, "long", "A long one", body)
    chunked = chunk_record(read_folder(tmp_path)[0], 32, lambda text: len(text.split()))
    assert len(chunked.chunks) == 5
    assert all(chunk.text.endswith("words.") for chunk in chunked.chunks)


def test_an_identifier_puts_the_document_about_it_first(retriever: Retriever) -> None:
    for query, record_id in (
        ("T1003.001", "lsass"),
        ("cve-2021-44228", "log4shell"),
        ("eventid 1102", "win-1102"),
    ):
        assert retriever.search(query)[0].chunk.record_id == record_id


def test_a_bare_number_that_is_a_known_event_counts_as_one(retriever: Retriever) -> None:
    assert retriever.prepare("what is 1102").identifiers[0].value == "1102"


def test_an_unknown_sub_technique_is_missing_but_its_parent_is_searched(retriever: Retriever) -> None:
    query = retriever.prepare("T1003.099")
    assert [one.value for one in query.missing_identifiers] == ["T1003.099"]
    assert retriever.search(query)[0].found_by["identifier"] == 1


def test_a_file_name_is_found_whole(retriever: Retriever) -> None:
    hit = retriever.search("comsvcs.dll")[0]
    assert hit.chunk.record_id == "lsass" and hit.found_by["exact"] == 1


@given(st.text(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_no_query_breaks_the_search(retriever: Retriever, text: str) -> None:
    retriever.search(text or " ")


@pytest.mark.parametrize(
    "query", ['"', "a OR NOT (b", "NEAR(x y, 2)", "col:*", "'; drop table chunks; --", "^ - + *"]
)
def test_full_text_operators_are_plain_words(retriever: Retriever, query: str) -> None:
    assert isinstance(retriever.search(query), list)
    assert retriever.search("audit log")


@pytest.mark.parametrize(
    "text",
    [
        "audit log " * 10_000,
        "the of and is what",
        "?!... ;;; ---",
        "журнал аудита очищен 監査ログ",
        "comsvcs.dll " + "\u202e\u200b" * 500,
    ],
)
def test_odd_questions_find_what_is_nearest_and_no_more(retriever: Retriever, text: str) -> None:
    ranking = retriever.rank(retriever.prepare(text))
    assert ranking.scored and math.isclose(sum(one.score for one in ranking.scored), 1.0)
    assert all(0.0 <= one.score <= 1.0 for one in ranking.scored)


def test_a_read_only_index_is_read_by_two_at_once(guide: Path, tmp_path: Path, retriever: Retriever) -> None:
    path = tmp_path / "shared" / "index.sqlite"
    path.parent.mkdir()
    build(guide, path)
    path.chmod(0o444)
    path.parent.chmod(0o555)
    embedder: Any = HashingEmbedder()
    one, other = (Retriever(path, embedder, FAKE_SHA256, RetrieverConfig()) for _ in range(2))
    query = "password in memory of lsass"
    assert one.search(query) == other.search(query)
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["index.sqlite"]
    path.parent.chmod(0o755)


def test_evidence_is_verbatim_and_numbered(retriever: Retriever) -> None:
    evidence = EvidenceSelector(retriever, EvidenceConfig(), AbstainConfig()).select(
        "Which event means a cleared audit log?"
    )
    assert [one.n for one in evidence.sentences] == list(range(1, len(evidence.sentences) + 1))
    for one in evidence.sentences:
        assert retriever.record(one.hit.chunk.record_id).text[one.start : one.end] == one.text
    assert "Event 1102" in evidence.sentences[0].text


def test_evidence_stays_within_its_budget(retriever: Retriever) -> None:
    selector = EvidenceSelector(retriever, EvidenceConfig(max_sentences=2, max_tokens=64), AbstainConfig())
    evidence = selector.select("lsass memory dump")
    assert 1 <= len(evidence.sentences) <= 2


def test_unknown_words_and_identifiers_are_features(retriever: Retriever) -> None:
    selector = EvidenceSelector(retriever, EvidenceConfig(), AbstainConfig())
    known, unknown = (
        selector.select("audit log cleared").relevance,
        selector.select("CVE-1999-0001 zebra giraffe").relevance,
    )
    assert known.unknown == 0.0 and unknown.unknown > 0.5
    assert known.missing_identifier == 0.0 and unknown.missing_identifier == 1.0


def test_two_builds_of_the_same_documents_are_equal(guide: Path, tmp_path: Path) -> None:
    build(guide, tmp_path / "a.sqlite")
    build(guide, tmp_path / "b.sqlite")
    assert (tmp_path / "a.sqlite").read_bytes() == (tmp_path / "b.sqlite").read_bytes()


def test_an_index_of_another_embedder_is_refused(guide: Path, tmp_path: Path) -> None:
    build(guide, tmp_path / "i.sqlite")
    embedder: Any = HashingEmbedder()
    with pytest.raises(VerificationError, match="whis index build"):
        Retriever(tmp_path / "i.sqlite", embedder, "0" * 64, RetrieverConfig())


@pytest.mark.parametrize("damage", ["truncate", "garbage", "empty"])
def test_a_damaged_index_is_named(guide: Path, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "i.sqlite"
    build(guide, path)
    content = path.read_bytes()
    path.write_bytes(
        {"truncate": content[: len(content) // 3], "garbage": b"\x00" * 5000, "empty": b""}[damage]
    )
    embedder: Any = HashingEmbedder()
    with pytest.raises(VerificationError, match="i.sqlite"):
        Retriever(path, embedder, FAKE_SHA256, RetrieverConfig()).search("audit log")


def test_a_missing_index_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotReadyError, match="nothing.sqlite"):
        describe(tmp_path / "nothing.sqlite")


def test_a_full_disk_leaves_the_old_index_and_nothing_else(
    guide: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    path = tmp_path / "out" / "i.sqlite"
    build(guide, path)
    before = path.read_bytes()
    real = IndexWriter._add
    calls = []

    def fails_late(self: IndexWriter, *parts: Any) -> None:
        calls.append(1)
        if len(calls) > 2:
            raise apsw.FullError("database or disk is full")
        real(self, *parts)

    monkeypatch.setattr(IndexWriter, "_add", fails_late)
    with pytest.raises(StorageError, match="disk is full"):
        build(guide, path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["i.sqlite"]


def test_all_bad_documents_are_listed_at_once(guide: Path) -> None:
    write_document(guide, "nolicense", "No licence", "## A\n\nText.\n")
    text = (guide / "nolicense.md").read_text().replace("CC-BY-4.0", "Proprietary")
    (guide / "nolicense.md").write_text(text)
    (guide / "nohead.md").write_text("just text")
    (guide / "binary.md").write_bytes(b"---\n\xff\xfe\x00")
    write_document(guide, "twin", "Twin", "## A\n\nText.\n").write_text(
        (guide / "lsass.md").read_text(), encoding="utf-8"
    )
    with pytest.raises(InputError) as caught:
        read_folder(guide)
    message = str(caught.value)
    assert all(part in message for part in ("nolicense.md", "nohead.md", "binary.md", "twin.md"))


def test_describe_counts_records_by_licence_and_tlp(guide: Path, tmp_path: Path) -> None:
    build(guide, tmp_path / "i.sqlite")
    info = describe(tmp_path / "i.sqlite")
    assert info["records_by_license"] == {"CC-BY-4.0": 3}
    assert info["records_by_tlp"] == {"amber": 1, "clear": 2}
    assert json.dumps(info)


def test_explain_adds_up_to_the_score_and_names_what_was_asked(retriever: Retriever) -> None:
    told: Any = retriever.explain("T1003.001 password memory of lsass.exe CVE-2020-0001", 3)
    assert told["identifiers"][0] == "technique T1003.001"
    assert told["not_in_the_index"] == ["cve CVE-2020-0001"]
    assert {"password", "memory", "lsass"} <= set(told["words"])
    assert set(told["lists"]) == {"identifier", "prose", "exact", "chunk_dense", "sentence_dense"}
    best = told["hits"][0]
    for hit, expected in zip(
        told["hits"], retriever.search("T1003.001 password memory of lsass.exe CVE-2020-0001", 3), strict=True
    ):
        assert hit["text"] == expected.chunk.text
        behind = sum(best["adds"].values()) - sum(hit["adds"].values())
        assert hit["score"] == pytest.approx(best["score"] * math.exp(-behind), abs=2e-3)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Which event is logged when the audit log is cleared?", "question"),
        ("4625 logon type 3", "question"),
        ("explain kerberoasting to me in the words of a beginner please", "question"),
        ("Detects the dumping of the LSASS memory with comsvcs.dll through rundll32", "statement"),
        ("The group used stolen session cookies to reach the mailboxes of its victims.", "statement"),
    ],
)
def test_what_is_asked_is_told_from_what_is_told(text: str, kind: str) -> None:
    assert fusion.kind_of(text) == kind


def test_more_weight_on_a_list_lifts_what_that_list_puts_first(guide: Path, tmp_path: Path) -> None:
    path = tmp_path / "weighted.sqlite"
    build(guide, path)
    embedder: Any = HashingEmbedder()
    zero = dict.fromkeys(fusion.FEATURES, 0.0)
    for name in ("prose", "exact"):
        alone = RetrieverConfig(question=FusionWeights(**zero | {name: 10.0}))
        opened = Retriever(path, embedder, FAKE_SHA256, alone)
        ranking = opened.rank(opened.prepare("what reads lsass with comsvcs.dll?"))
        assert [one.rowid for one in ranking.scored][0] == ranking.found.lists[name][0]
        assert sum(one.score for one in ranking.scored) == pytest.approx(1.0)
        opened.close()


def test_the_commonest_words_are_left_out_when_they_would_cost_too_much(guide: Path, tmp_path: Path) -> None:
    for number in range(120):
        write_document(guide, f"n{number}", f"Note {number}", "## One\n\nThe password is common here.\n")
    path = tmp_path / "many.sqlite"
    embedder: Any = HashingEmbedder()
    build_index(read_folder(guide), path, embedder, FAKE_SHA256, RagConfig(), lambda *_: None, 123)
    opened = Retriever(path, embedder, FAKE_SHA256, RetrieverConfig(max_postings=100))
    told: Any = opened.explain("password jndi")
    assert told["words"] == ["jndi"] and told["words_left_out"] == ["password"]
    assert opened.explain("password")["words"] == ["password"]  # the only word is looked up all the same
    opened.close()


def test_an_identifier_in_very_many_chunks_does_not_break_the_search(guide: Path, tmp_path: Path) -> None:
    for number in range(600):
        write_document(guide, f"n{number}", f"Note {number}", "## One\n\nSeen with T1003.001 today.\n")
    path = tmp_path / "many.sqlite"
    embedder: Any = HashingEmbedder()
    build_index(read_folder(guide), path, embedder, FAKE_SHA256, RagConfig(), lambda *_: None, 603)
    opened = Retriever(path, embedder, FAKE_SHA256, RagConfig().retriever)
    assert "lsass" in [hit.chunk.record_id for hit in opened.search("T1003.001", 5)]
    opened.close()
