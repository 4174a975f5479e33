"""Exports: each is valid in its own format, says what the triage says, and holds no action and no markup."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
import stix2

from whis_box import cli_export
from whis_box.exports import FORMATS, Case, export, to_text
from whis_box.exports.case import ATTACK_VERSION
from whis_box.ingest.alerts import observables, read_alert
from whis_box.paths import repository_root
from whis_box.schemas import Citation, Finding, Lineage, Step, TechniqueMatch, Timings, Triage, Verdict

HOSTILE = "``` </summary><img src=x onerror=alert(1)> [click](http://evil.example.com) | **bold** @all"
EVENT: dict[str, Any] = {
    "title": "Certutil downloads a file",
    "severity": "high",
    "timestamp": "2026-01-02T03:04:05.678901+02:00",
    "host": "ws7.example.org",
    "user": "EXAMPLE\\k.lind",
    "process_path": r"C:\Windows\System32\certutil.exe",
    "command_line": "certutil -urlcache -f http://203.0.113.9/a.exe a.exe",
    "src_ip": "2001:db8::7",
    "sha256": "ab" * 32,
    "registry_path": r"HKLM\Software\Example",
    "tags": ["attack.t1105"],
    "note": HOSTILE,
}
LINEAGE = Lineage(
    box="a" * 64,
    base="b" * 64,
    adapter="none",
    index="c" * 64,
    embedder="d" * 64,
    prompt="e" * 64,
    policy="none",
)


def case(event: dict[str, Any] = EVENT, verdict: Verdict = "escalate", *, bare: bool = False) -> Case:
    """A case as the copilot would make it; `bare` has no technique, step or citation."""
    alert = read_alert(event)
    cited = Citation(
        n=1, chunk_id="c1", record_id="guide/certutil", title="Certutil", heading_path=["Certutil", "Steps"],
        quote="Isolate the host\nand keep its memory.", start=0, end=36, sha256="f" * 64,
        license="Apache-2.0", tlp="amber",
    )  # fmt: skip
    triage = Triage(
        id="t1",
        alert_id=alert.id,
        verdict=verdict,
        severity="high",
        confidence=0.71,
        abstained=verdict == "needs_review",
        abstain_reason="",
        summary=f"certutil fetched a program {HOSTILE}",
        techniques=[]
        if bare
        else [TechniqueMatch(id="T1105", name="Ingress Tool Transfer", score=0.71, citations=[1])],
        observables=[] if bare else observables(alert),
        recommended_steps=[] if bare else [Step(text="Isolate the host.", citations=[1])],
        false_positive_checks=[] if bare else [Step(text="Is it the software updater?", citations=[1])],
        citations=[] if bare else [cited],
        findings=[Finding(code="summary_replaced", severity="info", message="the draft was not used")],
        lineage=LINEAGE,
        timings=Timings(),
    )
    return Case(triage, alert, event, datetime(2026, 1, 2, 4, 0, tzinfo=UTC))


def unescaped(line: str) -> str:
    """The line without its escaped characters: what is left could be markup."""
    return re.sub(r"\\.", "", line)


def made(name: str, of: Case) -> dict[str, Any]:
    exported = export(name, of)
    assert isinstance(exported, dict)
    return exported


def test_the_command_offers_exactly_the_formats() -> None:
    assert tuple(FORMATS) == cli_export.FORMATS


def test_a_layer_names_its_version_and_scores_in_percent() -> None:
    layer = made("navigator", case())
    assert layer["versions"]["layer"] == "4.5" and layer["domain"] == "enterprise-attack"
    (technique,) = layer["techniques"]
    assert (technique["techniqueID"], technique["score"]) == ("T1105", 71)
    assert "Isolate the host and keep its memory." in technique["comment"]
    assert technique["metadata"] == [{"name": "named by the source", "value": "yes"}]


def test_the_layer_is_of_the_catalogue_s_attack_release() -> None:
    catalogue = repository_root() / "data" / "catalogue" / "attack-enterprise.tsv"
    assert f"v{ATTACK_VERSION}" in catalogue.read_text().splitlines()[0]


@pytest.mark.parametrize("bare", [False, True])
def test_a_bundle_is_valid_stix(bare: bool) -> None:
    bundle = made("stix", case(bare=bare))
    parsed = stix2.parse(json.dumps(bundle), allow_custom=False, version="2.1")
    kinds = [one["type"] for one in parsed.objects]
    assert {"identity", "note", "opinion", "marking-definition"} <= set(kinds)
    assert "indicator" not in kinds
    known = {one["id"] for one in bundle["objects"]}
    for one in bundle["objects"]:
        refs = [*one.get("object_refs", []), *one.get("object_marking_refs", [])]
        assert {*refs, *([one["created_by_ref"]] if "created_by_ref" in one else [])} <= known


def test_observables_have_the_ids_the_library_gives_them() -> None:
    ids = {one["id"] for one in made("stix", case())["objects"]}
    assert {
        stix2.IPv4Address(value="203.0.113.9").id,
        stix2.IPv6Address(value="2001:db8::7").id,
        stix2.URL(value="http://203.0.113.9/a.exe").id,
        stix2.UserAccount(account_login="EXAMPLE\\k.lind").id,
        stix2.Directory(path=r"C:\Windows\System32").id,
        stix2.WindowsRegistryKey(key=r"HKLM\Software\Example").id,
        stix2.File(hashes={"SHA-256": "ab" * 32}).id,
    } <= ids


def test_the_bundle_has_the_alert_s_time_the_quotes_marking_and_the_verdict() -> None:
    objects = {one["type"]: one for one in made("stix", case())["objects"]}
    assert objects["observed-data"]["first_observed"] == "2026-01-02T01:04:05.678Z"
    assert objects["marking-definition"]["name"] == "TLP:AMBER"
    assert objects["opinion"]["opinion"] == "agree" and objects["opinion"]["confidence"] == 71


@pytest.mark.parametrize(
    ("verdict", "opinion"), [("needs_review", "neutral"), ("false_positive", "strongly-disagree")]
)
def test_a_verdict_becomes_its_opinion(verdict: Verdict, opinion: str) -> None:
    objects = {one["type"]: one for one in made("stix", case(verdict=verdict))["objects"]}
    assert objects["opinion"]["opinion"] == opinion


@pytest.mark.parametrize("bare", [False, True])
def test_a_playbook_is_one_chain_of_manual_steps(bare: bool) -> None:
    playbook = made("cacao", case(bare=bare))
    assert (playbook["type"], playbook["spec_version"]) == ("playbook", "cacao-2.0")
    assert {"proposal", "needs-human-approval"} <= set(playbook["labels"])
    workflow, step_id, walked = playbook["workflow"], playbook["workflow_start"], []
    while workflow[step_id]["type"] != "end":
        walked.append(step_id)
        step_id = workflow[step_id]["on_completion"]
    assert {*walked, step_id} == set(workflow)
    actions = [workflow[one] for one in walked if workflow[one]["type"] == "action"]
    assert actions
    for action in actions:
        assert [command["type"] for command in action["commands"]] == ["manual"]
        assert action["agent"] in playbook["agent_definitions"]
    for one in (*workflow, playbook["id"], playbook["created_by"], *playbook["agent_definitions"]):
        kind, _, number = one.partition("--")
        assert kind.replace("-", "").isalpha() and len(number) == 36


def test_the_playbook_proposes_checks_before_steps_in_the_documents_words() -> None:
    workflow = made("cacao", case())["workflow"]
    commands = [one["commands"][0]["command"] for one in workflow.values() if one["type"] == "action"]
    assert commands == ["Is it the software updater?", "Isolate the host."]


def test_a_note_says_the_case_and_keeps_the_event() -> None:
    note = str(export("case", case()))
    for part in (
        "escalate",
        "T1105 Ingress Tool Transfer",
        "Isolate the host.",
        "TLP:AMBER",
        "2026-01-02T01:04:05",
    ):
        assert part in note
    fence = next(line for line in note.splitlines() if line.endswith("json"))[: -len("json")]
    event = note.split(f"{fence}json\n")[1].split(f"\n{fence}\n")[0]
    assert json.loads(event) == EVENT


def test_nothing_in_a_note_becomes_markup() -> None:
    note = str(export("case", case()))
    summary = unescaped(next(line for line in note.splitlines() if line.startswith("> ")))
    assert not set("`<>[]*|@_") & set(summary[2:]) and "://" not in summary
    hostile_title = {**EVENT, "title": "a\n# b <script> ![x](http://evil.example.com/p)"}
    first = unescaped(str(export("case", case(hostile_title))).splitlines()[0])
    assert not set("<>[]!#") & set(first[2:])


def test_a_backtick_in_a_value_cannot_close_its_code_span() -> None:
    note = str(export("case", case({**EVENT, "command_line": "echo `id` ``x`` | sh"})))
    line = next(line for line in note.splitlines() if "command" in line and "echo" in line)
    assert "```echo `id` ``x`` ∣ sh```" in line


def test_an_export_made_twice_has_the_same_ids() -> None:
    for name in ("stix", "cacao"):
        assert to_text(export(name, case())) == to_text(export(name, case()))
