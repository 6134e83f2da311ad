"""The import rules: which package may import which, and in which order the files of a package do."""

from __future__ import annotations

from typing import NamedTuple

BASE = ("limits", "errors", "events")
IO_MODULES = (
    "os",
    "io",
    "socket",
    "sqlite3",
    "time",
    "logging",
    "threading",
    "subprocess",
    "asyncio",
    "ssl",
    "shutil",
    "tempfile",
)
IO_EXCEPT_CLOCK_AND_LOG = tuple(name for name in IO_MODULES if name not in ("time", "logging"))
RUNTIME = ("twisted", "zope", "OpenSSL", "service_identity")


class Rule(NamedTuple):
    """The imports that the modules of one part may have.

    `internal`: parts of imapshield; `others`: third-party packages; `never`: standard library modules that are forbidden.
    """

    internal: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    never: tuple[str, ...] = ()


# The rule with the most specific key that matches a module applies to the module.
RULES = {
    "limits": Rule(("front_limits",), never=IO_MODULES),
    "front_limits": Rule(never=IO_MODULES),
    "mailbox_name_options": Rule(never=IO_MODULES),
    "errors": Rule(("limits",), never=IO_MODULES),
    "events": Rule(never=IO_MODULES),
    "wire": Rule(BASE, never=IO_MODULES),
    "guard": Rule((*BASE, "wire.framing", "wire.traits"), never=IO_MODULES),
    "message": Rule((*BASE, "wire"), never=IO_MODULES),
    "message.pauses": Rule(never=tuple(name for name in IO_MODULES if name != "threading")),
    "mailbox": Rule((*BASE, "wire", "message"), ("zope",), IO_EXCEPT_CLOCK_AND_LOG),
    "session": Rule((*BASE, "wire", "message", "mailbox"), ("zope",), IO_EXCEPT_CLOCK_AND_LOG),
    "mailbox.in_place": Rule(
        ("message.pauses",), never=tuple(name for name in IO_MODULES if name != "threading")
    ),
    "mailbox.request": Rule(("errors", "message.pauses"), never=IO_EXCEPT_CLOCK_AND_LOG),
    "maildir.job_queue": Rule(never=IO_MODULES),
    "maildir.in_place_rules": Rule(never=IO_MODULES),
    "maildir.worker": Rule((*BASE, "wire", "message", "mailbox"), ("twisted", "zope")),
    "maildir.watch": Rule((*BASE, "wire", "message", "mailbox"), ("twisted", "zope")),
    "maildir.compression": Rule(
        (
            "extras",
            "message",
        ),
        ("backports", "compression"),
        IO_MODULES,
    ),
    "maildir": Rule((*BASE, "wire", "message", "mailbox"), ("zope",)),
    "cred.passwords": Rule(
        (
            "extras",
            "cred.foreign_hashes",
        ),
        ("argon2",),
    ),
    "cred.foreign_hashes": Rule(()),
    "cred.password_rules": Rule(never=IO_MODULES),
    "cred.pam_checker": Rule(
        ("cred.checker_threads", "cred.unavailable"), ("pamela", "twisted", "zope")
    ),
    "cred.ldap_checker": Rule(
        ("cred.checker_threads", "cred.ldap_settings", "cred.unavailable"),
        ("ldap", "twisted", "zope"),
    ),
    "cred.ldap_settings": Rule(("regular_file",)),
    "cred.user_import": Rule(("cred.foreign_hashes", "cred.passwords", "cred.users")),
    "cred.users": Rule(("cred.foreign_hashes", "cred.locked_lines", "cred.passwords")),
    "cred.locked_lines": Rule(("regular_file", "replace_file")),
    "cred.user_table": Rule(("cred.decoys", "cred.passwords", "cred.users")),
    "cred.decoys": Rule((), never=IO_MODULES),
    "cred.twisted_mail_account": Rule(
        (*BASE, "mailbox", "wire", "cred.twisted_mail_mailbox"), ("twisted", "zope")
    ),
    "cred.twisted_mail_mailbox": Rule((*BASE, "mailbox", "wire"), ("twisted", "zope")),
    "cred.unused_stores": Rule(("free_memory", "mailbox"), ("twisted",)),
    "cred": Rule((*BASE, "mailbox", "maildir", "regular_file"), ("twisted", "zope")),
    "observe.dialogue": Rule(("wire.traits",), never=IO_MODULES),
    "observe.counters": Rule(("events",), never=IO_MODULES),
    "observe.chart_history": Rule(never=IO_MODULES),
    "observe": Rule(("limits", "events"), ("twisted", "zope")),
    # A process of its own for tests, which needs what `server` needs.
    "testing.server_process": Rule(
        (
            *("certificates", "cred.realm", "edge.factory", "limits", "observe.log_observer"),
            "testing",
        ),
        ("twisted",),
    ),
    "testing.running_server": Rule(("cred.users", "testing", "wire")),
    "testing.throwaway_certificate": Rule((), ("cryptography",)),  # which pyOpenSSL needs
    "testing": Rule((*BASE, "edge", "mailbox", "message", "wire"), ("twisted", "zope")),
    "free_memory": Rule(never=IO_MODULES),
    **dict.fromkeys(
        (
            *("front.backend_address", "front.circuit_breaker", "front.front_options"),
            *("front.map_option", "front.proxy_v2", "front.sasl_user"),
        ),
        Rule(("errors",), never=IO_MODULES),
    ),
    "front.command_pieces": Rule((*BASE, "wire"), never=IO_MODULES),
    "front.offered_capabilities": Rule(never=IO_MODULES),
    "front.response_stream": Rule(("wire",), never=IO_MODULES),
    "front": Rule(
        (
            *(*BASE, "check_findings", "config", "control.request_lines", "cred.checker_threads"),
            *("cred.ldap_checker", "cred.ldap_settings", "cred.unavailable", "edge", "extras"),
            *(
                "connection_errors",
                "mailbox",
                "regular_file",
                "session.dispatcher",
                "shared",
                "wire",
            ),
        ),
        ("twisted", "zope", "OpenSSL", "service_identity"),
    ),
    **dict.fromkeys(
        ("shared.redis_address", "shared.signed_messages", "shared.rate_script"),
        Rule(("guard",), never=IO_MODULES),
    ),
    "shared": Rule(
        (
            *("config", "connection_errors", "credentials", "edge.admission", "events", "extras"),
            *("front.backend_address", "front.backend_tls", "guard", "guard_state"),
            *("observe.talkers", "regular_file"),
        ),
        ("OpenSSL", "twisted", "txredisapi"),
    ),
    "first_run": Rule(("cred.passwords", "cred.users", "regular_file")),
    "cli": Rule(
        (
            "__init__",
            *("check_command", "command_definitions", "command_output"),
            "shell_completion",
            *("control.client", "control.request_lines", "control.socket_file"),
            "cred.users",
            "first_run",
            "guard.bans",
            "mail_commands",
            *("move.move_options", "move.places"),
            "operator_commands",
            "setup.options",
            "state_file",
            "user_commands",
        )
    ),
    "command_definitions": Rule(never=IO_MODULES),
    "shell_completion": Rule(("command_definitions",), never=IO_MODULES),
    "move.move_options": Rule(),
    "move.nodes_file": Rule(never=IO_MODULES),
    "move": Rule(
        (
            *(*BASE, "command_output", "control.client", "control.request_lines", "cred"),
            *("front.map_lines", "mail_commands", "maildir", "regular_file", "replace_file"),
        )
    ),
    "setup.options": Rule(("setup.setup_command",)),
    "setup": Rule(
        (
            *("__init__", "certificates", "check_command", "config", "cred", "endpoints"),
            *("first_run", "process.server_user", "replace_file", "user_commands"),
        ),
        ("OpenSSL", "twisted"),
    ),
    "check_command": Rule(("check_findings", "command_output", "tap"), ("twisted",)),
    "check_findings": Rule(never=IO_MODULES),
    "extras": Rule(()),
    "live_server": Rule(
        ("control.client", "control.request_lines", "control.socket_file", "first_run")
    ),
    "port_check": Rule(("check_findings",)),
    "certificate_check": Rule(("certificates", "check_findings", "tls"), ("OpenSSL",)),
    "config_check": Rule(
        (
            *("auth_option", "certificates", "config", "cred", "edge.ban_command", "endpoints"),
            *("admin.web_ports", "first_run", "process.server_user", "start_checks"),
            *("acme", "certificate_check", "check_findings", "front.backend_address"),
            *("front.backend_check", "front.front_parts", "live_server"),
            "front.map_sources",
            "port_check",
            "shared.guard_sharing",
        )
    ),
    "user_commands": Rule(
        ("cred.password_rules", "cred.passwords", "regular_file", "cred.user_import", "cred.users")
    ),
    "acme.acme_names": Rule(never=IO_MODULES),
    "acme.acme_files": Rule(("config", "replace_file", "unwritable")),
    "acme.acme_client": Rule((), ("acme", "cryptography", "josepy", "requests"), IO_MODULES),
    "acme": Rule(
        (
            "extras",
            "certificates",
            "config",
            "endpoints",
            "service",
            "state_file",
            "tls",
            "web_site",
        ),
        ("twisted",),
    ),
    "admin.web_sessions": Rule(("guard",), never=IO_MODULES),
    "admin.metrics": Rule(("observe.reactor_delay",), ("prometheus_client",)),
    "admin": Rule(
        (
            "extras",
            *("auth_option", "certificates", "config", "control.request_lines", "cred.checkers"),
            *("cred.users", "endpoints", "guard", "observe", "web_site"),
        ),
        ("twisted",),
    ),
    "web_site": Rule(("guard.networks", "guard.rates"), ("twisted",)),
    "control.arguments": Rule(("observe.talkers",), never=IO_MODULES),
    "control.request_lines": Rule(("control.arguments",), never=IO_MODULES),
    "control.socket_file": Rule(("control.request_lines",)),
    "control.client": Rule(("control.request_lines",)),
    "control": Rule(
        ("__init__", *BASE, "command_output", "edge", "guard", "observe"), ("twisted",)
    ),
    "operator_ports": Rule(
        (
            *("admin", "certificates", "config", "control", "edge.factory", "events", "observe"),
            *("first_run", "service"),
        ),
        ("twisted",),
    ),
    "operator_commands": Rule(
        (
            *("advise_command", "command_output", "node_output"),
            *("control.client", "control.request_lines", "control.socket_file"),
        )
    ),
    "command_output": Rule(()),
    "node_output": Rule(("command_output",)),
    "advise_command": Rule(("command_output", "observe.limit_advice")),
    "connection_errors": Rule((), ("twisted",)),
    "regular_file": Rule(()),
    "replace_file": Rule(()),
    "unwritable": Rule(()),
    "state_file": Rule(("guard",)),
    "guard_state": Rule(("guard", "state_file"), ("twisted",)),
    "mail_commands": Rule((*BASE, "live_server", "maildir")),
    "__main__": Rule(("cli",)),
    "__init__": Rule(("limits", "cred.realm", "edge.factory", "edge.protocol")),
    "service": Rule(("endpoints",), ("twisted",)),
    "limit_options": Rule(("limits",), never=IO_MODULES),
    "config": Rule(
        (
            *(
                "limits",
                "limit_options",
                "acme.acme_names",
                "front.front_options",
                "guard.networks",
            ),
            *("mailbox_name_options", "regular_file"),
            "shared.redis_address",
        ),
        never=IO_MODULES,
    ),
    "tls": Rule(("config", "regular_file"), ("twisted", "OpenSSL", "service_identity")),
    "credentials": Rule(("config",)),
    "certificates": Rule(("config", "credentials", "tls"), ("twisted", "zope", "OpenSSL")),
    "auth_option": Rule(("extras", "config", "credentials", "cred", "regular_file"), ("twisted",)),
    "process.server_user": Rule(()),
    "process.signals": Rule(()),
    "process": Rule(
        (
            *("auth_option", "certificates", "config", "control.request_lines", "cred", "edge"),
            *("guard", "limits", "observe"),
        ),
        ("twisted",),
    ),
    "endpoints": Rule(("certificates", "config"), ("twisted",)),
    "start_checks": Rule(
        (
            "auth_option",
            "certificates",
            "config",
            "cred.realm",
            "first_run",
            "process",
            "unwritable",
        ),
        ("twisted",),
    ),
    "edge": Rule(
        (*BASE, "wire", "guard", "message", "mailbox", "session", "cred"),
        ("twisted", "zope", "OpenSSL"),
    ),
    "workers.division": Rule(("config", "limits"), never=IO_MODULES),
    "workers.link_messages": Rule(
        ("config", "events", "guard.bans", "limits"),
        never=tuple(name for name in IO_MODULES if name != "io"),
    ),
    "workers.link": Rule(("events", "workers.link_messages"), ("twisted",)),
    "workers.inherited_ports": Rule((), ("twisted",)),
    "workers.worker_process": Rule(("config", "process.signals", "tap"), ("twisted",)),
    "workers": Rule(
        (
            *(*BASE, "admin.monitor", "certificates", "command_output", "config", "control"),
            *("cred.checkers", "edge", "endpoints", "guard", "observe", "operator_ports"),
            *("process", "server", "server_parts", "service", "start_checks"),
        ),
        ("twisted", "zope"),
    ),
    "tap": Rule(
        (
            *("__init__", "limits", "config", "guard.memory_budget", "process", "server"),
            *("config_check", "workers.supervising_server"),
        ),
        ("twisted",),
    ),
    "server_parts": Rule(
        (
            *BASE,
            "acme.acme_service",
            "auth_option",
            "certificates",
            "config",
            "config_check",
            "cred",
            "edge",
            "first_run",
            "free_memory",
            "front.front_parts",
            "guard",
            "guard_state",
            "observe",
            "operator_ports",
            "process",
            "shared.guard_sharing",
            "start_checks",
            "state_file",
        ),
        ("twisted",),
    ),
    "server": Rule(
        (
            "__init__",
            "acme.acme_service",
            "certificates",
            "config",
            "cred.checkers",
            "edge.gate",
            "endpoints",
            "first_run",
            "guard.shares",
            "process.process_control",
            "server_parts",
            "service",
            "start_checks",
        ),
        ("twisted",),
    ),
}

# In these packages, a module imports only from earlier rows, or from its own row if that closes no cycle.
ORDER = {
    "session": (
        ("connection",),
        ("state",),
        (
            *("background", "command_spec", "fetch_responses", "mailbox_names", "progress"),
            "uid_collection",
        ),
        (
            "capabilities",
            "catenate",
            "new_messages",
            "notifications",
            "search_contexts",
            "sort_keys",
        ),
        ("session",),
        ("handlers",),
        ("table",),
        ("dispatcher",),
    ),
    "edge": (
        (
            "ban_command",
            "channel_binding",
            "tls_failures",
            "fair_queue",
            "input_turns",
            "peer",
            "user_turns",
        ),
        ("event_reporter",),
        ("idle_timeout", "write_buffer"),
        ("login_checks", "memory_share", "spool"),
        ("admission",),
        ("shared_parts",),
        ("connection_owner", "proxy"),
        ("answer_delay", "client_peaks", "gate"),
        (
            "authentication",
            "compress",
            "flow_control",
            "long_input",
            "reading_check",
            "write_timeout",
        ),
        ("session_io",),
        ("command_runner",),
        ("protocol",),
        ("factory",),
    ),
}
