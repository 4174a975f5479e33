"""Identity and office sources: Entra ID, Microsoft 365 audit, Okta system log, Microsoft Sentinel alerts.

Source: Microsoft Graph v1.0 (signIn, directoryAudit, riskDetection), Azure Monitor's tables SigninLogs,
AuditLogs and SecurityAlert, the Office 365 Management Activity schema, Okta System Log API.
"""

from __future__ import annotations

from whis_box.ingest.alert_profiles.profile import Profile, table

SENTINEL = Profile(
    "sentinel",
    marks=(
        "SystemAlertId AlertName|DisplayName|AlertDisplayName",
        "AlertName AlertSeverity",
        "object.properties.title incidentNumber",
        "IncidentNumber Title Severity",
    ),
    fields=table("""
        rule.name            AlertDisplayName DisplayName AlertName title Title
        message              Description description
        user.name            Entities.account.Name relatedEntities.account.properties.accountName
                           + Entities.account.DisplayName Entities.mailbox.MailboxPrimaryAddress
        user.upn_suffix      Entities.account.UPNSuffix relatedEntities.account.properties.upnSuffix
        user.domain          Entities.account.NTDomain Entities.account.DnsDomain
                           + relatedEntities.account.properties.ntDomain
        source.ip            Entities.ip.Address relatedEntities.ip.properties.address
        host.name            Entities.host.HostName relatedEntities.host.properties.hostName
                           + CompromisedEntity
        url.full             Entities.url.Url relatedEntities.url.properties.url
        dns.question.name    Entities.dns.DomainName Entities.dns-resolution.DomainName
        file.directory       Entities.file.Directory
        file.name            Entities.file.Name
        process.directory    Entities.process.ImageFile.Directory
        process.name         Entities.process.ImageFile.Name
        process.command_line Entities.process.CommandLine
        process.pid          Entities.process.ProcessId
        process.parent.name  Entities.process.ParentProcess.ImageFile.Name
        process.parent.command_line Entities.process.ParentProcess.CommandLine
        registry.path        Entities.registry-key.Key
        registry.value       Entities.registry-value.Name
        hash                 Entities.filehash.Value Entities.file.FileHashes.*.Value
                           + Entities.process.ImageFile.FileHashes.*.Value
                           + relatedEntities.filehash.properties.hashValue
        email.sender         Entities.mailmessage.Sender Entities.mailmessage.P1Sender
        email.recipient      Entities.mailmessage.Recipient
        email.subject        Entities.mailmessage.Subject
        application.name     Entities.cloud-application.Name
                           + ExtendedProperties.Custom%20Details.AppDisplayName
        cloud.resource       Entities.azure-resource.ResourceId
        rule.category        Tactics
    """),
    times=("StartTime", "StartTimeUtc", "TimeGenerated", "createdTimeUtc"),
    ids=("SystemAlertId", "object.name", "IncidentName"),
    severities=(("AlertSeverity", "words"), ("Severity", "words"), ("severity", "words")),
    providers=("ProductName", "ProviderName"),
    product="Microsoft Sentinel",
)

ENTRA_RISK = Profile(
    "entra",
    marks=("riskEventType userPrincipalName|userId", "riskType detectedDateTime"),
    fields=table("""
        rule.name            riskEventType riskType
        user.name            userPrincipalName userDisplayName
        source.ip            ipAddress
        source.city          location.city
        source.country       location.countryOrRegion
        user_agent           additionalInfo.userAgent
        event.action         activity
        risk.reasons         additionalInfo.riskReasons
        risk.state           riskState
        network.name         additionalInfo.networkName
        logon.mfa            additionalInfo.mfaResult
        device.trust         additionalInfo.deviceTrustType
    """),
    titles=("Entra ID risk detection: {rule.name}",),
    times=("activityDateTime", "detectedDateTime"),
    ids=("id",),
    severities=(("riskLevel", "words"),),
    providers=("source",),
    product="Entra ID Protection",
)

ENTRA_SIGN_IN = Profile(
    "entra",
    marks=(
        "category~SignInLogs",
        "Type=SigninLogs|Type=AADNonInteractiveUserSignInLogs|Type=AADServicePrincipalSignInLogs",
        "userPrincipalName|servicePrincipalName appDisplayName ipAddress",
    ),
    fields=table("""
        user.name            userPrincipalName servicePrincipalName userDisplayName identity
        source.ip            ipAddress callerIpAddress
        source.city          location.city locationDetails.city
        source.country       location.countryOrRegion locationDetails.countryOrRegion location
        user_agent           userAgent
        application.name     appDisplayName
        resource.name        resourceDisplayName
        host.name            deviceDetail.displayName
        host.os              deviceDetail.operatingSystem
        logon.client         clientAppUsed
        logon.mfa            authenticationRequirement
        logon.conditional_access conditionalAccessStatus
        event.outcome        status.errorCode resultType
        event.reason         status.failureReason resultDescription
        risk.level           riskLevelDuringSignIn riskLevelAggregated
        risk.detail          riskEventTypes_v2 riskEventTypes riskDetail
    """),
    titles=(
        "Entra ID sign-in to {application.name}: {event.reason}",
        "Entra ID sign-in to {application.name}",
        "Entra ID sign-in",
    ),
    times=("createdDateTime", "TimeGenerated", "time"),
    ids=("id", "CorrelationId"),
    severities=(("riskLevelDuringSignIn", "words"),),
    product="Entra ID",
)

ENTRA_AUDIT = Profile(
    "entra",
    marks=("category=AuditLogs", "Type=AuditLogs", "activityDisplayName initiatedBy.|targetResources."),
    fields=table("""
        event.action         activityDisplayName operationName
        rule.category        properties.category category
        user.name            initiatedBy.user.userPrincipalName initiatedBy.app.displayName
                           + initiatedBy.user.displayName identity
        source.ip            initiatedBy.user.ipAddress callerIpAddress
        user.target.name     targetResources.user.userPrincipalName
        group.name           targetResources.group.displayName
        application.name     targetResources.serviceprincipal.displayName
                           + targetResources.application.displayName
                           + targetResources.app.displayName
        privilege.list       targetResources.role.displayName
        privilege.expires_at additionalDetails.ExpirationTime
        resource.name        targetResources.*.displayName
        user_agent           additionalDetails.User-Agent additionalDetails.UserAgent
        event.outcome        result resultSignature
        event.reason         resultReason
    """),
    titles=(
        "Entra ID audit: {event.action} ({application.name})",
        "Entra ID audit: {event.action} ({resource.name})",
        "Entra ID audit: {event.action}",
    ),
    times=("activityDateTime", "TimeGenerated", "time"),
    ids=("properties.id", "id", "correlationId"),
    product="Entra ID",
)

M365 = Profile(
    "m365",
    marks=("Operation Workload", "Operation RecordType UserId", "AuditData.Operation"),
    fields=table("""
        event.action         Operation
        application.name     Workload
        user.name            UserId UserKey
        user.target.name     MailboxOwnerUPN TargetUserOrGroupName Parameters.User Parameters.Trustee
        group.member         Parameters.Member Parameters.Members
        source.ip            ClientIP ClientIPAddress ActorIpAddress SenderIp
        user_agent           UserAgent ExtendedProperties.UserAgent
        resource.name        ObjectId
        file.name            SourceFileName
        file.directory       SourceRelativeUrl
        url.full             SiteUrl Url
        event.outcome        ResultStatus
        event.reason         LogonError
        email.forward_to     Parameters.ForwardTo Parameters.RedirectTo
                           + Parameters.ForwardAsAttachmentTo Parameters.ForwardingSmtpAddress
        email.subject        Item.Subject AffectedItems.*.Subject Subject
        email.sender         P2Sender P1Sender
        email.recipient      Recipients
        rule.words           Parameters.SubjectOrBodyContainsWords Parameters.BodyContainsWords
                           + Parameters.SubjectContainsWords
        rule.delete          Parameters.DeleteMessage
        rule.folder          Parameters.MoveToFolder
        message              Data.an
    """),
    titles=("Microsoft 365 audit: {application.name} {event.action}", "Microsoft 365 audit: {event.action}"),
    times=("CreationTime", "CreationDate"),
    naive_is_utc=True,
    ids=("Id",),
    product="Microsoft 365",
)

OKTA = Profile(
    "okta",
    marks=("eventType published actor.alternateId|actor.id", "eventType uuid legacyEventType"),
    fields=table("""
        event.action         eventType
        message              displayMessage
        user.name            actor.alternateId actor.displayName
        user.target.name     target.user.alternateId target.appuser.alternateId
        group.name           target.usergroup.displayName
        application.name     target.appinstance.displayName
        resource.name        target.identityprovider.displayName target.policyentity.displayName
                           + target.policyrule.displayName target.authenticatorenrollment.displayName
                           + target.token.displayName target.role.displayName
        source.ip            client.ipAddress request.ipChain.*.ip
        source.city          client.geographicalContext.city
        source.country       client.geographicalContext.country
        source.organization  securityContext.asOrg
        source.is_proxy      securityContext.isProxy
        user_agent           client.userAgent.rawUserAgent
        event.outcome        outcome.result
        event.reason         outcome.reason
        privilege.list       debugContext.debugData.privilegeGranted
        risk.detail          debugContext.debugData.risk debugContext.debugData.logOnlySecurityData
        url.path             debugContext.debugData.requestUri
    """),
    titles=(
        "outcome.result=FAILURE|outcome.result=DENY ? "
        "Okta: {message} ({event.action}) failed: {event.reason}",
        "Okta: {message} ({event.action})",
        "Okta: {event.action}",
    ),
    times=("published",),
    ids=("uuid",),
    severities=(("severity", "log_level"),),
    product="Okta",
)
