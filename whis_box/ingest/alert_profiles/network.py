"""Network sensors and log lines: Suricata EVE, Zeek, CEF, LEEF, syslog, and Splunk's notable events.

Source: Suricata 7 EVE, Zeek 6 logs, ArcSight CEF, IBM LEEF, RFC 3164 and 5424, Splunk ES notable fields.
"""

from __future__ import annotations

from dataclasses import replace

from whis_box.ingest.alert_profiles.profile import Profile, table

SURICATA = Profile(
    "suricata",
    marks=("event_type src_ip|flow_id",),
    fields=table("""
        rule.name            alert.signature
        rule.category        alert.category
        event.action         alert.action
        source.ip            src_ip
        source.port          src_port
        destination.ip       dest_ip
        destination.port     dest_port
        network.transport    proto
        network.protocol     app_proto
        dns.question.name    dns.rrname dns.query.*.rrname dns.queries.*.rrname
        dns.answers          dns.answers.*.rdata dns.grouped.A
        destination.domain   tls.sni http.hostname quic.sni
        user_agent           http.http_user_agent
        url.path             http.url
        http.method          http.http_method
        file.path            fileinfo.filename files.*.filename smb.filename
        share.name           smb.share
        hash.md5             fileinfo.md5 files.*.md5
        hash.sha1            fileinfo.sha1 files.*.sha1
        hash.sha256          fileinfo.sha256 files.*.sha256
        hash.ja3             tls.ja3.hash
        network.tls          tls.version
        email.sender         email.from smtp.mail_from
        email.recipient      email.to smtp.rcpt_to
        network.payload      payload_printable
        host.name            host
    """),
    titles=(
        "{rule.name}",
        "app_proto=failed ? Suricata {event_type}: {network.transport} to port {destination.port}",
        "Suricata {event_type}: {network.protocol}",
        "Suricata {event_type}",
    ),
    times=("timestamp",),
    severities=(("alert.severity", "suricata"),),
    product="Suricata",
)

ZEEK = Profile(
    "zeek",
    marks=("ts uid id.orig_h", "_path ts", "ts note msg", "@path id.orig_h", "id.orig_h id.resp_h"),
    fields=table("""
        rule.name            note
        message              msg
        network.log          _path @path
        network.protocol     service
        network.transport    proto
        source.ip            id.orig_h src
        source.port          id.orig_p
        destination.ip       id.resp_h dst
        destination.port     id.resp_p p
        destination.domain   server_name host
        dns.question.name    query
        dns.answers          answers
        url.path             uri
        http.method          method
        user_agent           user_agent
        file.name            filename orig_filenames resp_filenames
        user.name            username user cookie
        share.name           share
        host.name            _system_name peer_descr
        event.detail         sub
        network.state        conn_state
        hash.md5             md5
        hash.sha1            sha1
        hash.sha256          sha256
        hash.ja3             ja3
    """),
    titles=(
        "Zeek notice: {rule.name}",
        "Zeek {network.log}: {network.protocol} to port {destination.port}",
        "Zeek {network.log}: {http.method} {url.path}",
        "Zeek {network.log}: to port {destination.port}",
        "Zeek {network.log} record",
        "Zeek: {network.protocol} to port {destination.port}",
        "Zeek record",
    ),
    times=("ts", "@timestamp", "_write_ts"),
    ids=("uid", "fuid"),
    product="Zeek",
)
# In the logs of SMB the path is that of the share, and a service is the kind of share.
ZEEK_SMB = replace(
    ZEEK,
    marks=(
        "_path=smb_files|_path=smb_mapping",
        "@path=smb_files|@path=smb_mapping",
        "id.orig_h path action~SMB",
    ),
    fields=table("""
        share.name           path
        share.type           share_type
        share.service        service
        file.path            name
        file.previous_path   prev_name
        event.action         action
    """)
    + ZEEK.fields,
    titles=("Zeek {network.log}: {event.action}", "Zeek {network.log}", "Zeek SMB record"),
)
# Kerberos names a service by its principal.
ZEEK_KERBEROS = replace(
    ZEEK,
    marks=("_path=kerberos|@path=kerberos", "id.orig_h request_type client service"),
    fields=table("""
        service.name         service
        user.name            client
        event.action         request_type
        event.outcome        success
        event.reason         error_msg
        kerberos.encryption  cipher
    """)
    + ZEEK.fields,
    titles=("Zeek kerberos: {event.action} for {service.name}", "Zeek kerberos record"),
    ids=("uid",),
)

SPLUNK = Profile(
    "splunk",
    marks=(
        "search_name",
        "rule_title|rule_name urgency|security_domain|orig_sid",
        "annotations.mitre_attack.|risk_object _time",
    ),
    fields=table("""
        rule.name            rule_title rule_name search_name
        message              rule_description description orig_raw _raw
        user.name            src_user user orig_user
        user.target.name     dest_user
        host.name            dest_host dest_nt_host &dest host dvc orig_host
        source.address       src src_ip
        source.ip            src_ip
        source.port          src_port
        destination.address  dest dest_ip
        destination.ip       dest_ip
        destination.port     dest_port
        destination.domain   dest_dns url_domain
        process.executable   process_path process_exec
        process.name         process_name
        process.command_line process cmdline
        process.pid          process_id
        process.parent.executable parent_process_path parent_process_exec
        process.parent.name  parent_process_name
        process.parent.command_line parent_process
        file.path            file_path
        file.name            file_name
        hash                 file_hash process_hash
        registry.path        registry_path
        registry.data        registry_value_data
        dns.question.name    query
        url.full             url
        user_agent           http_user_agent
        event.action         action
        rule.category        security_domain
        risk.object          risk_object
    """),
    times=("_time", "orig_time", "info_max_time"),
    ids=("event_id", "orig_event_id", "event_hash"),
    severities=(("urgency", "words"), ("severity", "words"), ("risk_score", "hundred")),
    product="Splunk",
)

CEF = Profile(
    "cef",
    marks=(
        "cef.device_vendor cef.signature_id",
        "DeviceVendor DeviceProduct DeviceEventClassID|Activity|LogSeverity",
    ),
    fields=table("""
        rule.name            cef.name Activity
        rule.id              cef.signature_id DeviceEventClassID
        message              extension.msg Message
        event.action         extension.act DeviceAction
        source.ip            extension.src extension.sourceAddress SourceIP
        source.port          extension.spt SourcePort
        source.host          extension.shost SourceHostName
        destination.ip       extension.dst DestinationIP
        destination.port     extension.dpt DestinationPort
        destination.domain   extension.destinationDnsDomain
        destination.host     extension.dhost DestinationHostName
        host.name            extension.dvchost extension.deviceHostName DeviceName Computer
                           + syslog.host
        host.ip              extension.dvc DeviceAddress
        user.name            extension.suser SourceUserName extension.duser DestinationUserName
        user.target.name     extension.duser DestinationUserName
        process.executable   extension.sproc SourceProcessName extension.dproc
                           + DestinationProcessName
        process.command_line extension.command%20line extension.commandline
        file.path            extension.filePath FilePath
        file.name            extension.fname FileName
        hash                 extension.fileHash FileHash extension.sha256 extension.md5
        url.full             extension.request RequestURL
        user_agent           extension.requestClientApplication RequestClientApplication
        http.method          extension.requestMethod RequestMethod
        network.transport    extension.proto Protocol
        network.protocol     extension.app ApplicationProtocol
        rule.category        extension.cat DeviceEventCategory
        event.outcome        extension.outcome EventOutcome
    """),
    times=(
        "extension.rt",
        "extension.start",
        "extension.end",
        "ReceiptTime",
        "StartTime",
        "TimeGenerated",
        "syslog.timestamp",
    ),
    ids=("extension.externalId", "ExternalID"),
    severities=(("cef.severity", "ten"), ("LogSeverity", "ten")),
    providers=("cef.device_product", "DeviceProduct"),
)

LEEF = Profile(
    "leef",
    marks=("leef.device_vendor leef.device_product",),
    fields=table("""
        rule.name            extension.name extension.eventName extension.policy leef.signature_id
        rule.id              leef.signature_id
        message              extension.msg
        event.action         extension.action extension.act
        rule.category        extension.cat
        source.ip            extension.src
        source.port          extension.srcPort
        source.host          extension.identHostName
        destination.ip       extension.dst
        destination.port     extension.dstPort
        user.name            extension.usrName extension.accountName
        host.name            extension.devName extension.identHostName syslog.host
        network.transport    extension.proto
        url.full             extension.url
        file.path            extension.filePath
        file.name            extension.fileName
        hash                 extension.fileHash extension.sha256 extension.md5
    """),
    times=("extension.devTime", "syslog.timestamp"),
    ids=("extension.externalId",),
    severities=(("extension.sev", "ten"), ("extension.severity", "words")),
    providers=("leef.device_product",),
)

# One record of the Linux audit log, as auditd writes it.
AUDIT = Profile(
    "syslog",
    marks=("audit.type audit.msg original",),
    fields=table("""
        event.action         audit.type audit.op
        host.name            audit.node
        process.executable   audit.exe
        process.name         audit.comm
        process.pid          audit.pid
        process.parent.pid   audit.ppid
        user.name            audit.acct audit.AUID audit.auid audit.uid
        source.ip            audit.addr
        file.path            audit.name
        event.outcome        audit.success audit.res
        message              message
    """),
    titles=("Linux audit: {event.action} {process.name}", "Linux audit: {event.action}"),
    times=("audit.msg",),
    product="auditd",
)

SYSLOG = Profile(
    "syslog",
    marks=("syslog.host message original", "syslog.severity message original", "syslog.app message original"),
    fields=table("""
        host.name            syslog.host
        process.name         syslog.app
        process.pid          syslog.pid
        message              message
        user.name            pairs.user pairs.usr pairs.username pairs.srcuser pairs.acct
                           + pairs.suser
        source.ip            pairs.srcip pairs.src pairs.SRC pairs.src_ip pairs.rhost
                           + pairs.source_ip pairs.addr
        source.port          pairs.srcport pairs.SPT pairs.spt pairs.sport
        destination.ip       pairs.dstip pairs.dst pairs.DST pairs.dst_ip pairs.dest_ip
        destination.port     pairs.dstport pairs.DPT pairs.dpt pairs.dport
        destination.domain   pairs.hostname pairs.dstname
        network.transport    pairs.proto pairs.PROTO
        process.executable   pairs.exe
        process.command_line pairs.cmd pairs.proctitle
        event.action         pairs.action pairs.op
        rule.name            pairs.attack pairs.virus pairs.signature
        url.full             pairs.url
        file.path            pairs.filename pairs.name
    """),
    times=("syslog.timestamp",),
    severities=(("syslog.severity", "log_level"), ("pairs.severity", "words")),
    providers=("syslog.app",),
)
