"""Encodes responses: each function returns whole lines or one element of a line, ready to send (RFC 9051 section 7).

A function whose result can be long yields it in pieces (`wire.pieces`), which `SessionState.send` sends.

Rules
-----
* No byte from a client or a message can break a line. Texts and response codes are cleaned, and `strings` sends every
  string as an atom, quoted or as a literal, whichever can hold it.
* Nothing here knows what a response means or when it may be sent.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, islice

from imapshield.wire.names import MODIFIED_UTF7, NameFormat
from imapshield.wire.pieces import NUMBERS_PER_PIECE, joined, separated
from imapshield.wire.responses import Code, Tagged, ThreadNode
from imapshield.wire.sequence import SequenceSet, compact_pieces
from imapshield.wire.strings import NIL, astring, mailbox, nstring, parenthesised, quoted, string

THREAD_CHUNK_TOKENS = NUMBERS_PER_PIECE
"""Tokens of a THREAD response that `thread` yields at once. They take less than a millisecond."""

FLAGS_PER_PIECE = 100
"""Flags that are written at once. A keyword can have 4 KiB, and most have ten bytes."""

Value = int | bytes | Iterable[bytes]
"""The value of a return option of ESEARCH: a number, text that is ready to send, or its pieces."""

# Tables for `bytes.translate`. Texts may be derived from anything, so everything but printable ASCII becomes "?".
_CLEAN = bytes(i if 32 <= i < 127 else 63 for i in range(256))
_CLEAN_CODE = _CLEAN.replace(b"]", b"?")  # "]" ends a response code


def tagged(tag: bytes, response: Tagged) -> Iterator[bytes]:
    """Yield the tagged response that completes a command."""
    return _status_response(tag.translate(_CLEAN), *response)


def short_tagged(tag: bytes, response: Tagged) -> bytes:
    """Return the tagged response that completes a command, with a code that is short."""
    condition, text, code = response
    assert code is None or isinstance(code, bytes)
    return b"%b %b\r\n" % (tag.translate(_CLEAN), _condition(condition, text, code))


def untagged(condition: bytes, text: str, code: bytes | None = None) -> bytes:
    """Return an untagged status response; `condition` is OK, NO, BAD, BYE or PREAUTH."""
    return b"* %b\r\n" % _condition(condition, text, code)


def untagged_pieces(condition: bytes, text: str, code: Code | None = None) -> Iterator[bytes]:
    """Yield an untagged status response with a code that may be long."""
    return _status_response(b"*", condition, text, code)


def _status_response(tag: bytes, condition: bytes, text: str, code: Code | None) -> Iterator[bytes]:
    if code is None or isinstance(code, bytes):
        yield b"%b %b\r\n" % (tag, _condition(condition, text, code))
        return
    yield b"%b %b [" % (tag, condition)
    for piece in code:
        yield piece.translate(_CLEAN_CODE)
    yield b"] %b\r\n" % _text(text)


@lru_cache(256)  # most texts are constants
def _text(text: str) -> bytes:
    return (text or "Done").encode("ascii", "replace").translate(_CLEAN)


def continuation(text: str | bytes = b"") -> bytes:
    """Return a continuation request with a text, or with a SASL challenge in base64."""
    octets = text.encode("ascii", "replace") if isinstance(text, str) else text
    return b"+ %b\r\n" % octets.translate(_CLEAN)


def _condition(condition: bytes, text: str, code: bytes | None) -> bytes:
    if code is None:
        return b"%b %b" % (condition, _text(text))
    return b"%b [%b] %b" % (condition, code.translate(_CLEAN_CODE), _text(text))


def capability(names: Iterable[bytes]) -> bytes:
    """Return the CAPABILITY line. `capability_code` is for the greeting and tagged responses."""
    return b"* %b\r\n" % capability_code(names)


def capability_code(names: Iterable[bytes]) -> bytes:
    """Return ``CAPABILITY …`` as a response code."""
    return b"CAPABILITY " + b" ".join(names)


def enabled(names: Iterable[bytes]) -> bytes:
    """Return the ENABLED line (RFC 5161)."""
    return b"* %b\r\n" % b" ".join([b"ENABLED", *names])


def identity(fields: Iterable[tuple[bytes, bytes | None]]) -> bytes:
    """Return the ID line (RFC 2971); without fields it is NIL."""
    pairs = [string(name) + b" " + nstring(value) for name, value in fields]
    return b"* ID %b\r\n" % (parenthesised(pairs) if pairs else NIL)


def namespace(prefix: str = "", *, names: NameFormat = MODIFIED_UTF7) -> bytes:
    """Return the NAMESPACE line (RFC 2342): one personal namespace with this prefix."""
    text = string(names.encode(prefix), utf8=names.utf8)
    return b"* NAMESPACE ((%b %b)) NIL NIL\r\n" % (text, _separator(names))


def _separator(names: NameFormat) -> bytes:
    return quoted(names.separator.encode("ascii"))


def list_response(
    kind: bytes,
    attributes: Iterable[bytes],
    name: str,
    *,
    extended: Sequence[tuple[bytes, bytes]] = (),
    names: NameFormat = MODIFIED_UTF7,
) -> bytes:
    r"""Return a LIST or LSUB line.

    Args:
        kind: ``LIST`` or ``LSUB``.
        attributes: mailbox attributes such as ``\HasNoChildren``.
        name: the mailbox.
        extended: the extended data items of RFC 5258 as pairs of tag and value ready to send, such as
            ``(b"CHILDINFO", b'("SUBSCRIBED")')``.
        names: how the client writes mailbox names.
    """
    text = b"* %b %b %b %b" % (
        kind,
        parenthesised(attributes),
        _separator(names),
        mailbox(name, names=names),
    )
    if extended:
        text += b" " + parenthesised([quoted(tag) + b" " + value for tag, value in extended])
    return text + b"\r\n"


def kibibytes(octets: int) -> int:
    """Return a size in the unit of STORAGE and DELETED-STORAGE: 1024 octets, rounded up (RFC 9208 section 5.1)."""
    return -(-octets // 1024)


def status(
    name: str, pairs: Iterable[tuple[bytes, int | bytes]], *, names: NameFormat = MODIFIED_UTF7
) -> bytes:
    """Return the STATUS line. A value given as bytes is ready to send, such as ``(M1)`` of MAILBOXID."""
    values = parenthesised([item + b" " + _value(value) for item, value in pairs])
    return b"* STATUS %b %b\r\n" % (mailbox(name, names=names), values)


def flags(names: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the FLAGS line. A thousand keywords can take megabytes."""
    yield from _flag_list(b"* FLAGS (", names)
    yield b"\r\n"


def permanentflags_code(names: Iterable[bytes]) -> Iterator[bytes]:
    r"""Yield ``PERMANENTFLAGS (…)`` as a response code; ``\*`` may be among `names`."""
    return _flag_list(b"PERMANENTFLAGS (", names)


def _flag_list(begin: bytes, names: Iterable[bytes]) -> Iterator[bytes]:
    yield begin
    yield from separated(names, b" ", FLAGS_PER_PIECE)
    yield b")"


def exists(count: int) -> bytes:
    """Return the EXISTS line."""
    return b"* %d EXISTS\r\n" % count


def recent(count: int) -> bytes:
    """Return the RECENT line (IMAP4rev1 only)."""
    return b"* %d RECENT\r\n" % count


def expunge(numbers: Iterable[int]) -> Iterator[bytes]:
    """Yield an EXPUNGE line for each number, in the order given.

    Each sequence number must take the EXPUNGE lines before it into account.
    """
    return joined(map(b"* %d EXPUNGE\r\n".__mod__, numbers), NUMBERS_PER_PIECE // 2)


def vanished(uids: Iterable[int] | SequenceSet, *, earlier: bool = False) -> Iterator[bytes]:
    """Yield the VANISHED response to UIDs in ascending order (RFC 7162): several lines, if they do not fit in one."""
    begin = b"* VANISHED (EARLIER) " if earlier else b"* VANISHED "
    for piece in compact_pieces(uids):
        yield begin + piece.removeprefix(b",") + b"\r\n"


def search(
    numbers: Iterable[int], modseq: int | None = None, *, kind: bytes = b"SEARCH"
) -> Iterator[bytes]:
    """Yield the SEARCH line, or the SORT line if `kind` is ``SORT``.

    `modseq` is the highest MODSEQ of the messages found (RFC 7162). It is left out if none was found.
    """
    yield b"* " + kind
    rest = iter(numbers)
    while piece := list(islice(rest, NUMBERS_PER_PIECE)):
        # Python writes a list of integers in half the time that a loop takes.
        yield b" " + str(piece)[1:-1].replace(",", "").encode("ascii")
    yield b" (MODSEQ %d)\r\n" % modseq if modseq else b"\r\n"


def esearch(
    tag: bytes, uid: bool, pairs: Iterable[tuple[bytes, Value]], mailbox_item: bytes = b""
) -> Iterator[bytes]:
    """Yield the ESEARCH line (RFC 9051 section 7.3.4).

    Args:
        tag: the tag of the search command.
        uid: whether the numbers are UIDs.
        pairs: the results, such as ``(b"COUNT", 3)`` and ``(b"ALL", b"2:4")``.
        mailbox_item: from `esearch_mailbox`, for a search in several mailboxes.
    """
    line = b'* ESEARCH (TAG "%b"%b)' % (tag.translate(_CLEAN), mailbox_item)
    if uid:
        line += b" UID"
    for name, value in pairs:
        line += b" " + name + b" "
        if isinstance(value, int | bytes):
            line += _value(value)
        else:
            yield line
            yield from value
            line = b""
    yield line + b"\r\n"


def esearch_mailbox(name: str, uidvalidity: int, *, names: NameFormat = MODIFIED_UTF7) -> bytes:
    """Return the part of an ESEARCH line that names the mailbox (RFC 7377)."""
    return b" MAILBOX %b UIDVALIDITY %d" % (mailbox(name, names=names), uidvalidity)


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


def quotaroot(name: str, roots: Iterable[bytes], *, names: NameFormat = MODIFIED_UTF7) -> bytes:
    """Return the QUOTAROOT line (RFC 9208)."""
    return b"* QUOTAROOT %b\r\n" % b" ".join([mailbox(name, names=names), *map(astring, roots)])


def metadata(
    name: str, values: Iterable[tuple[bytes, bytes | None]], *, names: NameFormat = MODIFIED_UTF7
) -> Iterator[bytes]:
    """Yield the METADATA line (RFC 5464) with entries and their values; None is NIL."""
    separator = b"* METADATA %b (" % mailbox(name, names=names)
    for entry, value in values:
        yield separator + astring(entry) + b" " + nstring(value, binary=True)
        separator = b" "
    yield b")\r\n"


def metadata_changed(
    name: str, entries: Iterable[bytes], *, names: NameFormat = MODIFIED_UTF7
) -> bytes:
    """Return the METADATA line that says which entries have changed, without their values (RFC 5464)."""
    return b"* METADATA %b %b\r\n" % (mailbox(name, names=names), b" ".join(map(astring, entries)))


def copyuid(uidvalidity: int, source: Iterable[int], target: Sequence[int]) -> Code | None:
    """Return the COPYUID response code (RFC 4315): the i-th UID of `source` became the i-th of `target`.

    None if the UIDs in the target mailbox are not known.
    """
    if not target:
        return None
    begin = b"COPYUID %d " % uidvalidity
    return chain((begin,), compact_pieces(source), (b" ",), compact_pieces(target))


def appenduid(uidvalidity: int, uids: Sequence[int]) -> Code | None:
    """Return the APPENDUID response code (RFC 4315), or None if the UIDs are not known.

    `uids` has the order of the messages in the command.
    """
    if not uids:
        return None
    return chain((b"APPENDUID %d " % uidvalidity,), compact_pieces(uids))


def modified(numbers: Iterable[int]) -> Code:
    """Return the MODIFIED response code (RFC 7162): the messages that UNCHANGEDSINCE excluded, ascending."""
    return chain((b"MODIFIED ",), compact_pieces(numbers))


def _value(value: int | bytes) -> bytes:
    return value if isinstance(value, bytes) else b"%d" % value
