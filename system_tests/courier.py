"""Runs the imapd of Courier as a child process, which is logged in already. `system_tests/install` unpacks it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from benchmarks.peers import mail_owner

ROOT = os.environ.get("COURIER_ROOT", os.path.join(sys.prefix, "courier"))
"""Where Debian's packages of Courier are unpacked."""


def courier_command(maildir: Path) -> str:
    """Return a shell command that speaks IMAP on standard input and output, as the owner of the Maildir.

    Raises:
        AssertionError: Courier is not unpacked.
    """
    imapd = f"{ROOT}/usr/bin/imapd"
    if not os.path.exists(imapd):
        raise AssertionError(f"{imapd} not found: run system_tests/install")
    libraries = f"{ROOT}/usr/lib:{ROOT}/usr/lib/x86_64-linux-gnu"
    uid, gid = mail_owner()
    as_owner = f"setpriv --reuid {uid} --regid {gid} --clear-groups " if os.getuid() == 0 else ""
    folder, name = shlex.quote(str(maildir.parent)), shlex.quote(maildir.name)
    return (
        f"cd {folder} && {as_owner}env LD_LIBRARY_PATH={libraries} HOME={folder} AUTHENTICATED=x"
        f" AUTHADDR=x MAILDIR={name} MAILDIRPATH={name} IMAP_CAPABILITY='IMAP4rev1 UIDPLUS'"
        f" IMAP_KEYWORDS=1 IMAP_USELOCKS=0 {imapd} {name}"
        # Without a monitor of files (gamin), an ALERT comes before the greeting.
        " | sed -u '1{/ALERT/d}'"
    )


def courier_session(maildir: Path, *commands: bytes) -> bytes:
    """Run commands in one session, and return what Courier answers."""
    lines = b"".join(b"%d %b\r\n" % item for item in enumerate([*commands, b"LOGOUT"]))
    done = subprocess.run(
        ["/bin/sh", "-c", courier_command(maildir)],
        input=lines, capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout
