"""Mail gateways: Proofpoint and Mimecast.

Source: Proofpoint TAP SIEM API v2, Mimecast SIEM logs (receipt, process, attachment and URL protection).
"""

from __future__ import annotations

from whis_box.ingest.alert_profiles.profile import Profile, table

PROOFPOINT = Profile(
    "mail",
    marks=(
        "eventType=messagesDelivered|eventType=messagesBlocked|eventType=clicksPermitted|eventType=clicksBlocked",
        "messageTime senderIP recipient",
        "clickTime clickIP url",
    ),
    fields=table("""
        event.action         eventType
        email.sender         fromAddress sender
        email.header_from    headerFrom
        email.recipient      recipient toAddresses
        email.subject        subject
        source.ip            senderIP
        client.ip            clickIP
        url.full             url threatsInfoMap.*.threatUrl
        file.name            messageParts.*.filename
        hash.sha256          messageParts.*.sha256
        hash.md5             messageParts.*.md5
        rule.category        classification threatsInfoMap.*.classification
        user_agent           userAgent
    """),
    titles=("Proofpoint: {event.action} ({rule.category})", "Proofpoint: {event.action}", "Proofpoint event"),
    times=("clickTime", "messageTime"),
    ids=("GUID", "id"),
    product="Proofpoint",
)

MIMECAST = Profile(
    "mail",
    marks=("product~mimecast", "acc Sender Rcpt|Recipient", "acc aCode"),
    fields=table("""
        event.action         Act action
        mail.log             logType
        email.sender         Sender sender
        email.header_from    headerFrom HeaderFrom
        email.recipient      Rcpt Recipient recipient
        email.subject        Subject subject
        source.ip            IP SourceIP senderIp
        url.full             url URL
        file.name            fileName AttNames
        hash.sha256          sha256 SHA256
        hash.md5             md5 MD5
        host.name            Hostname
        rule.name            Virus Definition
    """),
    titles=("Mimecast {mail.log}: {event.action}", "Mimecast {mail.log}", "Mimecast event"),
    times=("timestamp", "datetime"),
    ids=("aCode", "MsgId"),
    product="Mimecast",
)
