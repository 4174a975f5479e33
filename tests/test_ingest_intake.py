"""The way into the corpus: unchanged files, revisions, duplicates, refusals, resuming, several processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import write_document
from whis_box.cli import main
from whis_box.errors import InputError, NotReadyError, StorageError, VerificationError
from whis_box.ingest.corpus import Corpus, open_existing
from whis_box.ingest.dedupe import comparable_sha256, signature
from whis_box.ingest.intake import Intake, Summary
from whis_box.ingest.readers.draft import Draft
from whis_box.ingest.sanitize.policy import PolicyConfig, read_policy
from whis_box.ingest.sanitize.pseudonyms import KEY_VARIABLE
from whis_box.ingest.sources import SourceConfig, find_source
from whis_box.paths import repository_root

ROOT = repository_root()
POLICY = read_policy(ROOT / "configs")
KEY = b"a key of sixteen characters or more"
GUIDE = find_source(ROOT / "data" / "sources.yaml", "whis-field-guide", POLICY)
OWN = find_source(ROOT / "data" / "sources.yaml", "own-documents", POLICY)


def ingest(
    corpus_path: Path,
    *roots: Path,
    source: SourceConfig = OWN,
    policy: PolicyConfig = POLICY,
    workers: int = 1,
) -> Summary:
    """One import of `roots`."""
    with Corpus(corpus_path) as corpus:
        pseudonyms = corpus.pseudonyms(KEY, "print")
        return Intake("own", source, policy, corpus, pseudonyms, lambda _: None).run(list(roots), workers)


def texts(corpus_path: Path) -> dict[str, str]:
    """Record id to text."""
    with open_existing(corpus_path) as corpus:
        return {record.id: record.text for record in corpus.records()}


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """A folder with two logs of the same user."""
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "a.txt").write_text("CORP\\jdoe logged on to the jump host at night.\n")
    (folder / "b.ndjson").write_text('{"user":{"name":"jdoe"},"message":"file read"}\nnot json\n')
    return folder


def test_records_are_sanitized_and_accounted_for(logs: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    summary = ingest(path, logs)
    assert (summary.files, summary.counts["accepted"], summary.counts["skipped"]) == (2, 2, 1)
    assert summary.redactions == {"ACCOUNT": 3}  # one stands in a title too
    assert sorted(texts(path).values()) == [
        "- user.name: USER_1\n- message: file read\n",
        "CORP\\USER_1 logged on to the jump host at night.\n",
    ]
    with open_existing(path) as corpus:
        record = next(corpus.records())
        assert (record.license, record.tlp, record.redactions) == (
            "LicenseRef-Internal",
            "amber",
            {"ACCOUNT": 2},
        )
        exported = {one.stem: one.read_text() for one in corpus.export(tmp_path)}
    assert "line 2" in exported["skipped"]
    assert all(b"jdoe" not in one.read_bytes() for one in tmp_path.iterdir() if one.is_file())


def test_an_unchanged_import_reads_nothing_and_a_revision_replaces(logs: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    ingest(path, logs)
    again = ingest(path, logs)
    assert (again.files, again.unchanged_files) == (0, 2)
    (logs / "b.ndjson").write_text('{"user":{"name":"asmith"}}\n')
    changed = ingest(path, logs)
    assert (changed.files, changed.unchanged_files, changed.counts["accepted"]) == (1, 1, 1)
    assert "- user.name: USER_2\n" in texts(path).values() and len(texts(path)) == 2
    (logs / "b.ndjson").write_text("")
    assert ingest(path, logs).counts["removed"] == 1 and len(texts(path)) == 1


def test_a_killed_import_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "many.ndjson"
    lines = [json.dumps({"n": number, "user": {"name": f"user{number}"}}) for number in range(1200)]
    source.write_text("\n".join(lines))
    path = tmp_path / "c.sqlite"
    put, calls = Corpus.put, []

    def dies(self: Corpus, *arguments: object) -> None:
        calls.append(1)
        if len(calls) == 700:
            raise StorageError("killed")
        put(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Corpus, "put", dies)
    with pytest.raises(StorageError):
        ingest(path, source)
    monkeypatch.setattr(Corpus, "put", put)
    summary = ingest(path, source)
    assert summary.counts["reused"] >= 512 and summary.counts["accepted"] == 1200 - summary.counts["reused"]
    assert len(texts(path)) == 1200


def test_several_processes_give_the_same_records(logs: Path, tmp_path: Path) -> None:
    ingest(tmp_path / "one.sqlite", logs)
    ingest(tmp_path / "two.sqlite", logs, workers=2)
    assert texts(tmp_path / "one.sqlite") == texts(tmp_path / "two.sqlite")


def test_exact_and_near_duplicates_are_dropped_and_logged(tmp_path: Path) -> None:
    words = " ".join(f"word{number}" for number in range(200))
    for name, text in {"a": words, "b": words.upper(), "c": words + " end", "d": "something else"}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    path = tmp_path / "out" / "c.sqlite"
    assert ingest(path, *(tmp_path / f"{name}.txt" for name in "abcd")).counts["duplicates"] == 2
    with open_existing(path) as corpus:
        rows = [json.loads(line) for line in corpus.export(tmp_path)[3].read_text().splitlines()]
    assert [row["kind"] for row in rows] == ["exact", "near"] and len(texts(path)) == 2
    assert rows[0]["kept"] == rows[1]["kept"] and rows[1]["similarity"] >= 0.9


def test_short_texts_are_compared_exactly_only() -> None:
    assert signature("too short") == b""
    assert comparable_sha256("A b,  c") == comparable_sha256("a B c!")


def test_refused_documents_have_a_reason(tmp_path: Path) -> None:
    write_document(tmp_path, "good", "A good one", "## A\n\nText of the good one.\n")
    bad = write_document(tmp_path, "bad", "A bad one", "## A\n\nText of the bad one.\n")
    bad.write_text(bad.read_text().replace("CC-BY-4.0", "Proprietary"))
    write_document(tmp_path, "twin", "Twin", "## A\n\nOther text.\n")
    (tmp_path / "twin.md").write_text((tmp_path / "twin.md").read_text().replace("id: twin", "id: good"))
    (tmp_path / "ghp_a1B2a1B2a1B2a1B2a1B2a1B2a1B2a1B2a1B2.txt").write_text("words")
    path = tmp_path / "out" / "c.sqlite"
    summary = ingest(path, tmp_path, source=GUIDE)
    assert set(texts(path)) == {"good"} and summary.counts["rejected"] == 3
    with open_existing(path) as corpus:
        rejected = corpus.export(tmp_path / "out")[1].read_text()
    assert all(part in rejected for part in ("Proprietary", "also that of another", "holds a secret"))
    assert "ghp_" not in rejected


def test_a_source_must_be_listed_and_its_licence_allowed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no source 'nobody'"):
        find_source(ROOT / "data" / "sources.yaml", "nobody", POLICY)
    strict = POLICY.model_copy(update={"licenses": ["MIT"]})
    with pytest.raises(InputError, match="licence 'CC-BY-4.0'"):
        find_source(ROOT / "data" / "sources.yaml", "whis-field-guide", strict)


def test_a_corpus_keeps_to_its_key_and_must_be_one(tmp_path: Path) -> None:
    with Corpus(tmp_path / "c.sqlite") as corpus:
        corpus.pseudonyms(KEY, "first")
    with (
        Corpus(tmp_path / "c.sqlite") as corpus,
        pytest.raises(VerificationError, match="another pseudonym key"),
    ):
        corpus.pseudonyms(KEY, "second")
    (tmp_path / "bad.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(VerificationError, match="not a corpus"):
        Corpus(tmp_path / "bad.sqlite")
    with pytest.raises(NotReadyError, match="whis ingest"):
        open_existing(tmp_path / "missing.sqlite")


def test_the_commands_ingest_and_redact(
    logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY.decode())
    corpus = str(tmp_path / "out" / "c.sqlite")
    assert main(["ingest", str(logs), "--source", "own-documents", "--corpus", corpus, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["accepted"], result["tlp"]) == (2, "amber") and KEY.decode() not in json.dumps(result)
    assert main(["redact", str(logs / "a.txt"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["redactions"] == {"ACCOUNT": 1}
    assert main(["ingest", str(logs), "--source", "unknown", "--corpus", corpus]) == 2


def test_the_shipped_guide_passes_untouched() -> None:
    from whis_box.ingest.readers.detect import read
    from whis_box.ingest.readers.draft import RawFile
    from whis_box.ingest.sanitize.analyzer import Analyzer

    analyzer = Analyzer(POLICY)
    touched = []
    for path in sorted((ROOT / "data" / "raw").rglob("*.md")):
        for draft in read(RawFile(path.name, path.read_bytes()), POLICY.limits):
            assert isinstance(draft, Draft)
            touched += [(path.name, draft.text[one.start : one.end]) for one in analyzer.find(draft.text)]
    assert touched == []
