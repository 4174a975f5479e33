"""The people-finder: names and addresses in SOC text, no tools, the same spans wherever a text stands."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whis_box.errors import NotReadyError, VerificationError
from whis_box.ingest.sanitize.analyzer import Analyzer
from whis_box.ingest.sanitize.ner import FILES, PeopleFinder
from whis_box.ingest.sanitize.people import people_finder
from whis_box.ingest.sanitize.policy import read_policy
from whis_box.ingest.sanitize.pseudonyms import Pseudonyms
from whis_box.ingest.sanitize.redact import redact
from whis_box.paths import repository_root

MODEL = repository_root() / "data" / "ner"
POLICY = read_policy(repository_root() / "configs")
KEY = b"a key of sixteen characters or more"


@pytest.fixture(scope="module")
def finder() -> PeopleFinder:
    """The shipped model."""
    return PeopleFinder(MODEL)


def people(finder: PeopleFinder, text: str) -> list[str]:
    """What is taken for a person's name."""
    return [text[one.start : one.end] for one in finder.find(text) if one.entity_type == "PERSON"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Ticket 4711: Maria Keller reports that her laptop shows a ransom note.", "Maria Keller"),
        ("The call was taken by Tomasz Nowak at 02:14, who isolated the host.", "Tomasz Nowak"),
        ("Escalated to Ingrid Solberg (IR lead), see notes.", "Ingrid Solberg"),
        ("displayName: Rajesh Patel, department: Finance", "Rajesh Patel"),
    ],
)
def test_a_name_in_running_text_is_found(finder: PeopleFinder, text: str, name: str) -> None:
    assert people(finder, text) == [name]


@pytest.mark.parametrize(
    "text",
    [
        "Cobalt Strike beacons over DNS, and Mimikatz reads lsass.exe.",
        "Scattered Spider used AnyDesk and Rclone before LockBit ran.",
        "Sysmon event 10 with GrantedAccess 0x1410 on lsass.exe points to T1003.001.",
        "Enable Credential Guard and Windows Defender Application Control on all hosts.",
        "Passwords pass through the Security Accounts Manager (SAM) and then GRU Unit 74455.",
        "version 10.0.19041.1 of 2024-01-02T03:04:05Z, size 1234567890",
    ],
)
def test_tools_groups_and_technical_words_are_no_people(finder: PeopleFinder, text: str) -> None:
    assert [one for one in finder.find(text) if one.entity_type in {"PERSON", "STREET_ADDRESS"}] == []


def test_the_same_name_keeps_its_pseudonym_and_the_address_is_masked() -> None:
    text = (
        "Maria Keller opened the attachment. Her laptop was sent to 14 Harbour Street, Bristol BS1 5TY.\n"
        "Later Maria Keller called again from the office."
    )
    found = Analyzer(POLICY).find(text)
    redacted = redact("r", text, found, POLICY, Pseudonyms(KEY, {})).text
    assert "Maria" not in redacted and "Harbour" not in redacted
    assert redacted.count("PERSON_1") == 2 or redacted.count("USER_1") == 2


def test_a_text_has_the_same_spans_whatever_follows_it(finder: PeopleFinder) -> None:
    text = "The call was taken by Tomasz Nowak at 02:14, who isolated the host.\n"
    alone = [(one.entity_type, one.start, one.end) for one in finder.find(text)]
    long = text + "Sysmon event 10 shows access to lsass.exe and nothing else happened on that host.\n" * 40
    assert [(one.entity_type, one.start, one.end) for one in finder.find(long)][: len(alone)] == alone


@given(st.text(max_size=400))
@settings(max_examples=60, deadline=None)
def test_spans_lie_in_any_text_in_order_and_apart(text: str) -> None:
    at = 0
    for span in PROPERTY_FINDER.find(text):
        assert at <= span.start < span.end <= len(text)
        at = span.end


PROPERTY_FINDER = PeopleFinder(MODEL)


def test_a_missing_or_damaged_model_is_refused_and_none_is_a_choice(tmp_path: Path) -> None:
    for name in FILES:
        shutil.copy(MODEL / name, tmp_path / name)
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(VerificationError, match="does not load"):
        PeopleFinder(tmp_path)
    (tmp_path / "ner.json").write_text("{}")
    with pytest.raises(VerificationError, match="labels"):
        PeopleFinder(tmp_path)
    (tmp_path / "not_people.txt").unlink()
    with pytest.raises(NotReadyError, match="not_people"):
        PeopleFinder(tmp_path)
    nobody = people_finder(POLICY.model_copy(update={"people_model": "none"}))
    assert list(nobody("Maria Keller")) == []
