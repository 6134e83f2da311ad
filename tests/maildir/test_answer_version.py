"""ANSWER_VERSION is raised whenever the code answers differently, so that no account keeps old answers in its index."""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from datetime import date
from typing import Any

from imapshield.mailbox.message_items import ANSWER_VERSION
from imapshield.mailbox.values import NewMessage
from imapshield.maildir.fetch_cache import RECORD
from imapshield.maildir.search_values import ValueRow
from imapshield.testing.store_contract import ENVELOPE, STRUCTURE
from imapshield.wire.commands.base import MemoryLiteral
from imapshield.wire.commands.fetch import Attribute, BodySection, FetchItem, Preview, Section
from imapshield.wire.commands.search import DateKey, EnvelopeKey, HeaderKey, SearchKey
from tests.maildir.disk import DiskTestCase
from tests.message import mails

RECORDED: tuple[int, dict[str, str]] = (
    6,
    {
        "?ENVELOPE BCC": "ee64b50d48b0e01c",
        "?ENVELOPE CC": "6737b6ec1999acec",
        "?ENVELOPE FROM": "3c0ef87d0ce814ac",
        "?ENVELOPE SUBJECT": "ddc7d7b44b9ebc7f",
        "?ENVELOPE TO": "d343100cf4470483",
        "?HEADER BCC": "ce7e48ec3f0835cb",
        "?HEADER CC": "25e0055d92aec395",
        "?HEADER FROM": "0ea7953275111437",
        "?HEADER MESSAGE-ID": "9c6b3df5199c8619",
        "?HEADER SUBJECT": "efe4b99cf3709e97",
        "?HEADER TO": "c8b7641fe7525c6e",
        "?SENT": "7de9c89b04142adb",
        "BODY": "af06fee21d0000a0",
        "BODYSTRUCTURE": "093b7ca251dc734e",
        "ENVELOPE": "7a9264e7bc9ccfe4",
        "HEADER.FIELDS date from subject": "826f68647058997a",
        RECORD.decode(): "4bdbafb7bb556bb2",
        "HEADER.FIELDS.NOT date from subject": "6875027f420c197f",
        "PREVIEW": "db73510e6e34b1ff",
    },
)
"""ANSWER_VERSION, and the digest of the answers to each item at that version."""

FIELDS = (
    b"Subject: =?utf-8?q?Caf=C3=A9?= =?utf-8?b?w6g=?= and =?koi8-r?B?wcLD?= =?x-none?q?a?=",
    b"Subject: Re: [list] \xc3\xa9t\xc3\xa9 \xff \x01 \t tabs",
    b'Subject: "quoted" \\ back',
    b"Subject: Stra\xc3\x9fe \xc4\xb1 I \xef\xac\x81 e\xcc\x81",
    b"Subject:",
    b"Subject: " + b"long " * 300,
    b"Subject: folded\r\n\t and\r\n  twice",
    b"subject : space before the colon",
    b"Date: Mon, 7 Feb 1994 21:52:25 -0800 (PST)",
    b"Date: 1 Jan 70 00:00 GMT",
    b"Date: Whenever",
    b"Date: Sat, 31 Dec 2022 23:59:60 +2400",
    b"From: Fred <fred@example.org>",
    b'From: "Doe, Jane" <jane@example.com>, b@c (comment (nested)), <@route:x@y>',
    b"From: =?iso-8859-1?q?J=FCrgen?= <j@example.org>",
    b"From: no address at all",
    b"Sender: <>",
    b"Reply-To: a b c <x",
    b"To: undisclosed-recipients:;",
    b'To: group: a@b, "c d" <e@f>;, last@x',
    b"To: \xd0\x9f\xd1\x80\xd0\xb8 <p@example.org>, M\xfcller <m@x>",
    b"Cc: " + b", ".join(b"u%d@example.org" % i for i in range(200)),
    b'Bcc: "\\"esc\\\\" <a@b>',
    b"Message-ID: <B27397-0100000@example> trailing",
    b"In-Reply-To: <a@b>\r\n <c@d>",
    b"References: <x@y>",
    b"X-Spam\0: nul",
    b"no colon in this line",
    b"MIME-Version: 1.0",
)
TYPES = (
    b"text/plain; charset=utf-8",
    b"TEXT/HTML; charset=\"iso-8859-1\"; name*0*=utf-8''r%C3%A9; name*1=s.html",
    b'text/plain; format=flowed; delsp=yes; x="a\\"b"',
    b"text",
    b"image/png; name=\xc3\xa9.png",
    b"message/rfc822",
    b"message/global",
    b"message/delivery-status",
    b"application/x; =; broken; a=",
)
OTHER_FIELDS = (
    b"Content-Transfer-Encoding: base64",
    b"Content-Transfer-Encoding: Quoted-Printable (c)",
    b"Content-Transfer-Encoding: x-unknown",
    b'Content-Disposition: attachment; filename="r\xc3\xa9.pdf"; size=12',
    b"Content-Disposition: =?utf-8?q?x?=",
    b"Content-ID: <1@example.org>",
    b"Content-Description: =?utf-8?q?d=C3=A9?=\r\n folded",
    b"Content-MD5: Q2hlY2s=",
    b"Content-Language: en, de-DE (x)",
    b"Content-Location: http://x/\r\n y",
)
BODIES = (
    b"",
    b"plain text\r\n> quoted\r\n\r\nmore  text\r\n",
    b"caf=C3=A9=\r\n au lait =ZZ\r\n",
    b"SGVsbG8g\r\nd29ybGQ!!\r\n",
    b"<html><head><title>t</title><style>p {}</style></head><p>one&nbsp;&eacute; <b>two</b></html>",
    b"From: inner@example.org\r\nSubject: inner\r\n\r\ninner body\r\n",
    b"no line end",
    b"\xff\xfe\x80 octets \xc3\xa9\r\n",
)
MULTIPART = b"Content-Type: multipart/mixed; boundary=%b\r\n\r\n"
AT_LIMITS = (
    b"Subject: far\r\nX: " + b"x" * 1_200_000 + b"\r\nTo: a@b\r\n\r\n",
    b"Content-Type: a/b" + b"; x=y" * 2000 + b"\r\n\r\n",
    b"".join(MULTIPART % (b"b%d" % i) + b"--b%d\r\n" % i for i in range(300)),
    b"Content-Type: message/rfc822\r\n\r\n" * 300,
    b"MIME-Version: 1.0\r\nContent-Language: " + b"a," * 20_000 + b"\r\n\r\n",
    MULTIPART % b"b" + (b"--b\r\nContent-Location: " + b"x" * 20_000 + b"\r\n\r\n\r\n") * 100,
    b"Content-Type: multipart/digest; boundary=b\r\n\r\n"
    + (b"--b\r\n\r\nTo: " + b"a@b.example," * 9_000 + b"\r\n\r\n\r\n") * 9,
)


def message(number: int) -> bytes:
    """Return a message made of difficult fields, parts and bodies: always the same one for a number."""
    choose = random.Random(f"answers {number}")
    lines = choose.sample(FIELDS, choose.randrange(1, 12))
    data = b"\r\n".join(lines) + b"\r\n" + _entity(choose, 0)
    if number % 7 == 0:
        data = data.replace(b"\r\n", b"\n")
    return data[: choose.randrange(len(data))] if number % 11 == 0 else data


def _entity(choose: random.Random, depth: int) -> bytes:
    """Return the fields and the body of a part."""
    fields = choose.sample(OTHER_FIELDS, choose.randrange(4))
    if depth < 3 and choose.random() < 0.4:
        boundary = b"b%d" % choose.randrange(3)
        fields.append(b"Content-Type: multipart/mixed; boundary=" + boundary)
        parts = [_entity(choose, depth + 1) for _ in range(choose.randrange(4))]
        body = b"preamble\r\n" + b"".join(b"--%b\r\n%b\r\n" % (boundary, part) for part in parts)
        body += b"--%b--\r\nepilogue" % boundary if choose.random() < 0.8 else b""
    else:
        fields.append(b"Content-Type: " + choose.choice(TYPES))
        body = choose.choice(BODIES)
        if choose.random() < 0.2:
            body = _entity(choose, depth + 1) if depth < 3 else body
    choose.shuffle(fields)
    return b"\r\n".join(fields) + b"\r\n\r\n" + body


class AnswerVersionTests(DiskTestCase):
    def test_changed_answers_have_a_new_version(self) -> None:
        """The answers that the index stores for difficult messages are those that are recorded for this version."""
        contents = [*mails.ALL, *AT_LIMITS, *map(message, range(300))]
        new = [NewMessage((), None, MemoryLiteral(content)) for content in contents]
        uids = self.store.append("INBOX", new).uids
        key = self.store.mailbox_key("INBOX")
        names = (b"Subject", b"From", b"Date")
        items: tuple[FetchItem, ...] = (
            ENVELOPE,
            STRUCTURE,
            Attribute(b"BODY"),
            Preview(),
            *(
                BodySection(Section((), b"HEADER.FIELDS" + suffix, names))
                for suffix in (b"", b".NOT")
            ),
        )
        fetched = self.store.fetch(key, uids, items, 1 << 30)
        self.assertEqual(list(fetched.uids), list(uids))
        fields = (b"SUBJECT", b"FROM", b"TO", b"CC", b"BCC")
        keys: list[SearchKey] = [DateKey(b"ON", date(2020, 1, 1), b"SENT")]
        keys += [HeaderKey(b"MESSAGE-ID", "x"), *(HeaderKey(field, "x") for field in fields)]
        keys += [EnvelopeKey(field, "x") for field in fields]
        for search_key in keys:
            rest: Any = uids
            while rest:  # one call reads a limited amount
                result = self.store.search(key, rest, search_key)
                rest = () if result.examined is None else rest[result.examined :]
        rows = self.store._account.index.db.execute(
            "SELECT text, uid, value FROM answer JOIN item ON item = item.id ORDER BY text, uid"
        )
        answers: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
        for text, uid, value in rows:
            name = bytes(text).rpartition(b"/")[0].decode()
            is_row = name.startswith("?")
            answers[name] += ValueRow.decode(value).values() if is_row else [(uid, value)]
        digests: dict[str, Any] = defaultdict(hashlib.sha256)
        for name, pairs in answers.items():
            for uid, value in sorted(pairs):
                digests[name].update(b"%d %b\n" % (uid, repr(value).encode()))
        found = (
            ANSWER_VERSION,
            {name: digest.hexdigest()[:16] for name, digest in digests.items()},
        )
        self.assertEqual(
            found,
            RECORDED,
            "Answers have changed. Raise ANSWER_VERSION in mailbox/message_items.py by 1, and record these digests: "
            f"{found}",
        )
