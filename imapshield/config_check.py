"""Checks a configuration without starting the server: what would fail, what is unusual, and what clients will see."""

import os
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import replace
from functools import cache, partial
from typing import Any

from imapshield.acme.acme_service import acme_files, acme_pair
from imapshield.acme.challenge_port import challenge_endpoint
from imapshield.admin.web_ports import admin_endpoint, check_admin_auth, metrics_endpoint
from imapshield.auth_option import (
    check_auth_file,
    make_chain,
    make_checker,
    mechanisms,
    readable,
    user_names,
)
from imapshield.certificate_check import check_source
from imapshield.certificates import Certificates, pair_files
from imapshield.check_findings import ERROR, OK, WARNING, Finding
from imapshield.config import ConfigError, Settings
from imapshield.cred.checkers import CheckerUnavailable, PasswordFile
from imapshield.cred.realm import MailRoot
from imapshield.cred.users import BadUserName
from imapshield.edge.ban_command import parse_command
from imapshield.endpoints import DEFAULT_TLS_PORT, is_proxied, listen_endpoint, uses_tls
from imapshield.first_run import FirstRunFolder
from imapshield.front.backend_address import BackendAddress, parse_nodes
from imapshield.front.backend_check import ask_backends
from imapshield.front.front_parts import tls_options_of
from imapshield.front.map_sources import make_source
from imapshield.live_server import live_server
from imapshield.port_check import PortCheck
from imapshield.process.server_user import ServerUser
from imapshield.shared.guard_sharing import check_sharing
from imapshield.start_checks import check_mail_directories, check_shared_indexes

MAX_USERS = 20
"""Users whose Maildirs have a line each; of the others there is a number."""

_FOR_ROOT = ("--listen ", "--certificate ", "--key ", "--admin ", "--metrics ", "--acme-http ")
"""Options of files and ports that the start opens before it gives up root."""

_LABELS = "ok", "warning", "error"
_WORDS = "error", "warning"


def check(settings: Settings, user: ServerUser, reactor: Any) -> tuple[int, list[str]]:
    """Check a configuration. Nothing is started or changed. Backends are asked for their greeting.

    Args:
        settings: the configuration.
        user: the user of the server, with whose rights users and mail are looked at.
        reactor: the reactor, which need not run.

    Returns:
        The exit status, 0 if all is well, 1 if there are warnings, 2 if there are errors; and the lines to print.
    """
    certificates, checkers = Certificates(reactor), list[Any]()
    path = settings.control if settings.control != "none" else None
    ports = PortCheck(cache(lambda: live_server(path).get("endpoints", ())))
    findings: list[Finding] = []
    for part in (
        lambda: _certificate(settings, certificates),
        lambda: _acme(settings, user, certificates),
        lambda: _options(settings),
        lambda: _sharing(settings, user),
        lambda: _users(settings, reactor, user, checkers),
        lambda: _mail(settings, user, checkers),
        lambda: _endpoints(settings, certificates, checkers, reactor, ports),
        lambda: _admin(settings, user, certificates, reactor, ports),
        lambda: _metrics(settings, certificates, reactor, ports),
        lambda: _challenges(settings, reactor, ports),
    ):
        known = len(certificates.sources)
        findings += _until_error(part)
        for source in certificates.sources[known:]:
            findings += _until_error(partial(check_source, source))
    status = max((severity for severity, _ in findings), default=OK)
    lines = [f"{_LABELS[severity]:<9}{text}" for severity, text in findings]
    numbers = [sum(1 for severity, _ in findings if severity == n) for n in (ERROR, WARNING)]
    counts = (f"{n} {word}{'' if n == 1 else 's'}" for n, word in zip(numbers, _WORDS, strict=True))
    lines.append(f"{', '.join(counts)}; nothing was started or changed")
    return status, lines


def restart_problems(
    reactor: Any, running: Settings, main: Any, settings: Settings, changed: Set[str]
) -> list[str]:
    """Return why a restart would fail, as far as the options say so that a reload does not apply.

    A port that only root may open is no problem, and a file of a certificate that only root may read: the server may
    have been started by root.

    Args:
        reactor: the reactor.
        running: the settings of the start.
        main: the `CertificateSource` of the running server, or None.
        settings: those for the restart.
        changed: the names of those settings that need it.
    """
    own = _endpoint_options(running)
    freed = {*own}.difference(_endpoint_options(settings))
    tls = [f"{each} {DEFAULT_TLS_PORT}" for each in freed if uses_tls(each.partition(" ")[2])]
    ports = PortCheck(lambda: own, [*freed, *tls])
    user, certificates = ServerUser(), Certificates(reactor)
    certificates.main = main if settings.certificate or settings.acme else None

    def certificate() -> Iterator[Finding]:
        if certificates.main is None:
            yield from _certificate(settings, certificates)
            yield from _acme(settings, user, certificates)

    parts: dict[str, Callable[[], Iterator[Finding]]] = {
        "certificate acme listen admin metrics": certificate,
        "mail_root index_root workers": lambda: _directories(settings),
        "listen": lambda: _endpoints(settings, certificates, (), reactor, ports),
        "admin admin_auth": lambda: _admin(settings, user, certificates, reactor, ports),
        "metrics": lambda: _metrics(settings, certificates, reactor, ports),
        "acme_http": lambda: _challenges(settings, reactor, ports),
        "ban_command": lambda: _ban_command(settings),
        "guard_redis guard_redis_password guard_secret": lambda: _sharing(settings, user),
    }
    concerned = [part for names, part in parts.items() if changed & {*names.split()}]
    found = [finding for part in concerned for finding in _until_error(part)]
    return [each[1] for each in found if each[0] != OK and not _is_harmless(*each)]


def _endpoint_options(settings: Settings) -> list[str]:
    """Return the options with endpoints."""
    names = ("admin", "metrics", "acme_http")
    others = [f"--{name.replace('_', '-')} {getattr(settings, name)}" for name in names]
    return [*(f"--listen {text}" for text in settings.listen), *others]


def _is_harmless(severity: int, text: str) -> bool:
    """Return whether the server may start although this is wrong: lines of a file, or what root may do."""
    if text.startswith("--admin-auth "):
        return severity == WARNING
    return text.startswith(_FOR_ROOT) and "permission denied" in text.lower()


def _until_error(part: Callable[[], Iterator[Finding]]) -> list[Finding]:
    findings: list[Finding] = []
    try:
        findings.extend(part())
    except ConfigError as error:
        findings += [(ERROR, problem) for problem in error.args]
    except CheckerUnavailable as error:
        findings.append((ERROR, str(error)))
    except OSError as error:
        findings.append((ERROR, f"{error.filename}: {error.strerror}"))
    return findings


def _certificate(settings: Settings, certificates: Certificates) -> Iterator[Finding]:
    if settings.certificate is not None:
        certificates.main = certificates.add(pair_files(settings.certificate, settings.key))
    yield from ()


def _acme(settings: Settings, user: ServerUser, certificates: Certificates) -> Iterator[Finding]:
    if not settings.acme:
        return
    folder = FirstRunFolder.from_environ(os.environ).folder
    files = acme_files(settings, os.environ, folder)
    with user.acting():
        source = certificates.main = certificates.add(acme_pair(settings, files))
        problem = files.problem()
    if problem is not None:
        yield ERROR, problem
    elif not source.certificates:
        names = ", ".join(settings.acme)
        yield OK, f"--acme: no certificate yet for {names}; the start asks {settings.acme_server}"


def _options(settings: Settings) -> Iterator[Finding]:
    yield from _until_error(partial(_names, settings))
    yield from _until_error(partial(_ban_command, settings))
    if settings.limits.report_only:
        yield WARNING, "--report-only: the limits reset no connection and ban nobody"


def _ban_command(settings: Settings) -> Iterator[Finding]:
    if settings.ban_command is not None:
        try:
            parse_command(settings.ban_command)
        except ValueError as error:
            raise ConfigError(f"--ban-command {error}") from None
        yield OK, f"--ban-command {settings.ban_command}: can be executed"


def _names(settings: Settings) -> Iterator[Finding]:
    user_names(settings)
    yield from ()


def _sharing(settings: Settings, user: ServerUser) -> Iterator[Finding]:
    if settings.guard_redis is not None:
        with user.acting():
            check_sharing(settings)
        yield OK, "--guard-redis: its files can be read; Redis is not asked now"


def _users(
    settings: Settings, reactor: Any, user: ServerUser, checkers: list[Any]
) -> Iterator[Finding]:
    if settings.backend:
        addresses = parse_nodes(settings.backend)
        yield from _until_error(partial(_backends, settings, user, addresses))
        yield from _until_error(partial(_user_map, settings, reactor, user, addresses))
        return
    if not settings.auth:
        path = FirstRunFolder.from_environ(os.environ).users
        if os.path.exists(path):
            checkers.append(demo := PasswordFile(path, reactor=reactor))
            with user.acting():
                demo.load()
            yield from _who_can_log_in("no --auth", demo)
        else:
            yield OK, f"no --auth: a demo user, whose password the first start prints, in {path}"
        return
    for text in settings.auth:
        yield from _until_error(partial(_auth, text, reactor, user, checkers))
    if settings.master_users is not None:
        with user.acting():
            readable(settings.master_users.removeprefix("file:"), "--master-users")
            if len(checkers) == len(settings.auth):
                make_chain(reactor, checkers, settings)
        yield OK, f"--master-users {settings.master_users}: can be read"


def _auth(text: str, reactor: Any, user: ServerUser, checkers: list[Any]) -> Iterator[Finding]:
    checker = make_checker(reactor, text)
    checkers.append(checker)
    if not isinstance(checker, PasswordFile):
        with user.acting():
            check_auth_file(text)
        yield OK, f"--auth {text.partition(':')[0]}: can be used"
        return
    with user.acting():
        checker.load()
    yield from _who_can_log_in(f"--auth {text}", checker)


def _backends(
    settings: Settings, user: ServerUser, addresses: Sequence[BackendAddress]
) -> Iterator[Finding]:
    with user.acting():
        tls_options_of(settings)
    yield from ask_backends(addresses, proxy=settings.backend_proxy)


def _user_map(
    settings: Settings, reactor: Any, user: ServerUser, addresses: Sequence[BackendAddress]
) -> Iterator[Finding]:
    with user.acting():
        source = make_source(settings, addresses, reactor, lambda: settings.limits)
    if source is not None:
        yield OK, f"--user-map {source.text}: can be used"


def _who_can_log_in(option: str, checker: PasswordFile) -> Iterator[Finding]:
    """Say how many users a file has that was read."""
    number = sum(1 for entry in checker.entries.values() if entry.stored)
    if checker.problem or not number:
        problem = checker.problem or "nobody can log in"
        yield WARNING if number else ERROR, f"{option}: {problem}"
    if number:
        yield OK, f"{option}: {number} {'user' if number == 1 else 'users'} can log in"


def _mail(settings: Settings, user: ServerUser, checkers: Sequence[Any]) -> Iterator[Finding]:
    if settings.mail_root is None:
        return
    with user.acting():
        problems = [*_directories(settings)]
        yield from problems
        if problems:
            return
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


def _directories(settings: Settings) -> Iterator[Finding]:
    mail, indexes = replace(settings, index_root=None), replace(settings, mail_root=None)
    parts: list[Callable[[], None]] = [
        lambda: check_mail_directories(mail, settings.mail_root),
        lambda: check_mail_directories(indexes, None),
        lambda: check_shared_indexes(settings),
    ]
    for part in parts:
        try:
            part()
        except ConfigError as error:
            yield ERROR, str(error)


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
    settings: Settings,
    certificates: Certificates,
    checkers: Sequence[Any],
    reactor: Any,
    ports: PortCheck,
) -> Iterator[Finding]:
    sasl = _mechanisms(settings, checkers)
    for text in settings.listen:
        try:
            endpoint = listen_endpoint(reactor, text, certificates)
            yield from ports.check(f"--listen {text}", endpoint)
        except ConfigError as error:
            if not _is_passed(text):
                yield ERROR, str(error)
                continue
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


def _is_passed(text: str) -> bool:
    """Return whether systemd will open an endpoint, and has not passed it to this command."""
    return "systemd:" in text and "LISTEN_FDS" not in os.environ


def _admin(
    settings: Settings,
    user: ServerUser,
    certificates: Certificates,
    reactor: Any,
    ports: PortCheck,
) -> Iterator[Finding]:
    if settings.admin is None:
        return
    option = f"--admin {settings.admin}"
    with user.acting():
        path = check_admin_auth(settings)
        checker = PasswordFile(path, reactor=reactor) if path else None
        if checker is not None:
            checker.load()
    if checker is None:
        yield OK, f"{option}: the token that `imapshield admin` prints lets anybody log in"
    else:
        yield from _who_can_log_in(f"--admin-auth {settings.admin_auth}", checker)
    if not _is_passed(settings.admin):
        yield from ports.check(option, admin_endpoint(settings, certificates, reactor))


def _metrics(
    settings: Settings, certificates: Certificates, reactor: Any, ports: PortCheck
) -> Iterator[Finding]:
    if settings.metrics is not None:
        option = f"--metrics {settings.metrics}"
        if not _is_passed(settings.metrics):
            yield from ports.check(option, metrics_endpoint(settings, certificates, reactor))
        yield OK, f"{option}: figures without a login, for everybody who can reach it"


def _challenges(settings: Settings, reactor: Any, ports: PortCheck) -> Iterator[Finding]:
    if settings.acme and not _is_passed(settings.acme_http):
        option = f"--acme-http {settings.acme_http}"
        yield from ports.check(option, challenge_endpoint(settings.acme_http, reactor))
