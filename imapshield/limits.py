"""All limits of the server: every number that a client can push against, with its default and the reason for it.

`Limits(name=value)` or ``--limit NAME=VALUE`` changes one. When a limit triggers, the log names it and its value.
Names that end in ``_seconds`` are times in seconds; ``_bytes``, ``_size`` and ``_length`` are numbers of bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TypeVar

T = TypeVar("T", int, float, bool)

GENERAL = "General"
BEFORE_LOGIN = "Before login"
AFTER_LOGIN = "After login"
MEMORY = "Memory"
TIME = "Time"
QUOTA = "Quota"


def _limit(group: str, default: T, reason: str) -> T:
    return field(default=default, metadata={"group": group, "reason": reason})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one server. `by_group` returns them with their reasons."""

    backlog: int = _limit(
        GENERAL,
        100,
        "Pending commands of one connection. The fix of Microsoft KB Q230285 resets a connection above 100.",
    )
    strict_backlog: bool = _limit(
        GENERAL,
        False,
        "After login, too, reset a connection above the backlog, as Exchange did. Without it the server stops reading"
        " from the connection instead.",
    )
    report_only: bool = _limit(
        GENERAL, False, "Log which connections the limits would reset, but reset none."
    )
    max_connections: int = _limit(
        GENERAL,
        10_000,
        "Connections at the same time. Each takes a few kilobytes and an open file.",
    )

    preauth_commands: int = _limit(
        BEFORE_LOGIN,
        100,
        "Commands of one connection before login. A client needs about five; a NOOP loop never stops.",
    )
    preauth_bytes: int = _limit(
        BEFORE_LOGIN,
        64 << 10,
        "Bytes that one connection may send before login, including literals.",
    )
    preauth_seconds: float = _limit(
        BEFORE_LOGIN,
        60,
        "Time from the connection to the login; input does not extend it. Courier has the same limit. Thunderbird"
        " connects before it asks for the password, and connects again if the user types slowly.",
    )
    preauth_line_length: int = _limit(
        BEFORE_LOGIN, 8 << 10, "Length of one line before login. SASL tokens are the longest lines."
    )
    preauth_id_length: int = _limit(
        BEFORE_LOGIN,
        36 << 10,
        "Length of one ID command before login. RFC 2971 permits 30 fields of one kilobyte each.",
    )
    preauth_literal_size: int = _limit(
        BEFORE_LOGIN, 4 << 10, "Size of one literal before login: a user name or a password."
    )
    preauth_nesting: int = _limit(
        BEFORE_LOGIN, 1, "Nested parentheses before login. Only ID has any, and only one level."
    )
    preauth_bad_commands: int = _limit(
        BEFORE_LOGIN, 3, "Malformed commands before login. Dovecot has the same limit."
    )
    preauth_unsent_bytes: int = _limit(
        BEFORE_LOGIN,
        4 << 10,
        "Bytes of responses that the client has not read before login. Dovecot has the same limit.",
    )
    max_login_failures: int = _limit(
        BEFORE_LOGIN,
        3,
        "Failed logins of one connection. After that the client must connect again.",
    )

    max_line_length: int = _limit(
        AFTER_LOGIN,
        64 << 10,
        "Length of one line after login. The long UID sets of mbsync and imapsync fit.",
    )
    max_literal_size: int = _limit(
        AFTER_LOGIN,
        64 << 10,
        "Size of one literal that is an argument, such as a mailbox name or a search text.",
    )
    max_command_size: int = _limit(
        AFTER_LOGIN,
        512 << 10,
        "Size of one command with all its literals, except the messages of APPEND.",
    )
    max_command_literals: int = _limit(
        AFTER_LOGIN, 1000, "Literals in one command. CVE-2024-34055 sent thousands."
    )
    max_message_size: int = _limit(
        AFTER_LOGIN, 64 << 20, "Size of one message of APPEND. Clients see it as APPENDLIMIT."
    )
    max_append_size: int = _limit(
        AFTER_LOGIN, 256 << 20, "Size of all messages of one APPEND together, while they arrive."
    )
    max_bad_commands: int = _limit(
        AFTER_LOGIN,
        50,
        "Consecutive malformed commands after login. A client that sends more has lost the protocol state.",
    )
    max_messages_per_command: int = _limit(
        AFTER_LOGIN,
        0,
        "Messages that one command may process; clients see it as MESSAGELIMIT. 0 means no limit, because few clients"
        " know this extension.",
    )
    max_inflate_ratio: int = _limit(
        AFTER_LOGIN,
        100,
        "Decompressed bytes for each byte received under COMPRESS, after the first MiB. Text reaches 3 to 20.",
    )

    max_backlog_bytes: int = _limit(
        MEMORY,
        256 << 10,
        "Bytes of all pending commands of one connection with their literals. A hundred APPEND commands would"
        " otherwise hold a hundred message files.",
    )
    append_memory_bytes: int = _limit(
        MEMORY,
        256 << 10,
        "Bytes of one APPEND that are kept in memory; the rest is in a temporary file.",
    )
    max_unsent_bytes: int = _limit(
        MEMORY,
        64 << 10,
        "Bytes in the write buffer of one connection. Above this its commands wait until the client reads.",
    )
    fetch_chunk_size: int = _limit(
        MEMORY, 256 << 10, "Bytes of message data that one session reads in one turn."
    )
    max_search_contexts: int = _limit(
        MEMORY,
        4,
        "Searches of one session whose results are kept up to date (RFC 5267). Each takes 4 bytes for each result.",
    )
    max_sort_context_results: int = _limit(
        MEMORY,
        2000,
        "Results of a SORT that is kept up to date. Each new message is sorted together with all of them.",
    )

    idle_seconds: float = _limit(
        TIME, 30 * 60, "Time without a command after login (RFC 9051 section 5.4)."
    )
    literal_seconds: float = _limit(
        TIME,
        60,
        "Time without one byte of an announced literal. It ends connections that never send the rest.",
    )
    stalled_seconds: float = _limit(
        TIME,
        30,
        "Time in which backlog and write buffer are full and the client reads nothing. After that the connection is"
        " reset.",
    )
    unsent_seconds: float = _limit(
        TIME,
        300,
        "Time in which output waits and the client reads nothing. Dovecot has the same limit.",
    )
    closing_seconds: float = _limit(
        TIME, 5, "Time for the client to read the last BYE. After that the connection is reset."
    )
    commands_per_turn: int = _limit(
        TIME,
        16,
        "Commands of one session that run in one turn. Their responses are sent in one write.",
    )
    turn_seconds: float = _limit(
        TIME,
        0.002,
        "Duration of one turn, until the server reads from the network again. Turns are shared among users, not among"
        " connections.",
    )

    quota_bytes: int = _limit(
        QUOTA,
        0,
        "Bytes of mail in one account. 0 means no limit. Mail that a delivery agent stores is counted but never"
        " refused.",
    )
    quota_messages: int = _limit(QUOTA, 0, "Messages in one account. 0 means no limit.")
    max_metadata_size: int = _limit(
        QUOTA,
        32 << 10,
        "Size of one METADATA value. A mailbox may have up to a hundred values in addition to its mail.",
    )

    def by_group(self) -> dict[str, dict[str, tuple[object, str]]]:
        """Return each group's limits: name → (value, reason), in the order in which people should read them."""
        groups: dict[str, dict[str, tuple[object, str]]] = {}
        for limit in fields(self):
            group = groups.setdefault(limit.metadata["group"], {})
            group[limit.name] = getattr(self, limit.name), limit.metadata["reason"]
        return groups
