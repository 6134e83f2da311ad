"""Checks a configuration without starting the server: what would fail, what is unusual, and what clients will see."""

import errno
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from OpenSSL import crypto

from imapshield.admin.web_ports import check_metrics
from imapshield.auth_option import check_auth_file, make_chain, make_checker, mechanisms, user_names
from imapshield.certificates import EXPIRY_DAYS, Certificates, PairFiles, pair_files
from imapshield.config import ConfigError, Settings
from imapshield.cred.checkers import CheckerUnavailable, PasswordFile
from imapshield.cred.realm import MailRoot
from imapshield.cred.users import BadUserName
from imapshield.edge.ban_command import parse_command
from imapshield.endpoints import is_proxied, listen_endpoint, uses_tls
from imapshield.first_run import FirstRunFolder
from imapshield.process.server_user import ServerUser
from imapshield.start_checks import check_mail_directories

MAX_USERS = 20
"""Users whose Maildirs have a line each; of the others there is a number."""

OK, WARNING, ERROR = range(3)
"""How serious a finding is. The highest one is the exit status."""

_LABELS = "ok", "warning", "error"
_WORDS = "error", "warning"

Finding = tuple[int, str]


def check(settings: Settings, user: ServerUser, reactor: Any) -> tuple[int, list[str]]:
    """Check a configuration. Nothing is started or changed.

    Args:
        settings: the configuration.
        user: the user of the server, with whose rights users and mail are looked at.
        reactor: the reactor, which need not run.

    Returns:
        The exit status, 0 if all is well, 1 if there are warnings, 2 if there are errors; and the lines to print.
    """
    certificates, checkers = Certificates(reactor), list[Any]()
    findings: list[Finding] = []
    for part in (
        lambda: _certificate(settings, certificates),
        lambda: _options(settings),
        lambda: _users(settings, reactor, user, checkers),
        lambda: _mail(settings, user, checkers),
        lambda: _endpoints(settings, certificates, checkers, reactor),
    ):
        findings += _until_error(part)
    status = max((severity for severity, _ in findings), default=OK)
    lines = [f"{_LABELS[severity]:<9}{text}" for severity, text in findings]
    numbers = [sum(1 for severity, _ in findings if severity == n) for n in (ERROR, WARNING)]
    counts = (f"{n} {word}{'' if n == 1 else 's'}" for n, word in zip(numbers, _WORDS, strict=True))
    lines.append(f"{', '.join(counts)}; nothing was started or changed")
    return status, lines


def _until_error(part: Callable[[], Iterator[Finding]]) -> list[Finding]:
    findings: list[Finding] = []
    try:
        findings.extend(part())
    except (ConfigError, CheckerUnavailable) as error:
        findings.append((ERROR, str(error)))
    except OSError as error:
        findings.append((ERROR, f"{error.filename}: {error.strerror}"))
    return findings


def _certificate(settings: Settings, certificates: Certificates) -> Iterator[Finding]:
    if settings.certificate is None:
        return
    files = pair_files(settings.certificate, settings.key)
    source = certificates.main = certificates.add(files)
    option = f"--certificate {settings.certificate}"
    for each in source.certificates:
        names = b", ".join(each.names).decode("ascii", "replace") or "no host name"
        days = (each.expires - datetime.now(UTC)).days
        severity = OK if days > EXPIRY_DAYS else WARNING if days >= 0 else ERROR
        advice = "" if severity == OK else "; renew it"
        yield severity, f"{option}: for {names}, valid until {each.expires:%Y-%m-%d}{advice}"
    yield from _chain(option, files)


def _chain(option: str, files: PairFiles) -> Iterator[Finding]:
    """Look at what certificates clients will get."""
    with open(files.certificate, "rb") as file:
        end = b"-----END CERTIFICATE-----"
        parts = file.read().split(end)[:-1]
    chain = [crypto.load_certificate(crypto.FILETYPE_PEM, part + end) for part in parts]
    leaf = chain[0]
    starts = datetime.strptime((leaf.get_notBefore() or b"")[:14].decode(), "%Y%m%d%H%M%S")
    if starts.replace(tzinfo=UTC) > datetime.now(UTC) + timedelta(minutes=1):
        yield ERROR, f"{option}: valid only from {starts:%Y-%m-%d}; check the clock of this machine"
    if leaf.get_issuer() == leaf.get_subject():
        yield WARNING, f"{option}: is signed by itself; clients ask whether to trust it"
    elif len(chain) == 1:
        yield (
            WARNING,
            f"{option}: has no chain, and many clients refuse it; name the file with the chain, such as fullchain.pem",
        )
    elif chain[1].get_subject() != leaf.get_issuer():
        yield (
            WARNING,
            f"{option}: its second certificate has not issued the first; put the chain in order",
        )
    else:
        yield OK, f"{option}: sent with a chain of {len(chain) - 1}"


def _options(settings: Settings) -> Iterator[Finding]:
    user_names(settings)
    check_metrics(settings)
    if settings.ban_command is not None:
        try:
            parse_command(settings.ban_command)
        except ValueError as error:
            raise ConfigError(f"--ban-command {error}") from None
        yield OK, f"--ban-command {settings.ban_command}: can be executed"
    if settings.limits.report_only:
        yield WARNING, "--report-only: the limits reset no connection and ban nobody"


def _users(
    settings: Settings, reactor: Any, user: ServerUser, checkers: list[Any]
) -> Iterator[Finding]:
    if not settings.auth:
        path = FirstRunFolder.from_environ(os.environ).users
        yield OK, f"no --auth: a demo user, whose password the first start prints, in {path}"
        return
    for text in settings.auth:
        checker = make_checker(reactor, text)
        checkers.append(checker)
        if not isinstance(checker, PasswordFile):
            with user.acting():
                check_auth_file(text)
            yield OK, f"--auth {text.partition(':')[0]}: can be used"
            continue
        with user.acting():
            checker.load()
        number = sum(1 for entry in checker.entries.values() if entry.stored)
        if checker.problem:
            yield WARNING if number else ERROR, f"--auth {text}: {checker.problem}"
        if number:
            yield OK, f"--auth {text}: {number} {'user' if number == 1 else 'users'} can log in"
    with user.acting():
        make_chain(reactor, checkers, settings)
    if settings.master_users is not None:
        yield OK, f"--master-users {settings.master_users}: can be read"


def _mail(settings: Settings, user: ServerUser, checkers: Sequence[Any]) -> Iterator[Finding]:
    if settings.mail_root is None:
        return
    with user.acting():
        check_mail_directories(settings, settings.mail_root)
        root = MailRoot(settings.mail_root)
        files = [checker for checker in checkers if isinstance(checker, PasswordFile)]
        names = sorted({name for file in files for name in file.entries})
        findings = [_maildir(root, name) for name in names]
    findings.sort(key=lambda finding: -finding[0])
    yield from findings[:MAX_USERS]
    for severity, text in ((WARNING, "have no Maildir"), (OK, "have a Maildir")):
        if number := sum(1 for finding in findings[MAX_USERS:] if finding[0] == severity):
            yield severity, f"--mail-root {settings.mail_root}: {number} more users {text}"
    if not names:
        yield OK, f"--mail-root {settings.mail_root}: can be written"


def _maildir(root: MailRoot, name: str) -> Finding:
    try:
        path = root.maildir(name)
    except BadUserName as error:
        return WARNING, f"{name} cannot log in: {error}"
    if os.path.isdir(os.path.join(path, "cur")):
        return OK, f"{name}: {path}"
    advice = "the first login creates it, empty; if there is mail elsewhere, correct --mail-root"
    return WARNING, f"{name}: no Maildir at {path}; {advice}"


def _endpoints(
    settings: Settings, certificates: Certificates, checkers: Sequence[Any], reactor: Any
) -> Iterator[Finding]:
    sasl = _mechanisms(settings, checkers)
    for text in settings.listen:
        try:
            endpoint = listen_endpoint(reactor, text, certificates)
        except ConfigError as error:
            yield ERROR, str(error)
            continue
        # That below TLS has the attribute `endpoint` in Twisted 26, and `_wrappedEndpoint` before.
        tcp = getattr(endpoint, "endpoint", getattr(endpoint, "_wrappedEndpoint", endpoint))
        problem = _bind_problem(tcp)
        if problem is not None:
            yield problem[0], f"--listen {text}: {problem[1]}"
        if uses_tls(text):
            seen = f"TLS, then {', '.join(sasl)}"
        elif certificates.main is not None:
            seen = f"STARTTLS, then {', '.join(sasl)}; before it, passwords only from this machine"
        else:
            plain = [name for name in sasl if not name.endswith("-PLUS")]
            seen = f"no TLS; {', '.join(plain)}, and passwords only from this machine"
        proxied = "behind a proxy: " if is_proxied(text) else ""
        yield OK, f"--listen {text}: clients see {proxied}{seen}"


def _mechanisms(settings: Settings, checkers: Sequence[Any]) -> list[str]:
    """Return how clients can log in: SCRAM only if the one password file has a secret of each user."""
    names = [name.decode() for name in mechanisms(checkers, user_names(settings))]
    if not (len(checkers) == 1 and getattr(checkers[0], "ready", False)):
        names = [name for name in names if not name.startswith("SCRAM")]
    return [*names, "PLAIN", "LOGIN"]


def _bind_problem(endpoint: Any) -> Finding | None:
    """Return why the server could not listen on a TCP endpoint, found by a bind without a listen."""
    port, interface = getattr(endpoint, "_port", None), getattr(endpoint, "_interface", "")
    if not isinstance(port, int) or not isinstance(interface, str):
        return None  # a UNIX socket, or one that the system passes
    # Twisted chooses the family by the address, too: that of an IPv6 endpoint for all addresses is "::".
    family = socket.AF_INET6 if ":" in interface else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((interface, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return WARNING, "another program uses this address, or the server runs already"
        if error.errno == errno.EACCES:
            return WARNING, "permission denied; start as root with twistd --uid, or with systemd"
        if error.errno == errno.EADDRNOTAVAIL:
            return ERROR, "this machine does not have this address; omit interface="
        return ERROR, f"{error.strerror}"
    return None
