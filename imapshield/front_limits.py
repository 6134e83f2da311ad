"""The limits of front mode, which are a part of `limits.Limits`, and how limits are declared."""

from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

T = TypeVar("T", int, float, bool)


class LimitGroup(NamedTuple):
    """A group of limits. Calling it declares a limit with its default and the reason for it."""

    title: str

    def __call__(self, default: T, reason: str) -> T:
        return field(default=default, metadata={"group": self.title, "reason": reason})


_front = LimitGroup("Front mode")


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontLimits:
    """The limits that apply with ``--backend`` alone."""

    max_backend_connections: int = _front(
        5_000,
        "Connections to one backend at the same time. Above it, a login is NO [UNAVAILABLE]. Set it a little below what"
        " the backend accepts, so that it also answers others. Each takes an open file.",
    )
    max_backend_exchanges: int = _front(
        40,
        "SCRAM logins at once; others wait for their turn. Each holds a connection to the backend while the client"
        " computes its proof. Other logins do not wait for their client.",
    )
    max_backend_exchanges_per_network: int = _front(
        10,
        "SCRAM logins of one address (IPv6: one /64) at once, in each worker, but at most half of"
        " max_backend_exchanges. A client computes for some tenths of a second, so an office behind one address logs"
        " in with dozens of clients in a second.",
    )
    backend_exchange_wait_seconds: float = _front(
        15,
        "Time for which a SCRAM login waits for its turn. After that it is NO [UNAVAILABLE]. Clients wait for half a"
        " minute or longer.",
    )
    backend_connect_seconds: float = _front(
        5, "Time to connect to the backend. After that the login is NO [UNAVAILABLE]."
    )
    backend_login_seconds: float = _front(
        20,
        "Time from the connection to the backend to the end of the login. Some servers delay the answer to a wrong"
        " password by several seconds. It is less than login_check_seconds.",
    )
    backend_silent_seconds: float = _front(
        300,
        "A backend that sends nothing for so long while a command runs, IDLE excepted, is given up with BYE. A SEARCH"
        " in a large mailbox without an index takes minutes.",
    )
    backend_check_seconds: float = _front(
        10, "Time between two checks of the backend. It takes one connection and three commands."
    )
    backend_failures: int = _front(
        3,
        "Consecutive failures to connect, or failed checks, after which logins are NO [UNAVAILABLE] at once until a"
        " check succeeds. One failure may be a restart.",
    )

    map_cache_seconds: float = _front(
        60,
        "Time for which an answer of the service of --user-map counts, also that a user is unknown. `imapshield"
        " release` ends it for one user.",
    )
    map_stale_seconds: float = _front(
        86400,
        "Time for which the last known node of a user counts if the service of --user-map fails. Users seldom move, and"
        " `imapshield release` forgets the node of one who has moved.",
    )
    map_lookup_seconds: float = _front(
        5, "Time for one question to the service of --user-map. After that it has failed."
    )
    max_map_entries: int = _front(
        100_000,
        "Users whose node is remembered, and as many names that nobody has. Each takes about 300 bytes. Above it, the"
        " one is forgotten that has not logged in for the longest time.",
    )
    hold_command_seconds: float = _front(
        1,
        "Time in which the running commands of a user who is held may end, before the user moves to another node. After"
        " that their connections end. A move pauses a user for two seconds at most.",
    )
    max_held_logins: int = _front(
        300,
        "Logins of one user that wait while the user is held; others are NO [UNAVAILABLE]. It is as many as"
        " max_connections_per_user.",
    )
