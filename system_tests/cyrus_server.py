"""Runs Debian's Cyrus 3.6 with empty mailboxes. `system_tests/install` unpacks it: its package would remove Dovecot."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peers import HOST, Peer, free_port, mail_owner, stop, wait_for_greeting

ROOT = Path(os.environ.get("CYRUS_ROOT", os.path.join(sys.prefix, "cyrus")))
"""Where Debian's packages of Cyrus are unpacked."""

# Debian's defaults, except for the paths, the users, and what docs/front.rst says.
_IMAPD = """\
configdirectory: {state}
defaultpartition: default
partition-default: {state}/mail
altnamespace: no
unixhierarchysep: no
lmtp_downcase_rcpt: yes
allowanonymouslogin: no
autocreate_quota: 0
umask: 077
hashimapspool: true
allowplaintext: yes
servername: localhost
cyrus_user: {owner}
sasl_pwcheck_method: auxprop
sasl_auxprop_plugin: sasldb
sasl_sasldb_path: {state}/sasldb
sasl_auto_transition: no
failedloginpause: 0s
"""
_MASTER = """\
START {{
  recover cmd="{programs}/ctl_cyrusdb -C {state}/imapd.conf -r"
}}
SERVICES {{
  imap cmd="{programs}/imapd -C {state}/imapd.conf -U 30" listen="{host}:{port}" prefork=0 maxchild=400
}}
EVENTS {{
  checkpoint cmd="{programs}/ctl_cyrusdb -C {state}/imapd.conf -c" period=30
}}
"""


@contextmanager
def cyrus_server(users: Sequence[str], password: str) -> Iterator[Peer]:
    """Run Cyrus during the `with` statement. Users get an INBOX when they log in.

    Args:
        users: who may log in.
        password: of all of them.

    Raises:
        RuntimeError: it is not unpacked.
        TimeoutError: it sends no greeting.
    """
    programs = ROOT / "usr/lib/cyrus/bin"
    if not programs.exists():
        raise RuntimeError(f"{programs} not found: run system_tests/install")
    uid, gid = mail_owner()
    state, port = Path(tempfile.mkdtemp(prefix="cyrus-")), free_port()
    values = {"state": state, "port": port, "host": HOST, "programs": programs}
    try:
        (state / "imapd.conf").write_text(_IMAPD.format(owner=pwd.getpwuid(uid).pw_name, **values))
        (state / "cyrus.conf").write_text(_MASTER.format(**values))
        for name in ("db", "log", "mail", "msg", "proc", "quota", "socket", "user"):
            (state / name).mkdir()
        for user in users:
            subprocess.run(
                [ROOT / "usr/sbin/saslpasswd2", "-c", "-p", "-f", state / "sasldb", "-u", "localhost", user],
                input=password, text=True, check=True,
            )  # fmt: skip
        for path in (state, *state.iterdir()):
            os.chown(path, uid, gid)
        process = subprocess.Popen(
            [programs / "master", "-C", state / "imapd.conf", "-M", state / "cyrus.conf", "-p", state / "pid"],
            env={**os.environ, "LD_LIBRARY_PATH": str(ROOT / "usr/lib/x86_64-linux-gnu")},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            wait_for_greeting(process, port)
            yield Peer("cyrus", "Debian", port, process.pid, password=password)
        finally:
            stop(process)
    finally:
        shutil.rmtree(state, ignore_errors=True)
