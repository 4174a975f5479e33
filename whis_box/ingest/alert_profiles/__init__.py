"""The families that are known, in the order they are asked: the first whose marks hold reads the event."""

from __future__ import annotations

from whis_box.ingest.alert_profiles.cloud import (
    AZURE,
    CLOUDTRAIL,
    GCP,
    GITHUB,
    GUARDDUTY,
    GUARDDUTY_INBOUND,
    KUBERNETES,
)
from whis_box.ingest.alert_profiles.edr import CROWDSTRIKE, DEFENDER_ALERT, DEFENDER_EVENT, DEFENDER_PROCESS
from whis_box.ingest.alert_profiles.identity import (
    ENTRA_AUDIT,
    ENTRA_RISK,
    ENTRA_SIGN_IN,
    M365,
    OKTA,
    SENTINEL,
)
from whis_box.ingest.alert_profiles.mail import MIMECAST, PROOFPOINT
from whis_box.ingest.alert_profiles.network import (
    AUDIT,
    CEF,
    LEEF,
    SPLUNK,
    SURICATA,
    SYSLOG,
    ZEEK,
    ZEEK_KERBEROS,
    ZEEK_SMB,
)
from whis_box.ingest.alert_profiles.profile import Family, Profile
from whis_box.ingest.alert_profiles.runtime import FALCO
from whis_box.ingest.alert_profiles.schemas import ECS, ECS_EVENT, ECS_FIELDS, OCSF, WAZUH, WAZUH_ACCOUNT

__all__ = ["GENERIC", "PROFILES", "WINDOWS", "Family", "Profile"]

# Windows has no marks: its header comes in too many shapes and is found by alert_windows.py.
WINDOWS = Profile("windows", marks=(), fields=ECS_FIELDS)
GENERIC = Profile("generic", marks=(), fields=ECS_FIELDS)

PROFILES: tuple[Profile, ...] = (
    CEF, LEEF, WAZUH_ACCOUNT, WAZUH, ECS, OCSF, SURICATA, CLOUDTRAIL, GUARDDUTY_INBOUND, GUARDDUTY, GCP,
    KUBERNETES, FALCO, SENTINEL, DEFENDER_ALERT, DEFENDER_PROCESS, DEFENDER_EVENT, ENTRA_RISK, ENTRA_SIGN_IN,
    ENTRA_AUDIT, AZURE, M365, OKTA, CROWDSTRIKE, ZEEK_SMB, ZEEK_KERBEROS, ZEEK, SPLUNK, GITHUB, PROOFPOINT,
    MIMECAST, WINDOWS, ECS_EVENT, AUDIT, SYSLOG,
)  # fmt: skip
