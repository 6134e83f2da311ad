"""`PageLogins`: logins to the status page count like those of IMAP: they are logged, and guessers are banned."""

from collections.abc import Callable

from imapshield import events
from imapshield.edge.event_reporter import publish
from imapshield.edge.factory import ShieldedIMAP4Factory
from imapshield.guard.networks import networks_of
from imapshield.guard.shares import Connection

MECHANISM = "status-page"
"""What the log has in place of the name of a SASL mechanism."""


class PageLogins:
    """What the server remembers of logins to its status page.

    Args:
        factory: the server, whose guard counts failed logins and has the bans.
        now: as for the guard.
    """

    def __init__(self, factory: ShieldedIMAP4Factory, now: Callable[[], float]) -> None:
        self._factory, self._now = factory, now

    def is_banned(self, address: str) -> bool:
        """Return whether an address may not try a password, because it has guessed passwords.

        Other bans do not matter here: an operator may sit behind the address of a client that floods, and ends its ban
        on the page.
        """
        ban = self._factory.shared.admission.guard.ban_of(address, self._now())
        return ban is not None and ban.reason == "max_failed_pairs"

    def succeeded(self, address: str, user: str) -> None:
        """Report a login."""
        name = events.printable(user.encode(errors="replace"), 64)
        publish(events.PageLoggedIn(0, address, name), self._factory.observers)

    def failed(self, address: str, user: str, password: str) -> None:
        """Report a wrong password or token, and count it for the address, which may ban it."""
        name = user.encode(errors="replace")
        admission = self._factory.shared.admission
        secret = admission.guard.failures.digest(password.encode(errors="replace"))
        # The user of the page has only the name in common with the user of IMAP, who must not be delayed.
        counted, connection = b"\0" + name, Connection(address, networks_of(address))
        failed, _ = admission.login_failed(connection, counted, secret)
        fields = events.printable(name, 64), MECHANISM, failed.repeated
        publish(events.LoginFailed(0, address, *fields), self._factory.observers)
