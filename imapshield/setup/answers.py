"""The answers to the questions of `setup`. Each is checked at once; an error says what to type instead."""

import ipaddress
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from twisted.internet.task import Clock

from imapshield.certificates import Certificates, PairFiles
from imapshield.config import ConfigError
from imapshield.cred import users
from imapshield.cred.password_rules import weakness
from imapshield.cred.realm import MailRoot
from imapshield.endpoints import listen_endpoint

NO_CERTIFICATE = "none"
STARTS = ("systemd", "hand")

_HOST = re.compile(
    r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"
)
_PORT = re.compile(r"(?:^|:)(?:port=)?([0-9]+)(?=:|$)")
_MAX_PORT = 65535
_LETS_ENCRYPT = "/etc/letsencrypt/live"


class WrongAnswer(Exception):
    """An answer cannot be used. The text says what is wrong, and what to type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """All answers.

    Attributes:
        mail_root: the directory or pattern of the Maildirs.
        host: the name or address to which clients connect.
        certificate: the PEM file of the certificate; None to serve this machine only, without TLS.
        key: the PEM file of the key; None if it is in that of the certificate.
        user: the name of the first user.
        password: the password; None if the user exists, and keeps the present one.
        start: one of `STARTS`.
        listen: the endpoints; empty for the usual ones.
        server_user: the system user that runs the server.
    """

    mail_root: str
    host: str
    certificate: str | None
    key: str | None
    user: str
    password: bytes | None
    start: str
    listen: tuple[str, ...]
    server_user: str


def printable(text: str) -> str:
    """Check that a text can be written into the configuration and shown: no line end, and no byte that is not UTF-8."""
    if not text.isprintable():
        raise WrongAnswer(f"{text!a}: has a character that cannot be printed; type another name")
    return text


def mail_root(text: str) -> str:
    """Check the directory or pattern of the Maildirs, and return it as an absolute path."""
    path = printable(os.path.expanduser(text))
    if not os.path.isabs(path):
        raise WrongAnswer(f"{text}: is not a path; type one that begins with /, such as /srv/mail")
    path = os.path.normpath(path)
    try:
        base = MailRoot(path).base
    except ValueError as error:
        raise WrongAnswer(f"{text}: {error}; type for example /home/{{user}}/Maildir") from None
    if "{" not in path and any(os.path.isdir(os.path.join(path, part)) for part in ("cur", "new")):
        raise WrongAnswer(f"{path}: is the Maildir of one user; {_above(path)}")
    existing = base
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing)
    if not os.path.isdir(existing):
        raise WrongAnswer(f"{existing}: is not a directory; type another path")
    if not os.access(existing, os.W_OK | os.X_OK, effective_ids=True):
        raise WrongAnswer(
            f"{existing}: permission denied; type a path that you can write, or use sudo"
        )
    return path


def _above(path: str) -> str:
    """Return what to type instead of the path of a single Maildir."""
    if os.geteuid() == 0:
        above = os.path.dirname(os.path.dirname(path))
        return f"type {os.path.join(above, '{user}', os.path.basename(path))}, or the directory above all Maildirs"
    name, folder = os.path.basename(os.path.expanduser("~")), os.path.expanduser("~/mail")
    link = f"mkdir -p {shlex.quote(folder)} && ln -s {shlex.quote(path)} {shlex.quote(os.path.join(folder, name))}"
    return f"type the directory above it; `{link}` makes one for the user {name}: {folder}"


def host(text: str) -> str:
    """Check the name or address to which clients connect, and return it in lower case."""
    name = text.lower().rstrip(".")
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        pass
    if name.rpartition(".")[2].isdecimal() or not _HOST.fullmatch(name):
        raise WrongAnswer(
            f"{text}: is not the name of a host; type the name that mail clients use, such as mail.example.org"
        )
    return name


def usual_certificate(host_name: str) -> str:
    """Return the certificate that certbot has for a host, or `NO_CERTIFICATE`."""
    path = os.path.join(_LETS_ENCRYPT, host_name, "fullchain.pem")
    return path if os.path.exists(path) else NO_CERTIFICATE


def certificate(text: str, key: str | None, host_name: str) -> tuple[str | None, str | None]:
    """Check the certificate and its key, and return their absolute paths.

    Args:
        text: the file of the certificate, `NO_CERTIFICATE`, or a directory of certbot.
        key: the file of the key; None for ``privkey.pem`` beside ``fullchain.pem``, or for the file itself.
        host_name: the name that the certificate should have.
    """
    if text == NO_CERTIFICATE:
        if key is not None:
            raise WrongAnswer("a key needs a certificate; type its file, too")
        return None, None
    path = printable(os.path.abspath(os.path.expanduser(text)))
    path = os.path.join(path, "fullchain.pem") if os.path.isdir(path) else path
    beside = os.path.join(os.path.dirname(path), "privkey.pem")
    if key is None and os.path.basename(path) == "fullchain.pem" and os.path.exists(beside):
        key = beside
    key = key and printable(os.path.abspath(os.path.expanduser(key)))
    try:
        (loaded,) = PairFiles(path, key).load(())
    except ConfigError as error:
        reason = re.sub(r"^--\w+ ", "", str(error)).replace("name the file", "type the file")
        reason = reason.replace("with --key", "after that of the certificate")
        reason = reason.replace("name a", "type the path of a")
        raise WrongAnswer(f"{reason}; or type {NO_CERTIFICATE}") from None
    names = [name.decode("ascii", "replace") for name in loaded.names]
    is_name = not re.fullmatch(r"[0-9.]+|.*:.*", host_name)
    if is_name and not {host_name, "*." + host_name.partition(".")[2]} & set(names):
        raise WrongAnswer(
            f"{path}: is for {', '.join(names) or 'no host'}, so clients of {host_name} refuse it;"
            " type another file, or begin again with that name of the host"
        )
    return path, key


def listen(texts: Sequence[str], certificate: str | None, key: str | None) -> tuple[str, ...]:
    """Check the endpoints. Sockets of systemd need not exist yet."""
    certificates = Certificates(Clock())
    if certificate is not None:
        certificates.main = certificates.add(PairFiles(certificate, key))
    for text in map(printable, texts):
        if certificate is None and text.removeprefix("haproxy:").startswith("imaps"):
            raise WrongAnswer(f"--listen {text} needs a certificate; add --certificate PEM")
        if any(int(port) > _MAX_PORT for port in _PORT.findall(text)):
            raise WrongAnswer(f"--listen {text}: a port is at most {_MAX_PORT}")
        try:
            listen_endpoint(Clock(), text, certificates)
        except ConfigError as error:
            if "systemd:" not in text or "LISTEN_FDS" in os.environ:
                raise WrongAnswer(str(error)) from None
    return tuple(texts)


def user(text: str, root: str) -> str:
    """Check the name of the first user."""
    try:
        users.name_in_file(text)
        MailRoot(root).maildir(text)
    except users.BadUserName as error:
        domain = ", such as alice@example.org" if "{domain}" in str(error) else ", such as alice"
        reason = str(error).replace("which --mail-root contains", f"which {root} contains")
        raise WrongAnswer(f"{reason}; type another name{domain}") from None
    return text


def password(given: bytes, name: str) -> bytes:
    """Check the password of the first user."""
    reason = weakness(given, name) if given else "the password is empty; type one"
    if reason:
        raise WrongAnswer(reason)
    return given


def start(text: str) -> str:
    """Check how the server is to be started."""
    found = [each for each in STARTS if text and each.startswith(text.lower())]
    if not found:
        raise WrongAnswer(f"{text}: type systemd or hand")
    return found[0]


def read_password(path: str) -> bytes:
    """Return the first line of a file."""
    try:
        with open(os.path.expanduser(path), "rb") as file:
            return file.readline().rstrip(b"\r\n")
    except OSError as error:
        raise WrongAnswer(f"{path}: {error.strerror}; name a readable file") from None
