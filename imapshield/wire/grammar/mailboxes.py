"""SELECT, EXAMINE, CREATE, DELETE, RENAME, SUBSCRIBE, LIST, LSUB and STATUS."""

from __future__ import annotations

from imapshield.errors import BadCommand, CommandRefused
from imapshield.wire import abnf
from imapshield.wire.commands.mailboxes import (
    Create,
    Delete,
    List,
    Qresync,
    Rename,
    Select,
    Status,
    Subscribe,
)
from imapshield.wire.cursor import Cursor
from imapshield.wire.names import DELIMITER, decode_pattern
from imapshield.wire.sequence import SequenceSet

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
"""RFC 6154 and RFC 8457, by their lower case; not \\All and \\Flagged, which show what other mailboxes hold."""

STATUS_ITEMS = frozenset(
    b"MESSAGES RECENT UIDNEXT UIDVALIDITY UNSEEN DELETED SIZE HIGHESTMODSEQ MAILBOXID APPENDLIMIT"
    b" DELETED-STORAGE".split()
)
_MATCHES_NOTHING = "\0"
"""A pattern that no name matches, since none can have a NUL."""

_SELECTION = frozenset(b"SUBSCRIBED REMOTE RECURSIVEMATCH SPECIAL-USE".split())
_RETURNS = frozenset(b"SUBSCRIBED CHILDREN SPECIAL-USE STATUS".split())


def select(cursor: Cursor, *, readonly: bool = False) -> Select:
    """``select = ("SELECT" / "EXAMINE") SP mailbox [SP select-params]`` (RFC 4466)."""
    cursor.space("SELECT or EXAMINE")
    try:
        mailbox = cursor.mailbox()
    except CommandRefused:
        mailbox = ""  # no mailbox's name either: a SELECT that fails has to deselect (RFC 9051 section 6.3.2)
    condstore = False
    qresync: Qresync | None = None

    def parameter() -> None:
        nonlocal condstore, qresync
        word = cursor.word("a parameter")
        if word == b"CONDSTORE":
            condstore = True
        elif word == b"QRESYNC":
            qresync = _qresync(cursor)
        else:
            raise BadCommand("Unknown parameter of SELECT")

    if not cursor.at_end():
        cursor.space("the mailbox name")
        cursor.list_of(parameter, "parameters")
    return Select(mailbox, readonly, condstore, qresync)


def _qresync(cursor: Cursor) -> Qresync:
    """``SP "(" uidvalidity SP mod-sequence-value [SP known-uids] [SP seq-match-data] ")"``."""
    cursor.space("QRESYNC")
    cursor.expect(b"(", "Expected the values of QRESYNC in parentheses")
    uidvalidity = cursor.nz_number("a UIDVALIDITY")
    cursor.space("the UIDVALIDITY")
    modseq = cursor.number64("a MODSEQ")
    known_uids = match_sequence = match_uids = None
    more = cursor.skip(b" ")
    if more and cursor.peek() != b"(":
        known_uids = _numbers(cursor)
        more = cursor.skip(b" ")
    if more:
        cursor.expect(b"(", "Expected the known message numbers in parentheses")
        match_sequence = _numbers(cursor)
        cursor.space("the known message numbers")
        match_uids = _numbers(cursor)
        cursor.expect(b")", "Expected a parenthesis after the known UIDs")
    cursor.expect(b")", "Expected a parenthesis after the values of QRESYNC")
    return Qresync(uidvalidity, modseq, known_uids, match_sequence, match_uids)


def _numbers(cursor: Cursor) -> SequenceSet:
    numbers = cursor.sequence_set(allow_saved=False)
    if numbers.tail:
        raise BadCommand("There can be no * in what the client knows")
    return numbers


def create(cursor: Cursor) -> Create:
    r"""``create = "CREATE" SP mailbox [SP "(USE (" [use-attr *(SP use-attr)] "))"]`` (RFC 6154).

    A delimiter at the end announces inferiors (RFC 9051 section 6.3.4); all our mailboxes can have
    them, so it goes.
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
        found = SPECIAL_USES.get(cursor.match(abnf.FLAG, "a special use").lower())
        if found is None:
            raise CommandRefused(b"USEATTR", "Unknown special use")
        return found

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
        words = cursor.list_of(lambda: _option(cursor, _SELECTION), "options", allow_empty=True)
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
        word = _option(cursor, _RETURNS)
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


def _option(cursor: Cursor, known: frozenset[bytes]) -> bytes:
    word = cursor.word("an option")
    if word not in known:
        raise BadCommand("Unknown option of LIST")
    return word


def _reference(cursor: Cursor) -> str:
    reference = _part_of_name(cursor.astring("a reference name"), cursor.utf8)
    cursor.space("the reference name")
    # it may have wildcards too, so it costs what a pattern costs
    return reference if len(reference) <= cursor.limits.max_pattern_length else _MATCHES_NOTHING


def _pattern(cursor: Cursor) -> str:
    """``list-mailbox``. "Any syntactically valid pattern that is not accepted ... MUST be silently ignored" (6.3.9)."""
    pattern = _part_of_name(cursor.list_mailbox("a mailbox pattern"), cursor.utf8)
    return pattern if len(pattern) <= cursor.limits.max_pattern_length else _MATCHES_NOTHING


def status(cursor: Cursor) -> Status:
    """``status = "STATUS" SP mailbox SP "(" status-att *(SP status-att) ")"``."""
    cursor.space("STATUS")
    mailbox = cursor.mailbox()
    cursor.space("the mailbox name")
    return Status(mailbox, _status_items(cursor))


def _status_items(cursor: Cursor) -> tuple[bytes, ...]:
    def item() -> bytes:
        word = cursor.word("a status item")
        if word not in STATUS_ITEMS:
            raise BadCommand("Unknown status item")
        return word

    return tuple(dict.fromkeys(cursor.list_of(item, "status items")))


def _part_of_name(octets: bytes, utf8: bool) -> str:
    """Return a pattern or reference; one that no name can match is no error, and is taken as it stands."""
    try:
        return decode_pattern(octets, utf8)
    except BadCommand:
        return octets.decode("latin-1")
