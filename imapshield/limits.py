"""Every number that somebody on the other end can push against, with its reason.

A limit that fires is logged with its name here and its value; `Limits(name=value)` changes it.
Times are seconds, sizes octets.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields


def _limit(default: float, reason: str) -> float:
    return field(default=default, metadata={"reason": reason})


def _count(default: int, reason: str) -> int:
    return field(default=default, metadata={"reason": reason})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one server. `reasons()` lists them for people."""

    backlog: int = _count(100, "commands pending at once; the fix of KB Q230285 resets over 100")
    max_backlog_bytes: int = _count(
        256 << 10,
        "octets of pending commands with their literals; 100 messages to APPEND would be 100 files",
    )
    strict_backlog: bool = field(
        default=False,
        metadata={"reason": "reset after login too instead of flow control, as Exchange did"},
    )
    report_only: bool = field(
        default=False, metadata={"reason": "log what would have been reset, and reset nothing"}
    )

    preauth_commands: int = _count(
        100, "commands before login in all: a client needs five, a NOOP loop needs no end"
    )
    preauth_bytes: int = _count(64 << 10, "octets before login in all, literals included")
    preauth_seconds: float = _limit(
        60,
        "from the connection to the login, whatever arrives meanwhile; Courier has the same. Thunderbird connects"
        " before it asks for the password, and connects anew for a slow typist",
    )
    preauth_line_length: int = _count(8 << 10, "one line before login; SASL tokens are the longest")
    preauth_id_length: int = _count(
        36 << 10, "one line of ID before login: RFC 2971 permits thirty fields of a kilobyte"
    )
    preauth_literal_size: int = _count(4 << 10, "one literal before login: a name or a password")
    preauth_nesting: int = _count(1, "nested parentheses before login: ID alone has one level")
    preauth_bad_commands: int = _count(3, "malformed commands before login; Dovecot has the same")
    preauth_unsent_bytes: int = _count(4 << 10, "octets of unread replies before login, as Dovecot")
    max_login_failures: int = _count(3, "failed logins on one connection; then it must come again")

    max_line_length: int = _count(
        64 << 10, "one line after login; long UID sets of mbsync and imapsync fit"
    )
    max_literal_size: int = _count(
        64 << 10, "a literal that is an argument, such as a mailbox name or search text"
    )
    max_command_size: int = _count(
        512 << 10, "one whole command, its literals together, without APPEND's messages"
    )
    max_command_literals: int = _count(
        1000, "literals in one command; CVE-2024-34055 sent thousands"
    )
    max_message_size: int = _count(
        64 << 20, "one message to APPEND; told to clients as APPENDLIMIT"
    )
    max_append_size: int = _count(
        256 << 20, "all the messages of one APPEND together, while they arrive"
    )
    append_memory_bytes: int = _count(
        256 << 10, "of the messages of an APPEND kept in memory, not in a file"
    )
    max_bad_commands: int = _count(
        50, "malformed commands in a row after login; a client out of step"
    )
    idle_seconds: float = _limit(30 * 60, "without a command after login (RFC 9051 section 5.4)")
    literal_seconds: float = _limit(
        60, "without one octet of a literal that was promised; a drip feeds itself no longer"
    )
    stalled_seconds: float = _limit(
        30, "a full backlog and full output without one octet read; then the reset"
    )
    unsent_seconds: float = _limit(300, "output waiting without one octet read; Dovecot has 300")
    closing_seconds: float = _limit(5, "for a last BYE to be read before the connection is reset")
    max_unsent_bytes: int = _count(64 << 10, "octets of output held for a reader before work stops")
    fetch_chunk_size: int = _count(256 << 10, "octets of message data in one turn of one session")
    max_inflate_ratio: int = _count(
        100,
        "octets of commands to one octet received under COMPRESS, after the first MiB; text has 3 to 20",
    )
    commands_per_turn: int = _count(
        16, "commands of one session answered in one turn, so replies are one write"
    )
    turn_seconds: float = _limit(
        0.002, "work before the sockets are looked at again; users take turns, not connections"
    )

    max_messages_per_command: int = _count(
        0,
        "messages one command may touch, told as MESSAGELIMIT; 0 is no limit, as few clients know of it",
    )

    quota_bytes: int = _count(
        0, "octets of mail in one account; 0 is no limit, delivery agents ask nobody"
    )
    quota_messages: int = _count(0, "messages in one account; 0 is no limit")
    max_metadata_size: int = _count(
        32 << 10,
        "octets of one value of METADATA; each mailbox has up to a hundred beside its mail",
    )
    max_search_contexts: int = _count(
        4,
        "searches of one session that are kept up to date (RFC 5267); each is what matched, 4 octets a message",
    )
    max_sort_context_results: int = _count(
        2000,
        "results of a SORT that is kept up to date: a new one is put in order with all of them",
    )

    max_connections: int = _count(10_000, "connections in all; one costs a few kilobytes")

    def reasons(self) -> dict[str, tuple[object, str]]:
        """Each limit's value and reason by its name."""
        return {f.name: (getattr(self, f.name), f.metadata["reason"]) for f in fields(self)}
