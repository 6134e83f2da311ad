"""Turns the answers into the steps of `setup`: what is written where, for which owner."""

import json
import os
import shlex
import time
from collections.abc import Sequence
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

from imapshield.cred.realm import MailRoot
from imapshield.first_run import FirstRunFolder
from imapshield.setup.answers import Answers
from imapshield.setup.installation import (
    SYSTEM_STATE,
    SYSTEM_USER,
    Installation,
    acting_as,
    can_read,
    group_of,
)
from imapshield.setup.steps import ActingAs, Directory, File, Owner, Password, Step, SystemUser
from imapshield.setup.unit_file import contrib, unit_file

HOST_COMMENT = "# Clients connect to "
"""How the line of the configuration begins that has the name of the host, for the next run of `setup`."""

_HOOKS = "/etc/letsencrypt/renewal-hooks/deploy"


def listen_of(answers: Answers, installation: Installation) -> tuple[str, ...]:
    """Return the endpoints: without a certificate on this machine only, without root above port 1024."""
    if answers.listen:
        return answers.listen
    plain, tls = ("143", "993") if installation.is_system else ("1143", "1993")
    if answers.certificate is None:
        return (f"tcp:{plain}:interface=127.0.0.1",)
    return (f"tcp:{plain}", f"imaps:{tls}")


def copied_certificate(
    answers: Answers, installation: Installation
) -> tuple[str | None, str | None]:
    """Return where the server reads certificate and key: copies, if its user cannot read the files themselves."""
    if answers.certificate is None:
        return None, None
    if can_read(answers.server_user, [path for path in (answers.certificate, answers.key) if path]):
        return answers.certificate, answers.key
    copies = [os.path.join(installation.tls, name) for name in ("fullchain.pem", "privkey.pem")]
    return copies[0], copies[1] if answers.key else None


def make_plan(answers: Answers, installation: Installation) -> list[Step]:
    """Return the steps, in the order in which they are done."""
    user, group = answers.server_user, group_of(answers.server_user)
    server = Owner(user, group)
    reader = Owner("root" if installation.is_system else user, group)
    steps: list[Step] = [SystemUser(SYSTEM_USER, installation.state)] if user == SYSTEM_USER else []
    folder, mode = os.path.dirname(installation.config), 0o640 if installation.is_system else 0o600
    steps.append(Directory(folder, 0o750 if installation.is_system else 0o700, reader))
    steps.append(Directory(installation.state, 0o700, server))
    steps += _mail(answers, server)
    steps += _certificate(answers, installation, reader)
    if answers.password is not None:
        steps.append(Password(installation.users, answers.user, answers.password, mode, reader))
    steps.append(
        File(installation.config, config_text(answers, installation).encode(), mode, reader)
    )
    if answers.start == "systemd":
        steps.append(Directory(installation.units, 0o755, reader))
        certificates = [path for path in copied_certificate(answers, installation) if path]
        root = Owner(reader.user, "root" if installation.is_system else group)
        steps.append(
            File(
                installation.unit,
                unit_file(answers, installation, certificates).encode(),
                0o644,
                root,
            )
        )
    return steps


def _mail(answers: Answers, server: Owner) -> list[Step]:
    """Return the steps for the mail: the directory above the Maildirs, and for a new user a Maildir with a message."""
    root = MailRoot(answers.mail_root)
    steps: list[Step] = [Directory(root.base, 0o700, server)]
    maildir = root.maildir(answers.user)
    # Beside Maildirs that belong to their users, the first login makes it, with the right owner.
    is_shared = server.user == "root" and os.path.isdir(root.base) and os.listdir(root.base)
    with acting_as(server.user).acting():
        is_new = not os.path.lexists(maildir)
    if is_new and not is_shared:
        folders = [maildir, *(os.path.join(maildir, name) for name in ("cur", "tmp", "new"))]
        above = os.path.dirname(maildir)
        folders = folders if above == root.base else [above, *folders]
        below: list[Step] = [Directory(path, 0o700, server) for path in folders]
        name = f"{int(time.time())}.{os.getpid()}.imapshield-setup"
        path = os.path.join(maildir, "new", name)
        below.append(File(path, _welcome(answers), 0o600, server, is_new=True))
        steps += [ActingAs(server.user, step) for step in below]
    return steps


def _welcome(answers: Answers) -> bytes:
    message = EmailMessage()
    message["From"] = "imapshield <postmaster@localhost>"
    message["To"] = answers.user if "@" in answers.user else f"{answers.user}@{answers.host}"
    message["Subject"] = "Welcome to imapshield"
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain="imapshield.invalid")
    message.set_content(
        "Your mail server works. `imapshield setup` has put this message into your new\n"
        "mailbox; it can be deleted.\n"
    )
    return message.as_bytes()


def _certificate(answers: Answers, installation: Installation, reader: Owner) -> list[Step]:
    """Return the steps that copy certificate and key, and let certbot do it again after each renewal."""
    certificate, key = copied_certificate(answers, installation)
    if certificate == answers.certificate:
        return []
    steps: list[Step] = [Directory(installation.tls, 0o750, reader)]
    for source, target in ((answers.certificate, certificate), (answers.key, key)):
        if source is not None and target is not None:
            with open(source, "rb") as file:
                steps.append(File(target, file.read(), 0o640, reader, is_secret=True))
    if needs_hook(answers, installation):
        hook = hook_text(answers).encode()
        steps.append(Directory(_HOOKS, 0o755, Owner("root", "root")))
        steps.append(File(f"{_HOOKS}/imapshield", hook, 0o755, Owner("root", "root")))
    return steps


def hook_text(answers: Answers) -> str:
    """Return certbot's hook for this certificate only: the others are not of this server."""
    assert answers.certificate is not None
    lineage = shlex.quote(os.path.dirname(answers.certificate))
    line = "LINEAGE=${LINEAGE:-}\n"
    before, line, after = contrib("certbot/deploy-hook").partition(line)
    assert line, "the hook of contrib has another line for its certificate"
    return f"{before}LINEAGE={lineage}\n{after}"


def needs_hook(answers: Answers, installation: Installation) -> bool:
    """Return whether certbot can copy a renewed certificate: its hook knows the usual directory only."""
    is_certbots = (answers.certificate or "").startswith("/etc/letsencrypt/live/")
    return is_certbots and installation.tls == "/etc/imapshield/tls"


def config_text(answers: Answers, installation: Installation) -> str:
    """Return the configuration file: each option with the reason for it."""
    certificate, key = copied_certificate(answers, installation)
    listen = listen_of(answers, installation)
    command = f"imapshield check-config --config {installation.config}"
    control = control_path(answers, installation)
    reload = "imapshield reload" + (
        f" --control {shlex.quote(control)}" if control is not None else ""
    )
    lines = [
        "# The configuration of imapshield, written by `imapshield setup`. docs/running.rst explains all options.",
        f"# After a change, `{command}` checks it, and `{reload}` applies it.",
        *("", *_mail_lines(answers)),
        f"mail-root = {_toml(answers.mail_root)}",
        *(
            "",
            f"# Who may log in. `imapshield passwd {installation.users} NAME` adds a user or changes a password.",
        ),
        f"auth = [{_toml('file:' + installation.users)}]",
        *("", *_listen_lines(answers)),
        f"listen = [{', '.join(map(_toml, listen))}]",
    ]
    if certificate is not None:
        lines += [
            "",
            *_certificate_lines(installation, certificate),
            f"certificate = {_toml(certificate)}",
        ]
        lines += [f"key = {_toml(key)}"] if key else []
    lines += ["", "# Bans are kept here over a restart."]
    lines += [f"state = {_toml(os.path.join(installation.state, 'guard.sqlite'))}"]
    if control is not None:
        lines += [
            "",
            f"# `imapshield status --control {shlex.quote(control)}` asks the server here.",
        ]
        lines += [f"control = {_toml(control)}"]
    lines += [
        "",
        "# The limits fit a server with thousands of clients. `twistd imapshield --limit help` explains each.",
        "# [limit]",
        "# max_connections = 2000",
    ]
    return "\n".join(lines) + "\n"


def control_path(answers: Answers, installation: Installation) -> str | None:
    """Return the control socket; None for that which all commands know.

    Only systemd makes /run/imapshield, and a server that root starts for another user cannot write in root's home.
    """
    usual = FirstRunFolder.from_environ(os.environ).folder
    if installation.state == usual or (
        installation.state == SYSTEM_STATE and answers.start == "systemd"
    ):
        return None
    return os.path.join(installation.state, "control")


def _mail_lines(answers: Answers) -> Sequence[str]:
    example = MailRoot(answers.mail_root).maildir(answers.user)
    return [
        f"# The Maildir of {answers.user} is {example}. The server runs as the user {answers.server_user}, who must be",
        "# able to read and write all Maildirs. So must the mail server that delivers into them.",
    ]


def _listen_lines(answers: Answers) -> Sequence[str]:
    lines = [f"{HOST_COMMENT}{answers.host}."]
    if answers.certificate is None:
        return [
            *lines,
            "# Without a certificate, passwords are accepted from this machine only, so nobody else can connect.",
        ]
    return [
        *lines,
        "# A tcp port begins without TLS and refuses passwords until the client has used STARTTLS. An imaps port uses",
        "# TLS from the first byte, as most clients prefer.",
    ]


def _certificate_lines(installation: Installation, certificate: str) -> Sequence[str]:
    is_copy = certificate.startswith(os.path.join(installation.tls, ""))
    what = (
        "A copy that the user of the server can read"
        if is_copy
        else "The certificate with its chain"
    )
    return [f"# {what}. A renewed one is noticed within two seconds."]


def _toml(text: str) -> str:
    """Return a string of TOML. JSON escapes the same characters in the same way, with one exception."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
