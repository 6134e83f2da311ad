"""Commands about mailboxes: SELECT, CREATE, LIST, STATUS and the like (RFC 9051 section 6.3), and quotas (RFC 9208).

SELECT has the parameters of CONDSTORE and QRESYNC (RFC 7162).
"""

from imapshield.errors import BadCommand, CommandRefused
from imapshield.wire import abnf
from imapshield.wire.commands import mailboxes as commands
from imapshield.wire.cursor import Cursor, too_many
from imapshield.wire.names import DELIMITER
from imapshield.wire.sequence import SequenceSet

SPECIAL_USES = {
    use.lower(): use for use in rb"\Archive \Drafts \Important \Junk \Sent \Trash".split()
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


def create(cursor: Cursor) -> commands.Create:
    """``create = "CREATE" SP mailbox [SP "(USE (" [use-attr *(SP use-attr)] "))"]`` (RFC 6154)."""
    mailbox = _new_mailbox(cursor, "a mailbox name")
    uses: list[bytes] = []

    def parameter() -> None:
        if not cursor.skip_word(b"USE"):
            raise BadCommand("Unknown parameter of CREATE")
        cursor.space("USE")
        uses.extend(cursor.list_of(use, "special uses", allow_empty=True))

    def use() -> bytes:
        word = cursor.match(abnf.FLAG, "a special use such as \\Sent").lower()
        if word not in SPECIAL_USES:
            raise CommandRefused(b"USEATTR", "Unsupported special use")
        return SPECIAL_USES[word]

    if not cursor.at_end():
        cursor.space("the mailbox name")
        cursor.list_of(parameter, "parameters")
    return commands.Create(mailbox, tuple(dict.fromkeys(uses)))


def delete(cursor: Cursor) -> commands.Delete:
    """``delete = "DELETE" SP mailbox``."""
    return commands.Delete(cursor.mailbox())


def rename(cursor: Cursor) -> commands.Rename:
    """``rename = "RENAME" SP mailbox SP mailbox``."""
    old = cursor.mailbox()
    cursor.space("the mailbox name")
    return commands.Rename(old, _new_mailbox(cursor, "a new mailbox name"))


def _new_mailbox(cursor: Cursor, expected: str) -> str:
    """Read ``mailbox`` without a delimiter at its end.

    The delimiter says that the client will create children (RFC 9051 section 6.3.4). Every mailbox here can have
    children, so it means nothing.
    """
    return cursor.mailbox(expected).removesuffix(DELIMITER)


def subscribe(cursor: Cursor, *, subscribe: bool = True) -> commands.Subscribe:
    """``subscribe = ("SUBSCRIBE" / "UNSUBSCRIBE") SP mailbox``."""
    return commands.Subscribe(cursor.mailbox(), subscribe)


def lsub(cursor: Cursor) -> commands.List:
    """``lsub = "LSUB" SP mailbox SP list-mailbox`` (RFC 3501)."""
    reference = _reference(cursor)
    return commands.List(reference, (_pattern(cursor),))


def list_(cursor: Cursor) -> commands.List:
    """``list = "LIST" [SP list-select-opts] SP mailbox SP mbox-or-pat [SP list-return-opts]``."""
    selection = returns = frozenset[bytes]()
    status_items: tuple[bytes, ...] = ()

    def selection_option() -> bytes:
        return cursor.word_in(_SELECTION_OPTIONS, "a selection option of LIST")

    def return_option() -> bytes:
        nonlocal status_items
        word = cursor.word_in(_RETURN_OPTIONS, "a return option of LIST")
        if word == b"STATUS":
            cursor.space("STATUS")
            status_items = _status_items(cursor)
        return word

    extended = cursor.peek() == b"("
    if extended:
        selection = frozenset(cursor.list_of(selection_option, "options", allow_empty=True))
        if b"RECURSIVEMATCH" in selection and not selection & {b"SUBSCRIBED", b"SPECIAL-USE"}:
            raise BadCommand("RECURSIVEMATCH needs SUBSCRIBED or SPECIAL-USE")
        cursor.space("the selection options")
    reference = _reference(cursor)
    if cursor.peek() == b"(":
        extended = True
        patterns = cursor.list_of(lambda: _pattern(cursor), "patterns")
        if len(patterns) > cursor.limits.max_patterns:
            raise BadCommand(too_many("patterns in one LIST", cursor.limits.max_patterns))
    else:
        patterns = [_pattern(cursor)]

    if not cursor.at_end():
        extended = True
        cursor.space("the pattern")
        if not cursor.skip_word(b"RETURN"):
            raise BadCommand("Expected RETURN or the end of the command")
        cursor.space("RETURN")
        returns = frozenset(cursor.list_of(return_option, "options", allow_empty=True))
    return commands.List(reference, tuple(patterns), selection, returns, status_items, extended)


def _reference(cursor: Cursor) -> str:
    """Read the reference name and the space after it. It may contain wildcards, so it has the limits of a pattern."""
    reference = _decoded(cursor, cursor.astring("a reference name"))
    cursor.space("the reference name")
    return reference


def _pattern(cursor: Cursor) -> str:
    """``list-mailbox``.

    "Any syntactically valid pattern that is not accepted ... MUST be silently ignored" (RFC 9051 section 6.3.9).
    """
    return _decoded(cursor, cursor.list_mailbox("a mailbox pattern"))


def _decoded(cursor: Cursor, octets: bytes) -> str:
    """Decode a pattern or reference.

    One that is not a valid name is read as Latin-1; one that is too long matches nothing.
    """
    try:
        text = cursor.names.decode_pattern(octets)
    except BadCommand:
        text = octets.decode("latin-1")
    return text if len(text) <= cursor.limits.max_pattern_length else _MATCHES_NOTHING


def status(cursor: Cursor) -> commands.Status:
    """``status = "STATUS" SP mailbox SP "(" status-att *(SP status-att) ")"``."""
    mailbox = cursor.mailbox()
    cursor.space("the mailbox name")
    return commands.Status(mailbox, _status_items(cursor))


def _status_items(cursor: Cursor) -> tuple[bytes, ...]:
    items = cursor.list_of(lambda: cursor.word_in(STATUS_ITEMS, "a STATUS item"), "STATUS items")
    return tuple(dict.fromkeys(items))


def select(cursor: Cursor, *, readonly: bool = False) -> commands.Select:
    """``select = ("SELECT" / "EXAMINE") SP mailbox [SP select-params]`` (RFC 4466)."""
    try:
        mailbox = cursor.mailbox()
    except CommandRefused:
        # A SELECT that fails has to deselect the mailbox (RFC 9051 section 6.3.2). "" is no mailbox's name either, so
        # the session refuses it as it refuses a mailbox that does not exist.
        mailbox = ""
    condstore = False
    qresync: commands.Qresync | None = None

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
    return commands.Select(mailbox, readonly, condstore, qresync)


def _qresync(cursor: Cursor) -> commands.Qresync:
    """``SP "(" uidvalidity SP mod-sequence-value [SP known-uids] [SP seq-match-data] ")"``."""
    cursor.space("QRESYNC")
    cursor.expect(b"(", "Expected the values of QRESYNC in parentheses")
    uidvalidity = cursor.nz_number("a UIDVALIDITY")
    cursor.space("the UIDVALIDITY")
    modseq = cursor.number64("a MODSEQ")
    known_uids = match_sequence = match_uids = None
    has_more = cursor.skip(b" ")
    if has_more and cursor.peek() != b"(":
        known_uids = _known_numbers(cursor)
        has_more = cursor.skip(b" ")
    if has_more:
        cursor.expect(b"(", "Expected the known message numbers in parentheses")
        match_sequence = _known_numbers(cursor)
        cursor.space("the known message numbers")
        match_uids = _known_numbers(cursor)
        cursor.expect(b")", "Expected ) after the known UIDs")
    cursor.expect(b")", "Expected ) after the values of QRESYNC")
    return commands.Qresync(uidvalidity, modseq, known_uids, match_sequence, match_uids)


def _known_numbers(cursor: Cursor) -> SequenceSet:
    numbers = cursor.sequence_set(allow_saved=False)
    if numbers.tail:
        raise BadCommand("Expected known message numbers without *")
    return numbers


def getquota(cursor: Cursor) -> commands.GetQuota:
    """``getquota = "GETQUOTA" SP quota-root-name``, an astring."""
    return commands.GetQuota(cursor.astring("a quota root"))


def getquotaroot(cursor: Cursor) -> commands.GetQuotaRoot:
    """``getquotaroot = "GETQUOTAROOT" SP mailbox``."""
    return commands.GetQuotaRoot(cursor.mailbox())


def setquota(cursor: Cursor) -> commands.SetQuota:
    """``setquota = "SETQUOTA" SP quota-root-name SP setquota-list``."""
    root = cursor.astring("a quota root")
    cursor.space("the quota root")

    def limit() -> tuple[bytes, int]:
        name = cursor.atom("a resource name").upper()
        cursor.space("the resource name")
        return name, cursor.number64("a limit")

    limits = cursor.list_of(limit, "resource names and limits", allow_empty=True)
    return commands.SetQuota(root, tuple(limits))
