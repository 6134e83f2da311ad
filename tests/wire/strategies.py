"""Hypothesis strategies for sequence sets, mailbox names, flags, FETCH items, search keys, and commands."""

from __future__ import annotations

from datetime import date

from hypothesis import settings
from hypothesis import strategies as st

from imapshield.wire import flags as flag_names
from imapshield.wire.commands.base import BareCommand, MemoryLiteral, Secret
from imapshield.wire.commands.fetch import Binary, BodySection, Fetch, Preview, Section
from imapshield.wire.commands.login import Authenticate, Enable, Id, Login
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
from imapshield.wire.commands.messages import Append, AppendMessage, Copy, Expunge, Store
from imapshield.wire.commands.search import (
    AgeKey,
    And,
    DateKey,
    EnvelopeKey,
    FlagKey,
    HeaderKey,
    ModseqKey,
    Not,
    ObjectIdKey,
    Or,
    Search,
    SearchKey,
    SequenceKey,
    SizeKey,
    Sort,
    TextKey,
    Thread,
)
from imapshield.wire.grammar.fetch import ITEMS
from imapshield.wire.grammar.mailboxes import SPECIAL_USES, STATUS_ITEMS
from imapshield.wire.names import fold_inbox
from imapshield.wire.sequence import MAX_NUMBER, SAVED, SequenceSet

# The settings of every property test: the same examples in each run, and no database of failures.
LAWS = settings(derandomize=True, deadline=None, max_examples=200, database=None)

ATOM = st.text("abcXYZ019$_-.+!", min_size=1, max_size=8).map(str.encode)
OCTETS = st.binary(max_size=12).map(lambda octets: octets.replace(b"\0", b" "))
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=10)
NAMES = st.one_of(
    st.sampled_from(["INBOX", "INBOX/x", "Sent & co", "日本語/é", 'a"\\b', "NIL"]), TEXT
)
MAILBOXES = NAMES.map(fold_inbox)
NUMBER = st.integers(1, MAX_NUMBER)
NUMBER64 = st.integers(0, 2**63 - 1)
RANGES = st.tuples(st.integers(1, 60), st.integers(1, 60)) | st.tuples(NUMBER, NUMBER)


def sequence_of(ranges: list[tuple[int, int]], tail: int) -> SequenceSet:
    """Return the set of `ranges`, with ``tail:*`` unless `tail` is 0."""
    items = [b"%d:%d" % pair for pair in ranges]
    if tail:
        items.append(b"*:%d" % tail)
    return SequenceSet.parse(b",".join(items))


NUMBERS = st.builds(sequence_of, st.lists(RANGES, min_size=1, max_size=6), st.just(0))
SEQUENCES = NUMBERS | st.builds(
    sequence_of, st.lists(RANGES, max_size=6), st.integers(1, 60) | st.just(MAX_NUMBER)
)
SETS = SEQUENCES | st.just(SAVED)
SYSTEM = st.sampled_from(flag_names.SYSTEM_FLAGS)
FLAGS = st.lists(SYSTEM | ATOM, unique=True, max_size=5).map(tuple)


def _subset(words: bytes, min_size: int = 0) -> st.SearchStrategy[list[bytes]]:
    return st.lists(st.sampled_from(words.split()), unique=True, min_size=min_size)


BARE_COMMANDS = st.builds(
    BareCommand,
    st.sampled_from(b"CAPABILITY NOOP LOGOUT STARTTLS NAMESPACE CHECK CLOSE UNSELECT IDLE".split()),
)
QRESYNC = st.builds(Qresync, NUMBER, NUMBER64, st.none() | NUMBERS) | st.builds(
    Qresync, NUMBER, NUMBER64, st.none() | NUMBERS, NUMBERS, NUMBERS
)
STATUS = st.lists(st.sampled_from(sorted(STATUS_ITEMS)), unique=True, min_size=1).map(tuple)


@st.composite
def lists(draw: st.DrawFn) -> List:
    """Generate LIST with and without the extended syntax, and LSUB."""
    reference = draw(NAMES)
    patterns = st.text("ab/%*é]&", max_size=6) | NAMES
    if draw(st.booleans()):
        return List(reference, (draw(patterns),))
    selection = frozenset(draw(_subset(b"SUBSCRIBED REMOTE SPECIAL-USE")))
    if bool(selection & {b"SUBSCRIBED", b"SPECIAL-USE"}) and draw(st.booleans()):
        selection |= {b"RECURSIVEMATCH"}
    returns = frozenset(draw(_subset(b"SUBSCRIBED CHILDREN SPECIAL-USE STATUS")))
    return List(
        reference,
        tuple(draw(st.lists(patterns, min_size=1, max_size=3))),
        selection=selection,
        returns=returns,
        status_items=draw(STATUS) if b"STATUS" in returns else (),
        extended=True,
    )


DATES = st.dates(date(1, 1, 1))


@st.composite
def messages(draw: st.DrawFn) -> AppendMessage:
    """Generate messages of APPEND, with and without a date, some of them with CATENATE."""
    literals = st.builds(MemoryLiteral, st.binary(max_size=8), st.booleans())
    parts = st.lists(literals | st.just(b"/x/;UID=1"), min_size=1, max_size=3).map(tuple)
    flags, content = draw(FLAGS), draw(literals | parts)
    if draw(st.booleans()):
        return AppendMessage(flags, None, content)
    internaldate = draw(st.integers(-62135000000, 253402200000))
    return AppendMessage(flags, internaldate, content)


PATHS = st.lists(st.integers(1, 99), max_size=4).map(tuple)
PARTIALS = st.none() | st.tuples(NUMBER64, st.integers(1, 2**63 - 1))
FIELDS = st.text("abcXYZ-%]{(\"\\'", min_size=1, max_size=8).map(str.encode)
SECTIONS = st.one_of(
    st.builds(Section, PATHS, st.sampled_from([b"", b"HEADER", b"TEXT"])),
    st.builds(Section, PATHS.filter(bool), st.just(b"MIME")),
    st.builds(
        Section,
        PATHS,
        st.sampled_from([b"HEADER.FIELDS", b"HEADER.FIELDS.NOT"]),
        st.lists(FIELDS, min_size=1, max_size=3).map(tuple),
    ),
)
FETCH_ITEMS = st.one_of(
    st.sampled_from(list(ITEMS.values())),
    st.builds(BodySection, SECTIONS, st.booleans(), PARTIALS),
    st.builds(Binary, PATHS, st.booleans(), PARTIALS),
    st.builds(Binary, PATHS, size_only=st.just(True)),
    st.builds(Preview, st.booleans()),
)


@st.composite
def fetches(draw: st.DrawFn) -> Fetch:
    """Generate FETCH and UID FETCH with modifiers that are permitted together."""
    uid = draw(st.booleans())
    changed_since = draw(st.none() | NUMBER64)
    return Fetch(
        draw(SETS),
        tuple(draw(st.lists(FETCH_ITEMS, unique=True, min_size=1, max_size=5))),
        uid,
        changed_since,
        vanished=uid and changed_since is not None and draw(st.booleans()),
        partial=draw(st.none() | PARTIAL_RANGES) if uid else None,
    )


def _partial_range(first: int, length: int, sign: int) -> tuple[int, int]:
    return sign * first, sign * (first + length)


PARTIAL_RANGES = st.builds(
    _partial_range, st.integers(1, 999), st.integers(0, 999), st.sampled_from((1, -1))
)


def all_of(keys: list[SearchKey]) -> SearchKey:
    """Return the AND of `keys` in the flat form that the grammar makes."""
    flat = [inner for key in keys for inner in (key.keys if isinstance(key, And) else (key,))]
    return flat[0] if len(flat) == 1 else And(tuple(flat))


def any_of(keys: list[SearchKey]) -> SearchKey:
    """Return the OR of `keys` in the flat form that the grammar makes."""
    flat = [inner for key in keys for inner in (key.keys if isinstance(key, Or) else (key,))]
    return Or(tuple(flat))


def negated(key: SearchKey) -> SearchKey:
    """Return the NOT of `key` in the form that the grammar makes."""
    return key.key if isinstance(key, Not) else Not(key)


LEAVES = st.one_of(
    st.just(And(())),
    st.builds(FlagKey, SYSTEM | ATOM | st.just(flag_names.RECENT)),
    st.builds(SequenceKey, SETS, st.booleans()),
    st.builds(SizeKey, st.booleans(), NUMBER64),
    st.builds(
        DateKey,
        st.sampled_from([b"BEFORE", b"ON", b"SINCE"]),
        DATES,
        st.sampled_from([b"INTERNAL", b"SENT", b"SAVED"]),
    ),
    st.builds(AgeKey, st.booleans(), NUMBER),
    st.builds(HeaderKey, st.sampled_from([b"FROM", b"SUBJECT"]) | FIELDS.map(bytes.upper), TEXT),
    st.builds(EnvelopeKey, st.sampled_from([b"FROM", b"TO", b"CC", b"BCC", b"SUBJECT"]), TEXT),
    st.builds(TextKey, TEXT, st.booleans()),
    st.builds(ModseqKey, NUMBER64),
    st.builds(ObjectIdKey, st.booleans(), st.sampled_from([b"M1", b"T_-9"])),
)
KEYS = st.recursive(
    LEAVES,
    lambda keys: st.one_of(
        st.lists(keys, max_size=3).map(all_of),
        st.lists(keys, min_size=2, max_size=3).map(any_of),
        keys.map(negated),
    ),
    max_leaves=8,
)


@st.composite
def result_options(
    draw: st.DrawFn,
) -> tuple[frozenset[bytes] | None, tuple[int, int] | None]:
    """Generate the result options of a search, and the range of PARTIAL."""
    if not draw(st.booleans()):
        return None, None
    returns = frozenset(draw(_subset(b"MIN MAX COUNT SAVE"))) or frozenset({b"ALL"})
    if b"ALL" in returns or not draw(st.booleans()):
        return returns, None
    return returns | {b"PARTIAL"}, draw(PARTIAL_RANGES)


@st.composite
def searches(draw: st.DrawFn) -> Search:
    """Generate SEARCH and UID SEARCH."""
    returns, partial = draw(result_options())
    return Search(draw(KEYS), draw(st.booleans()), returns, partial)


@st.composite
def sorts(draw: st.DrawFn) -> Sort:
    """Generate SORT and UID SORT."""
    returns, partial = draw(result_options())
    words = draw(_subset(b"ARRIVAL CC DATE FROM SIZE SUBJECT TO", 1))
    criteria = tuple((draw(st.booleans()), word) for word in words)
    return Sort(criteria, draw(KEYS), draw(st.booleans()), returns, partial)


COMMANDS = st.one_of(
    BARE_COMMANDS,
    st.builds(Id, st.lists(st.tuples(OCTETS, st.none() | OCTETS), max_size=4).map(tuple)),
    st.builds(
        Enable,
        st.lists(ATOM.map(bytes.upper), min_size=1, max_size=3, unique=True).map(tuple),
    ),
    st.builds(Login, OCTETS, st.builds(Secret, OCTETS)),
    st.builds(
        Authenticate,
        st.sampled_from([b"PLAIN", b"SCRAM-SHA-256"]),
        st.none() | st.builds(Secret, st.binary(max_size=12)),
    ),
    st.builds(Select, MAILBOXES, st.booleans(), st.booleans(), st.none() | QRESYNC),
    st.builds(
        Create,
        MAILBOXES.map(lambda name: name.rstrip("/")),
        st.lists(st.sampled_from(sorted(SPECIAL_USES.values())), unique=True, max_size=3).map(
            tuple
        ),
    ),
    st.builds(Delete, MAILBOXES),
    st.builds(Rename, MAILBOXES, MAILBOXES),
    st.builds(Subscribe, MAILBOXES, st.booleans()),
    lists(),
    st.builds(Status, MAILBOXES, STATUS),
    st.builds(Append, MAILBOXES, st.lists(messages(), min_size=1, max_size=3).map(tuple)),
    st.builds(Expunge, st.none() | SETS),
    fetches(),
    st.builds(
        Store,
        SETS,
        st.sampled_from([b"+", b"-", b""]),
        FLAGS,
        st.booleans(),
        st.booleans(),
        st.none() | NUMBER64,
    ),
    st.builds(Copy, SETS, MAILBOXES, st.booleans(), st.booleans()),
    searches(),
    sorts(),
    st.builds(Thread, st.sampled_from([b"REFERENCES", b"ORDEREDSUBJECT"]), KEYS, st.booleans()),
)
