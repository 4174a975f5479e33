"""Endpoint detection products: Microsoft Defender (alerts and device events) and CrowdStrike Falcon.

Source: Microsoft Graph security v1.0, Defender advanced hunting schema, Falcon event streams and Alerts API.
"""

from __future__ import annotations

from whis_box.ingest.alert_profiles.profile import Profile, table

# Alerts of Microsoft Graph (`alerts_v2`) and of the Defender for Endpoint API.
DEFENDER_ALERT = Profile(
    "defender",
    marks=(
        "@odata.type~microsoft.graph.security.alert",
        "serviceSource title detectionSource",
        "alertCreationTime title machineId|computerDnsName",
    ),
    fields=table("""
        rule.name                   title
        message                     description
        user.name                   evidence.*.userAccount.accountName relatedUser.userName
                                  + evidence.user.accountName
                                  + evidence.*.userAccount.userPrincipalName
                                  + evidence.*.primaryAddress loggedOnUsers.*.accountName
        user.domain                 evidence.*.userAccount.domainName relatedUser.domainName
                                  + evidence.user.domainName
        user.email                  evidence.*.userAccount.userPrincipalName
                                  + evidence.user.userPrincipalName
        host.name                   evidence.*.deviceDnsName evidence.*.hostName computerDnsName
        source.ip                   evidence.ipevidence.ipAddress evidence.ip.ipAddress
        url.full                    evidence.*.url
        file.path                   evidence.fileevidence.fileDetails.filePath
                                  + evidence.file.filePath
        file.name                   evidence.fileevidence.fileDetails.fileName
                                  + evidence.file.fileName
        process.executable          evidence.processevidence.imageFile.filePath
                                  + evidence.process.filePath
        process.name                evidence.processevidence.imageFile.fileName
                                  + evidence.process.fileName
        process.command_line        evidence.*.processCommandLine
        process.pid                 evidence.*.processId
        process.parent.name         evidence.*.parentProcessImageFile.fileName
                                  + evidence.*.parentProcessFileName
        hash.sha256                 evidence.*.imageFile.sha256 evidence.*.fileDetails.sha256
                                  + evidence.*.sha256
        hash.sha1                   evidence.*.imageFile.sha1 evidence.*.fileDetails.sha1
                                  + evidence.*.sha1
        registry.path               evidence.*.registryKey
        email.sender                evidence.*.p1Sender.emailAddress
                                  + evidence.*.p2Sender.emailAddress evidence.*.senderFromAddress
        email.recipient             evidence.*.recipientEmailAddress
        email.subject               evidence.*.subject
        application.name            evidence.*.displayName
        rule.category               category
    """),
    times=("firstActivityDateTime", "firstEventTime", "createdDateTime", "alertCreationTime"),
    ids=("id",),
    severities=(("severity", "words"),),
    providers=("productName", "detectionSource"),
    product="Microsoft Defender",
)

DEVICE_FIELDS = table("""
    host.name                   DeviceName
    user.name                   AccountName InitiatingProcessAccountName
    user.domain                 AccountDomain InitiatingProcessAccountDomain
    registry.path               RegistryKey
    registry.value              RegistryValueName
    registry.data               RegistryValueData
    destination.ip              RemoteIP
    destination.port            RemotePort
    source.ip                   LocalIP
    source.port                 LocalPort
    url.full                    RemoteUrl FileOriginUrl
    event.action                ActionType
""")
# Rows of advanced hunting: in a process event the named file is the new process, elsewhere it is an object.
DEFENDER_PROCESS = Profile(
    "defender",
    marks=("ActionType=ProcessCreated DeviceName",),
    fields=table("""
        process.executable          FolderPath
        process.name                FileName
        process.command_line        ProcessCommandLine
        process.pid                 ProcessId
        process.original_file_name  ProcessVersionInfoOriginalFileName
        process.integrity_level     ProcessIntegrityLevel
        process.parent.executable   InitiatingProcessFolderPath
        process.parent.name         InitiatingProcessFileName
        process.parent.command_line InitiatingProcessCommandLine
        process.parent.pid          InitiatingProcessId
        process.parent.user         InitiatingProcessAccountName
        hash.md5                    MD5
        hash.sha1                   SHA1
        hash.sha256                 SHA256
    """)
    + DEVICE_FIELDS,
    titles=("Defender: {event.action} {process.name}",),
    times=("Timestamp", "TimeGenerated"),
    ids=("ReportId",),
    product="Microsoft Defender",
)
DEFENDER_EVENT = Profile(
    "defender",
    marks=("ActionType DeviceName", "category~AdvancedHunting-Device"),
    fields=table("""
        process.executable          InitiatingProcessFolderPath
        process.name                InitiatingProcessFileName
        process.command_line        InitiatingProcessCommandLine
        process.pid                 InitiatingProcessId
        process.parent.name         InitiatingProcessParentFileName
        file.path                   FolderPath
        file.name                   FileName
        hash.md5                    MD5 InitiatingProcessMD5
        hash.sha1                   SHA1 InitiatingProcessSHA1
        hash.sha256                 SHA256 InitiatingProcessSHA256
        dns.question.name           AdditionalFields.DnsQueryString
    """)
    + DEVICE_FIELDS,
    titles=("Defender: {event.action} by {process.name}", "Defender: {event.action}"),
    times=("Timestamp", "TimeGenerated"),
    product="Microsoft Defender",
)

CROWDSTRIKE = Profile(
    "crowdstrike",
    marks=(
        "metadata.eventType~DetectionSummaryEvent",
        "detection_id|composite_id device.|behaviors.",
        "event_simpleName aid",
        "metadata.customerIDString event.",
    ),
    fields=table("""
        rule.name                   event.DetectName event.Name display_name
                                  + behaviors.*.display_name behaviors.*.scenario name
                                  + event_simpleName
        message                     event.DetectDescription event.Description description
                                  + behaviors.*.description
        host.name                   event.ComputerName event.Hostname device.hostname ComputerName
        host.ip                     event.LocalIP device.local_ip
        user.name                   event.UserName user_name behaviors.*.user_name UserName
        process.executable          event.FilePath filepath behaviors.*.filepath ImageFileName
        process.name                event.FileName filename behaviors.*.filename FileName
        process.command_line        event.CommandLine cmdline behaviors.*.cmdline CommandLine
        process.pid                 event.ProcessId local_process_id
        process.parent.executable   event.ParentImageFilePath parent_details.filepath
                                  + behaviors.*.parent_details.filepath
        process.parent.name         event.ParentImageFileName parent_details.filename
                                  + ParentBaseFileName
        process.parent.command_line event.ParentCommandLine parent_details.cmdline
                                  + behaviors.*.parent_details.parent_cmdline
        hash.md5                    event.MD5String md5 behaviors.*.md5
        hash.sha1                   event.SHA1String sha1
        hash.sha256                 event.SHA256String sha256 behaviors.*.sha256 SHA256HashData
        source.ip                   event.NetworkAccesses.*.LocalAddress
        destination.ip              event.NetworkAccesses.*.RemoteAddress RemoteAddressIP4
        destination.port            event.NetworkAccesses.*.RemotePort RemotePort
        dns.question.name           event.DnsRequests.*.DomainName DomainName
        rule.category               event.Tactic tactic behaviors.*.tactic
    """),
    times=(
        "event.ProcessStartTime",
        "event.ContextTimeStamp",
        "timestamp",
        "created_timestamp",
        "behaviors.*.timestamp",
        "metadata.eventCreationTime",
    ),
    ids=("event.CompositeId", "event.DetectId", "composite_id", "detection_id"),
    severities=(
        ("event.SeverityName", "words"),
        ("severity_name", "words"),
        ("max_severity_displayname", "words"),
        ("event.Severity", "crowdstrike"),
        ("severity", "hundred"),
        ("behaviors.*.severity", "hundred"),
    ),
    product="CrowdStrike Falcon",
)
