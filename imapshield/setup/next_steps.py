"""What `setup` prints at its end: how to start the server, and what a mail client needs."""

import shlex
from collections.abc import Sequence

from OpenSSL import crypto

from imapshield.setup.answers import Answers
from imapshield.setup.installation import Installation, group_of, program
from imapshield.setup.plan import control_path, copied_certificate, needs_hook


def next_steps(answers: Answers, installation: Installation, listen: Sequence[str]) -> str:
    """Return the text.

    Args:
        answers: the answers.
        installation: the paths.
        listen: the endpoints of the configuration.
    """
    lines = ["Start it:", *(f"    {line}" for line in _start(answers, installation)), ""]
    lines += ["A mail client needs:", *(f"    {line}" for line in _client(answers, listen)), ""]
    lines += ["Then:"]
    for command, purpose in _more(answers, installation):
        lines += [f"    {command}", f"        {purpose}"]
    return "\n".join(lines)


def _start(answers: Answers, installation: Installation) -> list[str]:
    if answers.start == "systemd":
        user = [] if installation.is_system else ["--user"]
        lines = [shlex.join(["systemctl", *user, "daemon-reload"])]
        lines += [shlex.join(["systemctl", *user, "enable", "--now", "imapshield"])]
        return lines if installation.is_system else [*lines, "loginctl enable-linger"]
    command = [program("twistd"), "--nodaemon", "--pidfile="]
    if installation.is_system and answers.server_user != "root":
        command += ["--uid", answers.server_user, "--gid", group_of(answers.server_user)]
    return [shlex.join([*command, "imapshield", "--config", installation.config])]


def _client(answers: Answers, listen: Sequence[str]) -> list[str]:
    """Return the settings of a mail client, and a command to try them; without TLS only for this machine."""
    lines = []
    for text in listen:
        kind, *rest = text.split(":")
        port = next((part for part in rest if part.isdecimal()), "993")
        is_local = "interface=127.0.0.1" in rest
        host = "127.0.0.1" if is_local and answers.certificate is None else answers.host
        security = {"imaps": "SSL/TLS"}.get(
            kind, "none" if answers.certificate is None else "STARTTLS"
        )
        lines.append(f"server {host}, port {port}, security {security}, user {answers.user}")
        address = f"[{host}]" if ":" in host else host
        if kind in ("imaps", "tcp"):
            scheme = "imaps" if kind == "imaps" else "imap"
            tls = [] if answers.certificate is None else _authority(answers.certificate)
            tls += ["--ssl-reqd"] if security == "STARTTLS" else []
            url = f"{scheme}://{address}:{port}/INBOX;MAILINDEX=1"
            lines.append(f"    try: {shlex.join(['curl', *tls, url, '-u', answers.user])}")
    if answers.certificate is None:
        lines.append(
            "From this machine only. To serve others, run `imapshield setup` again with a certificate, or let the"
            " server get one: docs/running.rst, --acme."
        )
    return lines


def _authority(certificate: str) -> list[str]:
    """Return the option of curl that makes it trust a certificate of no authority."""
    with open(certificate, "rb") as file:
        leaf = crypto.load_certificate(crypto.FILETYPE_PEM, file.read())
    return ["--cacert", certificate] if leaf.get_issuer() == leaf.get_subject() else []


def _more(answers: Answers, installation: Installation) -> list[tuple[str, str]]:
    tool = shlex.quote(program("imapshield"))
    path = control_path(answers, installation)
    control = f" --control {shlex.quote(path)}" if path else ""
    more = [
        (f"{tool} status{control}", "shows what the server does; `top`, `who` and `why` tell more"),
        (
            f"{tool} passwd {shlex.quote(installation.users)} NAME",
            "adds a user, or changes a password",
        ),
        (
            f"{tool} check-config --config {shlex.quote(installation.config)}",
            "checks the configuration after a change",
        ),
    ]
    certificate, key = copied_certificate(answers, installation)
    if certificate != answers.certificate and not needs_hook(answers, installation):
        assert answers.certificate is not None and certificate is not None
        pairs = [(answers.certificate, certificate)] + (
            [(answers.key, key)] if answers.key and key else []
        )
        options = f"install -m 640 -g {shlex.quote(group_of(answers.server_user))}"
        command = " && ".join(f"{options} {shlex.join(pair)}" for pair in pairs)
        more.append((command, "after each renewal of the certificate"))
    return more
