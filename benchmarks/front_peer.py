"""The server `BEHIND` of `peers`: Dovecot behind imapshield. Both count as one server."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers import HOST, REPOSITORY, Settings, add_server, dovecot_command, free_port

BEHIND = "dovecot-behind"

# What docs/front.rst says.
_DOVECOT_BEHIND = """\
auth_failure_delay = 0
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
haproxy_trusted_networks = {host}
service imap-login {{
  inet_listener front {{
    address = {host}
    port = {port}
    haproxy = yes
  }}
}}
"""


def _command(state: Path, root: Path, port: int, settings: Settings) -> tuple[Sequence[str], str]:
    """Return the command of imapshield in front of a Dovecot, which is its child: both are one tree of processes."""
    back, own = free_port(), free_port()
    (state / "more.conf").write_text(
        settings.configuration + _DOVECOT_BEHIND.format(host=HOST, port=back)
    )
    dovecot, version = dovecot_command(state, root, own, settings)
    shield = [str(Path(sys.executable).with_name("twistd")), "--nodaemon", "--pidfile="]
    shield += ["imapshield", "--listen", f"tcp:{port}:interface={HOST}"]
    shield += ["--backend", f"tcp:{HOST}:{back}", "--backend-proxy", *settings.options]
    shield += ["--state", str(state / "guard.sqlite")]
    if settings.certificate:
        shield += ["--certificate", str(settings.certificate)]
    command = f"{shlex.join(dovecot)} & PYTHONPATH={REPOSITORY} exec {shlex.join(shield)}"
    return ["/bin/sh", "-c", command], version


add_server(BEHIND, _command)
