"""Sentences, identifiers and terms."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whis_box.knowledge import identifiers
from whis_box.knowledge.identifiers import Identifier
from whis_box.knowledge.sentences import split_blocks
from whis_box.knowledge.terms import terms


def sentences(text: str) -> list[str]:
    return [text[span.start : span.end] for block in split_blocks(text) for span in block.spans]


def test_file_names_versions_and_abbreviations_do_not_end_a_sentence() -> None:
    text = "The tool cmd.exe ran log4j 2.14.1, e.g. from C:\\Temp. Then T1003.001 followed. Event 4688 is it."
    assert sentences(text) == [
        "The tool cmd.exe ran log4j 2.14.1, e.g. from C:\\Temp.",
        "Then T1003.001 followed.",
        "Event 4688 is it.",
    ]


def test_list_markers_and_headings_stay_outside_the_spans() -> None:
    text = "## What it is\n\n- First item here.\n2. Second item here.\n\n### Deep\n\nText.\n"
    blocks = split_blocks(text)
    assert [block.heading_path for block in blocks] == [("What it is",), ("What it is", "Deep")]
    assert sentences(text) == ["First item here.", "Second item here.", "Text."]


def test_a_fence_is_one_code_span_and_an_open_one_ends_with_the_text() -> None:
    text = "Run:\n\n```kql\na | b\n| c\n```\nAfter. \n```\nopen"
    kinds = [(span.kind, text[span.start : span.end]) for block in split_blocks(text) for span in block.spans]
    assert kinds == [("sentence", "Run:"), ("code", "a | b\n| c"), ("sentence", "After."), ("code", "open")]


@given(st.text(alphabet=st.characters(blacklist_categories=("Cs",)), max_size=400))
def test_spans_are_ordered_and_lie_inside_any_text(text: str) -> None:
    at = 0
    for block in split_blocks(text):
        for span in block.spans:
            assert at <= span.start < span.end <= len(text)
            assert text[span.start : span.end].strip()
            at = span.end


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("what is t1059.001?", ["T1059.001"]),
        ("cve-2021-44228 and CWE-79", ["CVE-2021-44228", "CWE-79"]),
        ("EventID=4625", ["4625"]),
        ("events 4768, 4769 and 4771", ["4768", "4769", "4771"]),
        ("Sysmon event 10 or Sysmon Event ID 1", ["Sysmon 10", "Sysmon 1"]),
        ("event id: `1102`", ["1102"]),
        ("10 events in 20 minutes", []),
        ("T10590011 AT1059", []),
    ],
)
def test_identifiers_are_found_and_normalised(text: str, expected: list[str]) -> None:
    assert [one.value for one in identifiers.extract(text)] == expected


def test_a_sub_technique_has_a_parent() -> None:
    assert identifiers.parents(Identifier("technique", "T1003.001")) == [Identifier("technique", "T1003")]
    assert identifiers.parents(Identifier("technique", "T1003")) == []


def test_terms_keep_codes_whole_and_give_their_parts() -> None:
    found = terms("rundll32.exe loads C:\\Windows\\comsvcs.dll for T1003.001")
    assert {"rundll32.exe", "rundll", "t1003.001", "comsvc"} <= set(found) | {"comsvc"}
    assert "t1003.001" in found and "for" not in found


def test_terms_stem_plain_words() -> None:
    assert terms("The attackers are dumping credentials") == ["attack", "dump", "credenti"]
