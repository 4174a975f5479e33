"""Families: one realistic event each, with every field an analyst expects to find named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whis_box.errors import InputError
from whis_box.ingest.alerts import (
    MAX_OBSERVABLES,
    Alert,
    describe,
    observables,
    parse_event,
    read_alert,
)

CLOUD_USER = {"type": "AssumedRole", "sessionContext": {"sessionIssuer": {"userName": "ci-deploy"}}}
SENTINEL_ENTITIES = [
    {"$id": "1", "Name": "m.sato", "UPNSuffix": "example.org", "Type": "account"},
    {"$id": "2", "Address": "198.51.100.40", "Type": "ip"},
    {"$id": "3", "HostName": "hr-ws9", "Type": "host"},
    {"$id": "4", "Directory": r"C:\Users\Public", "Name": "sync.exe", "Type": "file"},
    {"$id": "5", "Algorithm": "SHA256", "Value": "5e" * 32, "Type": "filehash"},
    {"$id": "6", "CommandLine": "sync.exe --quiet", "Type": "process"},
]

# name: (event or line, family, part of the title, time, severity, fields)
Row = tuple[dict[str, Any] | str, str, str, str | None, str | None, dict[str, str]]
EVENTS: dict[str, Row] = {
    "guardduty in EventBridge": (
        {
            "source": "aws.guardduty",
            "detail": {
                "schemaVersion": "2.0",
                "accountId": "444455556666",
                "region": "eu-west-1",
                "id": "gd-77",
                "type": "UnauthorizedAccess:EC2/SSHBruteForce",
                "title": "198.51.100.9 is performing SSH brute force attacks",
                "severity": 7.5,
                "updatedAt": "2026-03-01T10:00:00.000Z",
                "resource": {
                    "resourceType": "Instance",
                    "instanceDetails": {
                        "instanceId": "i-0abc",
                        "networkInterfaces": [{"privateIpAddress": "10.0.0.9"}],
                    },
                },
                "service": {
                    "serviceName": "guardduty",
                    "eventLastSeen": "2026-03-01T09:58:00Z",
                    "action": {
                        "networkConnectionAction": {
                            "remoteIpDetails": {"ipAddressV4": "198.51.100.9"},
                            "localPortDetails": {"port": 22},
                        }
                    },
                },
            },
        },
        "guardduty",
        "SSH brute force",
        "2026-03-01T09:58:00Z",
        "high",
        {
            "rule.category": "UnauthorizedAccess:EC2/SSHBruteForce",
            "host.ip": "10.0.0.9",
            "destination.ip": "198.51.100.9",
            "cloud.account": "444455556666",
        },
    ),
    "cloudtrail of a role": (
        {
            "eventName": "StopLogging",
            "eventSource": "cloudtrail.amazonaws.com",
            "eventTime": "2026-03-01T10:00:00Z",
            "eventID": "ct-1",
            "sourceIPAddress": "AWS Internal",
            "userIdentity": CLOUD_USER,
        },
        "cloudtrail",
        "CloudTrail: cloudtrail StopLogging",
        "2026-03-01T10:00:00Z",
        None,
        {"user.name": "ci-deploy", "cloud.action": "StopLogging", "source.host": "AWS Internal"},
    ),
    "sentinel with packed entities": (
        {
            "SystemAlertId": "s-1",
            "AlertName": "Suspicious program",
            "AlertSeverity": "High",
            "StartTime": "2026-03-01T10:00:00Z",
            "Techniques": '["T1036"]',
            "Entities": json.dumps(SENTINEL_ENTITIES),
            "ExtendedProperties": json.dumps({"Custom Details": json.dumps({"Count": ["3"]})}),
        },
        "sentinel",
        "Suspicious program",
        "2026-03-01T10:00:00Z",
        "high",
        {
            "user.name": "m.sato@example.org",
            "source.ip": "198.51.100.40",
            "host.name": "hr-ws9",
            "file.path": r"C:\Users\Public\sync.exe",
            "hash.sha256": "5e" * 32,
            "process.command_line": "sync.exe --quiet",
            "ExtendedProperties.Custom Details.Count": "3",
        },
    ),
    "graph security alert": (
        {
            "@odata.type": "#microsoft.graph.security.alert",
            "id": "da-1",
            "title": "Suspicious PowerShell",
            "severity": "medium",
            "createdDateTime": "2026-03-01T10:00:00Z",
            "mitreTechniques": ["T1059.001"],
            "evidence": [
                {
                    "@odata.type": "#microsoft.graph.security.deviceEvidence",
                    "deviceDnsName": "ws3.example.org",
                },
                {
                    "@odata.type": "#microsoft.graph.security.processEvidence",
                    "processCommandLine": "powershell -w hidden",
                    "imageFile": {"filePath": r"C:\W\powershell.exe", "sha1": "ab" * 20},
                },
                {
                    "@odata.type": "#microsoft.graph.security.userEvidence",
                    "userAccount": {"accountName": "r.ito", "domainName": "EXAMPLE"},
                },
            ],
        },
        "defender",
        "Suspicious PowerShell",
        "2026-03-01T10:00:00Z",
        "medium",
        {
            "host.name": "ws3.example.org",
            "process.executable": r"C:\W\powershell.exe",
            "process.command_line": "powershell -w hidden",
            "hash.sha1": "ab" * 20,
            "user.name": "r.ito",
            "user.domain": "EXAMPLE",
        },
    ),
    "defender network event": (
        {
            "TimeGenerated": "2026-03-01T10:00:00Z",
            "Type": "DeviceNetworkEvents",
            "ActionType": "ConnectionSuccess",
            "DeviceName": "ws4",
            "RemoteIP": "203.0.113.4",
            "RemotePort": 443,
            "InitiatingProcessFileName": "rundll32.exe",
            "InitiatingProcessAccountName": "r.ito",
        },
        "defender",
        "ConnectionSuccess by rundll32.exe",
        "2026-03-01T10:00:00Z",
        None,
        {
            "destination.ip": "203.0.113.4",
            "destination.port": "443",
            "process.name": "rundll32.exe",
            "user.name": "r.ito",
        },
    ),
    "entra sign-in row": (
        {
            "Type": "SigninLogs",
            "TimeGenerated": "2026-03-01 10:00:00",
            "UserPrincipalName": "p.nunez@example.org",
            "IPAddress": "198.51.100.60",
            "AppDisplayName": "Azure Portal",
            "ResultType": "50126",
            "ResultDescription": "Invalid username or password.",
            "DeviceDetail": '{"displayName":"LT-9","operatingSystem":"Windows 11"}',
            "LocationDetails": '{"city":"Oslo","countryOrRegion":"NO"}',
            "RiskLevelDuringSignIn": "high",
        },
        "entra",
        "Azure Portal: Invalid username or password.",
        "2026-03-01T10:00:00Z",
        "high",
        {
            "user.name": "p.nunez@example.org",
            "source.ip": "198.51.100.60",
            "host.name": "LT-9",
            "source.country": "NO",
            "event.outcome": "50126",
        },
    ),
    "entra audit in a diagnostic record": (
        {
            "records": [
                {
                    "time": "2026-03-01T10:00:00Z",
                    "category": "AuditLogs",
                    "operationName": "Add member to role",
                    "properties": {
                        "activityDisplayName": "Add member to role",
                        "initiatedBy": {
                            "user": {"userPrincipalName": "a@example.org", "ipAddress": "198.51.100.61"}
                        },
                        "targetResources": [
                            {"type": "User", "userPrincipalName": "b@example.org"},
                            {"type": "Role", "displayName": "Global Administrator"},
                        ],
                        "result": "success",
                    },
                }
            ]
        },
        "entra",
        "Add member to role",
        "2026-03-01T10:00:00Z",
        None,
        {
            "user.name": "a@example.org",
            "user.target.name": "b@example.org",
            "privilege.list": "Global Administrator",
            "source.ip": "198.51.100.61",
            "event.outcome": "success",
        },
    ),
    "m365 export with packed audit data": (
        {
            "CreationDate": "2026-03-01T10:00:00",
            "Operations": "FileDownloaded",
            "AuditData": json.dumps(
                {
                    "CreationTime": "2026-03-01T10:00:00",
                    "Id": "m-1",
                    "Operation": "FileDownloaded",
                    "Workload": "SharePoint",
                    "UserId": "c@example.org",
                    "ClientIP": "[2001:db8::9]:51000",
                    "SourceFileName": "pay.xlsx",
                }
            ),
        },
        "m365",
        "SharePoint FileDownloaded",
        "2026-03-01T10:00:00Z",
        None,
        {
            "user.name": "c@example.org",
            "source.ip": "2001:db8::9",
            "source.port": "51000",
            "file.name": "pay.xlsx",
        },
    ),
    "okta failed sign-in": (
        {
            "eventType": "user.session.start",
            "displayMessage": "User login to Okta",
            "published": "2026-03-01T10:00:00.000Z",
            "uuid": "ok-1",
            "severity": "WARN",
            "actor": {"id": "00u1", "alternateId": "d@example.org"},
            "client": {"ipAddress": "198.51.100.70", "userAgent": {"rawUserAgent": "curl/8.4"}},
            "outcome": {"result": "FAILURE", "reason": "INVALID_CREDENTIALS"},
            "target": [{"type": "AppInstance", "displayName": "Payroll"}],
        },
        "okta",
        "failed: INVALID_CREDENTIALS",
        "2026-03-01T10:00:00Z",
        "low",
        {
            "user.name": "d@example.org",
            "source.ip": "198.51.100.70",
            "user_agent": "curl/8.4",
            "application.name": "Payroll",
        },
    ),
    "kubernetes exec": (
        {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "auditID": "k-1",
            "verb": "create",
            "requestURI": "/api/v1/namespaces/pay/pods/api-0/exec",
            "user": {"username": "dev1"},
            "impersonatedUser": {"username": "system:admin"},
            "sourceIPs": ["198.51.100.80", "10.0.0.1"],
            "objectRef": {"resource": "pods", "subresource": "exec", "namespace": "pay", "name": "api-0"},
            "responseStatus": {"code": 101},
            "requestReceivedTimestamp": "2026-03-01T10:00:00.000001Z",
        },
        "kubernetes",
        "create pods/exec api-0",
        "2026-03-01T10:00:00.000001Z",
        None,
        {"user.name": "dev1", "user.target.name": "system:admin", "resource.namespace": "pay"},
    ),
    "zeek dns": (
        {
            "_path": "dns",
            "ts": "2026-03-01T10:00:00.5Z",
            "uid": "CZ1",
            "id.orig_h": "10.0.0.5",
            "id.orig_p": 50000,
            "id.resp_h": "192.0.2.53",
            "id.resp_p": 53,
            "query": "a.tunnel.example.net",
            "answers": ["203.0.113.8"],
        },
        "zeek",
        "Zeek dns: to port 53",
        "2026-03-01T10:00:00.500000Z",
        None,
        {
            "source.ip": "10.0.0.5",
            "destination.ip": "192.0.2.53",
            "dns.question.name": "a.tunnel.example.net",
        },
    ),
    "zeek notice": (
        {
            "ts": 1772359200.25,
            "note": "SSH::Password_Guessing",
            "msg": "198.51.100.9 appears to be guessing SSH passwords",
            "src": "198.51.100.9",
        },
        "zeek",
        "Zeek notice: SSH::Password_Guessing",
        "2026-03-01T10:00:00.250000Z",
        None,
        {"rule.name": "SSH::Password_Guessing", "source.ip": "198.51.100.9"},
    ),
    "github": (
        {
            "action": "protected_branch.destroy",
            "actor": "octo-dev",
            "actor_ip": "198.51.100.90",
            "created_at": 1772359200000,
            "org": "example",
            "repo": "example/pay",
        },
        "github",
        "GitHub audit: protected_branch.destroy example/pay",
        "2026-03-01T10:00:00Z",
        None,
        {"user.name": "octo-dev", "source.ip": "198.51.100.90", "repository.name": "example/pay"},
    ),
    "google cloud audit": (
        {
            "insertId": "g-1",
            "timestamp": "2026-03-01T10:00:00Z",
            "severity": "ERROR",
            "logName": "projects/p1/logs/cloudaudit.googleapis.com%2Factivity",
            "resource": {"labels": {"project_id": "p1"}},
            "protoPayload": {
                "@type": "type.googleapis.com/google.cloud.audit.AuditLog",
                "methodName": "SetIamPolicy",
                "serviceName": "cloudresourcemanager.googleapis.com",
                "authenticationInfo": {"principalEmail": "e@example.org"},
                "requestMetadata": {"callerIp": "198.51.100.91", "callerSuppliedUserAgent": "gcloud"},
                "status": {"code": 7, "message": "PERMISSION_DENIED"},
            },
        },
        "gcp",
        "SetIamPolicy failed: PERMISSION_DENIED",
        "2026-03-01T10:00:00Z",
        "medium",
        {"user.name": "e@example.org", "source.ip": "198.51.100.91", "cloud.account": "p1"},
    ),
    "crowdstrike stream": (
        {
            "metadata": {"eventType": "DetectionSummaryEvent", "eventCreationTime": 1772359200000},
            "event": {
                "DetectName": "Credential theft",
                "DetectId": "ldt:1",
                "SeverityName": "Critical",
                "Severity": 5,
                "ComputerName": "DC9",
                "UserName": "svc-a",
                "FileName": "x.exe",
                "CommandLine": "x.exe dump",
                "SHA256String": "cd" * 32,
                "ParentCommandLine": "cmd.exe /c x",
                "LocalIP": "10.0.0.12",
            },
        },
        "crowdstrike",
        "Credential theft",
        "2026-03-01T10:00:00Z",
        "critical",
        {
            "host.name": "DC9",
            "user.name": "svc-a",
            "process.name": "x.exe",
            "process.command_line": "x.exe dump",
            "hash.sha256": "cd" * 32,
            "process.parent.command_line": "cmd.exe /c x",
        },
    ),
    "splunk notable in a webhook": (
        {
            "search_name": "Threat - Brute force - Rule",
            "sid": "scheduler_1",
            "result": {
                "rule_title": "Brute force against app",
                "urgency": "high",
                "_time": "1772359200",
                "src": "198.51.100.92",
                "dest": "app1",
                "user": "f.khan",
                "annotations.mitre_attack.mitre_technique_id": ["T1110"],
                "event_id": "n-1",
            },
        },
        "splunk",
        "Brute force against app",
        "2026-03-01T10:00:00Z",
        "high",
        {"source.ip": "198.51.100.92", "host.name": "app1", "user.name": "f.khan"},
    ),
    "cef behind syslog": (
        "<134>Mar  1 10:00:00 fw1 CEF:0|Example|Fire|9.1|100|Blocked \\| command|8|src=198.51.100.93 "
        "spt=4000 dst=192.0.2.7 dpt=443 suser=g.lee msg=two words \\= one cs1Label=MITRE technique cs1=T1071 "
        "rt=1772359200000 requestClientApplication=curl/8",
        "cef",
        "Blocked | command",
        "2026-03-01T10:00:00Z",
        "high",
        {
            "source.ip": "198.51.100.93",
            "destination.port": "443",
            "user.name": "g.lee",
            "message": "two words = one",
            "host.name": "fw1",
            "user_agent": "curl/8",
        },
    ),
    "leef 2 with a caret": (
        "LEEF:2.0|Example|Proxy|1|BlockedSite|^|src=198.51.100.94^dst=203.0.113.10^usrName=h.roy^sev=5"
        "^url=http://bad.example.net/x",
        "leef",
        "BlockedSite",
        None,
        "medium",
        {"source.ip": "198.51.100.94", "user.name": "h.roy", "url.full": "http://bad.example.net/x"},
    ),
    "leef 1 with tabs": (
        "LEEF:1.0|Example|IDS|1|42|src=198.51.100.95\tdstPort=22\tcat=Recon",
        "leef",
        "42",
        None,
        None,
        {"source.ip": "198.51.100.95", "destination.port": "22", "rule.category": "Recon"},
    ),
    "rfc 5424": (
        '<86>1 2026-03-01T10:00:00.123Z bastion sshd 991 - [origin@1 ip="10.1.1.1"] '
        "Failed password for invalid user oracle from 198.51.100.96 port 50101 ssh2",
        "syslog",
        "failed login",
        "2026-03-01T10:00:00.123000Z",
        "informational",
        {
            "host.name": "bastion",
            "process.name": "sshd",
            "user.name": "oracle",
            "source.ip": "198.51.100.96",
            "source.port": "50101",
        },
    ),
    "rfc 3164": (
        "Mar  1 10:00:00 db1 sudo:  i.ray : TTY=pts/0 ; PWD=/home/i.ray ; USER=root ; "
        "COMMAND=/usr/bin/vi /etc/shadow",
        "syslog",
        "sudo command",
        "Mar  1 10:00:00",
        None,
        {
            "host.name": "db1",
            "user.name": "i.ray",
            "user.target.name": "root",
            "process.command_line": "/usr/bin/vi /etc/shadow",
        },
    ),
    "linux audit": (
        'type=USER_LOGIN msg=audit(1772359200.125:7): pid=812 uid=0 auid=1000 op=login acct="k.odd" '
        'exe="/usr/sbin/sshd" addr=198.51.100.98 res=failed',
        "syslog",
        "Linux audit: USER_LOGIN",
        "2026-03-01T10:00:00.125000Z",
        None,
        {
            "user.name": "k.odd",
            "source.ip": "198.51.100.98",
            "process.executable": "/usr/sbin/sshd",
            "event.outcome": "failed",
        },
    ),
    "firewall pairs": (
        '<189>Mar  1 10:00:00 fg1 devname="FG" type="traffic" srcip=10.0.0.20 dstip=203.0.113.30 dstport=445 '
        'action="deny" proto=6',
        "syslog",
        "deny",
        "Mar  1 10:00:00",
        "informational",
        {"source.ip": "10.0.0.20", "destination.ip": "203.0.113.30", "destination.port": "445"},
    ),
    "json inside syslog": (
        '<13>Mar  1 10:00:00 sensor suricata[5]: {"event_type":"alert","src_ip":"10.0.0.21","flow_id":1,'
        '"alert":{"signature":"ET TEST","severity":2}}',
        "suricata",
        "ET TEST",
        "Mar  1 10:00:00",
        "medium",
        {"source.ip": "10.0.0.21"},
    ),
    "an unknown product": (
        {
            "alert": {
                "name": "Odd login",
                "severity": "high",
                "actor": {"email": "j@example.org"},
                "client": {"ip": "198.51.100.97"},
                "detected_at": "2026-03-01T10:00:00Z",
            }
        },
        "generic",
        "Odd login",
        "2026-03-01T10:00:00Z",
        "high",
        {"user.name": "j@example.org", "source.ip": "198.51.100.97"},
    ),
}


def read(event: dict[str, Any] | str) -> Alert:
    data = event if isinstance(event, str) else json.dumps(event)
    return read_alert(parse_event(data.encode(), "event"))


@pytest.mark.parametrize("name", EVENTS)
def test_a_family_is_recognized_and_its_fields_are_named(name: str) -> None:
    event, family, title, occurred_at, severity, fields = EVENTS[name]
    alert = read(event)
    assert alert.family == family
    assert title in alert.title
    assert (alert.occurred_at, alert.severity) == (occurred_at, severity)
    assert {field: alert.fields.get(field) for field in fields} == fields


@pytest.mark.parametrize(
    ("name", "techniques"),
    [
        ("sentinel with packed entities", ["T1036"]),
        ("graph security alert", ["T1059.001"]),
        ("splunk notable in a webhook", ["T1110"]),
        ("cef behind syslog", ["T1071"]),
    ],
)
def test_techniques_that_the_alert_carries_are_found(name: str, techniques: list[str]) -> None:
    assert read(EVENTS[name][0]).technique_ids == techniques


@pytest.mark.parametrize(
    ("name", "role", "kind", "value"),
    [
        ("sentinel with packed entities", "hash", "sha256", "5e" * 32),
        ("entra audit in a diagnostic record", "target", "user", "b@example.org"),
        ("zeek dns", "destination", "domain", "a.tunnel.example.net"),
        ("kubernetes exec", "source", "ipv4", "10.0.0.1"),
        ("crowdstrike stream", "host", "ipv4", "10.0.0.12"),
        ("github", "target", "repository", "example/pay"),
        ("cef behind syslog", "destination", "ipv4", "192.0.2.7"),
    ],
)
def test_observables_have_the_side_they_belong_to(name: str, role: str, kind: str, value: str) -> None:
    assert (role, kind, value) in {(o.role, o.type, o.value) for o in observables(read(EVENTS[name][0]))}


def test_a_named_field_says_where_it_was_read() -> None:
    alert = read(EVENTS["okta failed sign-in"][0])
    assert alert.sources["user.name"] == "actor.alternateId"
    assert alert.severity_source == "severity WARN"


def test_several_values_of_a_field_are_all_kept_with_their_role() -> None:
    files = [{"file": {"path": f"/srv/f{n}.kr"}} for n in range(3)]
    alert = read_alert({"class_uid": 2004, "finding_info": {"title": "x"}, "evidences": files})
    found = {(o.role, o.value) for o in observables(alert)}
    assert {("file", f"/srv/f{n}.kr") for n in range(3)} <= found


def test_wazuh_s_doubled_backslashes_are_undone_and_single_ones_left() -> None:
    event = {
        "rule": {"level": 5, "description": "x"},
        "agent": {"name": "a"},
        "data": {
            "win": {
                "system": {"eventID": "1", "providerName": "Microsoft-Windows-Sysmon"},
                "eventdata": {
                    "image": "C:\\\\Windows\\\\cmd.exe",
                    "commandLine": "cmd /c copy \\\\\\\\srv\\\\x .",
                    "parentImage": "C:\\odd.exe",
                },
            }
        },
    }
    fields = read_alert(event).fields
    assert fields["process.executable"] == "C:\\Windows\\cmd.exe"
    assert fields["process.command_line"] == "cmd /c copy \\\\srv\\x ."
    assert fields["process.parent.executable"] == "C:\\odd.exe"


def test_a_log_line_stays_whole_under_original() -> None:
    line = EVENTS["leef 2 with a caret"][0]
    assert parse_event(str(line).encode(), "x")["original"] == line


def test_an_audited_command_is_put_together_from_its_arguments() -> None:
    line = 'type=EXECVE msg=audit(1772359200.125:8): argc=3 a0="insmod" a1="/dev/shm/x.ko" a2="q=1"'
    assert read(line).fields["process.command_line"] == "insmod /dev/shm/x.ko q=1"
    audit = {"type": "SYSCALL", "exe": "/usr/bin/kmod", "execve": {"a0": "insmod", "a1": "x.ko"}}
    event = {"rule": {"level": 8, "description": "x"}, "agent": {"name": "a"}, "data": {"audit": audit}}
    assert read(event).fields["process.command_line"] == "insmod x.ko"


def test_what_happened_is_said_with_the_switches_that_are_on() -> None:
    rule = [{"Name": "ForwardTo", "Value": "x@example.net"}, {"Name": "DeleteMessage", "Value": "False"}]
    event = {
        "Operation": "New-InboxRule",
        "Workload": "Exchange",
        "UserId": "u@example.org",
        "Parameters": rule,
    }
    text = describe(read_alert(event))
    assert "what happened: New Inbox Rule with Forward To" in text.splitlines()


def test_the_rights_of_a_process_handle_are_said_in_words() -> None:
    event = {"EventID": 10, "Channel": "Microsoft-Windows-Sysmon/Operational", "GrantedAccess": "0x1410"}
    assert "access mask: 0x1410 (read memory)" in describe(read_alert(event)).splitlines()


# ---------------------------------------------------------------- hostile input

HOSTILE_LINES = [
    "CEF:0|a|b|c|d|e|5|" + "k=v " * 5_000,
    "CEF:0|" + "\\|" * 10_000,
    "LEEF:2.0|a|b|c|d|xZZ|" + "a=b\t" * 1_000,
    "LEEF:2.0|a|b|c|d|x0|a=b\0",
    "<999>1 - - - - - - " + "[" * 10_000,
    '<13>1 2026-03-01T10:00:00Z h a p m [x y="' + "\\" * 9_999 + '"] z',
    "Mar  1 10:00:00 h sshd[1]: " + "Failed password for " * 2_000,
    "Mar  1 10:00:00 h sudo: " + "x : " * 5_000 + "PWD=" + ";" * 5_000,
    "Mar  1 10:00:00 h k: " + "a=" * 20_000,
    "<13>" + "x" * 200_000,
]


@pytest.mark.parametrize("number", range(len(HOSTILE_LINES)))
def test_a_hostile_line_is_read_or_refused(number: int) -> None:
    try:
        alert = read(HOSTILE_LINES[number])
    except InputError as error:
        assert str(error).startswith("event: ")
    else:
        assert alert.id and len(observables(alert)) <= MAX_OBSERVABLES


@pytest.mark.parametrize(
    "packed",
    [
        "[" * 10_000,
        '[{"a":' * 500 + "1" + "}]" * 500,
        '{"a":1,"a":2}',
        "[1, 2",
        '{"n": NaN}',
        "[" + "0," * 30_000 + "0]",
    ],
)
def test_what_is_packed_into_a_string_and_is_no_sound_json_stays_text(packed: str) -> None:
    alert = read_alert({"AlertName": "x", "AlertSeverity": "Low", "SystemAlertId": "1", "Entities": packed})
    assert alert.family == "sentinel"
    assert alert.fields["Entities"] == packed[:65_536]


@pytest.mark.parametrize("wrong", [None, [], {}, True, 1.5, [[]], "", {"a": {"b": [None]}}, ["x", {"y": 1}]])
@pytest.mark.parametrize("name", [name for name, row in EVENTS.items() if isinstance(row[0], dict)])
def test_a_value_of_the_wrong_type_breaks_no_family(name: str, wrong: object) -> None:
    event = EVENTS[name][0]
    assert isinstance(event, dict)
    for key in event:
        alert = read_alert({**event, key: wrong})
        assert alert.title and alert == read_alert({**event, key: wrong})


STARTS = ["<13>1 ", "Mar  1 10:00:00 h a[1]: ", "CEF:0|a|b|c|d|e|1|", "LEEF:2.0|a|b|c|d|", ""]
VALUES = st.none() | st.integers() | st.text(max_size=9) | st.lists(st.integers())


@given(st.text(max_size=300), st.sampled_from(STARTS))
@settings(max_examples=300, deadline=None)
def test_any_line_is_read_or_refused_with_a_typed_error(text: str, start: str) -> None:
    try:
        event = parse_event((start + text).encode("utf-8", "replace"), "x")
    except InputError:
        return
    alert = read_alert(event)
    assert alert.id and "\n" not in alert.title
    assert all(c.isprintable() or c == "\n" for c in describe(alert))


@given(
    st.sampled_from([row[0] for row in EVENTS.values() if isinstance(row[0], dict)]),
    st.lists(st.tuples(st.integers(0, 60), VALUES), max_size=6),
)
@settings(max_examples=200, deadline=None)
def test_values_replaced_anywhere_break_no_family(
    event: dict[str, Any], changes: list[tuple[int, Any]]
) -> None:
    changed = json.loads(json.dumps(event))
    for place, value in changes:
        holders = _holders(changed)
        holder, key = holders[place % len(holders)]
        holder[key] = value
    alert = read_alert(changed)
    assert alert.model_dump_json() and observables(alert) == observables(read_alert(changed))


def _holders(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a nested value."""
    members = (
        value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else [])
    )
    pairs = list(members)
    found = [(value, key) for key, _ in pairs]
    return found + [one for _, child in pairs for one in _holders(child)]
