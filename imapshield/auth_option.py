"""Makes the checker of each ``--auth``."""

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from twisted.cred import strcred
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernamePassword

from imapshield.config import ConfigError, Settings
from imapshield.cred import ldap_checker, pam_checker
from imapshield.cred.checker_chain import CheckerChain
from imapshield.cred.checkers import PasswordFile
from imapshield.cred.dovecot_auth import DovecotAuth
from imapshield.cred.introspection import TokenIntrospection
from imapshield.cred.ldap_checker import LdapChecker
from imapshield.cred.ldap_settings import LdapSettings
from imapshield.cred.master_users import MasterUserChain, can_find_users
from imapshield.cred.pam_checker import PamChecker
from imapshield.cred.sasl import challengers
from imapshield.cred.user_names import UserNames
from imapshield.cred.users import BadUserName
from imapshield.credentials import credential_path
from imapshield.extras import install_command
from imapshield.regular_file import open_regular


def mechanisms(checkers: Sequence[Any], names: UserNames) -> dict[bytes, Callable[[], Any]]:
    """Return the SASL mechanisms besides PLAIN that the checkers permit, for `ShieldedIMAP4Factory`.

    A SCRAM exchange begins with the salt of one checker. With several checkers of passwords, it is not known which one
    to use.
    """
    passwords = [each for each in checkers if IUsernamePassword in each.credentialInterfaces]
    others = [each for each in checkers if each not in passwords]
    return challengers(checkers if len(passwords) == 1 else others, names=names)


def user_names(settings: Settings) -> UserNames:
    """Return how user names may be written.

    Raises:
        ConfigError: no user name can have the default domain.
    """
    domain = settings.default_domain
    try:
        return UserNames(not settings.exact_user_names, domain)
    except BadUserName as error:
        reason = str(error).replace("user name", "domain")
        raise ConfigError(
            f"--default-domain {domain}: {reason}; use for example --default-domain example.org"
        ) from None


def make_chain(
    reactor: Any,
    checkers: Sequence[Any],
    settings: Settings,
    master: Any = None,
    *,
    waits_for_files: bool = False,
) -> CheckerChain:
    """Return what tries all checkers, with the ways to write a user name and with the master users of the settings.

    Args:
        reactor: the reactor.
        checkers: the checkers.
        settings: the settings.
        master: the checker of the master users, if there is one already.
        waits_for_files: as for `make_checker`.

    Raises:
        ConfigError: the domain is wrong, or no checker knows the users that a master user may log in as.
    """
    names = user_names(settings)
    if settings.master_users is None:
        return CheckerChain(checkers, names)
    if not any(map(can_find_users, checkers)):
        raise ConfigError(
            "--master-users needs --auth file:PATH, or ldap:PATH with base and filter, because others do not say which"
            " users exist"
        )
    if master is None:
        find = _password_path if waits_for_files else readable
        path = find(settings.master_users.removeprefix("file:"), "--master-users")
        master = PasswordFile(path, reactor=reactor)
    return MasterUserChain(checkers, master, names)


def set_rehashing(checkers: Sequence[Any], settings: Settings) -> None:
    """Let password files replace the hashes of other servers, or not."""
    for checker in checkers:
        if isinstance(checker, PasswordFile):
            checker.rehashes = not settings.no_rehash


def quota_of(checkers: Sequence[Any], user: str) -> tuple[int | None, int | None]:
    """Return the bytes and messages that the first password file with this user permits; None if it does not say."""
    for checker in checkers:
        if isinstance(checker, PasswordFile) and user in checker.entries:
            return checker.entries[user].quota
    return None, None


def quota_setting(checkers: Sequence[Any], user: str, limit: str) -> str:
    """Return which line of a password file has a quota of a user; "" if none has, so that `limit` applies."""
    for checker in checkers:
        if isinstance(checker, PasswordFile) and user in checker.entries:
            octets, messages = checker.entries[user].quota
            own = octets if limit == "quota_bytes" else messages
            return "" if own is None else f"the line of {user} in {checker.path}"
    return ""


def make_checker(reactor: Any, text: str, *, waits_for_files: bool = False) -> Any:
    """Return the checker of one ``--auth``.

    `_KINDS` come first: the checker of strcred with the name ``file`` compares passwords in plain text.

    Args:
        reactor: the reactor.
        text: the value of the option.
        waits_for_files: whether a file that cannot be used now is no error. Until it can, logins are refused for now.

    Raises:
        ConfigError: there is none.
    """
    kind, _, argument = text.partition(":")
    make = (_WAITING if waits_for_files else {}).get(kind) or _KINDS.get(kind)
    if make is not None:
        return make(reactor, argument)
    if kind == "memory" and ":" not in argument:
        raise ConfigError("--auth memory: needs USER:PASSWORD, as in --auth memory:alice:secret")
    try:
        checker: Any = strcred.makeChecker(text)
    except strcred.InvalidAuthType:
        if "/" in kind:
            raise ConfigError(f"--auth {text}: did you mean file:{text}?") from None
        raise ConfigError(
            f"--auth {kind}: unknown type; use file:PATH, dovecot:SOCKET, ldap:PATH, pam, introspect:URL,"
            " memory:USER:PASSWORD or a type of --help-auth"
        ) from None
    except Exception as error:  # checker factories are plugins and may raise anything
        reason = str(error).rstrip(".")
        raise ConfigError(f"--auth {kind}: {reason}; see --help-auth-type {kind}") from None
    if IUsernamePassword not in checker.credentialInterfaces:
        raise ConfigError(f"--auth {kind}: does not check passwords; see --help-auth")
    if isinstance(checker, InMemoryUsernamePasswordDatabaseDontUse):
        # The plugin of strcred stores str, but the names and passwords that clients send are bytes.
        users: dict[Any, Any] = checker.users
        checker.users = {user.encode(): word.encode() for user, word in users.items()}
    return checker


def _introspection(reactor: Any, text: str) -> TokenIntrospection:
    """Return the checker of ``introspect:https://ID:SECRET@HOST/PATH#SCOPE``."""
    advice = "use introspect:https://ID:SECRET@HOST/PATH#SCOPE"
    try:
        url = urlsplit(text)
        port = "" if url.port is None else f":{url.port}"
    except ValueError:
        raise ConfigError(f"--auth introspect: the URL is invalid; {advice}") from None
    is_local = url.hostname in ("localhost", "127.0.0.1", "::1")
    if not url.hostname or not (url.scheme == "https" or (url.scheme == "http" and is_local)):
        raise ConfigError(f"--auth introspect: needs https, except on this machine; {advice}")
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    where = SplitResult(url.scheme, host + port, url.path or "/", url.query, "").geturl()
    if not where.isascii() or not where.isprintable():
        raise ConfigError(f"--auth introspect: the URL must be printable ASCII; {advice}")
    client = unquote(url.username or ""), unquote(url.password or "")
    return TokenIntrospection(where, client=client, scope=unquote(url.fragment), reactor=reactor)


def _pam(reactor: Any, argument: str) -> PamChecker:
    service = argument or "imap"
    if "/" in service or not service.isprintable():
        raise ConfigError(f"--auth pam:{service}: name a file of /etc/pam.d, as in --auth pam:imap")
    if not pam_checker.is_available():
        raise ConfigError(f"--auth pam: pamela is not installed: {install_command('pam')}")
    return PamChecker(service, reactor=reactor)


def _ldap(reactor: Any, argument: str, find: Callable[[str], str] | None = None) -> LdapChecker:
    path = (find or _ldap_file)(argument)
    if not ldap_checker.is_available():
        raise ConfigError(f"--auth ldap: python-ldap is not installed: {install_command('ldap')}")
    return LdapChecker(path, reactor=reactor)


def _ldap_path(path: str) -> str:
    """Return the path of a file of `LdapSettings`, which may be a credential.

    Raises:
        ConfigError: it is no path, or there is no such credential.
    """
    if not path:
        raise ConfigError("--auth ldap: needs a file, as in --auth ldap:/etc/imapshield/ldap.toml")
    if path.startswith(("ldap://", "ldaps://", "ldapi://", "//")):
        raise ConfigError(
            f'--auth ldap:{path}: needs a file; write uri = "{path}" in it, as docs/running.rst shows'
        )
    return credential_path(path, "--auth ldap:")


def _ldap_file(path: str) -> str:
    """Return the same, if nothing is wrong with the file.

    Raises:
        ConfigError: something is.
    """
    path = _ldap_path(path)
    try:
        LdapSettings.read(path)
    except OSError as error:
        advice = "name a TOML file that the user of the server can read"
        raise ConfigError(f"--auth ldap:{path}: {error.strerror}; {advice}") from None
    except ValueError as error:
        raise ConfigError(f"--auth ldap:{path}: {error}") from None
    return path


def _dovecot(reactor: Any, path: str) -> DovecotAuth:
    if not os.path.isabs(path):
        raise ConfigError(
            f"--auth dovecot:{path}: needs the path of a socket, as in --auth dovecot:/run/dovecot/auth-client"
        )
    return DovecotAuth(path, reactor=reactor)


def _password_file(reactor: Any, path: str) -> Any:
    return PasswordFile(readable(path, "--auth"), reactor=reactor)


_KINDS: Mapping[str, Callable[[Any, str], Any]] = {
    "file": _password_file,
    "imapshield": _password_file,
    "ldap": _ldap,
    "pam": _pam,
    "introspect": _introspection,
    "dovecot": _dovecot,
}
"""The types of ``--auth`` that are our own: what makes the checker from the text after the colon."""


def _waiting_file(reactor: Any, path: str) -> Any:
    return PasswordFile(_password_path(path, "--auth"), reactor=reactor)


_WAITING: Mapping[str, Callable[[Any, str], Any]] = {
    "file": _waiting_file,
    "imapshield": _waiting_file,
    "ldap": lambda reactor, argument: _ldap(reactor, argument, _ldap_path),
}
"""The same for checkers that read their file again and again, without a look at it now."""


def check_auth_file(text: str) -> None:
    """Check that the process can read the file of one ``--auth``, if it has one.

    Raises:
        ConfigError: it cannot.
    """
    kind, _, path = text.partition(":")
    if kind in ("file", "imapshield"):
        readable(path, "--auth")
    elif kind == "ldap":
        _ldap_file(path)


def check_auth_files(settings: Settings) -> None:
    """Check the files of ``--auth`` and ``--master-users``, as `check_auth_file`. May block."""
    for text in settings.auth:
        check_auth_file(text)
    if settings.master_users is not None:
        readable(settings.master_users.removeprefix("file:"), "--master-users")


def _password_path(path: str, option: str) -> str:
    """Return the path of a password file, which may be a credential.

    Raises:
        ConfigError: it is none. `option` has named it as ``file:PATH``.
    """
    if not path:
        raise ConfigError(f"{option} file: needs a path, as in {option} file:/etc/imapshield/users")
    return credential_path(path, f"{option} file:")


def readable(path: str, option: str) -> str:
    """Return the same, if the file can be read.

    Raises:
        ConfigError: it cannot.
    """
    path = _password_path(path, option)
    try:
        open_regular(path).close()
    except OSError as error:
        if error.errno == errno.EISDIR:
            advice = f"name a file in it, such as {option} file:{os.path.join(path, 'users')}"
        elif error.errno == errno.ENOENT:
            advice = f"`imapshield passwd {path} USER` creates it"
        else:
            advice = "make it readable for the user of the server"
        raise ConfigError(f"{option} file:{path}: {error.strerror}; {advice}") from None
    return path
