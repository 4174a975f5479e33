"""Lineage both ways: where a record went, and what went into a dataset or an adapter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.test_ingest_intake import ingest
from tests.test_ingest_purge import build
from whis_box.cli import main
from whis_box.errors import InputError, NotReadyError, VerificationError
from whis_box.ingest.lineage import Lineage


@pytest.fixture
def known(tmp_path: Path) -> Lineage:
    """Two records, an index, a dataset of the first record, and an adapter of that dataset."""
    (tmp_path / "a.txt").write_text("The blue heron incident was handled by the day shift of plant two.\n")
    (tmp_path / "b.txt").write_text("The grey goose incident was handled by the late shift of plant nine.\n")
    ingest(tmp_path / "c.sqlite", tmp_path / "a.txt", tmp_path / "b.txt")
    build(tmp_path / "c.sqlite", tmp_path / "i.sqlite")
    dataset = tmp_path / "datasets" / "soc" / "1"
    dataset.mkdir(parents=True)
    manifest = {"name": "soc", "version": "1", "sha256": "a" * 64, "records_by_license": {"CC-BY-4.0": 1}}
    (dataset / "manifest.json").write_text(json.dumps(manifest))
    (dataset / "records.ndjson").write_text(json.dumps({"id": record_id(tmp_path, "heron")}) + "\n")
    for name, sha256 in (("analyst", "a" * 64), ("stranger", "b" * 64)):
        adapter = tmp_path / "adapters" / name / "1.0.0"
        adapter.mkdir(parents=True)
        fields = {
            "name": name,
            "version": "1.0.0",
            "sha256": "c" * 64,
            "dataset": {"sha256": sha256},
            "base": "x",
        }
        (adapter / "manifest.json").write_text(json.dumps(fields))
    return lineage(tmp_path)


def lineage(root: Path) -> Lineage:
    """What is known below `root`."""
    return Lineage(root / "c.sqlite", root / "i.sqlite", root / "datasets", root / "adapters")


def record_id(root: Path, word: str) -> str:
    """The record that holds `word`."""
    from tests.test_ingest_intake import texts

    return next(one for one, text in texts(root / "c.sqlite").items() if word in text)


def test_a_record_is_found_in_everything_that_holds_it(known: Lineage, tmp_path: Path) -> None:
    heron = known.of_record(record_id(tmp_path, "heron"))
    assert heron["datasets"] == ["soc/1"] and heron["adapters"] == ["analyst/1.0.0"]
    assert heron["index_chunks"] == 1 and heron["license"] == "LicenseRef-Internal"
    goose = known.of_record(record_id(tmp_path, "goose"))
    assert goose["datasets"] == [] and goose["adapters"] == [] and goose["index_chunks"] == 1
    assert goose["adapters_of_unknown_datasets"] == ["stranger/1.0.0"]


def test_an_adapter_names_what_made_it(known: Lineage, tmp_path: Path) -> None:
    made = known.of_adapter("analyst/1.0.0")
    dataset = made["dataset"]
    assert isinstance(dataset, dict) and dataset["records"] == [record_id(tmp_path, "heron")]
    assert known.of_adapter("stranger/1.0.0")["dataset"] == "not on this host"


def test_what_is_not_known_is_said(known: Lineage, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no 'soc/2'; here are: soc/1"):
        known.of_dataset("soc/2")
    with pytest.raises(InputError, match="nobody: not in the corpus"):
        known.of_record("nobody")
    (tmp_path / "datasets" / "soc" / "1" / "records.ndjson").unlink()
    with pytest.raises(NotReadyError, match="make it again"):
        known.of_dataset("soc/1")
    (tmp_path / "datasets" / "soc" / "1" / "manifest.json").write_text("{")
    with pytest.raises(VerificationError, match="not a manifest"):
        known.of_dataset("soc/1")


def test_the_command_line_answers_both_ways(
    known: Lineage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--corpus", str(tmp_path / "c.sqlite"), "--out", str(tmp_path / "i.sqlite")]
    places += ["--datasets", str(tmp_path / "datasets"), "--adapters", str(tmp_path / "adapters"), "--json"]
    assert main(["index", "lineage", "--record", record_id(tmp_path, "heron"), *places]) == 0
    assert json.loads(capsys.readouterr().out)["adapters"] == ["analyst/1.0.0"]
    assert main(["index", "lineage", "--adapter", "analyst/1.0.0", *places]) == 0
    assert json.loads(capsys.readouterr().out)["dataset"]["dataset"] == "soc/1"
