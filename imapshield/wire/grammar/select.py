"""SELECT and EXAMINE (RFC 9051 section 6.3.2), with CONDSTORE and QRESYNC (RFC 7162)."""

from __future__ import annotations

from imapshield.errors import BadCommand, CommandRefused
from imapshield.wire.commands.select import Qresync, Select
from imapshield.wire.cursor import Cursor
from imapshield.wire.sequence import SequenceSet


def select(cursor: Cursor, *, readonly: bool = False) -> Select:
    """``select = ("SELECT" / "EXAMINE") SP mailbox [SP select-params]`` (RFC 4466)."""
    cursor.space("SELECT or EXAMINE")
    try:
        mailbox = cursor.mailbox()
    except CommandRefused:
        # A SELECT that fails has to deselect the mailbox (RFC 9051 section 6.3.2). "" is no mailbox's name either, so
        # the session refuses it as it refuses a mailbox that does not exist.
        mailbox = ""
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
    return Qresync(uidvalidity, modseq, known_uids, match_sequence, match_uids)


def _known_numbers(cursor: Cursor) -> SequenceSet:
    numbers = cursor.sequence_set(allow_saved=False)
    if numbers.tail:
        raise BadCommand("Expected known message numbers without *")
    return numbers
