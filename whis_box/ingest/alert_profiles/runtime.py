"""Runtime sensors of hosts and containers: Falco.

Source: Falco 0.38, JSON output and the names of its fields.
"""

from __future__ import annotations

from whis_box.ingest.alert_profiles.profile import Profile, table

FALCO = Profile(
    "falco",
    marks=("output_fields. rule priority", "output rule priority source"),
    fields=table("""
        rule.name                   rule
        message                     output
        host.name                   hostname output_fields.evt.hostname
        process.executable          output_fields.proc.exepath
        process.name                output_fields.proc.name
        process.command_line        output_fields.proc.cmdline
        process.pid                 output_fields.proc.pid
        process.working_directory   output_fields.proc.cwd
        process.parent.executable   output_fields.proc.pexepath
        process.parent.name         output_fields.proc.pname
        process.parent.command_line output_fields.proc.pcmdline
        user.name                   output_fields.user.name
        user.audit.name             output_fields.user.loginname
        source.ip                   output_fields.fd.cip output_fields.fd.lip
        source.port                 output_fields.fd.cport output_fields.fd.lport
        destination.ip              output_fields.fd.sip output_fields.fd.rip
        destination.port            output_fields.fd.sport output_fields.fd.rport
        file.path                   output_fields.fd.name output_fields.fs.path.name
        container.image             output_fields.container.image.repository
                                  + output_fields.container.image
        container.name              output_fields.container.name
        resource.namespace          output_fields.k8s.ns.name
        resource.name               output_fields.k8s.pod.name
    """),
    titles=("Falco: {rule.name}",),
    times=("time", "output_fields.evt.time"),
    ids=("uuid",),
    severities=(("priority", "falco"),),
    product="Falco",
)
