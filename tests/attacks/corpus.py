"""Inputs that have hurt mail servers: what is sent, what it targets, and how the server must respond.

Each attack stands for a public case that was fixed. To add an attack, add a row. `test_corpus` runs every row. Besides
what the row demands, it checks for each row that

* no command fails with an internal error, and no response shows the text of an exception,
* the responses are no longer than a small multiple of the input,
* a connection that stays open still answers the next command, and a connection that ended has no state left.
"""

from __future__ import annotations

from typing import NamedTuple

NOT_AUTHENTICATED, AUTHENTICATED, SELECTED = "not authenticated", "authenticated", "selected"
OPEN, BYE, RESET = "open", "bye", "reset"


class Attack(NamedTuple):
    """One attack.

    Attributes:
        name: the public name of the case, or a description of the input.
        target: the resource or the component that the attack targets.
        state: the state of the connection when the attack begins.
        reads: the input of the server, one item per read.
        outcome: the state of the connection after the attack.
        expected: regular expressions that the responses have to match.
        forbidden: regular expressions that the responses must not match.
        incomplete: whether the input ends within a command, so that no other command can follow.
    """

    name: str
    target: str
    state: str
    reads: tuple[bytes, ...]
    outcome: str
    expected: tuple[bytes, ...] = ()
    forbidden: tuple[bytes, ...] = ()
    incomplete: bool = False


def _each(
    name: str, target: str, state: str, lines: list[bytes], outcome: str, *expected: bytes
) -> list[Attack]:
    return [
        Attack(f"{name} {i}", target, state, (line + b"\r\n",), outcome, expected)
        for i, line in enumerate(lines)
    ]


NOOPS = b"a NOOP\r\n"
# fmt: off
ATTACKS = [
    # Floods before login.
    Attack("Q230285", "memory: every NOOP of a full packet queued and answered", NOT_AUTHENTICATED, (NOOPS * 187,), RESET),
    Attack("Q230285 CAPABILITY", "memory, amplified", NOT_AUTHENTICATED, (b"a CAPABILITY\r\n" * 107,), RESET),
    Attack("Q230285 ID", "memory", NOT_AUTHENTICATED, (b"a ID NIL\r\n" * 136,), RESET),
    Attack("Q230285 unknown", "memory and the log: one line per command", NOT_AUTHENTICATED, (b"a XYZZY\r\n" * 150,), RESET),
    Attack("Q230285 empty lines", "processor time", NOT_AUTHENTICATED, (b"\r\n" * 700,), RESET),
    Attack("Q230285 in several reads", "memory", NOT_AUTHENTICATED, (NOOPS * 50, NOOPS * 50, NOOPS), RESET),
    Attack("CVE-2026-27857", "memory: nested lists without an end", NOT_AUTHENTICATED, (b"a NOOP " + b"(" * 4000,), OPEN, incomplete=True),
    Attack("CVE-2026-27857 ended", "memory", NOT_AUTHENTICATED, (b"a NOOP " + b"(" * 4000 + b"\r\n",), OPEN, (b"^a BAD ",)),
    Attack("CVE-2026-42006", "the nesting limit: parentheses before a literal", NOT_AUTHENTICATED, (b"a NOOP ((({10}\r\n",), OPEN, (b"^a BAD .*parenthes",)),
    Attack("CVE-2026-42006 pairs", "the same resource as the case before", NOT_AUTHENTICATED, (b"a ID (() ())\r\n",), OPEN, (b"^a BAD ",)),
    Attack("CVE-2024-37358", "disk and memory: a literal of 2 GB", NOT_AUTHENTICATED, (b"a LOGIN {2000000000}\r\n",), OPEN, (b"^a BAD ",)),
    Attack("CVE-2024-37358 sent", "disk and memory: the same with a non-synchronizing literal", NOT_AUTHENTICATED, (b"a LOGIN {2000000000+}\r\n",), RESET),
    Attack("CVE-2024-37358 small", "memory: many small literals", NOT_AUTHENTICATED, (b"a LOGIN {4000+}\r\n" + b"x" * 4000 + b" {4000+}\r\n" + b"y" * 4000 + b" {4000+}\r\n" + b"z" * 4000 + b"\r\n",), OPEN, (b"^a BAD ",)),
    Attack("CVE-2025-61600 tag", "memory: a tag without an end", NOT_AUTHENTICATED, (b"t" * 9000,), BYE),
    Attack("CVE-2025-61600 argument", "memory: an argument without an end", NOT_AUTHENTICATED, (b"a LOGIN " + b"x" * 9000,), BYE),
    Attack("no line end", "memory: LF alone", NOT_AUTHENTICATED, (b"a NOOP\n" * 1500,), BYE),
    Attack("64 KiB", "memory: many long lines", NOT_AUTHENTICATED, tuple(b"a LOGIN " + b"x" * 8000 + b"\r\n" for _ in range(9)), BYE),
    *_each("GHSA-2qrf-pqgx-qh9v", "an endless loop: malformed literal sizes", NOT_AUTHENTICATED,
           [b"a SEARCH " + size + b"zzz" for size in (b"{-100}", b"{+}", b"{}", b"{0x10}", b"{9999999999999999999}", b"{10-}", b"{007}", b"{1_0}", b"{ 9 }")],
           OPEN, b"^a BAD "),
    Attack("CVE-2017-15132", "memory: a leak for each aborted AUTHENTICATE", NOT_AUTHENTICATED, (b"a AUTHENTICATE PLAIN\r\n", b"*\r\n", b"b AUTHENTICATE PLAIN\r\n", b"*\r\n", b"c AUTHENTICATE PLAIN\r\n", b"*\r\n"), BYE),
    Attack("CVE-2025-59028", "the logins of other users: invalid base64", NOT_AUTHENTICATED, (b"a AUTHENTICATE PLAIN\r\n", b"====\r\n"), OPEN, (b"^a BAD ",)),
    Attack("CVE-2020-12674", "a crash: an empty response", NOT_AUTHENTICATED, (b"a AUTHENTICATE PLAIN =\r\n",), OPEN, (b"^a BAD ",)),
    Attack("CVE-2019-11500", "a heap overwrite: NUL in a quoted string", NOT_AUTHENTICATED, (b'a LOGIN "\x00\\x" y\r\n',), OPEN, (b"^a BAD ",)),
    Attack("CVE-2017-2669", "variable expansion in a user name", NOT_AUTHENTICATED, (b'a LOGIN "%{%{user}}" secret\r\n',), OPEN, (b"^a NO ",)),
    Attack("CVE-2019-10691", "a crash: a user name that is not UTF-8", NOT_AUTHENTICATED, (b"a LOGIN {2+}\r\n\xff\xfe secret\r\n",), OPEN, (b"^a NO ",)),
    Attack("CVE-2020-7046", "an endless loop: truncated UTF-8", NOT_AUTHENTICATED, (b'a LOGIN "\xe2\x82" secret\r\n',), OPEN, (b"^a (NO|BAD) ",)),
    Attack("CVE-2020-10957", "a crash: NOOP with an argument", NOT_AUTHENTICATED, (b"a NOOP \x80\x81\r\n",), OPEN, (b"^a BAD ",)),
    Attack("CVE-2020-10958", "a crash: use after free when a server closes the connection", NOT_AUTHENTICATED, (b"a XYZZY\r\n" * 20,), BYE),
    Attack("stalled AUTHENTICATE", "connections: a SASL exchange that stops", NOT_AUTHENTICATED, (b"a AUTHENTICATE PLAIN\r\n",), OPEN, incomplete=True),
    # STARTTLS and requests of other protocols.
    Attack("STARTTLS without TLS", "the state machine", NOT_AUTHENTICATED, (b"a STARTTLS\r\n",), OPEN, (b"^a BAD ",)),
    Attack("ALPACA HTTP", "cross-protocol requests", NOT_AUTHENTICATED, (b"GET / HTTP/1.1\r\nHost: imap\r\n\r\n",), BYE, (b"BYE",), (b"Host",)),
    Attack("ALPACA POST", "cross-protocol requests: commands in a body", NOT_AUTHENTICATED, (b"POST / HTTP/1.1\r\nContent-Length: 30\r\n\r\na LOGIN alice secret\r\n",), BYE, (b"BYE",), (b"a OK",)),
    Attack("ALPACA SMTP", "cross-protocol requests", NOT_AUTHENTICATED, (b"EHLO example.org\r\nMAIL FROM:<a@b>\r\n",), BYE, (b"BYE",)),
    Attack("TLS to the plain port", "cross-protocol requests", NOT_AUTHENTICATED, (bytes.fromhex("16030100c8010000c40303") + bytes(range(190)),), OPEN, incomplete=True),
    # Arguments that are long, invalid or different from their announcement.
    *_each("tags", "forged responses: invalid tags", NOT_AUTHENTICATED, [b"+ NOOP", b"* NOOP", b"\xff NOOP", b"a{5} NOOP", b'"a" NOOP', b"a(b NOOP", b"a% NOOP", b"a\\ NOOP"], OPEN, rb"^\* BAD "),
    Attack("CVE-2007-1373", "a stack overflow: spaces and a literal", NOT_AUTHENTICATED, (b"a LOGIN " + b" " * 1008 + b"{5}\r\n",), OPEN, (b"^a BAD |^\\+ ",), incomplete=True),
    Attack("CVE-2006-6423", "a buffer overflow: a literal longer than announced", NOT_AUTHENTICATED, (b"a LOGIN {10+}\r\n" + b"A" * 600 + b"\r\n",), OPEN, (b"^a BAD ",)),
    Attack("CVE-2001-0064", "a stack overflow: a long LOGIN", NOT_AUTHENTICATED, (b"a LOGIN " + b"A" * 8000 + b" x\r\n",), OPEN, (b"^a NO ",)),
    Attack("CVE-2006-0925", "a format string", AUTHENTICATED, (b'a CREATE "%s%s%n%x"\r\n',), OPEN, (b"^a (OK|NO|BAD) ",)),
    *_each("CVE-2004-1211", "stack overflows: a long argument to each command", AUTHENTICATED,
           [b"a " + verb + b" " + b"A" * 5000 for verb in (b"EXAMINE", b"SUBSCRIBE", b"DELETE", b"CREATE", b"UNSUBSCRIBE", b"SELECT")],
           OPEN, b"^a (OK|NO|BAD) "),
    *_each("CVE-2004-1211 more", "the same resource as the case before", SELECTED,
           [b"a STATUS " + b"A" * 5000 + b" (MESSAGES)", b"a LIST x " + b"A" * 5000, b"a RENAME x " + b"A" * 5000, b"a COPY 1 " + b"A" * 5000, b"a SEARCH SUBJECT " + b"A" * 5000, b"a FETCH 1 " + b"A" * 5000, b"a CHECK " + b"A" * 5000, b"a APPEND " + b"A" * 5000 + b" {1+}\r\nx"],
           OPEN, b"^a (OK|NO|BAD) "),
    *_each("CVE-2004-1011", "off-by-ones in FETCH", SELECTED,
           [b"a FETCH 1 body[p", b"a FETCH 1 BODY[", b"a FETCH 1 BODY[HEADER.FIELDS", b"a FETCH 1 BODY[HEADER.FIELDS ()]", b"a FETCH 1 BODY[1..2]", b"a FETCH 1 BODY[0]", b"a FETCH 1 BODY[]<", b"a FETCH 1 BODY[]<-5.-9>", b"a FETCH 1 BODY[]<1.0>", b"a FETCH 1 BODY[4294967296]", b"a FETCH 1 (", b"a FETCH 1 ()", b"a FETCH 1 FLAGS)", b"a FETCH 1 BINARY[1", b"a FETCH 1 BODY[MIME]"],
           OPEN, b"^a BAD "),
    *_each("integers", "integer overflows in sequence sets", SELECTED,
           [b"a FETCH 0 FLAGS", b"a FETCH 4294967296 FLAGS", b"a FETCH 99999999999999999999999 FLAGS", b"a FETCH 1: FLAGS", b"a FETCH :1 FLAGS", b"a FETCH 1,, FLAGS", b"a FETCH -1 FLAGS", b"a FETCH 1_0 FLAGS", b"a FETCH 01 FLAGS", b"a FETCH \xd9\xa1 FLAGS"],
           OPEN, b"^a BAD "),
    Attack("all possible UIDs", "processor time: an expanded set", SELECTED, (b"a UID FETCH 1:4294967295 (FLAGS)\r\n",), OPEN, (b"^a OK ",)),
    Attack("all possible UIDs twice", "the same resource as the case before", SELECTED, (b"a UID SEARCH UID *:*,1:4294967295,4294967295:1\r\n",), OPEN, (b"^a OK ",)),
    Attack("64 KiB of ones", "processor time: a set sorted again and again", SELECTED, (b"a UID FETCH " + b"1," * 30000 + b"1 FLAGS\r\n",), OPEN, (b"^a (OK|NO|BAD) ",)),
    Attack("64 KiB of numbers", "the same resource as the case before", SELECTED, (b"a UID FETCH " + b",".join(b"%d" % n for n in range(10000, 1, -2)) + b" FLAGS\r\n",), OPEN, (b"^a OK ",)),
    *_each("octets", "the parser", AUTHENTICATED, [b"a NOOP\0", b"a \0NOOP", b"a NO\rOP", b"a NO\nOP", b"a\tNOOP", b"a  NOOP", b"a NOOP\x7f", b"a N\xd3OP", b""], OPEN, b"BAD "),
    # Amplification after login.
    Attack("CVE-2024-34055", "memory: literals each under the cap", SELECTED, (b"a SEARCH " + b" ".join([b"SUBJECT {1+}\r\nx"] * 1001) + b"\r\n",), OPEN, (b"^a NO \\[LIMIT\\]",)),
    Attack("CVE-2024-34055 sum", "memory: literals with a total size over the cap", SELECTED, (b"a SEARCH " + b" ".join([b"SUBJECT {60000+}\r\n" + b"x" * 60000] * 10) + b"\r\n",), OPEN, (b"^a NO \\[TOOBIG\\]",)),
    Attack("nested SEARCH", "the stack: parentheses", SELECTED, (b"a SEARCH " + b"(" * 8000 + b"ALL" + b")" * 8000 + b"\r\n",), OPEN, (b"^a (BAD|NO) ",)),
    Attack("NOT NOT SEARCH", "the stack: NOT", SELECTED, (b"a SEARCH " + b"NOT " * 4000 + b"ALL\r\n",), OPEN, (b"^a (BAD|NO|OK) ",)),
    Attack("OR OR SEARCH", "the stack: OR", SELECTED, (b"a SEARCH " + b"OR ALL " * 2300 + b"ALL\r\n",), OPEN, (b"^a (BAD|NO|OK) ",)),
    Attack("a SEARCH of 3,200 keys", "processor time: each key is tested for every message", SELECTED, (b"a SEARCH " + b"OR SMALLER 99 LARGER 1 " * 1600 + b"ALL\r\n",), OPEN, (b"^a OK ",)),
    Attack("a SEARCH of 1,600 NOTs", "processor time: the same without the fast path", SELECTED, (b"a SEARCH" + b" NOT UID 1,3,5,7,9" * 1600 + b"\r\n",), OPEN, (b"^a OK ",)),
    Attack("SEARCHes in a row", "processor time: fairness between users", SELECTED, (b"a SEARCH UNSEEN NOT DELETED\r\n" * 99,), OPEN, (b"^a OK ",)),
    Attack("long lines", "processor time: each line is searched for a literal", SELECTED, (b"a NOOP " + b"1," * 32000 + b"\r\n",) * 20, OPEN, (b"^a BAD ",)),
    Attack("literals of pending commands", "memory and disk: a hundred pending commands with literals", SELECTED, (b"a SEARCH SUBJECT {60000+}\r\n" + b"x" * 60000 + b"\r\n",) * 99, OPEN, (b"^a OK ",)),
    Attack("a MULTIAPPEND of small messages", "memory and files: each message is too small for a separate file", AUTHENTICATED, (b"a APPEND INBOX" + b" {9000+}\r\n" + b" {9000+}\r\n".join([b"x" * 9000] * 99) + b"\r\n",), OPEN, (b"^a OK ",)),
    Attack("a hundred keywords, different each time", "memory: a flag list stored for each STORE", SELECTED, tuple(b"a STORE 1 FLAGS.SILENT (" + b" ".join(b"k%d" % (n * i % 500) for i in range(100)) + b")\r\n" for n in range(1, 60)), OPEN, (b"^a OK ",)),
    Attack("many SEARCH terms", "processor time", SELECTED, (b"a SEARCH" + b" SEEN" * 12000 + b"\r\n",), OPEN, (b"^a (BAD|NO|OK) ",)),
    Attack("FETCH of many bodies", "amplification: 2,300 copies of the message", SELECTED, (b"a FETCH 1 (" + b" ".join([b"BODY.PEEK[]"] * 2300) + b")\r\n",), OPEN, (b"^a (OK|BAD|NO) ",)),
    *_each("CVE-2021-40110", "processor time: LIST patterns that backtrack", AUTHENTICATED,
           [b'a LIST "" ' + b"*a" * 30 + b"*b", b'a LIST "" ' + b"%*" * 200, b'a LIST "" ' + b"*" * 5000, b'a LIST "" ' + b"%/" * 500 + b"%"],
           OPEN, b"^a (OK|BAD) "),
    *_each("CVE-2021-40111", "an endless loop: malformed APPEND and STATUS", AUTHENTICATED,
           [b"a APPEND INBOX", b"a APPEND INBOX ()", b"a APPEND INBOX (\\Seen", b'a APPEND INBOX "bad date" {1+}\r\nx', b"a APPEND INBOX {0+}\r\n", b"a STATUS INBOX", b"a STATUS INBOX ()", b"a STATUS INBOX (BOGUS)", b"a STATUS INBOX (MESSAGES"],
           OPEN, b"^a (BAD|NO) "),
    Attack("APPEND of everything", "disk: a message of 99,999,999,999,999 bytes", AUTHENTICATED, (b"a APPEND INBOX {99999999999999}\r\n",), OPEN, (b"^a NO \\[TOOBIG\\]",)),
    Attack("APPEND smuggling", "command injection: the content of a literal executed as commands", AUTHENTICATED, (b"a APPEND INBOX {29+}\r\nx LOGOUT\r\ny DELETE INBOX\r\n123\r\n",), OPEN, (b"^a OK ",), (b"BYE", b"^x ", b"^y ")),
    Attack("text between literals", "memory: 64 KiB of text before each of a thousand literals", SELECTED, (b"a SEARCH " + b" ".join([b"SUBJECT x " * 6000 + b"{1+}\r\nx"] * 20) + b"\r\n",), OPEN, (b"^a NO \\[TOOBIG\\]",)),
    Attack("SELECT in a loop", "memory: listeners that are never removed", AUTHENTICATED, (b"a SELECT INBOX\r\n" * 90,), OPEN, (b"^a OK ",)),
    Attack("quoted without an end", "the parser", AUTHENTICATED, (b'a CREATE "abc\r\n',), OPEN, (b"^a BAD ",)),
    Attack("quoted escape at the end", "the parser", AUTHENTICATED, (b'a CREATE "abc\\"\r\n',), OPEN, (b"^a BAD ",)),
    *_each("names", "the file system", AUTHENTICATED,
           [b'a CREATE "../../etc/passwd"', b'a CREATE "..."', b'a SELECT "../bob"', b'a CREATE "a/../../b"', b'a CREATE "&AC4-&AC4-&AC8-x"', b'a CREATE "/etc/passwd"', b'a RENAME INBOX "../../x"', b"a CREATE &AAA-", b'a CREATE "a\\\\b"', b'a SUBSCRIBE "../../../../tmp/x"'],
           OPEN, b"^a (OK|NO|BAD) "),
]
# fmt: on
