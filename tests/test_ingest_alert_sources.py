"""Cloud, identity and office sources: what one says is said, under the name of what it is."""

from __future__ import annotations

from typing import Any

import pytest

from whis_box.ingest.alerts import Alert, describe, observables, read_alert

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
