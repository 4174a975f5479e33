"""Redaction: what is taken out, what survives, and the arithmetic of spans."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.secret_set import planted_secrets
from whis_box.errors import ConfigError
from whis_box.ingest.sanitize.analyzer import Analyzer
from whis_box.ingest.sanitize.policy import read_policy
from whis_box.ingest.sanitize.pseudonyms import KEY_VARIABLE, Pseudonyms, load_key
from whis_box.ingest.sanitize.redact import redact
from whis_box.ingest.sanitize.secrets import find_secrets
from whis_box.ingest.sanitize.spans import Span, replaced, resolve
from whis_box.paths import repository_root

POLICY = read_policy(repository_root() / "configs")
KEY = b"a key of sixteen characters or more"


@pytest.fixture(scope="module")
def analyzer() -> Analyzer:
    """The analyzer under the shipped policy."""
    return Analyzer(POLICY)


def found(analyzer: Analyzer, text: str) -> list[tuple[str, str]]:
    """(entity type, value) of every finding."""
    return [(span.entity_type, text[span.start : span.end]) for span in analyzer.find(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("logon of CORP\\jdoe failed", [("ACCOUNT", "jdoe")]),
        (r"ran C:\Users\mmeier\AppData\x.exe", [("ACCOUNT", "mmeier")]),
        ("read /home/mmeier/.ssh/id_rsa", [("ACCOUNT", "mmeier")]),
        ("Failed password for invalid user jdoe from 203.0.113.7 port 22", [("ACCOUNT", "jdoe")]),
        ("- TargetUserName: jdoe", [("ACCOUNT", "jdoe")]),
        ("- user.name: jdoe\n- host.name: WKS0042", [("ACCOUNT", "jdoe"), ("HOST", "WKS0042")]),
        ("mail bob@corp.local now", [("EMAIL_ADDRESS", "bob@corp.local")]),
        ("FS01.corp.local and 10.1.2.3", [("HOST", "FS01.corp.local"), ("INTERNAL_IP", "10.1.2.3")]),
        ("S-1-5-21-11-22-33-1001 did", [("SID", "S-1-5-21-11-22-33-1001")]),
        ("call +49 30 901820 today", [("PHONE_NUMBER", "+49 30 901820")]),
        ("card 4111 1111 1111 1111", [("CREDIT_CARD", "4111 1111 1111 1111")]),
        ("IBAN DE89 3704 0044 0532 0130 00", [("IBAN_CODE", "DE89 3704 0044 0532 0130 00")]),
        ("pay with 180016070420458 please", [("CREDIT_CARD", "180016070420458")]),
        ("to gb82west12345698765432 now", [("IBAN_CODE", "gb82west12345698765432")]),
        ("my phone number is 467 3395", [("PHONE_NUMBER", "467 3395")]),
        ("employee id: 88213", [("EMPLOYEE_ID", "88213")]),
    ],
)
def test_personal_values_are_found(analyzer: Analyzer, text: str, expected: list[tuple[str, str]]) -> None:
    assert found(analyzer, text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "T1059.001 and TA0002, CVE-2021-44228, CWE-79, event 4688, G0016, KB5005565",
        "d41d8cd98f00b204e9800998ecf8427e e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "203.0.113.7 talked to evil.example.net and login.microsoftonline.com",
        r"NT AUTHORITY\SYSTEM wrote HKLM\SOFTWARE\Microsoft and C:\Windows\System32\cmd.exe",
        "rundll32.exe comsvcs.dll, MiniDump 652 C:\\ProgramData\\x.dmp full",
        "version 10.0.19041.1 of 2024-01-02T03:04:05Z, size 1234567890",
        "bursts of SMB connections (445/139) and blocks of 64/85/32 characters",
        "S-1-5-18 and {4d36e967-e325-11ce-bfc1-08002be10318}",
        "the field `TargetUserName` names the account",
        "fs01.example.corp and EXAMPLE\\svc_backup are reserved names",
        "password: required, token = <TOKEN>, api_key=${API_KEY}",
    ],
)
def test_indicators_and_plain_words_survive(analyzer: Analyzer, text: str) -> None:
    assert found(analyzer, text) == []


SECRETS = [
    (
        "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYzzzzzzzKEY",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzzzzzzzKEY",
    ),
    ("id AKIAQ3EGRIUW5Q7PLMNO used", "AKIAQ3EGRIUW5Q7PLMNO"),
    ("psql postgres://app:Zx9wQ2kd@db:5432/x", "Zx9wQ2kd"),
    ("Authorization: Bearer abcDEF123456789", "abcDEF123456789"),
    ("net user evil P@ssw0rd1! /add", "P@ssw0rd1!"),
    ("curl --password Hunter2xX", "Hunter2xX"),
    ("Server=db;User Id=sa;Password=Kx81!mmQ;", "Kx81!mmQ"),
    ("token ghp_" + "a1B2" * 9, "ghp_" + "a1B2" * 9),
    (
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc-DEF_123",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc-DEF_123",
    ),
    ("x-api-key: 9f8e7d6c5b4a39281706", "9f8e7d6c5b4a39281706"),
]


@pytest.mark.parametrize(("text", "secret"), SECRETS)
def test_secrets_do_not_survive(analyzer: Analyzer, text: str, secret: str) -> None:
    result = redact("r", text, analyzer.find(text), POLICY, Pseudonyms(KEY))
    assert secret not in result.text and "[SECRET]" in result.text


def test_a_private_key_is_removed_whole(analyzer: Analyzer) -> None:
    text = "before\n-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----\nafter"
    result = redact("r", text, analyzer.find(text), POLICY, Pseudonyms(KEY))
    assert result.text == "before\n[SECRET]\nafter"


def test_one_user_is_one_pseudonym_in_all_spellings(analyzer: Analyzer) -> None:
    text = "CORP\\JDoe logged on.\n- TargetUserName: jdoe\n- user.name: asmith\n"
    result = redact("r", text, analyzer.find(text), POLICY, Pseudonyms(KEY))
    assert result.text == "CORP\\USER_1 logged on.\n- TargetUserName: USER_1\n- user.name: USER_2\n"
    assert result.counts == {"ACCOUNT": 3} and len({entry.token for entry in result.log}) == 2
    for entry in result.log:
        assert result.text[entry.start : entry.end].startswith("USER_")
        assert "doe" not in entry.model_dump_json()


def test_another_key_gives_other_tokens() -> None:
    assert Pseudonyms(KEY).token("ACCOUNT", "jdoe") != Pseudonyms(KEY + b"x").token("ACCOUNT", "jdoe")


def test_the_policy_can_refuse_a_record(analyzer: Analyzer) -> None:
    strict = POLICY.model_copy(update={"actions": POLICY.actions | {"CREDIT_CARD": "reject"}})
    text = "card 4111 1111 1111 1111"
    assert redact("r", text, analyzer.find(text), strict, Pseudonyms(KEY)).refused_for == "CREDIT_CARD"


def test_the_key_is_made_once_and_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHIS_STATE", str(tmp_path))
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    first, where = load_key(None)
    assert load_key(None)[0] == first and len(first) == 64
    assert Path(where).stat().st_mode & 0o077 == 0
    monkeypatch.setenv(KEY_VARIABLE, "short")
    with pytest.raises(ConfigError, match="at least 16"):
        load_key(None)


TEXT = "".join(itertools.islice(itertools.cycle("abcdefghij klmno\n"), 60))
SPANS = st.lists(
    st.builds(
        lambda start, length, score, kind: Span(kind, start, min(60, start + length), score, "test"),
        st.integers(0, 58),
        st.integers(1, 20),
        st.sampled_from([0.5, 0.7, 0.9]),
        st.sampled_from(["A", "B", "C"]),
    ),
    max_size=8,
)


@settings(max_examples=300, deadline=None)
@given(SPANS)
def test_resolved_spans_cover_the_same_characters_without_overlap(spans: list[Span]) -> None:
    kept = resolve(spans)
    assert all(left.end <= right.start for left, right in itertools.pairwise(kept))
    marked = {at for span in spans for at in range(span.start, span.end)}
    assert {at for span in kept for at in range(span.start, span.end)} == marked


@settings(max_examples=300, deadline=None)
@given(SPANS)
def test_replacing_keeps_every_other_character_and_says_where(spans: list[Span]) -> None:
    kept = resolve(spans)
    new_text, placed = replaced(TEXT, kept, lambda span, _: f"<{span.entity_type}{span.start}>")
    for before, after in zip(kept, placed, strict=True):
        assert new_text[after.start : after.end] == f"<{before.entity_type}{before.start}>"
    back, at = [], 0
    for before, after in zip(kept, placed, strict=True):
        back += [new_text[at : after.start], TEXT[before.start : before.end]]
        at = after.end
    assert "".join(back) + new_text[at:] == TEXT


@pytest.mark.parametrize("seed", range(3))
def test_every_secret_of_the_own_set_is_found_whole(seed: int) -> None:
    secrets = list(planted_secrets(seed))
    lost = []
    for one in secrets:
        covered = {at for span in find_secrets(one.text) for at in range(span.start, span.end)}
        if any(at not in covered for at in range(one.start, one.end) if not one.text[at].isspace()):
            lost.append(one.kind)
    assert len(secrets) == 100
    assert not lost
