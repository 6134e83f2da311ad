"""Runs Debian's whole Courier: authdaemond, couriertcpd and imaplogin. Needs root; `system_tests/install` unpacks it.

Courier's paths are compiled in. So it runs in a file system of its own: a folder of links, in which the unpacked
packages are where they would be after an installation.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peers import Peer, free_port, mail_owner, wait_for_greeting
from system_tests.courier import ROOT

_MERGED = ("usr/bin", "usr/sbin", "usr/lib", "usr/lib/x86_64-linux-gnu", "usr/libexec", "etc")
_START = """\
set -e
for folder in host dev proc tmp; do mkdir -p $0/$folder; done
mount --rbind / $0/host
mount --rbind /dev $0/dev
mount -t proc proc $0/proc
mount --rbind /tmp $0/tmp
exec chroot $0 /bin/sh -c '/usr/sbin/authdaemond start; /usr/sbin/imapd start; sleep infinity & wait'
"""


@contextmanager
def courier_server(
    root: Path, users: Sequence[str], password: str, certificate: Path
) -> Iterator[Peer]:
    """Run Courier with Debian's configuration during the `with` statement, as docs/front.rst puts it behind the shield.

    Args:
        root: the folder of the users' Maildirs, below /tmp.
        users: who may log in.
        password: of all of them.
        certificate: a PEM file with a certificate and its key.

    Raises:
        TimeoutError: it sends no greeting.
    """
    port = free_port()
    jail = Path(tempfile.mkdtemp(prefix="courier-"))
    try:
        jail.chmod(0o755)  # for the processes of users
        _link_files(jail)
        _configure(jail / "etc/courier", port)
        # The installation of the packages makes one.
        shutil.copyfile(certificate, jail / "etc/courier/imapd.pem")
        _write_users(jail / "etc/courier", root, users, password)
        # The end of the first process of a PID namespace ends all others, and the mounts.
        process = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "sh", "-c", _START, str(jail)],
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            wait_for_greeting(process, port)
            yield Peer("courier", "Debian", port, process.pid, password=password)
        finally:
            process.kill()
            process.wait(10)
    finally:
        shutil.rmtree(jail, ignore_errors=True)


def _link_files(jail: Path) -> None:
    """Link the files of this machine, and in their place those of Courier where it has them."""
    for name in _MERGED:
        (jail / name).mkdir(parents=True)
        found = {entry: f"/host/{name}/{entry}" for entry in os.listdir(f"/{name}")}
        if os.path.isdir(f"{ROOT}/{name}"):
            found |= {
                entry: f"/host{ROOT}/{name}/{entry}" for entry in os.listdir(f"{ROOT}/{name}")
            }
        for entry, target in found.items():
            if f"{name}/{entry}" not in (*_MERGED, "etc/courier"):
                (jail / name / entry).symlink_to(target)
    for name in ("bin", "sbin", "lib"):
        (jail / name).symlink_to(f"usr/{name}")
    (jail / "lib64").symlink_to("/host/lib64")
    # What the installation of the packages does: a user, folders, and a name by which a script calls another.
    for name, line in ("passwd", "courier:x:999:999::/:/bin/false"), ("group", "courier:x:999:"):
        (jail / "etc" / name).unlink()
        (jail / "etc" / name).write_text(f"{Path('/etc', name).read_text()}{line}\n")
    shutil.copytree(f"{ROOT}/etc/courier", jail / "etc/courier")
    for folder in ("run/courier/authdaemon", "var/lib/courier"):
        (jail / folder).mkdir(parents=True)
    (jail / "usr/bin/makedat").symlink_to("makedat.courier")


def _configure(folder: Path, port: int) -> None:
    """Change the lines that docs/front.rst says, and let Courier take its users from the files of userdb."""
    imapd = folder / "imapd"
    text = imapd.read_text()
    lines = {
        "ADDRESS": "127.0.0.1",
        "PORT": port,
        "MAXDAEMONS": 400,
        "MAXPERIP": 400,
    }
    for name, value in lines.items():
        text = re.sub(rf"^{name}=.*$", f"{name}={value}", text, flags=re.MULTILINE)
    imapd.write_text(text)
    authdaemonrc = folder / "authdaemonrc"
    authdaemonrc.write_text(authdaemonrc.read_text().replace('"authpam"', '"authuserdb"', 1))


def _write_users(folder: Path, root: Path, users: Sequence[str], password: str) -> None:
    """Write the users into the files of userdb."""
    uid, gid = mail_owner()
    hashed = subprocess.run(
        ["openssl", "passwd", "-1", "-stdin"], input=password, capture_output=True, text=True, check=True
    ).stdout.strip()  # fmt: skip
    plain, shadow = [], []
    for user in users:
        plain.append(f"{user}\thome={root}/{user}|mail={root}/{user}|uid={uid}|gid={gid}\n")
        shadow.append(f"{user}\tsystempw={hashed}\n")
    libraries = f"{ROOT}/usr/lib:{ROOT}/usr/lib/x86_64-linux-gnu"
    for name, lines in ("userdb.dat", plain), ("userdbshadow.dat", shadow):
        subprocess.run(
            [f"{ROOT}/usr/lib/courier/courier-authlib/makedatprog", "-", f"{folder}/tmp", f"{folder}/{name}"],
            input="".join(lines) + ".\n", text=True, check=True,
            env={"LD_LIBRARY_PATH": libraries},
        )  # fmt: skip
