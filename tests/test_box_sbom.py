"""The inventory names every library, model and source, fits its schema, and says the same each time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from whis_box.box import sbom
from whis_box.box.libraries import required_libraries
from whis_box.box.manifest import FileEntry, LineagePart, Manifest
from whis_box.errors import NotReadyError, VerificationError
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
                role="adapter", name="soc/1", license="Apache-2.0", origin="dataset", note="gate: ok"
            ),
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
    text = (repository_root() / "build.spec").read_text()
    for name in ("torch", "ragas", "mlflow", "transformers", "presidio_analyzer", "tests"):
        assert f'"{name}"' in text
    assert "optimize=0" in text and "upx=False" in text
