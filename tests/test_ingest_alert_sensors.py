"""Network, mail, Linux and container sensors: what one says is said, under the name of what it is."""

from __future__ import annotations

from typing import Any

import pytest

from whis_box.ingest.alerts import Alert, describe, observables, read_alert

KEYS = {"ts": 1772359200.5, "uid": "Ck9", "id.orig_h": "10.8.0.4", "id.resp_h": "10.8.0.9", "id.resp_p": 445}


def lines(event: dict[str, Any]) -> list[str]:
    return describe(read_alert(event)).splitlines()


def found(alert: Alert) -> set[tuple[str, str, str]]:
    return {(o.type, o.value, o.role) for o in observables(alert)}


# ---------------------------------------------------------------- network


def suricata(**more: Any) -> dict[str, Any]:
    sides = {"src_ip": "10.8.0.4", "dest_ip": "192.0.2.9", "dest_port": 8443, "proto": "TCP"}
    return {"timestamp": "2026-02-03T04:05:06Z", "flow_id": 4, **sides, **more}


def test_a_flow_says_how_much_went_where() -> None:
    counts = {"bytes_toserver": 70100, "pkts_toclient": 12, "age": 61, "state": "closed", "reason": "timeout"}
    shown = lines(suricata(event_type="flow", app_proto="failed", flow=counts))
    assert shown[0] == "Suricata flow: TCP to port 8443"
    assert {"flow.bytes_toserver: 70100", "flow.pkts_toclient: 12", "flow.age: 61"} <= set(shown)
    assert "flow.state: closed" in shown
    assert "flow.reason: timeout" not in shown


def test_a_recognized_protocol_stays_the_title_and_the_version_of_tls_is_shown() -> None:
    shown = lines(suricata(event_type="tls", app_proto="tls", tls={"sni": "a.example", "version": "TLS 1.0"}))
    assert shown[0] == "Suricata tls: tls"
    assert "network.tls: TLS 1.0" in shown


def test_a_file_on_a_share_is_the_file_and_the_share_the_share() -> None:
    event = {
        **KEYS,
        "_path": "smb_files",
        "path": r"\\NAS7\data",
        "name": r"in\a.xlsx",
        "action": "SMB::FILE_OPEN",
    }
    assert {"file: in\\a.xlsx", r"share: \\NAS7\data"} <= set(lines(event))
    assert ("file_path", r"\\NAS7\data", "argument") in found(read_alert(event))
    mapping = {**KEYS, "_path": "smb_mapping", "path": r"\\NAS7\data", "service": "IPC", "share_type": "PIPE"}
    assert {"share.service: IPC", "share.type: PIPE"} <= set(lines(mapping))
    assert "network.protocol" not in read_alert(mapping).fields


def test_a_kerberos_service_is_no_protocol() -> None:
    event = {
        **KEYS,
        "_path": "kerberos",
        "request_type": "TGS",
        "client": "a/X",
        "service": "HTTP/web.example",
    }
    shown = lines(event)
    assert shown[0] == "Zeek kerberos: TGS for HTTP/web.example"
    assert {"service: HTTP/web.example", "user: a/X"} <= set(shown)
    assert "network.protocol" not in read_alert(event).fields


# ---------------------------------------------------------------- mail


def test_a_proofpoint_message_names_its_sides_and_its_attachment() -> None:
    event = {
        "eventType": "messagesDelivered",
        "messageTime": "2026-02-03T04:05:06Z",
        "fromAddress": ["a@shop.example"],
        "headerFrom": "Boss <boss@example.org>",
        "recipient": ["b@example.org"],
        "senderIP": "192.0.2.77",
        "subject": "Order",
        "messageParts": [{"filename": "order.lnk", "sha256": "9f" * 32}],
    }
    alert = read_alert(event)
    assert (alert.family, alert.title) == ("mail", "Proofpoint: messagesDelivered")
    assert {
        ("email", "a@shop.example", "sender"),
        ("email", "b@example.org", "recipient"),
        ("ipv4", "192.0.2.77", "source"),
        ("file_name", "order.lnk", "file"),
        ("sha256", "9f" * 32, "hash"),
    } <= found(alert)
    assert {"subject: Order", "header from: Boss <boss@example.org>"} <= set(describe(alert).splitlines())


def test_a_click_keeps_who_clicked_apart_from_who_sent() -> None:
    event = {
        "eventType": "clicksPermitted",
        "clickTime": "2026-02-03T04:05:06Z",
        "clickIP": "10.8.0.30",
        "senderIP": "192.0.2.77",
        "url": "https://sign.example/x",
        "classification": "phish",
    }
    alert = read_alert(event)
    assert alert.title == "Proofpoint: clicksPermitted (phish)"
    assert {("url", "https://sign.example/x", "destination"), ("ipv4", "192.0.2.77", "source")} <= found(
        alert
    )
    assert "client.ip: 10.8.0.30" in describe(alert).splitlines()


def test_a_mimecast_receipt_is_no_subject_and_says_that_dkim_is_none() -> None:
    event = {
        "product": "Mimecast",
        "acc": "C1",
        "logType": "receipt",
        "Act": "Rej",
        "Sender": "a@shop.example",
        "Rcpt": "b@example.org",
        "IP": "192.0.2.78",
        "Subject": "Hello there",
        "DKIM": "none",
    }
    shown = lines(event)
    assert shown[0] == "Mimecast receipt: Rej"
    assert {"sender: a@shop.example", "recipient: b@example.org", "source ip: 192.0.2.78"} <= set(shown)
    assert {"subject: Hello there", "DKIM: none"} <= set(shown)


# ---------------------------------------------------------------- Linux, macOS and containers


def falco(priority: str, **fields: str) -> dict[str, Any]:
    names = {name.replace("__", "."): text for name, text in fields.items()}
    return {
        "rule": "Odd write",
        "priority": priority,
        "output": "said so",
        "source": "syscall",
        "time": "2026-02-03T04:05:06Z",
        "output_fields": names,
    }


@pytest.mark.parametrize(
    ("priority", "severity"),
    [
        ("Notice", "low"),
        ("Warning", "medium"),
        ("Error", "high"),
        ("Alert", "critical"),
        ("Debug", "informational"),
    ],
)
def test_falco_s_priorities_are_severities(priority: str, severity: str) -> None:
    assert read_alert(falco(priority)).severity == severity


def test_falco_s_fields_have_names() -> None:
    file = falco(
        "Notice",
        proc__exepath="/opt/t/x",
        proc__pname="cron",
        fd__name="/etc/passwd",
        user__name="svc",
        user__loginname="<NA>",
    )
    shown = lines(file)
    assert shown[0] == "Falco: Odd write"
    assert {"process: /opt/t/x", "parent process name: cron", "file: /etc/passwd", "user: svc"} <= set(shown)
    assert not [line for line in shown if line.startswith("login user")]


def test_a_descriptor_of_falco_may_be_a_connection() -> None:
    alert = read_alert(falco("Notice", fd__name="10.8.0.4:40100->203.0.113.60:4444"))
    assert {("ipv4", "203.0.113.60", "destination"), ("port", "4444", "destination")} <= found(alert)
    assert "file.path" not in alert.fields


def ecs(**more: Any) -> dict[str, Any]:
    return {"@timestamp": "2026-02-03T04:05:06Z", **more}


def test_auditbeat_s_login_user_folder_and_signature_are_shown() -> None:
    process = {
        "name": "tool",
        "executable": "/opt/q/tool",
        "working_directory": "/srv/q",
        "code_signature": {"trusted": False, "signing_id": "org.q.tool"},
    }
    user = {"name": "root", "audit": {"name": "h.ito"}}
    shown = lines(ecs(event={"action": "executed"}, process=process, user=user))
    assert {
        "user: root",
        "login user: h.ito",
        "working directory: /srv/q",
        "process.code_signature.trusted: false",
        "process.code_signature.signing_id: org.q.tool",
    } <= set(shown)


@pytest.mark.parametrize(
    ("more", "title"),
    [
        ({"process": {"name": "nc"}}, "executed: nc"),
        ({"process": {"name": "nc"}, "file": {"path": "/etc/x"}}, "executed: nc /etc/x"),
        ({"process": {"name": "nc"}, "destination": {"ip": "192.0.2.4"}}, "executed: nc to 192.0.2.4"),
        ({"user": {"name": "eva"}}, "executed: eva"),
    ],
)
def test_an_ecs_event_is_titled_by_more_than_its_action(more: dict[str, Any], title: str) -> None:
    assert read_alert(ecs(event={"action": "executed"}, **more)).title == title


def test_an_ecs_event_of_a_product_names_it() -> None:
    event = {"action": "allow", "dataset": "acme.fw"}
    assert read_alert(ecs(event=event, rule={"name": "guests"})).title == "acme.fw: allow (rule: guests)"
    assert read_alert(ecs(event=event)).title == "acme.fw: allow"


def wazuh(**more: Any) -> dict[str, Any]:
    return {"rule": {"level": 8, "description": "Seen"}, "agent": {"name": "n1"}, **more}


def test_a_new_account_is_the_target_and_not_who_made_it() -> None:
    event = wazuh(predecoder={"program_name": "useradd"}, data={"dstuser": "helper9", "uid": "0"})
    shown = lines(event)
    assert {"target user: helper9", "account.uid: 0"} <= set(shown)
    assert not [line for line in shown if line.startswith("user:")]
    login = wazuh(decoder={"name": "sshd"}, data={"dstuser": "helper9"})
    assert "user: helper9" in lines(login)


def test_who_linux_audit_saw_is_the_user() -> None:
    audit = {"audit": {"exe": "/usr/bin/vi", "uid": "0", "auid": "1007"}}
    assert {"user: 0", "login user: 1007"} <= set(lines(wazuh(data=audit)))
    unset = {"audit": {"exe": "/usr/bin/vi", "uid": "0", "auid": "4294967295"}}
    assert not [line for line in lines(wazuh(data=unset)) if line.startswith("login user")]
    watched = {"path": "/etc/x", "audit": {"user": {"name": "root"}, "process": {"name": "/usr/bin/ed"}}}
    assert {"user: root", "process: /usr/bin/ed"} <= set(lines(wazuh(syscheck=watched)))


def test_an_actor_process_without_a_path_is_the_parent() -> None:
    process = {"name": "sh", "cmd_line": "sh -c id", "file": {"path": "/bin/sh"}}
    event = {"class_uid": 1007, "actor": {"process": {"name": "nginx"}}, "process": process}
    assert "parent process name: nginx" in lines(event)
    alone = {"class_uid": 1001, "actor": {"process": {"name": "nginx"}}, "file": {"path": "/srv/a"}}
    assert "process name: nginx" in lines(alone)
    assert "process.parent.name" not in read_alert(alone).fields
