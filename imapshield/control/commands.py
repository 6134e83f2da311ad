"""The commands of the control socket that look at connections and bans, and change them.

Each takes a `Request` and returns what can be written as JSON. Sizes are bytes, times are seconds.
"""

from collections.abc import Callable
from heapq import nlargest
from typing import Any

from twisted.cred.credentials import IUsernamePassword

from imapshield import __version__
from imapshield.command_output import counted, plain
from imapshield.control.arguments import MAX_LISTED
from imapshield.control.end_history import as_network, is_in
from imapshield.control.request_lines import ControlError, Request
from imapshield.edge.admission import OPERATOR, Admission
from imapshield.edge.event_reporter import EventReporter
from imapshield.edge.factory import ShieldedIMAP4Factory
from imapshield.edge.protocol import ShieldedIMAP4Server
from imapshield.events import ActivityEvent
from imapshield.guard.bans import ban_target
from imapshield.guard.networks import THIS_MACHINE, Network, NetworkSet, describe
from imapshield.guard.process_guard import BANNED
from imapshield.limits import LimitReached

WIDEST = {4: 8, 6: 20}
"""The shortest prefixes of a ban without ``--force``: no operator of a network has more addresses."""


class ConnectionCommands:
    """Commands about the connections of one server.

    Args:
        factory: the server.
        now: returns seconds of a monotonic clock.
    """

    def __init__(self, factory: ShieldedIMAP4Factory, now: Callable[[], float]) -> None:
        self._factory, self._now = factory, now
        self._started = now()

    async def status(self, request: Request) -> dict[str, Any]:  # noqa: ARG002
        """Return what the server is doing, in a few numbers."""
        shares, shared = self._factory.shared.admission.guard.shares, self._factory.shared
        servers = self._factory.connections
        checker: Any = self._factory.portal.checkers.get(IUsernamePassword)
        return {
            "version": __version__,
            "seconds": round(self._now() - self._started, 1),
            "connections": shares.connections,
            "without_login": shares.strangers,
            "max_connections": shares.max_connections,
            "pending_commands": sum(server.guard.pending for server in servers),
            "memory_of_connections": shared.memory_budget.memory,
            "max_memory": self._factory.limits.max_memory_bytes,
            "bans": sum(1 for _ in shared.admission.guard.bans.active(self._now())),
            # Only a `CheckerChain` has them.
            "login_problems": getattr(checker, "outages", list)(),
        }

    async def who(self, request: Request) -> list[dict[str, Any]]:
        """Return the connections, optionally only those of the argument `who`; most pending commands first.

        The argument `number` is how many at most.
        """
        who = request.get("who")
        servers = self.matching(who) if who else self._factory.connections
        number = request.get("number", MAX_LISTED)
        first = nlargest(number, servers, key=lambda server: server.guard.pending)
        return [_describe(server) for server in first]

    async def kick(self, request: Request) -> int:
        """Reset the connections of the argument `who`, and return how many they were."""
        who = request.get("who")
        victims = self.matching(who)
        if not victims:
            raise ControlError(f"{who}: no connection; `imapshield who` lists them")
        return self._kick(victims)

    @staticmethod
    def _kick(victims: list[ShieldedIMAP4Server]) -> int:
        for server in victims:
            server.evict(LimitReached(OPERATOR, 0, 0))
        return len(victims)

    async def close_account(self, request: Request) -> bool:
        """Reset the connections of the argument `user`, and close the mail; return whether it was open.

        `imapshield move` asks for this: a process that has the index open may have locked it.
        """
        user = request.get("user")
        close = getattr(self._factory.portal.realm, "close_account", None)
        if close is None:
            raise ControlError(
                "close-account: this server has no mail of its own; ask that of the mail node"
            )
        self._kick([s for s in self._factory.connections if s.reporter.user == user])
        try:
            return bool(await close(user))
        except TimeoutError:
            raise ControlError(f"close-account: connections of {user} do not end") from None

    def matching(self, who: str) -> list[ShieldedIMAP4Server]:
        """Return the connections of a user, an address, a network, or with a number."""
        servers = self._factory.connections
        named = [s for s in servers if who in (s.reporter.user, str(s.reporter.number))]
        network = as_network(who)
        if named or network is None:
            return named
        return [s for s in servers if is_in(s.reporter.peer, network)]


class BanCommands:
    """Commands about the bans of one server.

    Args:
        factory: the server.
        now: as for the guard.
    """

    def __init__(self, factory: ShieldedIMAP4Factory, now: Callable[[], float]) -> None:
        self._factory, self._now = factory, now

    @property
    def _admission(self) -> Admission:
        return self._factory.shared.admission

    async def bans(self, request: Request) -> list[dict[str, Any]]:
        """Return the bans that apply now; the one that ends last is last.

        The argument `number` is how many at most, of those that end last.
        """
        now = self._now()
        active = list(self._admission.guard.bans.active(now))
        number = request.get("number", len(active))
        active = nlargest(number, active, key=lambda ban: ban.until)[::-1]
        return [
            {
                "network": describe(ban.network),
                "reason": ban.reason,
                "remaining": round(ban.until - now, 1),
                "number": ban.number,
                "strangers_only": ban.strangers_only,
            }
            for ban in active
        ]

    async def ban(self, request: Request) -> dict[str, Any]:
        """Ban the argument `network`, for `seconds` if given, and reset its connections; users are reset, too.

        A very wide network, or one with this machine, needs the argument `force`.
        """
        network = _given_network(request)
        target, trusted = ban_target(network), self._admission.guard.trusted
        if trusted.holds(target):
            raise ControlError(
                f"{network}: a ban has no effect on networks of --trust, also with --force; to ban it, restart the"
                " server with other networks, or with --trust none, or change that in the file of --config, and type"
                " `imapshield reload`"
            )
        if not request.get("force"):
            await self._refuse_slip(target)
        ban = self._admission.ban_by_operator(network, request.get("seconds"))
        number = await self.reset(ban.network)
        return {"network": describe(ban.network), "seconds": ban.seconds, "reset": number}

    async def reset(self, network: Network) -> int:
        """Reset the connections from a banned network, and return how many they were."""
        trusted = self._admission.guard.trusted
        victims = [
            server
            for server in self._factory.connections
            if is_in(server.reporter.peer, network) and server.reporter.peer not in trusted
        ]
        for server in victims:
            server.evict(BANNED)
        return len(victims)

    async def users_in(self, network: Network) -> list[str]:
        """Return the user of each connection from a network, "" for one without a login."""
        servers = self._factory.connections
        return [s.reporter.user for s in servers if is_in(s.reporter.peer, network)]

    async def _refuse_slip(self, target: Network) -> None:
        """Refuse a ban that looks like a slip of the operator.

        Raises:
            ControlError: the network is very wide, or has this machine or a trusted network.
        """
        shown, version, prefix = plain(describe(target)), *target[:2]
        reason = ""
        if prefix < WIDEST[version]:
            reason = f"it is wider than /{WIDEST[version]}"
        elif NetworkSet.parse(THIS_MACHINE).overlaps(target):
            reason = "this machine is in it"
        elif self._admission.guard.trusted.overlaps(target):
            reason = "a network of --trust is in it, which stays exempt"
        if reason:
            found = await self.users_in(target)
            users = len({user for user in found if user})
            raise ControlError(
                f"{shown}: {reason}, and {counted(len(found), 'connection')} of {counted(users, 'user')}"
                f" {'is' if len(found) == 1 else 'are'} from there;"
                f" to ban it all the same: `imapshield ban {shown} --force`"
            )

    async def unban(self, request: Request) -> list[str]:
        """End the bans of the argument `network`, and return the networks that were banned."""
        network = _given_network(request)
        return self._admission.unban_by_operator(network)


def _given_network(request: Request) -> str:
    network: str = request.get("network")
    if as_network(network) is None:
        raise ControlError(
            f"{network}: not an address or network, such as 192.0.2.7 or 2001:db8::/64"
        )
    return network


def activity(reporter: EventReporter) -> ActivityEvent:
    """Return what a connection has done until now."""
    return ActivityEvent(reporter.number, reporter.peer, **reporter.measure())


def _describe(server: ShieldedIMAP4Server) -> dict[str, Any]:
    """Return a connection as `who` lists it."""
    reporter, measured = server.reporter, activity(server.reporter)
    return {
        "connection": reporter.number,
        "user": reporter.user,
        "peer": reporter.peer,
        "client_id": reporter.client_id,
        "seconds": round(measured.seconds, 1),
        "commands": measured.commands,
        "pending": server.guard.pending,
        "paused": server.guard.input_paused,
        "octets_in": measured.octets_in,
        "octets_out": measured.octets_out,
        "busy": round(measured.busy, 3),
    }
