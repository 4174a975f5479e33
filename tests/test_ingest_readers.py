"""Readers: what comes out of each format, and that damaged or hostile files are bounded and named."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path

import docx
import pypdf
import pytest

from whis_box.errors import InputError
from whis_box.ingest.readers.archives import open_file, paths_of, unpack
from whis_box.ingest.readers.detect import read
from whis_box.ingest.readers.draft import Draft, Limits, RawFile, Skip

LIMITS = Limits()


def drafts(name: str, data: bytes | str, limits: Limits = LIMITS) -> list[Draft]:
    """Documents of one file; anything skipped fails the test."""
    items = list(read(RawFile(name, data.encode() if isinstance(data, str) else data), limits))
    assert all(isinstance(item, Draft) for item in items), items
    return [item for item in items if isinstance(item, Draft)]


def skips(name: str, data: bytes | str, limits: Limits = LIMITS) -> list[Skip]:
    """What is skipped of one file."""
    items = read(RawFile(name, data.encode() if isinstance(data, str) else data), limits)
    return [item for item in items if isinstance(item, Skip)]


def zipped(**members: bytes) -> bytes:
    """A ZIP archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/"), data)
    return buffer.getvalue()


def test_html_keeps_structure_and_drops_scripts() -> None:
    page = (
        "<html><head><title>Runbook 7</title><script>alert(1)</script></head><body><nav>Menu</nav>"
        "<h2>First steps</h2><p>Isolate <b>the host</b>.</p><ul><li>Collect memory.</li></ul>"
        "<table><tr><th>Field</th><th>Value</th></tr></table><pre>net  user</pre></body></html>"
    )
    (draft,) = drafts("a.html", page)
    assert draft.title == "Runbook 7"
    assert draft.text.split("\n\n") == [
        "## First steps",
        "Isolate the host .",
        "- Collect memory.",
        "- Field | Value",
        "```text\nnet  user\n```",
    ]


def test_docx_keeps_headings_lists_and_tables() -> None:
    document = docx.Document()
    document.add_heading("Containment", 2)
    document.add_paragraph("Disable the account.")
    document.add_paragraph("Ask the owner.", style="List Bullet")
    table = document.add_table(1, 2)
    table.rows[0].cells[0].text, table.rows[0].cells[1].text = "Owner", "SOC"
    buffer = io.BytesIO()
    document.save(buffer)
    (draft,) = drafts("a.docx", buffer.getvalue())
    assert draft.text == "## Containment\n\nDisable the account.\n\n- Ask the owner.\n\n- Owner | SOC"


def test_a_pdf_without_text_is_reported_page_by_page() -> None:
    writer = pypdf.PdfWriter()
    writer.add_blank_page(100, 100)
    buffer = io.BytesIO()
    writer.write(buffer)
    (skip,) = skips("scan.pdf", buffer.getvalue())
    assert skip.position == "scan.pdf, page 1" and "scan" in skip.reason


def test_transcripts_keep_times_and_speakers() -> None:
    vtt = "WEBVTT\n\n00:00:01.000 --> 00:00:03.000\n<v Ana>The host is\nisolated.\n\n"
    vtt += "00:00:04.000 --> 00:00:05.000\n<v Ben>Good.\n"
    assert drafts("call.vtt", vtt)[0].text == "[00:00:01] Ana: The host is isolated.\n\n[00:00:04] Ben: Good."
    srt = "1\n00:00:01,000 --> 00:00:03,000\nHello there\n"
    assert "Hello there" in drafts("call.srt", srt)[0].text


def test_mail_has_its_headers_its_body_and_its_attachments() -> None:
    eml = (
        "From: a@example.com\r\nTo: b@example.com\r\nSubject: Invoice\r\nMIME-Version: 1.0\r\n"
        'Content-Type: multipart/mixed; boundary="x"\r\n\r\n--x\r\nContent-Type: text/html\r\n\r\n'
        "<p>Please pay.</p>\r\n--x\r\nContent-Type: text/plain\r\n"
        'Content-Disposition: attachment; filename="note.txt"\r\n\r\nAttached words.\r\n--x--\r\n'
    )
    files = [one for one in unpack(RawFile("m.eml", eml.encode()), LIMITS) if isinstance(one, RawFile)]
    assert [one.name for one in files] == ["m.eml", "m.eml!note.txt"]
    (mail,) = drafts("m.eml", files[0].data)
    assert mail.title == "Invoice" and "- From: a@example.com" in mail.text and "Please pay." in mail.text


def test_csv_rows_and_json_objects_become_field_lines() -> None:
    assert drafts("a.csv", "user;ip\njdoe;8.8.8.8\n")[0].text == "- user: jdoe\n- ip: 8.8.8.8\n"
    nested = {"user": {"name": "jdoe"}, "tags": ["a", "b"], "list": [{"x": 1}]}
    assert drafts("a.json", json.dumps(nested))[0].text == "- user.name: jdoe\n- tags: a, b\n- list[0].x: 1\n"


def test_objects_over_several_lines_are_read_one_after_the_other() -> None:
    text = json.dumps({"a": 1}, indent=1) + "\n" + json.dumps({"b": 2}, indent=1)
    assert [one.text for one in drafts("a.json", text)] == ["- a: 1\n", "- b: 2\n"]


def test_a_broken_line_is_named_and_the_rest_is_read() -> None:
    items = list(read(RawFile("a.ndjson", b'{"a":1}\n{"b":\n[1]\n{"c":3}\n'), LIMITS))
    assert [type(one).__name__ for one in items] == ["Draft", "Skip", "Skip", "Draft"]
    assert isinstance(items[1], Skip) and items[1].position == "a.ndjson, line 2"


SIGMA = """title: Dump of LSASS
id: 5ba49d1e-0000-4000-8000-000000000001
description: Detects a dump.
tags: [attack.credential-access, attack.t1003.001, cve.2021-44228]
logsource: {product: windows, category: process_creation}
detection:
  selection:
    CommandLine|contains: comsvcs
  condition: selection
falsepositives: [Rare]
level: high
author: Jane Roe
"""


def test_a_sigma_rule_is_readable_and_labelled() -> None:
    (draft,) = drafts("a.yml", SIGMA)
    assert draft.title == "Sigma rule: Dump of LSASS"
    assert {"technique:T1003.001", "cve:CVE-2021-44228", "attribution:Jane Roe"} <= set(draft.labels)
    assert "CommandLine|contains: comsvcs" in draft.text and "Jane Roe" not in draft.text


def test_an_atomic_command_is_filled_with_its_defaults() -> None:
    text = (
        "attack_technique: T1003.001\ndisplay_name: LSASS\natomic_tests:\n"
        "- name: Dump\n  description: Dumps.\n"
        "  supported_platforms: [windows]\n  input_arguments: {out: {default: 'C:\\x.dmp'}}\n"
        "  executor: {name: cmd, command: 'procdump -ma lsass.exe #{out}'}\n"
    )
    (draft,) = drafts("a.yaml", text)
    assert "procdump -ma lsass.exe C:\\x.dmp" in draft.text and draft.labels[0] == "technique:T1003.001"


def test_a_bundle_joins_relationships_and_skips_what_was_revoked() -> None:
    def technique(number: str, **more: object) -> dict[str, object]:
        reference = {"source_name": "mitre-attack", "external_id": number}
        return {"type": "attack-pattern", "id": f"attack-pattern--{number}", "name": "A", **more} | {
            "external_references": [reference]
        }

    group = {"type": "intrusion-set", "id": "intrusion-set--1", "name": "G", "description": "A group."}
    uses = {"type": "relationship", "id": "relationship--1", "relationship_type": "uses"}
    uses |= {"source_ref": "intrusion-set--1", "target_ref": "attack-pattern--T1001"}
    uses |= {"description": "[G](https://x.test/g) used it.(Citation: Y)"}
    objects = [technique("T1001", description="D."), technique("T1002", revoked=True), group, uses]
    items = list(read(RawFile("b.json", json.dumps({"type": "bundle", "objects": objects}).encode()), LIMITS))
    found = {one.title: one for one in items if isinstance(one, Draft)}
    assert set(found) == {"T1001 A", "G"}
    assert "- G: G used it." in found["T1001 A"].text and "- T1001 A: G used it." in found["G"].text
    assert [one.reason for one in items if isinstance(one, Skip)] == ["revoked"]


def test_cve_and_kev_records_are_readable() -> None:
    cve = {
        "dataType": "CVE_RECORD",
        "cveMetadata": {"cveId": "CVE-2024-0001", "state": "PUBLISHED"},
        "containers": {
            "cna": {
                "descriptions": [{"lang": "en", "value": "A bug."}],
                "affected": [
                    {"vendor": "V", "product": "P", "versions": [{"version": "1", "lessThan": "2"}]}
                ],
                "metrics": [{"cvssV3_1": {"version": "3.1", "baseScore": 9.8, "baseSeverity": "CRITICAL"}}],
            }
        },
    }
    text = drafts("c.json", json.dumps(cve))[0].text
    assert "CVE-2024-0001 affects V P 1 before 2." in text and "base score of 9.8 critical" in text
    kev = {"catalogVersion": "1", "vulnerabilities": [{"cveID": "CVE-2024-0001", "dateAdded": "2024-01-02"}]}
    assert "2024-01-02" in drafts("k.json", json.dumps(kev))[0].text


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.evtx", b"ElfFile\x00" + b"\x00" * 100, "EVTX"),
        ("a.pdf", b"%PDF-1.7\nnothing", "not a readable PDF"),
        ("a.docx", zipped(word__document_xml=b"<w:"), "no reader"),
        ("a.json", b"[" * 100_000, "nested deeper"),
        ("a.yml", b"a: &x [1]\nb: *x\n", "aliases"),
        ("a.yml", b"a: [", "not valid YAML"),
        ("a.txt", b"MZ\x00\x00", "binary"),
        ("a.txt", b"x" * 300_000, "break the line"),
        ("a.exe", b"MZ", "no reader for .exe"),
        ("a.md", b"", "empty"),
        ("a.vtt", b"not captions", "captions"),
        ("a.json", b'{"type":"bundle","objects":7}', "list of objects"),
    ],
)
def test_what_cannot_be_read_is_named(name: str, data: bytes, reason: str) -> None:
    found = skips(name, data)
    assert found and reason in found[0].reason


def test_invalid_utf8_is_read_with_a_guess_and_nothing_is_lost() -> None:
    (draft,) = drafts("a.txt", "Der Täter löschte die Datei über Nacht.".encode("cp1252"))
    assert "schte die Datei" in draft.text


def test_broken_front_matter_is_an_error_not_prose() -> None:
    with pytest.raises(InputError, match="license"):
        list(read(RawFile("a.md", b"---\nid: a-b\ntitle: Some title\n---\nText.\n"), LIMITS))


def test_archives_are_walked_without_leaving_them() -> None:
    inner = zipped(**{"deep.txt": b"inner words"})
    data = zipped(**{"../evil.txt": b"x", "ok__a.txt": b"outer words", "b.zip": inner})
    found = list(unpack(RawFile("z.zip", data), LIMITS))
    assert [one.name for one in found if isinstance(one, RawFile)] == [
        "z.zip!b.zip!deep.txt",
        "z.zip!ok/a.txt",
    ]
    assert [one.reason for one in found if isinstance(one, Skip)] == [
        "its path leaves the archive; it was not read"
    ]


def test_bombs_are_refused() -> None:
    bomb = zipped(**{"zeros.txt": b"\x00" * 5_000_000})
    (skip,) = unpack(RawFile("z.zip", bomb), LIMITS)
    assert isinstance(skip, Skip) and "zip bomb" in skip.reason
    (skip,) = unpack(RawFile("z.gz", gzip.compress(b"\x00" * 5_000_000)), LIMITS)
    assert isinstance(skip, Skip) and "zip bomb" in skip.reason
    nested = b"words"
    for _ in range(6):
        nested = zipped(**{"a.zip" if nested[:2] == b"PK" else "a.txt": nested})
    (skip,) = unpack(RawFile("z.zip", nested), LIMITS)
    assert isinstance(skip, Skip) and "nested deeper" in skip.reason
    (skip,) = unpack(RawFile("z.gz", gzip.compress(b"words")[:-9]), LIMITS)
    assert isinstance(skip, Skip)


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "big.log"
    path.write_bytes(b"x" * 11)
    skip = open_file(path, "big.log", Limits(max_file_bytes=10))
    assert isinstance(skip, Skip) and "11 bytes are more than 10" in skip.reason


def test_hidden_files_and_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / ".hidden").write_text("b")
    (tmp_path / "link.txt").symlink_to("/etc/passwd")
    assert [path.name for path in paths_of(tmp_path)] == ["a.txt"]
    with pytest.raises(InputError, match="no such file"):
        paths_of(tmp_path / "missing")
