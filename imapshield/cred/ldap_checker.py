"""`LdapChecker`: asks an LDAP directory whether a password is correct, by binding as the user, in threads.

It needs python-ldap, whose calls of OpenLDAP's library let other threads run. `docs/running.rst` says why this one.
"""

import ssl
from contextlib import suppress
from functools import cache
from os.path import exists
from types import ModuleType
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, fail
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from imapshield.cred.checker_threads import CheckerThreads
from imapshield.cred.ldap_settings import USER, LdapSettings, escape
from imapshield.cred.unavailable import EntryUnusable, Outages

try:
    import ldap
except ImportError:
    _ldap: ModuleType | None = None
else:
    _ldap = ldap

THREADS = 8
"""Checks at the same time, of which each has a connection. The server lets no more begin by default."""

MAX_PENDING = 32
"""Checks that run or wait; more are refused. Only checks that the server has given up let so many come together."""

MAX_ENTRIES = 10
"""Entries that one search may find; more than one are an error. A filter that finds everybody would otherwise bring the
whole directory."""

TIMEOUT_SECONDS = 10.0
"""For one login: to connect, to begin TLS, to search and to bind."""

CONNECT_SECONDS = 4
"""For one connection, so that another server of `uri` can be asked in time."""

_REFUSALS = (
    "INVALID_CREDENTIALS",
    "NO_SUCH_OBJECT",  # some servers say this of a DN that does not exist
    "INVALID_DN_SYNTAX",  # a name that no DN can have
    "INAPPROPRIATE_AUTH",  # an entry without a password
    "UNWILLING_TO_PERFORM",  # 389 Directory Server and FreeIPA: the account is locked
    "CONSTRAINT_VIOLATION",  # the same: too many wrong passwords
)
"""What a directory says of a user who may not log in. All other errors mean that it could not decide."""

_AUTHORITIES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Arch, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora
    "/etc/ssl/ca-bundle.pem",  # SUSE
)


def is_available() -> bool:
    """Return whether python-ldap is installed."""
    return _ldap is not None


@implementer(ICredentialsChecker)
class LdapChecker:
    """Checks passwords with an LDAP directory.

    The avatar id is the value of one attribute of the entry, so that a mailbox has one name: a directory usually
    compares names without their case and ignores spaces.

    The file is read at each login, so that a new password of the searching user needs no reload.

    Args:
        path: the file of `LdapSettings`.
        reactor: the reactor.
        pool: the threads, for tests.
    """

    credentialInterfaces = (IUsernamePassword,)

    ignores_case = True
    """Names that differ in case alone are one name for the directory (`CheckerChain`)."""

    def __init__(self, path: str, *, reactor: Any, pool: ThreadPool | None = None) -> None:
        self._path, self._reactor = path, reactor
        self._threads = CheckerThreads(reactor, "ldap", THREADS, MAX_PENDING, pool)
        self._outages = Outages(f"ldap:{path}", "check the directory, and the file")

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        """Return the name of the user.

        It fails with `UnauthorizedLogin`, or with `CheckerUnavailable` if the directory cannot decide.
        """
        # A bind without a password is anonymous, and succeeds (RFC 4513 section 5.1.2).
        if not credentials.password:
            return fail(UnauthorizedLogin())
        return self._ask(credentials.username, credentials.password)

    @property
    def finds_users(self) -> bool:
        """Whether `find_user` can find anybody: only a search can, because to bind as a user needs the password."""
        try:
            return not LdapSettings.read(self._path).bind_as
        except (OSError, ValueError):
            return True  # every login says what is wrong with the file

    def find_user(self, user: bytes) -> Deferred[Any]:
        """Return the name of a user for a master user, or None if there is none (`MasterUserChain`).

        It fails with `CheckerUnavailable` if the directory cannot decide.
        """
        found = self._ask(user, None)
        return found.addErrback(lambda failure: failure.trap(UnauthorizedLogin) and None)

    def _ask(self, user: bytes, password: bytes | None) -> Deferred[Any]:
        try:
            name = user.decode("utf-8")
        except UnicodeDecodeError:
            return fail(UnauthorizedLogin())
        if not name or b"\0" in user + (password or b""):  # C sees the text before a NUL
            return fail(UnauthorizedLogin())
        deadline = self._reactor.seconds() + TIMEOUT_SECONDS
        checking = self._threads.run(self._check, name, password, deadline)
        checking.addCallbacks(self._checked, self._outages.failed, errbackArgs=(ldap_reason,))
        return self._outages.limit(checking, TIMEOUT_SECONDS, self._reactor)

    def _check(self, name: str, password: bytes | None, deadline: float) -> bytes | None:
        """Return the name of the user in the directory, or None if the login is refused. Runs in a thread."""
        settings = LdapSettings.read(self._path)
        directory = Directory(settings, lambda: deadline - self._reactor.seconds())
        try:
            directory.connect()
            return _log_in(directory, settings, escape(name), password)
        finally:
            directory.close()

    def _checked(self, name: bytes | None) -> bytes:
        self._outages.over()
        if name is None:
            raise UnauthorizedLogin
        return name

    def close(self) -> Deferred[None]:
        """Stop the threads. Fires when no check runs, or is waited for no longer."""
        return self._threads.close()


class Directory:
    """One connection to the directory. Blocking.

    Args:
        settings: where the directory is.
        remaining: returns the seconds that are left for this login.
    """

    def __init__(self, settings: LdapSettings, remaining: Any) -> None:
        self._settings, self._remaining = settings, remaining
        self._connection: Any = None

    def connect(self) -> None:
        """Prepare the connection, which begins with the first request; begin TLS if it is to begin after that."""
        assert _ldap is not None
        connection = self._connection = _ldap.initialize(self._settings.uri)
        connection.set_option(_ldap.OPT_REFERRALS, 0)
        connection.set_option(_ldap.OPT_NETWORK_TIMEOUT, CONNECT_SECONDS)
        # What ldap.conf and the environment say of these is ignored.
        connection.set_option(_ldap.OPT_X_TLS_REQUIRE_CERT, _ldap.OPT_X_TLS_DEMAND)
        connection.set_option(_ldap.OPT_X_TLS_PROTOCOL_MIN, 0x303)  # TLS 1.2
        authorities = self._settings.ca_file or _system_authorities()
        if authorities:
            connection.set_option(_ldap.OPT_X_TLS_CACERTFILE, authorities)
        connection.set_option(_ldap.OPT_X_TLS_NEWCTX, 0)  # applies the options of TLS
        if self._settings.starttls:
            self._limit()
            connection.start_tls_s()

    def bind(self, dn: str, password: bytes) -> bool:
        """Log in; returns whether the directory accepts the password."""
        assert _ldap is not None
        self._limit()
        try:
            self._connection.simple_bind_s(dn, password)
        except tuple(getattr(_ldap, name) for name in _REFUSALS):
            return False
        return True

    def search(
        self, base: str, filter_text: str | None = None, attribute: str = ""
    ) -> list[tuple[str, list[bytes]]]:
        """Return the DNs of entries and the values of an attribute: of `base` itself if there is no filter.

        Without an `attribute` it is `user_attribute`. More than `MAX_ENTRIES` are not read, and have no values.
        """
        assert _ldap is not None
        self._limit()
        scope = _ldap.SCOPE_BASE if filter_text is None else _ldap.SCOPE_SUBTREE
        wanted = (attribute or self._settings.user_attribute).lower()
        try:
            found = self._connection.search_ext_s(
                base,
                scope,
                filter_text or "(objectClass=*)",
                [wanted],
                timeout=self._connection.timeout,
                sizelimit=MAX_ENTRIES,
            )
        except _ldap.SIZELIMIT_EXCEEDED:
            return [("", [])] * (MAX_ENTRIES + 1)
        except _ldap.NO_SUCH_OBJECT:
            if filter_text is None:  # the user who has logged in may not read the own entry
                return []
            raise
        return [  # without the references to other servers, which have no DN
            (dn, [each for name in entry if name.lower() == wanted for each in entry[name]])
            for dn, entry in found
            if dn
        ]

    def close(self) -> None:
        """End the connection, if there is one."""
        assert _ldap is not None
        if self._connection is not None:
            with suppress(_ldap.LDAPError):
                self._connection.unbind_s()

    def _limit(self) -> None:
        """Limit the next request to the time that is left."""
        assert _ldap is not None
        remaining = self._remaining()
        if remaining <= 0:
            raise _ldap.TIMEOUT
        self._connection.timeout = remaining
        self._connection.set_option(_ldap.OPT_TIMEOUT, remaining)  # for TLS


def _log_in(
    directory: Directory, settings: LdapSettings, name: str, password: bytes | None
) -> bytes | None:
    """Return the name of the user of a correct password.

    Args:
        directory: the connection.
        settings: how to find the entry.
        name: what the client gave, escaped.
        password: the password; None for a master user, who has given another one.

    Raises:
        EntryUnusable: the directory does not say which user it is.
        ValueError: it does not let the searching user in.
    """
    if settings.bind_as:
        if password is None:
            raise EntryUnusable("a master user needs base and filter instead of bind-as")
        dn = settings.bind_as.replace(USER, name)
        # The user reads the own entry: nobody else may be permitted to read it.
        return _name(directory.search(dn), settings) if directory.bind(dn, password) else None
    found = find_entries(directory, settings, name)
    if len(found) > 1:
        raise EntryUnusable(f"{len(found)} entries have the same name; make the filter stricter")
    if password is None:
        return _name(found, settings) if found else None
    # A name that does not exist takes as many requests as another one.
    dn = found[0][0] if found else f"cn=none,{settings.base}"
    return _name(found, settings) if directory.bind(dn, password) and found else None


def find_entries(
    directory: Directory, settings: LdapSettings, name: str, attribute: str = ""
) -> list[tuple[str, list[bytes]]]:
    """Return the entries of a user whose name is escaped, as `Directory.search` does.

    Raises:
        ValueError: the directory does not let the searching user in.
    """
    if settings.search_dn and not directory.bind(
        settings.search_dn, settings.search_password.encode()
    ):
        raise ValueError(f"the directory refuses the password of {settings.search_dn}")
    return directory.search(settings.base, settings.filter.replace(USER, name), attribute)


def _name(found: list[tuple[str, list[bytes]]], settings: LdapSettings) -> bytes:
    values = found[0][1] if found else []
    if len(values) != 1:
        raise EntryUnusable(
            f"an entry has {len(values)} readable values of {settings.user_attribute}, which must be one;"
            " name another user-attribute"
        )
    return values[0]


def ldap_reason(error: BaseException) -> str:
    """Return what is wrong, for the log. It has no names of users, so that it stays the same for all of them."""
    if isinstance(error, OSError):
        return error.strerror or "the file cannot be read"
    if _ldap is None or not isinstance(error, _ldap.LDAPError):
        return str(error)
    details = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
    texts = [str(details[key]) for key in ("desc", "info") if details.get(key)]
    return ": ".join(texts) or type(error).__name__


@cache
def _system_authorities() -> str:
    """Return the file with the authorities that the system trusts; "" leaves them to ldap.conf."""
    files = (ssl.get_default_verify_paths().cafile, *_AUTHORITIES)
    return next((file for file in files if file and exists(file)), "")
