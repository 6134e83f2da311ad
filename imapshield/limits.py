"""The limits that an operator can change, each with its default and the reason for it.

`Limits(name=value)` or ``--limit NAME=VALUE`` changes one. When a limit triggers, the log names it and its value.
Names that end in ``_seconds`` are times in seconds; ``_bytes``, ``_size`` and ``_length`` are numbers of bytes. A count
of failures (``_bad_commands``, ``_login_failures``, ``_failed_pairs``, ``_violations``) triggers when it reaches its
limit, all others when they exceed it.
docs/limits.rst also lists the fixed limits, which are constants of the modules that apply them.
"""

from dataclasses import dataclass, field, fields

from imapshield.front_limits import FrontLimits, LimitGroup

REPORTABLE = frozenset(
    (
        *("backlog", "preauth_commands", "preauth_bytes", "preauth_seconds", "preauth_line_length"),
        *("preauth_literal_size", "preauth_bad_commands", "max_bad_commands", "max_inflate_ratio"),
        *("max_preauth_connections", "max_preauth_per_address", "connections_per_minute"),
        *("max_login_failures", "max_failed_pairs", "max_login_delay_seconds"),
        *("network_logins_per_minute", "user_logins_per_minute"),
        *("login_queue_seconds", "login_check_seconds", "idle_seconds", "literal_seconds"),
        "max_limit_violations",
        *("stalled_seconds", "unsent_seconds", "max_memory_bytes", "max_user_bytes"),
    )
)
"""The limits that ``--report-only-limit`` accepts: those that end or delay something, and can be left out for a while.

The others refuse a single command or login, bound what connections hold or all clients share (`max_connections`), or
apply only together with another limit (`ban_seconds`).
"""

POLITE_LIMITS = frozenset(
    (
        *("preauth_seconds", "preauth_line_length", "preauth_bad_commands", "max_login_failures"),
        *("max_bad_commands", "idle_seconds", "literal_seconds"),
        *("login_queue_seconds", "login_check_seconds"),
    )
)
"""Those of them that end in BYE or NO. ``--report-only`` enforces them, and only ``--report-only-limit`` does not."""


@dataclass(frozen=True, slots=True)
class LimitReached:
    """A limit that a client has reached or exceeded.

    Attributes:
        limit: the name of the limit in `Limits`, or of the constant that is the limit.
        value: the configured limit.
        observed: the value that has reached it.
        binding: the limit that must be changed to change `value`; empty if it is `limit` itself. A share of
            connections, for example, is smaller than configured if there are too few connections or open files. Several
            names with commas if all of them must be changed, because the others are exceeded, too. If no option
            changes it: what does, with a space, such as ``the line of bob in /etc/imapshield/users``.
    """

    limit: str
    value: float
    observed: float
    binding: str = field(default="", kw_only=True)


_general = LimitGroup("General")
_preauth = LimitGroup("Before login")
_bans = LimitGroup("Rates and bans")
_user = LimitGroup("After login")
_memory = LimitGroup("Memory")
_time = LimitGroup("Time")
_quota = LimitGroup("Quota")
_workers = LimitGroup("Workers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits(FrontLimits):
    """The limits of one server. `by_group` returns them with their reasons."""

    backlog: int = _general(
        100,
        "Pending commands of one connection. Microsoft's fix for Exchange 5.5 (KB Q230285) resets above 100. After"
        " login the server stops reading instead.",
    )
    strict_backlog: bool = _general(
        False, "Reset above the backlog after login, too, as Exchange did, instead of pausing."
    )
    report_only: bool = _general(False, "Log which connections would be reset, but reset none.")
    max_connections: int = _general(
        10_000,
        "Connections at the same time. Each takes an open file and 10 KiB of memory, with TLS 32. Above it, the oldest"
        " connection without a login of the address that has most of them is reset. A client is refused only if all"
        " have a login.",
    )
    max_preauth_connections: int = _general(
        5000,
        "Connections without a login at the same time, so that strangers never take the places of users. Above it, the"
        " oldest one of the address that has most of them is reset, or the oldest of all if none has more than a 300th"
        " of this value, or four if that is a fiftieth at most: in a flood from thousands of addresses, an office has"
        " most. It is at most half of max_connections.",
    )
    max_preauth_per_address: int = _general(
        500,
        "Connections without a login from one address (IPv6: one /64). Above it, the oldest one is reset. A network may"
        " have more: /26 and /56 three times as many, /21 and /48 nine times, an IPv6 /32 27 times. Connections with a"
        " login do not count: a webmail host has hundreds. It is at most half of max_preauth_connections.",
    )
    max_connections_per_user: int = _general(
        300,
        "Connections of one user; a further login is refused. The devices of a family that shares an account have"
        " about 50. A user has no more connections than stay free for others.",
    )

    preauth_commands: int = _preauth(
        100, "Commands. A client needs about 5; a NOOP loop never stops."
    )
    preauth_bytes: int = _preauth(64 << 10, "Bytes that a connection may send, including literals.")
    preauth_seconds: float = _preauth(
        60,
        "Time from the connection to the login; input does not extend it. Courier has the same limit. Thunderbird"
        " connects before it asks for the password, and connects again if the user types slowly.",
    )
    proxy_header_seconds: float = _preauth(
        5,
        "Time for the PROXY header of a connection from a proxy. A proxy sends it at once; the protocol wants at least"
        " 3, for one lost packet. Without a header in this time the connection is reset.",
    )
    preauth_line_length: int = _preauth(8 << 10, "Length of one line. SASL tokens are the longest.")
    preauth_id_length: int = _preauth(
        36 << 10,
        "Length of one line of the command ID, instead of preauth_line_length. RFC 2971 permits 30 fields with names"
        " of 30 bytes and values of 1024.",
    )
    preauth_literal_size: int = _preauth(4 << 10, "Size of one literal: a user name or a password.")
    preauth_held_bytes: int = _preauth(
        46 << 10,
        "Bytes that the server holds for the connection at one time: the line and the literals that arrive, pending"
        " commands and unsent responses, with about 300 bytes for each command and literal. The longest ID and 30 more"
        " commands fit, or 100 short commands. `--limit help` says what one client can cost in all.",
    )
    preauth_literals: int = _preauth(
        64,
        "Literals of one command. LOGIN has 2, and an ID of 30 fields may have 60. Each takes memory even if it is"
        " empty.",
    )
    preauth_nesting: int = _preauth(1, "Nested parentheses. Only ID has any, and only one level.")
    preauth_bad_commands: int = _preauth(3, "Malformed commands. Dovecot has the same limit.")
    preauth_unsent_bytes: int = _preauth(
        4 << 10, "Bytes of responses that the client has not read. Dovecot has the same limit."
    )
    max_login_failures: int = _preauth(
        3, "Failed logins of one connection. After that the client must connect again."
    )
    max_login_checks: int = _preauth(
        8,
        "Password checks at once, of which one address (IPv6: one /64) has at most a quarter. Further logins wait, and"
        " the networks take turns. A password file checks two at once, so a flood of one address delays others by one"
        " check. More help with a slow directory.",
    )
    login_queue_seconds: float = _preauth(
        20, "Time that a login waits for its password check. After that it is NO [UNAVAILABLE]."
    )
    login_check_seconds: float = _preauth(
        30,
        "Time of one password check. After that the login is NO [UNAVAILABLE], and another check takes its place.",
    )

    connections_per_minute: float = _bans(
        300,
        "Connections without a login from one address (IPv6: one /64) per minute, and at once. A login gives its"
        " connection back, so a webmail host is not limited. Further connections are closed before the greeting. /26"
        " and /56 have three times as many, /21 and /48 nine times, an IPv6 /32 27 times.",
    )
    max_failed_pairs: int = _bans(
        10,
        "Different pairs of user and wrong password from one address (IPv6: one /64). At this count the address is"
        " banned. A device that repeats an old password counts once.",
    )
    network_logins_per_minute: float = _bans(
        3,
        "Different wrong passwords of one /26 or IPv6 /56 per minute that are looked at; at once, three times"
        " max_failed_pairs. /21 and /48 may have three times as many, an IPv6 /32 nine times. A delayed answer does not"
        " slow a guesser who hangs up. Above it, logins of users who have not logged in from their address before are"
        " NO [UNAVAILABLE].",
    )
    user_logins_per_minute: float = _bans(
        18,
        "Different wrong passwords of one user per minute, from all addresses where the user has not logged in before;"
        " at once, 18 times max_failed_pairs. Twice that if half of them come from a /26 or /56 without failed logins."
        " So a guesser needs thousands of networks to keep the user from new addresses.",
    )
    max_limit_violations: int = _bans(
        10,
        "Connections from one address that exceed, within an hour, a limit that correct clients do not reach. At this"
        " count the address is banned.",
    )
    ban_seconds: float = _bans(
        600,
        "Duration of the first ban of an address, unless max_ban_seconds is less. It doubles with each further ban.",
    )
    max_ban_seconds: float = _bans(86400, "Maximum duration of a ban, also of the first.")
    max_login_delay_seconds: float = _bans(
        15,
        "Maximum delay of the answer to a failed login. The delay grows with the number of failures. A correct login is"
        " not delayed.",
    )

    max_line_length: int = _user(
        64 << 10, "Length of one line. The long UID sets of mbsync and imapsync fit."
    )
    max_literal_size: int = _user(
        64 << 10, "Size of one literal argument, such as a mailbox name or a search text."
    )
    max_command_size: int = _user(
        512 << 10, "Size of one command with all its literals, except the messages of APPEND."
    )
    max_command_literals: int = _user(
        1000, "Literals in one command. The attack of CVE-2024-34055 sends thousands."
    )
    max_message_size: int = _user(
        64 << 20, "Size of one message of APPEND; clients see APPENDLIMIT."
    )
    max_append_size: int = _user(
        256 << 20,
        "Size of all messages of one APPEND together, with what CATENATE takes from stored messages.",
    )
    catenate_burst_bytes: int = _user(
        128 << 20,
        "Bytes that the CATENATEs of one account may take from stored messages at once, before"
        " catenate_bytes_per_second applies. A command of a few hundred bytes could otherwise fill the disk. A draft"
        " with attachments is saved several times before a client reaches it.",
    )
    catenate_bytes_per_second: int = _user(
        8 << 20,
        "Bytes per second that the CATENATEs of one account may take from stored messages. A client that saves a draft"
        " with 25 MB of attachments every minute needs a twentieth. 0 means no limit.",
    )
    max_bad_commands: int = _user(
        50,
        "Consecutive malformed commands. At this count client and server are probably out of step.",
    )
    max_messages_per_command: int = _user(
        0,
        "Messages that one command may process (RFC 9738); clients see MESSAGELIMIT. The default 0 means no limit,"
        " because few clients support MESSAGELIMIT.",
    )
    max_inflate_ratio: int = _user(
        100,
        "Decompressed bytes for each byte received under COMPRESS, after the first MiB. Text compresses by a factor of"
        " 3 to 20.",
    )

    max_backlog_bytes: int = _memory(
        256 << 10,
        "Bytes of the waiting commands with their literals. Without it, 100 pending APPENDs would occupy 100 temporary"
        " files.",
    )
    max_memory_bytes: int = _memory(
        256 << 20,
        "Bytes held for all connections together: lines, literals, waiting commands, results that wait for the client,"
        " unsent output. Above it, the largest connection without a login is reset; without one, the largest of the"
        " user who holds most. A thousand clients that all read slowly hold 100 MiB.",
    )
    max_user_bytes: int = _memory(
        16 << 20,
        "Bytes held for all connections of one user together. A literal that does not fit is refused; else the user's"
        " largest connection is reset. Sixty APPENDs at the same time fit.",
    )
    max_spool_bytes: int = _memory(
        4 << 30,
        "Bytes of disk for the messages of APPENDs that are arriving, of all users together. A message that does not"
        " fit is refused. One user may use as many bytes as stay free: half of them when nobody else uses any.",
    )
    append_memory_bytes: int = _memory(
        256 << 10, "Bytes of one APPEND that are kept in memory; a larger one is in a file."
    )
    max_unsent_bytes: int = _memory(
        64 << 10,
        "Bytes in the write buffer. Above this, commands wait until the client reads. It is 16 KiB until the client was"
        " sent more than a client can leave unread.",
    )
    fetch_chunk_size: int = _memory(
        256 << 10,
        "Bytes of message data that one session reads in one turn. A session reads an eighth until its client was sent"
        " more than a client can leave unread, because the data is in memory until the client reads it.",
    )
    max_search_contexts: int = _memory(
        4,
        "Searches of one session that are kept up to date (RFC 5267). Each takes 4 bytes for each result.",
    )
    max_sort_context_results: int = _memory(
        2000,
        "Results of a SORT that is kept up to date. Each new message is sorted together with all of them.",
    )

    idle_seconds: float = _time(
        1800,
        "Time without a command after login. RFC 9051 section 5.4 requires at least 30 minutes.",
    )
    literal_seconds: float = _time(
        60, "Time to wait for the next byte of a literal. Each byte that arrives restarts it."
    )
    stalled_seconds: float = _time(
        30,
        "A client whose backlog and write buffer are full is reset if it reads nothing for this long.",
    )
    unsent_seconds: float = _time(
        300,
        "A client whose write buffer is full is reset if it reads nothing for this long. Dovecot has the same limit.",
    )
    held_seconds: float = _time(
        10,
        "A user whose commands wait for this long is reported once: the backlog is full, or the write buffer is full"
        " and the client reads nothing.",
    )
    closing_seconds: float = _time(
        5, "Time for the client to read the last BYE before the connection is reset."
    )
    commands_per_turn: int = _time(
        16, "Commands of one session in one turn. Their responses are sent in one write."
    )
    turn_seconds: float = _time(
        0.002,
        "Time in which commands run before the server reads from the network again. Users take turns, not"
        " connections: all connections of a user share one turn.",
    )

    quota_bytes: int = _quota(
        0, "Bytes of mail in one account. 0 means no limit. Delivery agents do not check it."
    )
    quota_messages: int = _quota(0, "Messages in one account. 0 means no limit.")
    max_metadata_size: int = _quota(
        32 << 10, "Size of one METADATA value. A mailbox may have up to a hundred of them."
    )

    worker_silent_seconds: float = _workers(
        30,
        "Time without a word of a process of --workers, after which it is killed and replaced. Each says something"
        " every second; on a machine that swaps it may be late. Its clients connect again.",
    )

    report_only_limits: frozenset[str] = frozenset()
    """Names of limits, of those in `REPORTABLE`, that are reported and not enforced."""

    def reports_only(self, limit: str) -> bool:
        """Return whether `limit`, which would reset or refuse a connection or ban an address, is only reported."""
        return self.report_only or limit in self.report_only_limits

    def by_group(self) -> dict[str, dict[str, tuple[object, str]]]:
        """Return the limits of each group: name → (value, reason), in the order in which people should read them."""
        groups: dict[str, dict[str, tuple[object, str]]] = {}
        # Those of the base class come first in `fields`.
        of_front = FrontLimits.__dataclass_fields__
        for limit in sorted(fields(self), key=lambda limit: limit.name in of_front):
            if not limit.metadata:
                continue
            group = groups.setdefault(limit.metadata["group"], {})
            group[limit.name] = getattr(self, limit.name), limit.metadata["reason"]
        return groups
