"""`MapLdap`: asks an LDAP directory which node a user has, in threads; the file is as that of ``--auth ldap:FILE``."""

from collections.abc import Sequence
from typing import Any

from twisted.python.threadpool import ThreadPool

from imapshield.cred.checker_threads import CheckerThreads
from imapshield.cred.ldap_checker import Directory, find_entries, is_available, ldap_reason
from imapshield.cred.ldap_settings import LdapSettings, escape
from imapshield.cred.unavailable import CheckerUnavailable
from imapshield.extras import install_command
from imapshield.front.backend_address import BackendAddress
from imapshield.front.node_names import node_named
from imapshield.front.user_map import Answer, EntryWrong, LookUpFailed, Query

THREADS = 4
"""Look-ups at the same time, of which each has a connection."""

MAX_PENDING = 32
"""Look-ups that run or wait for a thread. Only those that were given up let so many come together."""

TIMEOUT_SECONDS = 10.0
"""For one look-up in a thread: to connect, to bind and to search. The login gives up after map_lookup_seconds."""


class MapLdap:
    """A directory whose entries name a node.

    Args:
        path: the file of `LdapSettings`, with ``node-attribute``.
        nodes: the addresses of all nodes.
        reactor: the reactor.
        pool: the threads, for tests.
        waits_for_file: whether a file that cannot be used now is no error. It is read at each look-up, so it may be
            correct then.

    Raises:
        ValueError: the file cannot be used.
    """

    caches = True

    def __init__(
        self,
        path: str,
        nodes: Sequence[BackendAddress],
        reactor: Any,
        pool: ThreadPool | None = None,
        *,
        waits_for_file: bool = False,
    ) -> None:
        self.text = f"ldap:{path}"
        if not is_available():
            raise ValueError(f" python-ldap is not installed: {install_command('ldap')}")
        self._path, self._nodes, self._reactor = path, nodes, reactor
        try:
            if not waits_for_file:
                _settings(path)
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror}; name a readable file") from None
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        self._threads = CheckerThreads(reactor, "map-ldap", THREADS, MAX_PENDING, pool)

    async def ask(self, query: Query) -> Answer:
        """Return the node of the entry of a user.

        Raises:
            LookUpFailed: the directory cannot say.
        """
        if "\0" in query.user:  # C sees the text before it
            return Answer("")
        deadline = self._reactor.seconds() + TIMEOUT_SECONDS
        try:
            found = await self._threads.run(self._search, query.user, deadline)
        except CheckerUnavailable as error:
            raise LookUpFailed(error.text) from None
        except Exception as error:
            raise LookUpFailed(ldap_reason(error)) from None
        if not found:
            return Answer("")
        values = found[0][1]
        if len(found) > 1 or len(values) != 1:
            raise EntryWrong("a user has several entries, or not one value of node-attribute")
        return Answer(node_named(self._nodes, values[0].decode("utf-8", "replace")))

    def _search(self, user: str, deadline: float) -> list[tuple[str, list[bytes]]]:
        """Return the entries of a user with their nodes. Runs in a thread."""
        settings = _settings(self._path)
        directory = Directory(settings, lambda: deadline - self._reactor.seconds())
        try:
            directory.connect()
            return find_entries(directory, settings, escape(user), settings.node_attribute)
        finally:
            directory.close()

    def stop(self) -> object:
        """Stop the threads."""
        return self._threads.close()


def _settings(path: str) -> LdapSettings:
    """Read the file. Blocking."""
    settings = LdapSettings.read(path)
    if settings.bind_as:
        raise ValueError("--user-map needs base and filter in place of bind-as")
    if not settings.node_attribute:
        raise ValueError('write node-attribute = "mailHost", the attribute with the name of a node')
    return settings
