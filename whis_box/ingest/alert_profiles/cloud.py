"""Cloud platforms: CloudTrail, GuardDuty, Azure activity, audit logs of Google Cloud, Kubernetes, GitHub.

Source: CloudTrail 1.x, GuardDuty findings 2.0, Cloud Audit Logs, audit.k8s.io/v1, GitHub audit log events,
Azure Monitor's activity log and resource log schemas.
"""

from __future__ import annotations

from dataclasses import replace

from whis_box.ingest.alert_profiles.profile import Profile, table

CLOUDTRAIL = Profile(
    "cloudtrail",
    marks=("eventName eventSource",),
    fields=table("""
        cloud.action         eventName
        cloud.service        eventSource
        cloud.error          errorCode
        cloud.error_message  errorMessage
        cloud.account        recipientAccountId userIdentity.accountId
        cloud.region         awsRegion
        user_agent           userAgent
        user.name            userIdentity.userName
                           + userIdentity.sessionContext.sessionIssuer.userName
                           + userIdentity.invokedBy
        user.principal       userIdentity.principalId
        user.arn             userIdentity.arn
        user.type            userIdentity.type
        user.access_key      userIdentity.accessKeyId
        user.target.name     requestParameters.userName requestParameters.roleName
        source.address       sourceIPAddress
    """),
    titles=(
        "CloudTrail: {cloud.service} {cloud.action} failed: {cloud.error}",
        "CloudTrail: {cloud.service} {cloud.action}",
    ),
    times=("eventTime",),
    ids=("eventID",),
    providers=("eventSource",),
)

GUARDDUTY_FIELDS = table("""
    rule.name            title
    message              description
    rule.category        type
    cloud.account        accountId
    cloud.region         region
    cloud.action         service.action.awsApiCallAction.api
                       + service.action.kubernetesApiCallAction.verb
    cloud.service        service.action.awsApiCallAction.serviceName
    cloud.error          service.action.awsApiCallAction.errorCode
    cloud.resource       resource.s3BucketDetails.*.name resource.instanceDetails.instanceId
                       + resource.eksClusterDetails.name resource.lambdaDetails.functionName
                       + resource.rdsDbInstanceDetails.dbInstanceIdentifier
    user.name            resource.accessKeyDetails.userName
                       + resource.kubernetesDetails.kubernetesUserDetails.username
                       + resource.rdsDbUserDetails.user
    user.type            resource.accessKeyDetails.userType
    user.access_key      resource.accessKeyDetails.accessKeyId
    host.name            resource.instanceDetails.instanceId
    host.ip              resource.instanceDetails.networkInterfaces.*.privateIpAddress
    source.ip            service.action.awsApiCallAction.remoteIpDetails.ipAddressV4
                       + service.action.portProbeAction.portProbeDetails.*.remoteIpDetails.ipAddressV4
                       + service.action.kubernetesApiCallAction.remoteIpDetails.ipAddressV4
                       + service.action.rdsLoginAttemptAction.remoteIpDetails.ipAddressV4
                       + service.additionalInfo.sourceIp
    destination.port     service.action.portProbeAction.portProbeDetails.*.localPortDetails.port
    network.transport    service.action.networkConnectionAction.protocol
    dns.question.name    service.action.dnsRequestAction.domain
    user_agent           service.action.awsApiCallAction.userAgent
                       + service.action.kubernetesApiCallAction.userAgent
    process.executable   service.runtimeDetails.process.executablePath
    process.name         service.runtimeDetails.process.name
    process.pid          service.runtimeDetails.process.pid
    hash.sha256          service.runtimeDetails.process.executableSha256
    process.parent.executable service.runtimeDetails.process.lineage.*.executablePath
    container.image      resource.containerDetails.image
                       + resource.kubernetesDetails.kubernetesWorkloadDetails.containers.*.image
""")
GUARDDUTY = Profile(
    "guardduty",
    marks=(
        "service.serviceName=guardduty",
        "schemaVersion type resource.resourceType service.",
        "SchemaVersion Type Resource.ResourceType",
    ),
    fields=table("""
        destination.ip       service.action.networkConnectionAction.remoteIpDetails.ipAddressV4
        destination.port     service.action.networkConnectionAction.remotePortDetails.port
        source.ip            service.action.networkConnectionAction.localIpDetails.ipAddressV4
        source.port          service.action.networkConnectionAction.localPortDetails.port
    """)
    + GUARDDUTY_FIELDS,
    times=("service.eventLastSeen", "updatedAt", "createdAt"),
    ids=("id",),
    severities=(("severity", "guardduty"),),
    product="Amazon GuardDuty",
)
# The remote side of a connection is where it came from or where it went to, by its direction.
GUARDDUTY_INBOUND = replace(
    GUARDDUTY,
    marks=("service.action.networkConnectionAction.connectionDirection=INBOUND",),
    fields=table("""
        source.ip            service.action.networkConnectionAction.remoteIpDetails.ipAddressV4
        source.port          service.action.networkConnectionAction.remotePortDetails.port
        source.country       service.action.networkConnectionAction.remoteIpDetails.country.countryName
        destination.ip       service.action.networkConnectionAction.localIpDetails.ipAddressV4
                           + &resource.instanceDetails.networkInterfaces.*.privateIpAddress
        destination.port     service.action.networkConnectionAction.localPortDetails.port
    """)
    + GUARDDUTY_FIELDS,
)

GCP = Profile(
    "gcp",
    marks=("protoPayload.@type~AuditLog", "protoPayload.methodName", "logName~cloudaudit"),
    fields=table("""
        cloud.action         protoPayload.methodName
        cloud.service        protoPayload.serviceName
        cloud.resource       protoPayload.resourceName
        cloud.error          protoPayload.status.code
        cloud.error_message  protoPayload.status.message
        cloud.account        resource.labels.project_id
        cloud.region         resource.labels.location resource.labels.zone
        user.name            protoPayload.authenticationInfo.principalEmail
                           + protoPayload.authenticationInfo.principalSubject
        source.ip            protoPayload.requestMetadata.callerIp
        user_agent           protoPayload.requestMetadata.callerSuppliedUserAgent
        user.target.name     protoPayload.serviceData.policyDelta.bindingDeltas.*.member
        privilege.list       protoPayload.serviceData.policyDelta.bindingDeltas.*.role
    """),
    titles=(
        "Google Cloud audit: {cloud.service} {cloud.action} failed: {cloud.error_message}",
        "Google Cloud audit: {cloud.service} {cloud.action}",
        "Google Cloud audit: {cloud.action}",
    ),
    times=("timestamp", "receiveTimestamp"),
    ids=("insertId",),
    severities=(("severity", "log_level"),),
    providers=("protoPayload.serviceName",),
)

CLUSTER_SCOPED = "|".join(
    f"objectRef.resource={one}"
    for one in (
        "nodes",
        "namespaces",
        "persistentvolumes",
        "clusterroles",
        "clusterrolebindings",
        "customresourcedefinitions",
        "storageclasses",
        "certificatesigningrequests",
        "mutatingwebhookconfigurations",
        "validatingwebhookconfigurations",
    )
)
KUBERNETES = Profile(
    "kubernetes",
    marks=("apiVersion~audit.k8s.io", "auditID verb requestURI"),
    fields=table("""
        event.action         verb
        user.name            user.username
        user.target.name     impersonatedUser.username requestObject.subjects.*.name
        source.ip            sourceIPs
        user_agent           userAgent
        resource.type        objectRef.resource
        resource.subresource objectRef.subresource
        url.path             requestURI
        resource.namespace   objectRef.namespace
        resource.name        objectRef.name requestObject.metadata.name
        response.code        responseStatus.code
        container.image      requestObject.spec.containers.*.image
                           + requestObject.spec.template.spec.containers.*.image
        process.command_line requestObject.spec.containers.*.command
                           + requestObject.spec.template.spec.containers.*.command
        container.privileged requestObject.spec.containers.*.securityContext.privileged
        container.host_path  requestObject.spec.volumes.*.hostPath.path
                           + requestObject.spec.template.spec.volumes.*.hostPath.path
        privilege.list       requestObject.roleRef.name
    """),
    titles=(
        "Kubernetes audit: {event.action} {resource.type}/{resource.subresource} {resource.name}",
        "Kubernetes audit: {event.action} {resource.type} {resource.namespace}/{resource.name}",
        "Kubernetes audit: {event.action} {resource.type} {resource.name}",
        "Kubernetes audit: {event.action} {resource.type} in {resource.namespace}",
        # Only a namespaced resource that is read without naming one is read in all of them.
        f"{CLUSTER_SCOPED} ? Kubernetes audit: {{event.action}} {{resource.type}}",
        "verb=list|verb=watch|verb=deletecollection ? "
        "Kubernetes audit: {event.action} {resource.type} in all namespaces",
        "Kubernetes audit: {event.action} {resource.type}",
        "Kubernetes audit: {event.action} {url.path}",
    ),
    times=("requestReceivedTimestamp", "stageTimestamp"),
    ids=("auditID",),
    product="Kubernetes",
)

GITHUB = Profile(
    "github",
    marks=("action actor _document_id", "action actor org|business|repo|enterprise created_at|@timestamp"),
    fields=table("""
        event.action         action
        user.name            actor
        user.target.name     user
        source.ip            actor_ip
        user_agent           user_agent
        repository.name      repo repository
        organization.name    org
        application.name     oauth_application_name integration
        privilege.list       permission
        url.full             config.url hook.config.url
    """),
    titles=(
        "GitHub audit: {event.action} {repository.name}",
        "GitHub audit: {event.action} in {organization.name}",
        "GitHub audit: {event.action}",
    ),
    times=("@timestamp", "created_at"),
    ids=("_document_id",),
    product="GitHub",
)

AZURE = Profile(
    "azure",
    marks=(
        "operationName|OperationNameValue caller|Caller",
        "operationName resourceId identity.",
        "operationName resourceId category=Administrative|category=AuditEvent",
    ),
    fields=table("""
        cloud.action         identity.authorization.action authorization.action operationName.value
                           + operationName OperationNameValue
        cloud.resource       resourceId ResourceId _ResourceId identity.authorization.scope
        cloud.account        subscriptionId SubscriptionId
        cloud.error_message  resultDescription
        user.name            caller Caller
                           + identity.claims.http://schemas.xmlsoap.org/ws/2005/05/identity/claims/upn
                           + claims.http://schemas.xmlsoap.org/ws/2005/05/identity/claims/upn
                           + identity.claims.upn identity.claim.upn
                           + identity.claims.http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name
                           + identity.claims.name identity.claim.name identity.claims.appid
                           + identity.claim.appid
        source.ip            callerIpAddress CallerIpAddress httpRequest.clientIpAddress
                           + identity.claims.ipaddr
        user_agent           clientInfo
        url.full             requestUri
        privilege.list       identity.authorization.evidence.role
        event.outcome        resultType ActivityStatusValue status.value resultSignature
        message              message
        rule.category        category CategoryValue
    """),
    titles=(
        "resultType=Failure|resultType=Failed|ActivityStatusValue=Failure ? "
        "Azure activity: {cloud.action} failed",
        "Azure activity: {cloud.action}",
    ),
    times=("time", "eventTimestamp", "TimeGenerated"),
    ids=("eventDataId", "EventDataId", "correlationId"),
    severities=(("level", "log_level"), ("Level", "log_level")),
    product="Azure",
)
