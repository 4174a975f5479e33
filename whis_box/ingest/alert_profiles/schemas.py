"""Common schemas: ECS (and what Windows events share with it), OCSF, and Wazuh's alerts.

Source: ECS 8, OCSF 1.x, Wazuh 4.
"""

from __future__ import annotations

from dataclasses import replace

from whis_box.ingest.alert_profiles.profile import Profile, table

ECS_FIELDS = table("""
    rule.name                   kibana.alert.rule.name signal.rule.name rule.name
    process.executable          process.executable
    process.name                process.name
    process.pid                 process.pid
    process.command_line        process.command_line process.args
    process.original_file_name  process.pe.original_file_name
    process.parent.executable   process.parent.executable
    process.parent.name         process.parent.name
    process.parent.pid          process.parent.pid
    process.parent.command_line process.parent.command_line process.parent.args
    hash.imphash                process.pe.imphash
    hash.md5                    process.hash.md5 file.hash.md5
    hash.sha1                   process.hash.sha1 file.hash.sha1
    hash.sha256                 process.hash.sha256 file.hash.sha256
    image.loaded                dll.path
    target.image                Target.process.executable
    script_block.text           powershell.file.script_block_text
    registry.data               registry.data.strings
    user.name                   user.name source.user.name
    user.audit.name             user.audit.name
    process.working_directory   process.working_directory
    email.sender                email.from.address
    email.recipient             email.to.address
    email.subject               email.subject
    user.domain                 user.domain
    user_agent                  user_agent.original
    url.full                    url.original url.full
    host.name                   host.hostname host.name agent.name
    source.ip                   source.ip client.ip
    source.port                 source.port
    destination.ip              destination.ip server.ip
    destination.port            destination.port
    destination.domain          destination.domain
    cloud.account               cloud.account.id
    cloud.error                 aws.cloudtrail.error_code
    cloud.action                azure.activitylogs.operation_name
""")

ECS = Profile(
    "ecs",
    marks=("kibana.alert.", "signal.rule."),
    fields=ECS_FIELDS,
    severities=(
        ("kibana.alert.severity", "words"),
        ("signal.rule.severity", "words"),
        ("event.severity", "ecs_score"),
    ),
    providers=("event.provider",),
)
# An ECS document that is no Elastic alert; asked after every product with marks of its own.
ECS_EVENT = Profile(
    "ecs",
    marks=("ecs.version", "event.kind", "@timestamp event.|process.|host.|source."),
    fields=ECS_FIELDS,
    titles=(
        "{event.dataset}: {event.action} (rule: {rule.name})",
        "{rule.name}",
        "{event.action}: {process.name} {file.path}",
        "{event.action}: {process.name} to {destination.ip}",
        "{event.action}: {process.name}",
        "{event.dataset}: {event.action} {email.sender}",
        "{event.dataset}: {event.action}",
        "{event.action}: {user.name}",
    ),
    severities=(("event.severity", "ecs_score"),),
    providers=("event.provider",),
)

OCSF = Profile(
    "ocsf",
    marks=("class_uid", "category_uid severity_id"),
    fields=table("""
        rule.name                   finding_info.title finding.title
        message                     finding_info.desc message
        process.executable          process.file.path actor.process.file.path
        process.name                process.name actor.process.name
        process.command_line        process.cmd_line actor.process.cmd_line
        process.pid                 process.pid actor.process.pid
        process.parent.executable   process.parent_process.file.path actor.process.file.path
                                  + actor.process.parent_process.file.path
        process.parent.name         process.parent_process.name actor.process.name
                                  + actor.process.parent_process.name
        process.parent.command_line process.parent_process.cmd_line actor.process.cmd_line
                                  + actor.process.parent_process.cmd_line
        user.name                   actor.user.name process.user.name actor.user.email_addr
        user.domain                 actor.user.domain process.user.domain
        user.target.name            user.name user.email_addr
        host.name                   device.hostname device.name resources.*.name
        host.ip                     device.ip
        source.ip                   src_endpoint.ip
        source.port                 src_endpoint.port
        source.host                 src_endpoint.hostname
        destination.ip              dst_endpoint.ip
        destination.port            dst_endpoint.port
        destination.domain          dst_endpoint.hostname dst_endpoint.domain
        dns.question.name           query.hostname
        file.path                   file.path
        registry.path               reg_key.path reg_value.path
        registry.value              reg_value.name
        registry.data               reg_value.data
        url.full                    http_request.url.url_string url.url_string
        user_agent                  http_request.user_agent
        container.image             process.container.image.name container.image.name
        container.name              process.container.name container.name
        cloud.action                api.operation
        cloud.service               api.service.name
        cloud.error                 api.response.error
        cloud.account               cloud.account.uid
        cloud.region                cloud.region
        hash                        process.file.hashes.*.value file.hashes.*.value
                                  + actor.process.file.hashes.*.value
    """),
    ids=("finding_info.uid", "finding.uid", "metadata.uid"),
    severities=(("severity_id", "ocsf"), ("severity", "words")),
    providers=("metadata.product.name",),
)

WAZUH = Profile(
    "wazuh",
    marks=("rule.level agent.|manager.|decoder.",),
    fields=table("""
        rule.name            rule.description
        host.name            agent.name predecoder.hostname
        host.ip              agent.ip
        source.ip            data.srcip data.src_ip data.aws.sourceIPAddress
                           + data.office365.ClientIP data.gcp.protoPayload.requestMetadata.callerIp
        source.port          data.srcport data.src_port
        destination.ip       data.dstip data.dest_ip
        destination.port     data.dstport data.dest_port
        user.name            data.srcuser data.dstuser data.uid data.office365.UserId
                           + data.aws.userIdentity.userName syscheck.audit.user.name
                           + syscheck.audit.effective_user.name data.audit.uid data.audit.euid
        user.audit.name      syscheck.audit.login_user.name data.audit.auid
        user.target.name     data.dstuser
        url.full             data.url
        process.command_line data.command data.audit.command_line
        process.executable   data.audit.exe syscheck.audit.process.name
        process.name         data.audit.command
        process.pid          data.audit.pid
        file.path            syscheck.path data.audit.file.name
        hash.md5             syscheck.md5_after
        hash.sha1            syscheck.sha1_after
        hash.sha256          syscheck.sha256_after
        cloud.action         data.aws.eventName data.office365.Operation
        user_agent           data.aws.userAgent
        message              full_log
    """),
    times=("timestamp", "@timestamp"),
    severities=(("rule.level", "wazuh"),),
    product="Wazuh",
)
# Where an account is made or changed, the user that the decoder names is that account, not who did it.
WAZUH_ACCOUNT = replace(
    WAZUH,
    marks=(
        "rule.level predecoder.program_name=useradd|predecoder.program_name=usermod",
        "rule.level predecoder.program_name=userdel|predecoder.program_name=groupadd",
        "rule.level decoder.name=useradd|decoder.name=usermod|decoder.name=userdel|decoder.name=groupadd",
    ),
    fields=table("""
        user.target.name     data.dstuser
        account.uid          data.uid
        account.gid          data.gid
    """)
    + WAZUH.fields,
)
