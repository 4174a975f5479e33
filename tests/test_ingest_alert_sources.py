"""Cloud, identity, network, mail and Linux sources: what one says is said, under the name of what it is."""

from __future__ import annotations

from typing import Any

import pytest

from whis_box.ingest.alerts import Alert, describe, observables, read_alert

KEYS = {"ts": 1772359200.5, "uid": "Ck9", "id.orig_h": "10.8.0.4", "id.resp_h": "10.8.0.9", "id.resp_p": 445}
UPN = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/upn"


def lines(event: dict[str, Any]) -> list[str]:
    return describe(read_alert(event)).splitlines()


def found(alert: Alert) -> set[tuple[str, str, str]]:
    return {(o.type, o.value, o.role) for o in observables(alert)}


# ---------------------------------------------------------------- identity and office


def okta(result: str, *targets: dict[str, Any]) -> dict[str, Any]:
    return {
        "eventType": "group.rule.update",
        "displayMessage": "Update rule",
        "published": "2026-02-03T04:05:06Z",
        "uuid": "ok-9",
        "actor": {"id": "00u9", "alternateId": "ops@example.org"},
        "outcome": {"result": result, "reason": "ticket 12"},
        "target": list(targets),
    }


@pytest.mark.parametrize(
    ("result", "title"),
    [
        ("SUCCESS", "Okta: Update rule (group.rule.update)"),
        ("ALLOW", "Okta: Update rule (group.rule.update)"),
        ("FAILURE", "Okta: Update rule (group.rule.update) failed: ticket 12"),
        ("DENY", "Okta: Update rule (group.rule.update) failed: ticket 12"),
    ],
)
def test_a_reason_is_a_failure_only_where_okta_says_so(result: str, title: str) -> None:
    assert read_alert(okta(result)).title == title


def test_okta_targets_that_are_no_users_are_shown() -> None:
    detail = {"issuer": "https://login.partner.example/saml"}
    target = {"type": "IdentityProvider", "displayName": "Partner login", "detailEntry": detail}
    shown = lines(okta("SUCCESS", target, {"type": "Zone", "displayName": "Home office"}))
    assert {
        "resource: Partner login",
        "target.0.detailEntry.issuer: https://login.partner.example/saml",
        "target.1.displayName: Home office",
    } <= set(shown)


def test_a_folder_of_sharepoint_is_part_of_the_file_s_path() -> None:
    event = {"Operation": "FileDeleted", "Workload": "SharePoint", "UserId": "u@example.org"}
    file = {"SourceRelativeUrl": "Plans/2026", "SourceFileName": "budget.xlsx"}
    shown = lines({**event, **file})
    assert "file: Plans/2026/budget.xlsx" in shown
    assert not [line for line in shown if line.startswith(("file name", "file.directory"))]
    folder = lines({**event, "SourceRelativeUrl": "Plans/2026"})
    assert "file.directory: Plans/2026" in folder
    assert not [line for line in folder if line.startswith("file:")]


def test_who_is_given_a_mailbox_is_the_target() -> None:
    event = {
        "Operation": "Add-MailboxPermission",
        "Workload": "Exchange",
        "UserId": "admin@example.org",
        "Parameters": [{"Name": "User", "Value": "temp@example.org"}, {"Name": "Deny", "Value": "False"}],
    }
    alert = read_alert(event)
    assert "target user: temp@example.org" in describe(alert).splitlines()
    assert ("user", "temp@example.org", "target") in found(alert)


def test_when_a_role_ends_is_shown() -> None:
    properties = {
        "activityDisplayName": "Add eligible member",
        "initiatedBy": {"user": {"userPrincipalName": "a@example.org"}},
        "targetResources": [{"type": "Role", "displayName": "Reader"}],
        "additionalDetails": [{"key": "ExpirationTime", "value": "2026-02-03T08:00:00Z"}],
    }
    assert "privilege.expires_at: 2026-02-03T08:00:00Z" in lines(
        {"time": "2026-02-03T04:00:00Z", "category": "AuditLogs", "properties": properties}
    )


# ---------------------------------------------------------------- cloud


def activity(**more: Any) -> dict[str, Any]:
    return {
        "time": "2026-02-03T04:05:06Z",
        "operationName": "MICROSOFT.WEB/SITES/RESTART/ACTION",
        "resourceId": "/subscriptions/11aa/resourceGroups/rg1/providers/Microsoft.Web/sites/shop",
        "category": "Administrative",
        "resultType": "Success",
        "level": "Warning",
        "callerIpAddress": "198.51.100.20",
        **more,
    }


@pytest.mark.parametrize(
    "who",
    [
        {"caller": "n.berg@example.org"},
        {"identity": {"claim": {"upn": "n.berg@example.org"}}},
        {"identity": {"claims": {"upn": "n.berg@example.org"}}},
        {"identity": {"claims": {UPN: "n.berg@example.org", "appid": "77"}}},
    ],
)
def test_an_azure_activity_names_its_caller(who: dict[str, Any]) -> None:
    alert = read_alert(activity(**who))
    assert (alert.family, alert.severity) == ("azure", "low")
    assert {
        ("user", "n.berg@example.org", "actor"),
        ("ipv4", "198.51.100.20", "source"),
        ("cloud_action", "MICROSOFT.WEB/SITES/RESTART/ACTION", "actor"),
    } <= found(alert)
    assert "what happened: microsoft web sites restart action" in describe(alert).splitlines()


def test_an_azure_activity_has_its_action_in_the_title() -> None:
    allowed = {"authorization": {"action": "Microsoft.Web/sites/restart/action"}}
    event = activity(identity=allowed, caller="n.berg@example.org")
    shown = lines(event)
    assert shown[0] == "Azure activity: Microsoft.Web/sites/restart/action"
    assert not [line for line in shown if line.startswith("operationName")], "the same text again"
    assert lines({**event, "resultType": "Failure"})[0].endswith("restart/action failed")


@pytest.mark.parametrize(
    ("identity", "user", "session"),
    [
        ({"arn": "arn:aws:sts::1:assumed-role/Ops/kim"}, "Ops", "kim"),
        (
            {"arn": "arn:aws:sts::1:assumed-role/Ops/kim", "principalId": "AROAX:kim"},
            "Ops",
            "kim",
        ),
        ({"principalId": "AROAX:kim"}, "kim", "kim"),
        ({"arn": "arn:aws:iam::1:user/team/lee", "principalId": "AIDAX"}, "lee", None),
        ({"arn": "arn:aws:iam::1:root", "principalId": "1"}, "root", None),
        ({"principalId": "AIDAX"}, "AIDAX", None),
        (
            {
                "arn": "arn:aws:sts::1:assumed-role/Ops/i-0f",
                "sessionContext": {"sessionIssuer": {"userName": "Ops"}},
            },
            "Ops",
            "i-0f",
        ),
    ],
)
def test_a_cloudtrail_identity_gives_user_and_session(
    identity: dict[str, Any], user: str, session: str | None
) -> None:
    event = {"eventName": "GetObject", "eventSource": "s3.amazonaws.com", "userIdentity": identity}
    fields = read_alert(event).fields
    assert (fields["user.name"], fields.get("user.session")) == (user, session)
    assert session is None or f"session name: {session}" in lines(event)


def finding(direction: str) -> dict[str, Any]:
    connection = {
        "connectionDirection": direction,
        "localIpDetails": {"ipAddressV4": "10.9.0.3"},
        "localPortDetails": {"port": 3389},
        "remoteIpDetails": {"ipAddressV4": "203.0.113.50"},
        "remotePortDetails": {"port": 51000},
    }
    return {
        "schemaVersion": "2.0",
        "type": "Recon:EC2/Example",
        "resource": {"resourceType": "Instance"},
        "service": {"action": {"networkConnectionAction": connection}},
    }


def test_the_direction_of_a_guardduty_connection_decides_the_sides() -> None:
    inbound, outbound = (read_alert(finding(one)) for one in ("INBOUND", "OUTBOUND"))
    assert {("ipv4", "203.0.113.50", "source"), ("port", "3389", "destination")} <= found(inbound)
    assert {("ipv4", "10.9.0.3", "destination"), ("port", "51000", "source")} <= found(inbound)
    assert {("ipv4", "203.0.113.50", "destination"), ("port", "3389", "source")} <= found(outbound)


def kubernetes(verb: str, uri: str, **reference: str) -> dict[str, Any]:
    return {
        "apiVersion": "audit.k8s.io/v1",
        "auditID": "k9",
        "verb": verb,
        "requestURI": uri,
        "objectRef": reference,
    }


def test_the_command_of_an_exec_request_is_read_from_its_address() -> None:
    uri = "/api/v1/namespaces/dev/pods/job-1/exec?command=%2Fbin%2Fls&command=-l&command=%2Fvar+x&tty=true"
    event = kubernetes("create", uri, resource="pods", subresource="exec", namespace="dev", name="job-1")
    shown = lines(event)
    assert "command line: /bin/ls -l /var x" in shown
    assert ("command_line", "/bin/ls -l /var x", "process") in found(read_alert(event))
    other = kubernetes("get", "/api/v1/namespaces/dev/pods/job-1/log?command=x", resource="pods")
    assert not [line for line in lines(other) if line.startswith("command line")]


@pytest.mark.parametrize(
    ("verb", "resource", "title"),
    [
        ("create", "clusterrolebindings", "create clusterrolebindings"),
        ("create", "tokenreviews", "create tokenreviews"),
        ("list", "nodes", "list nodes"),
        ("list", "secrets", "list secrets in all namespaces"),
    ],
)
def test_only_a_list_of_what_lies_in_namespaces_is_in_all_of_them(
    verb: str, resource: str, title: str
) -> None:
    event = kubernetes(verb, f"/apis/x/{resource}", resource=resource)
    assert read_alert(event).title == f"Kubernetes audit: {title}"


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
