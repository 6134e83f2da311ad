"""Makes the checker of each ``--auth``."""

import errno
import os
from collections.abc import Callable, Sequence
from typing import Any

from twisted.cred import strcred
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernamePassword

from imapshield.config import ConfigError, Settings
from imapshield.cred.checkers import PasswordFile
from imapshield.cred.sasl import challengers
from imapshield.cred.user_names import UserNames
from imapshield.cred.users import BadUserName
from imapshield.credentials import credential_path


def mechanisms(checkers: Sequence[Any], names: UserNames) -> dict[bytes, Callable[[], Any]]:
    """Return the SASL mechanisms besides PLAIN that the checkers permit, for `ShieldedIMAP4Factory`.

    A SCRAM exchange begins with the salt of one checker. With several checkers, it is not known which one to use.
    """
    return challengers(checkers, names=names) if len(checkers) == 1 else {}


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


def make_checker(reactor: Any, text: str) -> Any:
    """Return the checker of one ``--auth``.

    ``file:`` is a file of hashed passwords. The checker of strcred with that name compares passwords in plain text.

    Raises:
        ConfigError: there is none.
    """
    kind, _, argument = text.partition(":")
    if kind in ("file", "imapshield"):
        return _password_file(reactor, argument)
    if kind == "memory" and ":" not in argument:
        raise ConfigError("--auth memory: needs USER:PASSWORD, as in --auth memory:alice:secret")
    try:
        checker: Any = strcred.makeChecker(text)
    except strcred.InvalidAuthType:
        if "/" in kind:
            raise ConfigError(f"--auth {text}: did you mean file:{text}?") from None
        raise ConfigError(
            f"--auth {kind}: unknown type; use file:PATH, memory:USER:PASSWORD or a type of "
            "--help-auth"
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


def _password_file(reactor: Any, path: str) -> Any:
    return PasswordFile(readable(path, "--auth"), reactor=reactor)


def check_password_file(text: str) -> None:
    """Check that the process can read the password file of one ``--auth``, if it is of that kind.

    Raises:
        ConfigError: it cannot.
    """
    kind, _, path = text.partition(":")
    if kind in ("file", "imapshield"):
        readable(path, "--auth")


def readable(path: str, option: str) -> str:
    """Return the path of a password file, which may be a credential, if it can be read.

    Raises:
        ConfigError: it cannot. `option` has named it as ``file:PATH``.
    """
    if not path:
        raise ConfigError(f"{option} file: needs a path, as in {option} file:/etc/imapshield/users")
    path = credential_path(path, f"{option} file:")
    try:
        open(path, "rb").close()
    except OSError as error:
        if error.errno == errno.EISDIR:
            advice = f"name a file in it, such as {option} file:{os.path.join(path, 'users')}"
        elif error.errno == errno.ENOENT:
            advice = f"`imapshield passwd {path} USER` creates it"
        else:
            advice = "make it readable for the user of the server"
        raise ConfigError(f"{option} file:{path}: {error.strerror}; {advice}") from None
    return path
