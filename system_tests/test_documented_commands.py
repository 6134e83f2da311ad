"""The shell blocks of README.rst and docs/ are run, page by page and in their order, in a directory that stands for /.

Programs in `PROGRAMS_NOT_RUN` do nothing there; each has a reason. What else differs from the page is in this file.
"""

from __future__ import annotations

import contextlib
import functools
import getpass
import imaplib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from system_tests.server import REPOSITORY, TIMEOUT, Server, free_port, wait_until
from tests.documented_commands import (
    PROGRAMS_NOT_RUN,
    Block,
    kind,
    literal_blocks,
    pages,
    script,
)

PASSWORD = "tin9-Whale-quartz"  # noqa: S105, of a test
PROGRAMS = os.path.dirname(sys.executable)

SERVER = (
    "twistd imapshield --mail-root /srv/mail --auth file:/etc/imapshield/users --listen tcp:143"
)

PLACEHOLDERS = {
    "ADDRESS": "127.0.0.1",
    "DIR_OR_PATTERN": "/srv/mail",
    "FILE": "/etc/imapshield/users",
    "NETWORK": "192.0.2.0/24",
    "SOURCE": "/etc/passwd-file",
    "USER": "alice",
    "WHO": "127.0.0.1",
}

CHANGES = (
    # What is optional in a synopsis, and is not for each Maildir.
    ("[--index DIR_OR_PATTERN] [--follow-symlinks] [--repair] [--moved]", "--repair --moved"),
    (
        "curl --user bob@example.org 'imaps://mail.example.org/INBOX;UID=1'",  # no mail has been delivered
        f"curl --cacert /etc/ssl/mail.pem --connect-to ::localhost:993 -u bob:{PASSWORD} imaps://mail.example.org/",
    ),
    ("why 192.0.2.7", "why 127.0.0.1"),
    ("trace WHO [--for 10m]", "trace WHO --for 1s"),
    ("imapshield setup", "imapshield setup --yes --dry-run --user alice"),  # it would write to /etc
    ("imapshield check-config", "check_config"),
    ("imapshield move ", "imapshield move --help "),  # it needs two nodes; test_move has them
    # test_front has the backends, and test_nodes the command.
    (
        "twistd imapshield --listen tcp:143 --listen imaps:993 --certificate mail.pem --backend ",
        ": a shield for ",
    ),
    (
        "twistd -n imapshield --listen tcp:11143 --listen imaps:11993 --certificate mail.pem --backend ",
        ": a shield for ",
    ),
    ("\nimapshield nodes", "\nimapshield nodes --help"),
    ("-u alice\n", f"-u alice:{PASSWORD}\n"),
    ("curl --cacert mail.pem", f"{SERVER} --certificate mail.pem\ncurl --cacert mail.pem"),
    ("python -m benchmarks.run ", "python -m benchmarks.run --help "),
    ("/opt/imapshield/bin/imapshield", "imapshield"),
    ("/opt/imapshield/bin/twistd", "twistd"),
    (".venv/bin/", ""),
    ("-m twisted.trial tests", "-m twisted.trial --help"),
)
"""Texts of blocks, and what takes their place: tests that run elsewhere, and what would ask for a password or wait."""

BEFORE = {
    "README.rst": {"mkdir /etc/imapshield": "rm -r /etc/imapshield; mkdir -p /etc/ssl"},
    "docs/backup.rst": {
        "imapshield export-uids": f"{SERVER}; curl -s imap://localhost:143/INBOX -u alice:{PASSWORD}; stop_servers",
    },
    # It needs the password that the server above has printed; test_readme runs it.
    "docs/first-mail.rst": {'curl "imap:': "curl() { true; }"},
    "docs/household.rst": {
        "testsaslauthd": "twistd imapshield --config /etc/imapshield/config.toml",
        "certbot": "mkdir -p /etc/imapshield/tls /var/lib/imapshield/mail",  # systemd-tmpfiles does that
    },
    "docs/operating.rst": {
        "imapshield status": (
            "twistd imapshield --config /etc/imapshield/config.toml --admin tcp:8143\n"
            "curl -s imap://localhost:143/ -u alice:wrong || test $? = 67\n"  # an end, for `imapshield why`
            "exec 9<>/dev/tcp/localhost:143"  # a connection, for `imapshield kick`
        ),
    },
    "docs/running.rst": {
        "systemctl stop imapshield": "stop_servers",
        "install -d -m 750": "rm -r /etc/imapshield /srv/mail",
        "install -m 755 contrib/certbot": "mkdir /etc/imapshield/tls",  # systemd-tmpfiles does that
        "openssl req": "stop_servers; imapshield passwd /etc/imapshield/users alice",
    },
    "docs/workers.rst": {"twistd imapshield": "cp /etc/ssl/mail.pem ."},
}
"""By page and by the beginning of a block: what has to be done before, for what a reader does between the blocks."""

TWISTD = """#!/bin/bash
# Starts a server in the background, and ends when it serves.
log=$(mktemp) || exit 1
"{twistd}" --nodaemon --pidfile= "$@" >"$log" 2>&1 </dev/null &
echo $! >>"{root}/pids"
for _ in $(seq 600); do
    if grep -q 'serving at' "$log"; then exit 0; fi
    if ! kill -0 $! 2>/dev/null; then break; fi
    sleep 0.1
done
cat "$log" >&2
exit 1
"""

PRELUDE = """set -eu
check_config() { imapshield check-config "$@" || test $? = 1; }  # 1 is a warning: no Maildir yet
sudo() { while [[ $1 == -* ]]; do if [ "$1" = -u ]; then shift; fi; shift; done; "$@"; }
python3() { if [ "${1-} ${2-}" != "-m venv" ]; then command python3 "$@"; fi; }
stop_servers() {
    for pid in $(cat /pids); do
        kill "$pid"
        while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
    done
    : >/pids
}
"""


@functools.cache
def port(_documented: str) -> int:
    """Return the free port that stands for a documented one."""
    return free_port()


@functools.cache
def temporary() -> tempfile.TemporaryDirectory[str]:
    """Return a directory for all tests, with a path that is short enough for sockets."""
    return tempfile.TemporaryDirectory(prefix="documented-")


@functools.cache
def mail() -> str:
    """Return a directory with a password file for two users, and their Maildirs with indexes."""
    root = os.path.join(temporary().name, "mail")
    users = f"{root}/etc/imapshield/users"
    os.makedirs(os.path.dirname(users))
    subject = [
        "-subj",
        "/CN=mail.example.org",
        "-addext",
        "subjectAltName=DNS:mail.example.org,DNS:localhost",
    ]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "60", *subject,
         "-keyout", f"{root}/mail.pem", "-out", f"{root}/mail.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    command = [f"{PROGRAMS}/imapshield", "passwd", users]
    for pattern, names in (
        ("srv/mail/{user}", ("alice", "bob")),
        ("home/{user}/Maildir", ("alice",)),
    ):
        os.makedirs(os.path.join(root, pattern.partition("{")[0]))
        for name in names:
            subprocess.run(
                [*command, name], input=f"{PASSWORD}\n", text=True, check=True, capture_output=True
            )
        server = Server(
            "--mail-root", f"{root}/{pattern}", "--auth", f"file:{users}", "--control", "none"
        )
        try:
            server.wait_ready()
            for name in names:
                with imaplib.IMAP4("127.0.0.1", server.port, timeout=TIMEOUT) as client:
                    client.login(name, PASSWORD)
                    client.append("INBOX", "", "", b"Subject: Kept\r\n\r\nHello\r\n")
        finally:
            server.stop()
    return root


class Machine:
    """A directory that stands for /, with two users, their mail and a certificate."""

    def __init__(self, root: str) -> None:
        self.root = root
        for path in (
            "backup", "etc/imapshield", "etc/letsencrypt/renewal-hooks/deploy",
            "etc/letsencrypt/live/mail.example.org", "etc/ssl", "etc/sudoers.d",
            "etc/systemd/system", "etc/sysusers.d", "etc/tmpfiles.d", "home/alice", "opt/imapshield/bin",
            "run/imapshield", "srv", "usr/local/bin", "usr/local/sbin", "var/lib", "work",
        ):  # fmt: skip
            os.makedirs(os.path.join(root, path))
        os.symlink(root, self.path("other"))  # the other machine of an rsync, with the same mail
        self.write(
            "opt/imapshield/bin/twistd", TWISTD.format(twistd=f"{PROGRAMS}/twistd", root=root)
        )
        for name in ("imapshield", "python"):
            text = f'#!/bin/sh\nexec "{PROGRAMS}/{name}" "$@"\n'
            self.write(f"opt/imapshield/bin/{name}", text)
        os.symlink("../opt/imapshield/bin", self.path("usr/sbin"))
        os.symlink(f"{REPOSITORY}/contrib", self.path("work/contrib"))
        for name in PROGRAMS_NOT_RUN:
            self.write(f"opt/imapshield/bin/{name}", "#!/bin/sh\n")
        self.write("pids", "")
        shutil.copy(f"{mail()}/mail.pem", self.path("etc/ssl/mail.pem"))
        for name in ("privkey.pem", "fullchain.pem"):
            shutil.copy(
                self.path("etc/ssl/mail.pem"),
                self.path("etc/letsencrypt/live/mail.example.org", name),
            )
        self.write("work/message.eml", "Subject: Delivered\n\nHello\n")
        self.write("etc/passwd-file", "carol:{SSHA}HuAlCYSPbKEWJZqI1XhQyFUkZGNqjaLx9O9DoQ==\n")
        self.write("etc/imapshield/config.toml", self.as_here(
            'listen = ["tcp:143"]\nmail-root = "/srv/mail"\nauth = ["file:/etc/imapshield/users"]\n'
            'state = "/var/lib/guard.sqlite"\n'
        ))  # fmt: skip
        for name in ("etc/imapshield/users", "srv/mail", "home/alice/Maildir"):
            copy = shutil.copytree if os.path.isdir(f"{mail()}/{name}") else shutil.copy
            copy(f"{mail()}/{name}", self.path(name))

    def path(self, *parts: str) -> str:
        return os.path.join(self.root, *parts)

    def write(self, name: str, text: str) -> None:
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(self.path(name), 0o755 if text.startswith("#!") else 0o600)

    def write_file(self, path: str, text: str) -> None:
        """Write a file that a page shows with its path."""
        os.makedirs(os.path.dirname(self.root + path), exist_ok=True)
        self.write(path.removeprefix("/"), self.as_here(text) + "\n")

    def as_here(self, text: str) -> str:
        """Return a script with the paths, ports, placeholders and users of this machine."""
        for name, value in PLACEHOLDERS.items():
            text = re.sub(rf"\b{name}\b", value, text)
        top = "backup|etc|home|opt|pids|run|srv|usr|var"
        text = re.sub(
            rf"(?<![\w./}}])/({top})(?=[/\s'\";)]|$)", rf"{self.root}/\1", text, flags=re.MULTILINE
        )
        text = text.replace(f"mail.example.org:{self.root}", f"{self.root}/other")
        text = re.sub(r"\b(tcp|imaps):(\d+)(:interface=[\d.]+)?", self._endpoint, text)
        text = re.sub(r"localhost:(\d+)", lambda match: f"localhost:{port(match[1])}", text)
        text = text.replace("/dev/tcp/localhost:", "/dev/tcp/127.0.0.1/")
        return re.sub(r"(-[og]|--[ug]id|-R) (mail|imapshield|root:root)\b", self._owner, text)

    def _endpoint(self, match: re.Match[str]) -> str:
        return f"{match[1]}:{port(match[2])}:interface=127.0.0.1"

    def _owner(self, match: re.Match[str]) -> str:
        name = getpass.getuser() if match[1] in ("-o", "--uid", "-R") else str(os.getgid())
        return f"{match[1]} {name}"

    def run(self, text: str) -> str:
        """Run a script and return what it prints. Each password that it asks for is `PASSWORD`."""
        for old, new in CHANGES:
            text = text.replace(old, new)
        text = re.sub(
            r" \[([A-Z-][^]\[\n]*)\](?= |$)", r" \1", text, flags=re.MULTILINE
        )  # of a synopsis
        passwords = f"yes {shlex.quote(PASSWORD)} 2>/dev/null |"
        here = self.as_here(PRELUDE + text)
        done = subprocess.run(
            ["bash", "-c", f"{passwords} bash -c {shlex.quote(here)}"],
            cwd=self.path("work"), capture_output=True, text=True, timeout=120, check=False,
            env={
                **{name: os.environ[name] for name in ("LANG",) if name in os.environ},
                "PYTHONPATH": REPOSITORY,
                "TARGET": self.path("etc/imapshield/tls"),  # of contrib/certbot/deploy-hook
                "HOME": self.path("home/alice"),
                "SECRET": PASSWORD,
                "PATH": f"{self.path('opt/imapshield/bin')}:{os.environ['PATH']}",
            },
        )  # fmt: skip
        assert done.returncode == 0, f"{here}\n{done.stdout}{done.stderr}"
        return done.stdout

    def stop(self) -> None:
        """End the servers that blocks have started."""
        with (
            contextlib.suppress(FileNotFoundError),
            open(self.path("pids"), encoding="ascii") as file,
        ):
            for pid in map(int, file):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
                wait_until(lambda pid=pid: not os.path.exists(f"/proc/{pid}"))  # type: ignore[misc]


class DocumentedCommandTests(SynchronousTestCase):
    def run_page(self, page: str) -> dict[str, str]:
        """Run the shell blocks of a page, and return what each has printed by its first line."""
        machine = Machine(os.path.join(temporary().name, re.sub(r"\W", "", page)))
        self.addCleanup(machine.stop)
        printed = {}
        for block in literal_blocks(page):
            if block.file:
                machine.write_file(block.file, block.text)
            elif kind(block) == "shell":
                try:
                    printed[block.text.split("\n")[0]] = machine.run(
                        before(block) + script(block.text) + "\n"
                    )
                except AssertionError as error:
                    self.fail(f"{block}: {error}")
        return printed


def before(block: Block) -> str:
    """Return what has to be done before a block."""
    table = BEFORE.get(block.page, {})
    return "".join(text + "\n" for start, text in table.items() if block.text.startswith(start))


def add_tests() -> None:
    """Give each page with shell blocks a test of its own."""
    for page in pages():
        if any(kind(block) == "shell" for block in literal_blocks(page)):
            name = re.sub(r"\W", "_", page.removesuffix(".rst").removeprefix("docs/")).lower()

            def test(self: DocumentedCommandTests, page: str = page) -> None:
                self.run_page(page)

            test.__doc__ = f"The commands of {page} succeed."
            setattr(DocumentedCommandTests, f"test_{name}", test)


add_tests()
