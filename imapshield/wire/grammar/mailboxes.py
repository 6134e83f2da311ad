"""CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE, LIST, LSUB and STATUS (RFC 9051 section 6.3)."""

from __future__ import annotations

from imapshield.errors import BadCommand, CommandRefused
from imapshield.wire import abnf
from imapshield.wire.commands.mailboxes import Create, Delete, List, Rename, Status, Subscribe
from imapshield.wire.cursor import Cursor
from imapshield.wire.names import DELIMITER, decode_pattern

SPECIAL_USES = {
    use.lower(): use
    for use in (
        b"\\Archive",
        b"\\Drafts",
        b"\\Important",
        b"\\Junk",
        b"\\Sent",
        b"\\Trash",
    )
}
"""Special-use attributes of RFC 6154 and RFC 8457 by their lower-case spelling.

\\All and \\Flagged are left out: they are for virtual mailboxes, which show messages of other mailboxes.
"""

STATUS_ITEMS = frozenset(
    b"MESSAGES RECENT UIDNEXT UIDVALIDITY UNSEEN DELETED SIZE HIGHESTMODSEQ MAILBOXID APPENDLIMIT"
    b" DELETED-STORAGE".split()
)
_MATCHES_NOTHING = "\0"
"""A pattern that matches no mailbox, since no name contains NUL."""

_SELECTION_OPTIONS = frozenset(b"SUBSCRIBED REMOTE RECURSIVEMATCH SPECIAL-USE".split())
_RETURN_OPTIONS = frozenset(b"SUBSCRIBED CHILDREN SPECIAL-USE STATUS".split())


def create(cursor: Cursor) -> Create:
    r"""``create = "CREATE" SP mailbox [SP "(USE (" [use-attr *(SP use-attr)] "))"]`` (RFC 6154).

    A delimiter at the end says that the client will create children (RFC 9051 section 6.3.4). Every mailbox here can
    have children, so the delimiter is dropped.
    """
    cursor.space("CREATE")
    mailbox = cursor.mailbox()
    if len(mailbox) > 1:
        mailbox = mailbox.removesuffix(DELIMITER)
    uses: list[bytes] = []

    def parameter() -> None:
        if not cursor.skip_word(b"USE"):
            raise BadCommand("Unknown parameter of CREATE")
        cursor.space("USE")
        uses.extend(cursor.list_of(use, "special uses", allow_empty=True))

    def use() -> bytes:
        attribute = SPECIAL_USES.get(
            cursor.match(abnf.FLAG, "a special use such as \\Sent").lower()
        )
        if attribute is None:
            raise CommandRefused(b"USEATTR", "Unsupported special use")
        return attribute

    if not cursor.at_end():
        cursor.space("the mailbox name")
        cursor.list_of(parameter, "parameters")
    return Create(mailbox, tuple(dict.fromkeys(uses)))


def delete(cursor: Cursor) -> Delete:
    """``delete = "DELETE" SP mailbox``."""
    cursor.space("DELETE")
    return Delete(cursor.mailbox())


def rename(cursor: Cursor) -> Rename:
    """``rename = "RENAME" SP mailbox SP mailbox``."""
    cursor.space("RENAME")
    old = cursor.mailbox()
    cursor.space("the mailbox name")
    return Rename(old, cursor.mailbox("a new mailbox name"))


def subscribe(cursor: Cursor, *, subscribe: bool = True) -> Subscribe:
    """``subscribe = ("SUBSCRIBE" / "UNSUBSCRIBE") SP mailbox``."""
    cursor.space("SUBSCRIBE or UNSUBSCRIBE")
    return Subscribe(cursor.mailbox(), subscribe)


def lsub(cursor: Cursor) -> List:
    """``lsub = "LSUB" SP mailbox SP list-mailbox`` (RFC 3501)."""
    cursor.space("LSUB")
    reference = _reference(cursor)
    return List(reference, (_pattern(cursor),), lsub=True)


def list_(cursor: Cursor) -> List:
    """``list = "LIST" [SP list-select-opts] SP mailbox SP mbox-or-pat [SP list-return-opts]``."""
    cursor.space("LIST")
    selection: frozenset[bytes] = frozenset()
    returns: frozenset[bytes] = frozenset()
    status_items: tuple[bytes, ...] = ()
    extended = cursor.peek() == b"("
    if extended:
        words = cursor.list_of(
            lambda: _option(cursor, _SELECTION_OPTIONS), "options", allow_empty=True
        )
        selection = frozenset(words)
        if b"RECURSIVEMATCH" in selection and not selection & {b"SUBSCRIBED", b"SPECIAL-USE"}:
            raise BadCommand("RECURSIVEMATCH needs SUBSCRIBED or SPECIAL-USE")
        cursor.space("the selection options")
    reference = _reference(cursor)
    if cursor.peek() == b"(":
        extended = True
        patterns = cursor.list_of(lambda: _pattern(cursor), "patterns")
        if len(patterns) > cursor.limits.max_patterns:
            raise BadCommand("LIST has too many patterns")
    else:
        patterns = [_pattern(cursor)]

    def option() -> bytes:
        nonlocal status_items
        word = _option(cursor, _RETURN_OPTIONS)
        if word == b"STATUS":
            cursor.space("STATUS")
            status_items = _status_items(cursor)
        return word

    if not cursor.at_end():
        extended = True
        cursor.space("the pattern")
        if not cursor.skip_word(b"RETURN"):
            raise BadCommand("Expected RETURN or the end of the command")
        cursor.space("RETURN")
        returns = frozenset(cursor.list_of(option, "options", allow_empty=True))
    return List(
        reference, tuple(patterns), False, selection, returns, status_items, extended=extended
    )


def _option(cursor: Cursor, options: frozenset[bytes]) -> bytes:
    word = cursor.word("an option")
    if word not in options:
        raise BadCommand("Unknown option of LIST")
    return word


def _reference(cursor: Cursor) -> str:
    reference = _decoded(cursor.astring("a reference name"), cursor.utf8)
    cursor.space("the reference name")
    # A reference may contain wildcards and costs what a pattern costs, so it has the same limit.
    return reference if len(reference) <= cursor.limits.max_pattern_length else _MATCHES_NOTHING


def _pattern(cursor: Cursor) -> str:
    """``list-mailbox``.

    "Any syntactically valid pattern that is not accepted ... MUST be silently ignored" (RFC 9051 section 6.3.9).
    """
    pattern = _decoded(cursor.list_mailbox("a mailbox pattern"), cursor.utf8)
    return pattern if len(pattern) <= cursor.limits.max_pattern_length else _MATCHES_NOTHING


def status(cursor: Cursor) -> Status:
    """``status = "STATUS" SP mailbox SP "(" status-att *(SP status-att) ")"``."""
    cursor.space("STATUS")
    mailbox = cursor.mailbox()
    cursor.space("the mailbox name")
    return Status(mailbox, _status_items(cursor))


def _status_items(cursor: Cursor) -> tuple[bytes, ...]:
    def item() -> bytes:
        word = cursor.word("a STATUS item")
        if word not in STATUS_ITEMS:
            raise BadCommand("Unknown STATUS item")
        return word

    return tuple(dict.fromkeys(cursor.list_of(item, "STATUS items")))


def _decoded(octets: bytes, utf8: bool) -> str:
    """Decode a pattern or reference. One that cannot be decoded matches no name, which is not an error."""
    try:
        return decode_pattern(octets, utf8)
    except BadCommand:
        return octets.decode("latin-1")
