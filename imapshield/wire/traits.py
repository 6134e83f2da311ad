"""What the edge and the guard must know about a command from its name alone, before the command is parsed.

`TRAITS` is the only list of this kind. A command that it does not name has none of the traits.
"""

from dataclasses import dataclass

from imapshield.wire.grammar import PARSERS


@dataclass(frozen=True, slots=True)
class CommandTraits:
    r"""How input is treated because of the name of its command.

    Attributes:
        suspends_input: the next line is not a command, or must be read differently (as a SASL response, over TLS,
            inflated). No further line is read until the command is answered or asks for a line.
        carries_messages: a literal may be a whole message. It has the size limits of messages, and may be spooled to a
            file.
        carries_metadata: a literal may be a metadata value, whose size limit has its own response code (RFC 5464).
        long_before_login: the line may be longer than other lines before login, if a parenthesis follows the name.
        secret: the line may hold a password, so no part of it may be logged.
    """

    suspends_input: bool = False
    carries_messages: bool = False
    carries_metadata: bool = False
    long_before_login: bool = False
    secret: bool = False


TRAITS = {
    b"APPEND": CommandTraits(carries_messages=True),
    b"AUTHENTICATE": CommandTraits(suspends_input=True, secret=True),
    b"COMPRESS": CommandTraits(suspends_input=True),
    b"ID": CommandTraits(long_before_login=True),  # RFC 2971 permits thirty fields of 1024 bytes
    b"IDLE": CommandTraits(suspends_input=True),
    b"LOGIN": CommandTraits(secret=True),
    b"REPLACE": CommandTraits(carries_messages=True),
    b"SETMETADATA": CommandTraits(carries_metadata=True),
    b"STARTTLS": CommandTraits(suspends_input=True),
    b"UNAUTHENTICATE": CommandTraits(suspends_input=True),
}
_NO_TRAITS = CommandTraits()
_NAME_BYTES = 72
"""Bytes at the beginning of a line in which the name is looked for. The tag has not been checked, so it may be as long
as the line."""


def traits_of(name: bytes) -> CommandTraits:
    """Return the traits of the command `name` (upper case, without ``UID``)."""
    return TRAITS.get(name, _NO_TRAITS)


def may_be_long_before_login(line: bytes) -> bool:
    """Return whether `line`, the beginning of a command, permits a longer line than others before login."""
    name, arguments = _name_and_arguments(line)
    return traits_of(name).long_before_login and arguments.startswith(b"(")


def log_sample(tag: bytes | None, name: bytes) -> bytes:
    """Return the tag and the name of a command for a log, or b"" if they may hold a part of a password.

    Only the name of a known command without the trait `secret` may be logged. A line that begins with any other word
    may be a LOGIN without a tag (``LOGIN alice secret``), or a SASL response that was sent too late.

    Args:
        tag: the tag of the command, or None.
        name: the name of the command, as in `framing.RawCommand`.
    """
    if tag is None or name not in PARSERS or traits_of(name).secret:
        return b""
    return tag + b" " + name


def log_name(name: bytes) -> str:
    """Return the name of a command for a log; that of an unknown one may be a part of a password."""
    return name.decode("ascii") if name in PARSERS else "(unknown)"


def _name_and_arguments(line: bytes) -> tuple[bytes, bytes]:
    name, _, arguments = line[:_NAME_BYTES].upper().partition(b" ")[2].partition(b" ")
    return name, arguments
