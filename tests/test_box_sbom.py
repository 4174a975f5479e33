"""The inventory names every library, model and source, fits its schema, and says the same each time."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from whis_box.box import lineage, natives, sbom
from whis_box.box.libraries import required_libraries
from whis_box.box.manifest import FileEntry, LineagePart, Manifest
from whis_box.errors import NotReadyError, VerificationError
from whis_box.gates import GateFile, GateRow, write_gate
from whis_box.paths import repository_root


@pytest.fixture
def manifest() -> Manifest:
    return Manifest(
        format_version=2,
        name="whis-box",
        version="0.1.0",
        source_commit="a" * 40,
        sequence=3,
        issued_at="2026-01-01T00:00:00Z",
        expires_at="2027-01-01T00:00:00Z",
        lineage=[
            LineagePart(role="base", name="smol", license="Apache-2.0", origin="w==1", sha256="b" * 64),
            LineagePart(role="embedder", name="mini", license="Apache-2.0", origin="w==2"),
            LineagePart(
                role="adapter", name="soc/1", license="Apache-2.0", origin="dataset d/1", note="gate: ok"
            ),
            LineagePart(role="dataset", name="d/1", license="CC-BY-4.0", origin="made", sha256="d" * 64),
            LineagePart(role="source", name="guide", license="CC-BY-4.0", origin="pipeline 4"),
        ],
        files=[FileEntry(path="_internal/libllama.so", size_bytes=1, sha256="c" * 64)],
    )


def test_it_fits_the_schema_and_names_everything(manifest: Manifest) -> None:
    libraries = required_libraries()
    document = sbom.bill_of_materials(manifest, libraries)
    sbom.validate(document, "inventory")
    found = {one["name"]: one for one in document["components"]}
    assert {"llama-cpp-python", "onnxruntime", "apsw", "pydantic"} <= found.keys()
    assert not {"torch", "diskcache", "jinja2", "mlflow"} & found.keys()
    assert found["_internal/libllama.so"]["hashes"][0]["content"] == "c" * 64
    assert found["smol"]["type"] == "machine-learning-model" and "modelCard" in found["smol"]
    assert found["soc/1"]["pedigree"]["ancestors"][0]["name"] == "smol"
    assert found["soc/1"]["modelCard"]["modelParameters"]["datasets"] == [{"ref": found["d/1"]["bom-ref"]}]
    assert found["d/1"]["hashes"][0]["content"] == "d" * 64
    assert found["guide"]["type"] == "data"
    assert document == sbom.bill_of_materials(manifest, libraries)


def test_a_document_outside_the_schema_is_refused(manifest: Manifest) -> None:
    document = sbom.bill_of_materials(manifest, [])
    document["components"][0]["type"] = "spaceship"
    with pytest.raises(VerificationError, match="does not fit the CycloneDX 1.6 schema"):
        sbom.validate(document, "inventory")


def test_the_flaw_report_is_valid_and_says_that_it_is_no_scan(manifest: Manifest) -> None:
    inventory = sbom.bill_of_materials(manifest, required_libraries())
    report = sbom.flaw_report(manifest, inventory)
    sbom.validate(report, "flaws")
    assert "no vulnerability database was asked" in json.dumps(report)
    by_id = {one["id"]: one for one in report["vulnerabilities"]}
    assert by_id["CVE-2025-69872"]["analysis"]["state"] == "not_affected"


def test_the_licence_report_has_one_line_for_each_component(manifest: Manifest) -> None:
    inventory = sbom.bill_of_materials(manifest, required_libraries())
    lines = sbom.license_report(inventory).splitlines()
    assert len(lines) == 1 + len(inventory["components"])
    assert "library\tpydantic\t" in "\n".join(lines)


def test_a_program_without_its_list_of_libraries_is_not_ready(manifest: Manifest, tmp_path: Path) -> None:
    frozen = manifest.model_copy(update={"platform": "linux-x86_64"})
    with pytest.raises(NotReadyError, match="make frozen"):
        sbom.write_sbom(tmp_path, frozen)


def test_the_recipe_of_the_frozen_program_leaves_the_build_half_out() -> None:
    """The recipe takes in what is locked for the runtime, and nothing of the build half is."""
    text = (repository_root() / "build.spec").read_text()
    assert "*strangers()" in text and "optimize=0" in text and "upx=False" in text
    lock = (repository_root() / "requirements" / "runtime.lock").read_text()
    locked = {line.split("==")[0] for line in lock.splitlines() if "==" in line}
    assert "fastapi" in locked
    assert not {"torch", "ragas", "mlflow", "transformers", "presidio-analyzer", "pytest"} & locked


def test_the_lineage_of_an_adapter_comes_from_the_files_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "adapters" / "soc" / "2"
    folder.mkdir(parents=True)
    (folder / "adapter.gguf").write_bytes(b"weights")
    [alone] = lineage._adapters(tmp_path / "adapters")
    assert (alone.name, alone.sha256) == ("soc/2", hashlib.sha256(b"weights").hexdigest())
    assert "not stated" in alone.origin and "may not be promoted" in alone.note
    facts = {
        "dataset": "d/1",
        "dataset_sha256": "d" * 64,
        "base_sha256": "b" * 64,
        "n_samples": 7,
        "n_tokens": 9,
    }
    (folder / "lineage.json").write_text(json.dumps(facts))
    row = GateRow(metric="hit@5", limit=">= 0.9", passed=True)
    gate = GateFile(
        passed=True, subject="soc@2", binding={}, rows=[row], rules_sha256="a" * 64, results_sha256="a" * 64,
        created_at="2026-11-30T00:00:00Z",
    )  # fmt: skip
    write_gate(folder / "gate.json", gate)
    (tmp_path / "d" / "1").mkdir(parents=True)
    held = {"sha256": "d" * 64, "records_by_license": {"MIT": 1, "CC-BY-4.0": 2}}
    (tmp_path / "d" / "1" / "manifest.json").write_text(json.dumps(held))
    monkeypatch.setattr(lineage, "DATASETS", tmp_path)
    adapter, dataset = lineage._adapters(tmp_path / "adapters")
    assert adapter.note == "gate: passed 2026-11-30T00:00:00Z, 1 rules" and "dataset d/1" in adapter.origin
    assert (dataset.role, dataset.license, dataset.sha256) == ("dataset", "CC-BY-4.0 AND MIT", "d" * 64)


@pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="this system has no Debian packages")
def test_a_library_of_the_build_host_is_named_by_its_package() -> None:
    place = next(path for folder in ("/lib", "/usr/lib") for path in Path(folder).glob("*/libz.so.1"))
    found = natives.system_library(place)
    assert (found.name, found.license) == ("zlib1g", "Zlib") and found.version[0].isdigit()
    assert found.purl.startswith("pkg:deb/debian/zlib1g@1")
    assert "Permission is granted" in natives.native_license_text(found) or not natives.DOCUMENTS.is_dir()


def test_a_library_that_nobody_knows_says_so(manifest: Manifest, tmp_path: Path) -> None:
    found = natives.system_library(tmp_path / "libodd.so.1")
    assert (found.name, found.version, found.license) == ("libodd", "unknown", "not stated")
    inventory = sbom.bill_of_materials(manifest, [found, natives.interpreter()])
    sbom.validate(inventory, "inventory")
    assert {"libodd", "cpython"} <= {one["name"] for one in inventory["components"]}
