"""Windows events: what one says, in whatever shape an exporter gives it, is shown and means what it says."""

from __future__ import annotations

from typing import Any

import pytest

from whis_box.ingest.alerts import describe, observables, read_alert

SECURITY = "Microsoft-Windows-Security-Auditing"
REMOTE_DESKTOP = "Microsoft-Windows-TerminalServices-LocalSessionManager"
WINRM = "Microsoft-Windows-WinRM"


def evtx(event_id: int, provider: str, channel: str, **data: Any) -> dict[str, Any]:
    system = {
        "Provider": {"@Name": provider},
        "EventID": event_id,
        "TimeCreated": {"@SystemTime": "2026-05-06T07:08:09.500Z"},
        "Channel": channel,
        "Computer": "srv4.example.org",
    }
    return {"Event": {"System": system, **data}}


def winlogbeat(event_id: int, channel: str, provider: str, **data: str) -> dict[str, Any]:
    winlog = {"channel": channel, "provider_name": provider, "event_id": event_id, "event_data": data}
    return {
        "@timestamp": "2026-05-06T07:08:09Z",
        "event": {"code": str(event_id)},
        "winlog": {"record_id": 88, **winlog},
    }


def security(event_id: int, **data: str) -> dict[str, Any]:
    return {"EventID": event_id, "Channel": "Security", "Hostname": "srv4", "SourceModuleName": "sec", **data}


def lines(event: dict[str, Any]) -> list[str]:
    return describe(read_alert(event)).splitlines()


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (winlogbeat(5007, "x/Operational", "Windows Defender", **{"Old Value": "A = 0"}), "Old Value: A = 0"),
        (winlogbeat(4662, "Security", SECURITY, Properties="%%7688 {ab}"), "Properties: %%7688 {ab}"),
        (winlogbeat(5136, "Security", SECURITY, ObjectDN="CN=k,DC=x"), "ObjectDN: CN=k,DC=x"),
        (winlogbeat(4738, "Security", SECURITY, NewUacValue="0x10211"), "NewUacValue: 0x10211"),
        (winlogbeat(4768, "Security", SECURITY, PreAuthType="0"), "PreAuthType: 0"),
    ],
)
def test_data_that_no_table_names_is_shown_under_its_own_name(event: dict[str, Any], line: str) -> None:
    assert line in lines(event)


def test_headers_and_the_forwarder_s_own_words_are_not_shown() -> None:
    event = winlogbeat(5136, "Security", SECURITY, ObjectDN="CN=k")
    labels = {line.partition(":")[0] for line in lines(event)}
    assert not {"event.code", "winlog.record_id", "winlog.channel"} & labels
    assert not [line for line in lines(security(4706)) if "SourceModuleName" in line]


def test_a_time_written_as_an_xml_attribute_is_read() -> None:
    assert read_alert(evtx(6, WINRM, f"{WINRM}/Operational")).occurred_at == "2026-05-06T07:08:09.500000Z"
    packed = {"wrapped": evtx(6, WINRM, f"{WINRM}/Operational")["Event"]}
    assert read_alert(packed).occurred_at == "2026-05-06T07:08:09.500000Z"


def test_the_name_of_a_registry_value_is_shown_unless_the_key_ends_with_it() -> None:
    changed = security(4657, ObjectName=r"\REGISTRY\MACHINE\SOFTWARE\Acme", ObjectValueName="Loader")
    assert "registry value: Loader" in lines(changed)
    sysmon = {"EventID": 13, "Channel": "Microsoft-Windows-Sysmon/Operational", "TargetObject": r"HKLM\A\B"}
    assert not [line for line in lines(sysmon) if line.startswith("registry value")]


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (security(5145, AccessMask="0x2", ShareName=r"\\*\C$"), "0x2 (write data)"),
        (security(5140, AccessMask="0x1", ShareName=r"\\*\C$"), "0x1 (read data)"),
        (security(4662, AccessMask="0x20", ObjectType="%{bf96}"), "0x20 (write property)"),
        (security(4662, AccessMask="0x100", ObjectType="user"), "0x100 (extended right)"),
        (security(4656, AccessMask="0x10", ObjectType="Process"), "0x10 (read memory)"),
        (security(4663, AccessMask="0x6", ObjectType="Key"), "0x6 (set value, create subkey)"),
        (security(4663, AccessMask="0x50000", ObjectType="File"), "0x50000 (delete, change permissions)"),
        (security(4663, AccessMask="0x1f01ff", ObjectType="File"), "0x1f01ff (full access)"),
        (security(4661, AccessMask="0x2", ObjectType="SAM_DOMAIN"), "0x2"),
    ],
)
def test_an_access_mask_is_read_as_its_kind_of_object_reads_it(event: dict[str, Any], words: str) -> None:
    assert f"access mask: {words}" in lines(event)


def test_a_lockout_names_the_computer_that_caused_it_and_no_domain() -> None:
    alert = read_alert(security(4740, TargetUserName="q.adams", TargetDomainName="KIOSK2"))
    text = describe(alert).splitlines()
    assert {"target user: q.adams", "source host: KIOSK2"} <= set(text)
    assert ("host", "KIOSK2", "source") in {(o.type, o.value, o.role) for o in observables(alert)}


def test_a_changed_creation_time_is_shown_before_and_after() -> None:
    times = {"CreationUtcTime": "2016-01-02 03:04:05", "PreviousCreationUtcTime": "2026-05-06 07:00:00"}
    event = {"Channel": "Microsoft-Windows-Sysmon/Operational", "TargetFilename": r"C:\t\a.dll", **times}
    assert {
        "file created: 2016-01-02 03:04:05",
        "file created, before the change: 2026-05-06 07:00:00",
    } <= set(lines({**event, "EventID": 2}))
    assert not [line for line in lines({**event, "EventID": 11}) if "2016" in line]


@pytest.mark.parametrize(
    ("path", "name", "whole"),
    [
        (r"\Device\HarddiskVolume2\Tools", "run.exe", r"\Device\HarddiskVolume2\Tools\run.exe"),
        (r"C:\Users\j.doe", "run.exe", r"C:\Users\j.doe\run.exe"),
        ("C:\\Tools\\", "run.exe", r"C:\Tools\run.exe"),
        ("/opt/tools/", "run", "/opt/tools/run"),
        (r"C:\Tools\RUN.EXE", "run.exe", r"C:\Tools\RUN.EXE"),
        (r"C:\Tools\new.exe", "old.exe", r"C:\Tools\new.exe"),
        ("/usr/bin/python3.12", "python3", "/usr/bin/python3.12"),
    ],
)
def test_a_path_that_stops_at_the_directory_is_completed(path: str, name: str, whole: str) -> None:
    event = {
        "metadata": {"eventType": "DetectionSummaryEvent"},
        "event": {"FilePath": path, "FileName": name, "DetectName": "x"},
    }
    assert read_alert(event).fields["process.executable"] == whole


def test_a_process_name_that_is_not_the_file_s_is_shown() -> None:
    process = {"name": "sshd", "executable": "/tmp/.x/miner"}
    event = {"@timestamp": "2026-05-06T07:08:09Z", "process": process, "event": {"kind": "event"}}
    assert {"process: /tmp/.x/miner", "process name: sshd"} <= set(lines(event))


def test_remote_sessions_say_who_came_from_where() -> None:
    params = {"Param1": "tmp_op", "Param2": "LAB", "Param3": "198.51.100.4"}
    login = evtx(1149, REMOTE_DESKTOP, f"{REMOTE_DESKTOP}/Operational", UserData={"EventXML": params})
    assert {"user: LAB\\tmp_op", "source ip: 198.51.100.4"} <= set(lines(login))
    again = evtx(25, REMOTE_DESKTOP, "x", UserData={"EventXML": {"User": "LAB\\op", "Address": "10.3.2.1"}})
    assert "source ip: 10.3.2.1" in lines(again)
    shell = evtx(91, WINRM, "x", EventData={"User": "LAB\\op", "ClientIP": "10.3.2.2"})
    assert "source ip: 10.3.2.2" in lines(shell)


@pytest.mark.parametrize(
    ("event", "name"),
    [
        (security(4706), "Trust to a domain created"),
        (security(4887), "Certificate issued"),
        (evtx(91, WINRM, f"{WINRM}/Operational"), "Remote management shell created on the server"),
    ],
)
def test_these_events_have_names(event: dict[str, Any], name: str) -> None:
    assert read_alert(event).title.endswith(f": {name}")


def test_the_message_of_an_event_without_a_name_is_shown_and_of_one_with_a_name_is_not() -> None:
    said = {"Message": "Option 'clr' changed from 0 to 1.", "User": "sa"}
    unnamed = evtx(15457, "MSSQLSERVER", "Application", EventData=said)
    assert lines(unnamed)[0] == "SQL Server event 15457"
    assert f"message: {said['Message']}" in lines(unnamed)
    named = security(4706, SubjectUserName="op", Message="A new trust was created.")
    assert not [line for line in lines(named) if line.startswith("message")]


def test_none_is_an_answer_in_a_field_that_nobody_knows_and_a_dash_is_not() -> None:
    event = security(4720, TargetUserName="new1", change_ticket="none", owner="-", approver="N/A")
    assert "change_ticket: none" in lines(event)
    assert not [line for line in lines(event) if line.startswith(("owner", "approver"))]
