"""Encodes untagged data responses and response codes (RFC 9051 sections 7.2 to 7.5, except FETCH)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from imapshield.wire.encode.status_lines import CLEAN
from imapshield.wire.encode.strings import (
    NIL,
    astring,
    mailbox,
    nstring,
    parenthesised,
    quoted,
    string,
)
from imapshield.wire.names import DELIMITER, encode_name
from imapshield.wire.responses import ThreadNode
from imapshield.wire.sequence import SequenceSet, compact

THREAD_CHUNK_TOKENS = 4000
"""Tokens of a THREAD response that `thread` yields at once. They take about a millisecond."""


def capability(names: Iterable[bytes]) -> bytes:
    """Return the CAPABILITY line. The greeting and tagged OKs have `capability_code` instead."""
    return b"* %b\r\n" % capability_code(names)


def capability_code(names: Iterable[bytes]) -> bytes:
    """Return ``CAPABILITY …`` as a response code."""
    return b"CAPABILITY " + b" ".join(names)


def enabled(names: Iterable[bytes]) -> bytes:
    """Return the ENABLED line (RFC 5161)."""
    return b"* %b\r\n" % b" ".join([b"ENABLED", *names])


def identity(fields: Iterable[tuple[bytes, bytes | None]] | None) -> bytes:
    """Return the ID line (RFC 2971); None and no fields are both NIL."""
    if fields is None:
        return b"* ID NIL\r\n"
    pairs = [string(name) + b" " + nstring(value) for name, value in fields]
    return b"* ID %b\r\n" % (parenthesised(pairs) if pairs else NIL)


def namespace(
    personal: Sequence[str] = ("",), others: Sequence[str] = (), shared: Sequence[str] = ()
) -> bytes:
    """Return the NAMESPACE line (RFC 2342) with the prefixes of each kind of namespace."""
    return b"* NAMESPACE %b %b %b\r\n" % (_prefixes(personal), _prefixes(others), _prefixes(shared))


def _prefixes(prefixes: Sequence[str]) -> bytes:
    if not prefixes:
        return NIL
    delimiter = DELIMITER.encode("ascii")
    return b"(%b)" % b"".join(
        [b'(%b "%b")' % (string(encode_name(prefix)), delimiter) for prefix in prefixes]
    )


def list_response(
    kind: bytes,
    attributes: Iterable[bytes],
    name: str,
    *,
    delimiter: str | None = DELIMITER,
    extended: Sequence[tuple[bytes, bytes]] = (),
    utf8: bool = False,
) -> bytes:
    r"""Return a LIST or LSUB line.

    Args:
        kind: ``LIST`` or ``LSUB``.
        attributes: mailbox attributes such as ``\HasNoChildren``.
        name: the mailbox.
        delimiter: None for a name without hierarchy.
        extended: the extended data items of RFC 5258 as pairs of tag and value ready to send, such as
            ``(b"CHILDINFO", b'("SUBSCRIBED")')``.
        utf8: whether the client enabled UTF-8 names.
    """
    text = b"* %b %b %b %b" % (
        kind,
        parenthesised(attributes),
        NIL if delimiter is None else quoted(delimiter.encode("ascii")),
        mailbox(name, utf8=utf8),
    )
    if extended:
        text += b" " + parenthesised([quoted(tag) + b" " + value for tag, value in extended])
    return text + b"\r\n"


def status(name: str, pairs: Iterable[tuple[bytes, int | bytes]], *, utf8: bool = False) -> bytes:
    """Return the STATUS line. A value given as bytes is ready to send, such as ``(M1)`` of MAILBOXID."""
    values = parenthesised([item + b" " + _value(value) for item, value in pairs])
    return b"* STATUS %b %b\r\n" % (mailbox(name, utf8=utf8), values)


def flags(names: Iterable[bytes]) -> bytes:
    """Return the FLAGS line."""
    return b"* FLAGS %b\r\n" % parenthesised(names)


def permanentflags_code(names: Iterable[bytes]) -> bytes:
    r"""Return ``PERMANENTFLAGS (…)`` as a response code; ``\*`` may be among `names`."""
    return b"PERMANENTFLAGS %b" % parenthesised(names)


def exists(count: int) -> bytes:
    """Return the EXISTS line."""
    return b"* %d EXISTS\r\n" % count


def recent(count: int) -> bytes:
    """Return the RECENT line (IMAP4rev1 only)."""
    return b"* %d RECENT\r\n" % count


def expunge(numbers: Iterable[int]) -> bytes:
    """Return an EXPUNGE line for each number, in the order given.

    Each sequence number must take the EXPUNGE lines before it into account.
    """
    return b"".join(map(b"* %d EXPUNGE\r\n".__mod__, numbers))


def vanished(uids: SequenceSet, *, earlier: bool = False) -> bytes:
    """Return the VANISHED line (RFC 7162)."""
    return b"* VANISHED %b%b\r\n" % (b"(EARLIER) " if earlier else b"", uids.encode())


def search(numbers: Iterable[int], modseq: int | None = None, *, kind: bytes = b"SEARCH") -> bytes:
    """Return the SEARCH line, or the SORT line if `kind` is ``SORT``.

    `modseq` is the highest MODSEQ of the messages found (RFC 7162). It is left out if none was found.
    """
    text = b" ".join([kind, *map(b"%d".__mod__, numbers)])
    return b"* %b (MODSEQ %d)\r\n" % (text, modseq) if modseq else b"* %b\r\n" % text


def esearch(
    tag: bytes, uid: bool, pairs: Iterable[tuple[bytes, int | bytes]], mailbox_item: bytes = b""
) -> bytes:
    """Return the ESEARCH line (RFC 9051 section 7.3.4).

    Args:
        tag: the tag of the search command.
        uid: whether the numbers are UIDs.
        pairs: the results, such as ``(b"COUNT", 3)`` and ``(b"ALL", b"2:4")``.
        mailbox_item: from `esearch_mailbox`, for a search in several mailboxes.
    """
    items = [b'* ESEARCH (TAG "%b"%b)' % (tag.translate(CLEAN), mailbox_item)]
    if uid:
        items.append(b"UID")
    items += [name + b" " + _value(value) for name, value in pairs]
    return b" ".join(items) + b"\r\n"


def esearch_mailbox(name: str, uidvalidity: int, *, utf8: bool = False) -> bytes:
    """Return the part of an ESEARCH line that names the mailbox (RFC 7377)."""
    return b" MAILBOX %b UIDVALIDITY %d" % (mailbox(name, utf8=utf8), uidvalidity)


def thread(roots: Iterable[ThreadNode]) -> Iterator[bytes]:
    """Yield the THREAD line (RFC 5256) in chunks that take about a millisecond each.

    A conversation may be thousands of messages deep, so this keeps a stack instead of recursing.
    """
    tokens: list[bytes] = [b"* THREAD"]
    opening = b" ("
    for root in roots:
        stack: list[ThreadNode | bytes] = [b")", root, opening]
        opening = b"("
        while stack:
            node = stack.pop()
            if isinstance(node, bytes):
                tokens.append(node)
                continue
            if len(tokens) > THREAD_CHUNK_TOKENS:
                yield b"".join(tokens)
                tokens.clear()
            if node.number is not None:
                tokens.append(b"%d " % node.number if node.children else b"%d" % node.number)
            if len(node.children) == 1:
                stack.append(node.children[0])
            else:
                for child in reversed(node.children):
                    stack += (b")", child, b"(")
    tokens.append(b"\r\n")
    yield b"".join(tokens)


def quota(root: bytes, resources: Iterable[tuple[bytes, int, int]]) -> bytes:
    """Return the QUOTA line (RFC 9208); `resources` are (name, usage, limit)."""
    items = [b"%b %d %d" % resource for resource in resources]
    return b"* QUOTA %b %b\r\n" % (astring(root), parenthesised(items))


def quotaroot(name: str, roots: Iterable[bytes], *, utf8: bool = False) -> bytes:
    """Return the QUOTAROOT line (RFC 9208)."""
    return b"* QUOTAROOT %b\r\n" % b" ".join([mailbox(name, utf8=utf8), *map(astring, roots)])


def metadata(
    name: str, values: Iterable[tuple[bytes, bytes | None]], *, utf8: bool = False
) -> bytes:
    """Return the METADATA line (RFC 5464) with entries and their values; None is NIL."""
    pairs = [astring(entry) + b" " + nstring(value, binary=True) for entry, value in values]
    return b"* METADATA %b %b\r\n" % (mailbox(name, utf8=utf8), parenthesised(pairs))


def metadata_changed(name: str, entries: Iterable[bytes], *, utf8: bool = False) -> bytes:
    """Return the METADATA line that says which entries have changed, without their values (RFC 5464)."""
    return b"* METADATA %b %b\r\n" % (mailbox(name, utf8=utf8), b" ".join(map(astring, entries)))


def copyuid(uidvalidity: int, source: Iterable[int], target: Iterable[int]) -> bytes:
    """Return the COPYUID response code (RFC 4315): the i-th UID of `source` became the i-th of `target`."""
    return b"COPYUID %d %b %b" % (uidvalidity, compact(source), compact(target))


def appenduid(uidvalidity: int, uids: Iterable[int]) -> bytes:
    """Return the APPENDUID response code (RFC 4315)."""
    return b"APPENDUID %d %b" % (uidvalidity, compact(uids))


def _value(value: int | bytes) -> bytes:
    return value if isinstance(value, bytes) else b"%d" % value
