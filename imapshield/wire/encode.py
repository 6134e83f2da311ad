"""Answers → bytes (RFC 9051 section 7): each function returns whole lines or one legal element.

Rules
-----
* No byte of a client's, or of a message's, can break a line: texts and codes are cleaned, strings
are written as
  atom, quoted or literal, whichever can hold them.
* Nothing here knows what an answer means, or when it may be sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from imapshield.wire import abnf
from imapshield.wire.commands.fetch import Attribute, Binary, BodySection, FetchItem, Section
from imapshield.wire.names import DELIMITER, encode_name
from imapshield.wire.responses import Tagged, ThreadNode
from imapshield.wire.sequence import SequenceSet, compact

CRLF = b"\r\n"
NIL = b"NIL"

MAX_QUOTED_SIZE = 1000
"""Longer strings go as literals: clients read lines into buffers, as RFC 9051 section 4.3.1 lets
them expect."""

THREAD_CHUNK_TOKENS = 4000

_CLEAN = bytes(i if 32 <= i < 127 else 63 for i in range(256))
_CLEAN_CODE = _CLEAN[:93] + b"?" + _CLEAN[94:]  # and no "]", which ends a code
_NOT_BARE = re.compile(rb"[\[\]]|\A[0-9]+\Z")
_UNQUOTABLE = bytes(range(128, 256)) + b"\r\n\0"
_UNQUOTABLE_UTF8 = b"\r\n\0"


def line(text: bytes) -> bytes:
    """Return the untagged line of `text`, which is ours."""
    return b"* %b\r\n" % text


def tagged(tag: bytes, response: Tagged) -> bytes:
    """Return the line that ends a command."""
    return b"%b %b\r\n" % (tag.translate(_CLEAN), _condition(*response))


def untagged(condition: bytes, text: str, code: bytes | None = None) -> bytes:
    """Return an untagged OK, NO, BAD, BYE or PREAUTH."""
    return b"* %b\r\n" % _condition(condition, text, code)


def continuation(text: str | bytes = b"") -> bytes:
    """Return a continuation request: a text, or base64 of a SASL challenge."""
    octets = text.encode("ascii", "replace") if isinstance(text, str) else text
    return b"+ %b\r\n" % octets.translate(_CLEAN)


def _condition(condition: bytes, text: str, code: bytes | None) -> bytes:
    octets = (text or "Done").encode("ascii", "replace").translate(_CLEAN)
    if code is None:
        return b"%b %b" % (condition, octets)
    return b"%b [%b] %b" % (condition, code.translate(_CLEAN_CODE), octets)


def quoted(value: bytes) -> bytes:
    """Return `value` in quotes; the caller knows that it has no CR, LF or NUL (`string` asks)."""
    if b"\\" in value or b'"' in value:
        value = value.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return b'"%b"' % value


def literal(value: bytes, *, binary: bool = False) -> bytes:
    """Return `value` as a literal; as literal8 if it has NUL and `binary` permits that (RFC 3516).

    Elsewhere NUL is illegal, and becomes 0x80 as in other servers, so that sizes and offsets stay
    true.
    """
    if b"\0" in value:
        if binary:
            return b"~{%d}\r\n%b" % (len(value), value)
        value = value.replace(b"\0", b"\x80")
    return b"{%d}\r\n%b" % (len(value), value)


def literal_head(size: int, *, binary: bool = False) -> bytes:
    """Return what announces `size` octets that the caller sends after it."""
    return b"~{%d}\r\n" % size if binary else b"{%d}\r\n" % size


def string(value: bytes, *, utf8: bool = False) -> bytes:
    """Return `value` as a string: quoted where that is legal and short, else a literal.

    `utf8`: the client enabled IMAP4rev2 or UTF8=ACCEPT, and takes UTF-8 in quotes.
    """
    if len(value) > MAX_QUOTED_SIZE:
        return literal(value)
    if len(value.translate(None, _UNQUOTABLE_UTF8 if utf8 else _UNQUOTABLE)) < len(value):
        return literal(value)
    if utf8 and not value.isascii():
        try:
            value.decode("utf-8")
        except UnicodeDecodeError:
            return literal(value)
    return quoted(value)


def nstring(value: bytes | None, *, utf8: bool = False, binary: bool = False) -> bytes:
    """Return NIL for None, else a string; a literal8 for NUL where `binary` permits that."""
    if value is None:
        return NIL
    if binary and b"\0" in value:
        return literal(value, binary=True)
    return string(value, utf8=utf8)


def astring(value: bytes, *, utf8: bool = False) -> bytes:
    """Return `value` as an atom if nobody can take it for anything else, else a string.

    The atom NIL would be read as nothing. npm's imap ends at brackets, and makes 12 of a mailbox's name 012.
    """
    if abnf.ATOM.fullmatch(value) and not _NOT_BARE.search(value) and value.upper() != NIL:
        return value
    return string(value, utf8=utf8)


def mailbox(name: str, *, utf8: bool = False) -> bytes:
    """Return a mailbox name as an argument."""
    return astring(encode_name(name, utf8), utf8=utf8)


def parenthesised(items: Iterable[bytes]) -> bytes:
    """Return ``(a b c)`` of elements that are ready."""
    return b"(%b)" % b" ".join(items)


def capability(names: Iterable[bytes]) -> bytes:
    """Return the CAPABILITY line; `capability_code` is for the greeting and tagged OKs."""
    return b"* %b\r\n" % capability_code(names)


def capability_code(names: Iterable[bytes]) -> bytes:
    """Return ``CAPABILITY …`` as a response code."""
    return b"CAPABILITY " + b" ".join(names)


def enabled(names: Iterable[bytes]) -> bytes:
    """Return the ENABLED line (RFC 5161)."""
    return b"* %b\r\n" % b" ".join([b"ENABLED", *names])


def identity(fields: Iterable[tuple[bytes, bytes | None]] | None) -> bytes:
    """Return the ID line (RFC 2971)."""
    if fields is None:
        return b"* ID NIL\r\n"
    pairs = [string(name) + b" " + nstring(value) for name, value in fields]
    return b"* ID %b\r\n" % (parenthesised(pairs) if pairs else NIL)


def namespace(
    personal: Sequence[str] = ("",), others: Sequence[str] = (), shared: Sequence[str] = ()
) -> bytes:
    """Return the NAMESPACE line (RFC 2342) of each kind's prefixes, all with our delimiter."""
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
        attributes: such as ``\HasNoChildren``.
        name: the mailbox.
        delimiter: None for a name without levels.
        extended: RFC 5258's items, as (tag, value ready to send): ``("CHILDINFO",
        b'("SUBSCRIBED")')``. utf8: whether the client enabled UTF-8 names.
    """
    text = b"* %b %b %b %b" % (
        kind,
        parenthesised(attributes),
        NIL if delimiter is None else quoted(delimiter.encode("ascii")),
        mailbox(name, utf8=utf8),
    )
    if extended:
        text += b" " + parenthesised([quoted(tag) + b" " + value for tag, value in extended])
    return text + CRLF


def status(name: str, pairs: Iterable[tuple[bytes, int | bytes]], *, utf8: bool = False) -> bytes:
    """Return the STATUS line.

    A value of bytes is ready to send, as ``(M1)`` of MAILBOXID.
    """
    values = parenthesised([item + b" " + _value(value) for item, value in pairs])
    return b"* STATUS %b %b\r\n" % (mailbox(name, utf8=utf8), values)


def flags(names: Iterable[bytes]) -> bytes:
    """Return the FLAGS line of SELECT."""
    return b"* FLAGS %b\r\n" % parenthesised(names)


def permanentflags_code(names: Iterable[bytes]) -> bytes:
    r"""Return ``PERMANENTFLAGS (…)`` as a response code; ``\*`` may be among `names`."""
    return b"PERMANENTFLAGS %b" % parenthesised(names)


def exists(count: int) -> bytes:
    """Return the EXISTS line."""
    return b"* %d EXISTS\r\n" % count


def recent(count: int) -> bytes:
    """Return the RECENT line of IMAP4rev1."""
    return b"* %d RECENT\r\n" % count


def expunge(numbers: Iterable[int]) -> bytes:
    """Return an EXPUNGE line for each number, in the order given.

    Each counts on the ones before it.
    """
    return b"".join(map(b"* %d EXPUNGE\r\n".__mod__, numbers))


def vanished(uids: SequenceSet, *, earlier: bool = False) -> bytes:
    """Return the VANISHED line (RFC 7162)."""
    return b"* VANISHED %b%b\r\n" % (b"(EARLIER) " if earlier else b"", uids.encode())


def search(numbers: Iterable[int], modseq: int | None = None, *, kind: bytes = b"SEARCH") -> bytes:
    """Return the plain SEARCH or (by `kind`) SORT line.

    `modseq` is the highest of those found (RFC 7162).
    """
    text = b" ".join([kind, *map(b"%d".__mod__, numbers)])
    # RFC 7162: nothing found, no MODSEQ.
    return b"* %b (MODSEQ %d)\r\n" % (text, modseq) if modseq else b"* %b\r\n" % text


def esearch(
    tag: bytes, uid: bool, pairs: Iterable[tuple[bytes, int | bytes]], mailbox_item: bytes = b""
) -> bytes:
    """Return the ESEARCH line (RFC 9051 section 7.3.4).

    `pairs` are such as (COUNT, 3), (ALL, b"2:4"); `place` is `search_place`.
    """
    items = [b'* ESEARCH (TAG "%b"%b)' % (tag.translate(_CLEAN), mailbox_item)]
    if uid:
        items.append(b"UID")
    items += [name + b" " + _value(value) for name, value in pairs]
    return b" ".join(items) + CRLF


def esearch_mailbox(name: str, uidvalidity: int, *, utf8: bool = False) -> bytes:
    """Return the mailbox of an ESEARCH line (RFC 7377)."""
    return b" MAILBOX %b UIDVALIDITY %d" % (mailbox(name, utf8=utf8), uidvalidity)


def thread(roots: Iterable[ThreadNode]) -> Iterator[bytes]:
    """Yield the THREAD line (RFC 5256) in pieces that take about a millisecond each.

    A conversation may be thousands deep, so this walks and does not recurse.
    """
    out: list[bytes] = [b"* THREAD"]
    separator = b" ("
    for root in roots:
        out.append(separator)
        separator = b"("
        todo: list[ThreadNode | bytes] = [root]
        while todo:
            node = todo.pop()
            if isinstance(node, bytes):
                out.append(node)
                continue
            if len(out) > THREAD_CHUNK_TOKENS:
                yield b"".join(out)
                out.clear()
            if node.number is not None:
                out.append(b"%d" % node.number)
            children = node.children
            if len(children) == 1:
                if node.number is not None:
                    out.append(b" ")
                todo.append(children[0])
            elif children:
                if node.number is not None:
                    out.append(b" ")
                for child in reversed(children):
                    todo += (b")", child, b"(")
        out.append(b")")
    out.append(b"\r\n")
    yield b"".join(out)


def quota(root: bytes, resources: Iterable[tuple[bytes, int, int]]) -> bytes:
    """Return the QUOTA line (RFC 9208) of resources, each with what is used and what there may be."""
    shown = [b"%b %d %d" % resource for resource in resources]
    return b"* QUOTA %b %b\r\n" % (astring(root), parenthesised(shown))


def quotaroot(name: str, roots: Iterable[bytes], *, utf8: bool = False) -> bytes:
    """Return the QUOTAROOT line."""
    return b"* QUOTAROOT %b\r\n" % b" ".join([mailbox(name, utf8=utf8), *map(astring, roots)])


def metadata(
    name: str, values: Iterable[tuple[bytes, bytes | None]], *, utf8: bool = False
) -> bytes:
    """Return the METADATA line (RFC 5464) of entries with their values; None is NIL."""
    pairs = [astring(entry) + b" " + nstring(value, binary=True) for entry, value in values]
    return b"* METADATA %b %b\r\n" % (mailbox(name, utf8=utf8), parenthesised(pairs))


def metadata_changed(name: str, entries: Iterable[bytes], *, utf8: bool = False) -> bytes:
    """Return the METADATA line that only says which entries were changed."""
    return b"* METADATA %b %b\r\n" % (mailbox(name, utf8=utf8), b" ".join(map(astring, entries)))


def copyuid(uidvalidity: int, source: Iterable[int], target: Iterable[int]) -> bytes:
    """Return the COPYUID response code (RFC 4315).

    The i-th of `source` became the i-th of `target`.
    """
    return b"COPYUID %d %b %b" % (uidvalidity, compact(source), compact(target))


def appenduid(uidvalidity: int, uids: Iterable[int]) -> bytes:
    """Return the APPENDUID response code (RFC 4315)."""
    return b"APPENDUID %d %b" % (uidvalidity, compact(uids))


def _value(value: int | bytes) -> bytes:
    return value if isinstance(value, bytes) else b"%d" % value


def label(item: FetchItem) -> bytes:
    """Return how an answer names `item`: without PEEK, a partial only by where it starts."""
    if isinstance(item, Attribute):
        return item.name
    if isinstance(item, BodySection):
        name = item.label or b"BODY[%b]" % _section(item.section)
    elif isinstance(item, Binary):
        path = b".".join([b"%d" % part for part in item.path])
        name = b"BINARY.SIZE[%b]" % path if item.size_only else b"BINARY[%b]" % path
    else:
        return b"PREVIEW"
    return name if item.partial is None else b"%b<%d>" % (name, item.partial[0])


def _section(section: Section) -> bytes:
    words = [b"%d" % part for part in section.path]
    if section.text:
        words.append(section.text)
    name = b".".join(words)
    if section.fields:
        name += b" " + parenthesised(map(astring, section.fields))
    return name


# How the values of a column are written; any other label's are bytes that are ready.
_FORMS = {
    b"UID": b"%d",
    b"RFC822.SIZE": b"%d",
    b"MODSEQ": b"(%d)",
    b"FLAGS": b"(%b)",
}


def fetch_lines(
    numbers: Iterable[int],
    labels: Sequence[bytes],
    columns: Sequence[Iterable[bytes | int]],
    *,
    kind: bytes = b"FETCH",
) -> bytes:
    r"""Return a FETCH line for each message, all from one template.

    Args:
        numbers: the messages' sequence numbers; their UIDs where `kind` is UIDFETCH (RFC 9586).
        labels: from `label`, one a column.
        columns: per label the messages' values. UID, RFC822.SIZE and MODSEQ are int; FLAGS is a
        flag list without its
            parentheses (``\Seen $Junk``); everything else is bytes ready to send.
    """
    items = [name.replace(b"%", b"%%") + b" " + _FORMS.get(name, b"%b") for name in labels]
    template = b"* %d " + kind + b" (" + b" ".join(items) + b")\r\n"
    return b"".join(map(template.__mod__, zip(numbers, *columns, strict=True)))


def fetch_value(name: bytes, value: bytes | int) -> bytes:
    """Return one value as `fetch_lines` would write it in the column `name`."""
    return _FORMS.get(name, b"%b") % value
