"""Every difference from Dovecot's responses is explained: `benchmarks.differential` on difficult messages.

Each message of AWKWARD shows one rule of `benchmarks.known_differences`. docs/divergences.rst lists the same rules.
"""

from __future__ import annotations

import os
import re

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.corpus import messages
from benchmarks.differential import compare
from benchmarks.known_differences import RULES
from system_tests.server import REPOSITORY
from tests.message.mails import FORWARD

DATE = b"Date: Wed, 01 Jan 2025 10:00:00 +0000\r\n"


def mail(header: bytes, body: bytes = b"the body and more\r\n", date: bytes = DATE) -> bytes:
    """Return a message; its Date comes before the lines of `header`."""
    lines = header.strip().replace(b"\n", b"\r\n")
    return b"From: a@example.org\r\nMIME-Version: 1.0\r\n%b%b\r\n\r\n%b" % (date, lines, body)


def multipart(*parts: bytes) -> bytes:
    """Return a multipart message of parts, each with its header."""
    body = b"".join(b"--b\r\n" + part.replace(b"\n", b"\r\n") + b"\r\n" for part in parts)
    return mail(b"Subject: parts\nContent-Type: multipart/mixed; boundary=b", body + b"--b--\r\n")


QUOTED = b"Content-Transfer-Encoding: quoted-printable\n\n=C3=A9_and =\nmore"
AWKWARD: tuple[tuple[str, bytes], ...] = (
    ("not with a list", mail(b"Subject: seen, and before the first that is not")),
    ("letter case", mail(b"Content-Type: text/plain; charset=US-ASCII")),
    ("letter case", mail(b"Content-Transfer-Encoding: 7BIT")),
    ("missing part", multipart(b"Content-Type: application/x-y\n\nthe octets")),
    ("message global", multipart(b"Content-Type: message/global\n\nSubject: \xc3\xa9\n\nthe")),
    ("added blank line", b"Subject: nothing but fields\r\nTo: b@c\r\n" + DATE),
    (
        "header continued in the next part",
        multipart(b"Content-Type: message/rfc822\n\nSubject: inner", b"X: y\n\nthe next"),
    ),
    ("nul in a field name", mail(b"Subject\0: hidden\nSub\0ject: a")),
    ("binary of a multipart", multipart(QUOTED, b"\nthe plain")),
    ("binary size", multipart(b"Content-Type: text/html\n" + QUOTED, QUOTED)),
    ("damaged encoding", mail(b"Content-Transfer-Encoding: base64", b"dGhl!!!IGVuZA=\r\n")),
    ("damaged encoding", mail(b"Content-Transfer-Encoding: quoted-printable", b"the =ZZ\r\n")),
    ("encoding without mime version", b"Content-Transfer-Encoding: base64\r\n\r\ndGhlIGVuZA==\r\n"),
    ("empty or folded encoding", mail(b"Content-Transfer-Encoding:")),
    ("repeated field", mail(b"Subject: Re: first a\nSubject: second")),
    ("repeated field", mail(b"Subject: dates\nDate: Thu, 01 Jan 2015 10:00:00 +0000")),
    (
        "repeated field",
        mail(b"Content-Type: multipart/mixed; boundary=x\nContent-Type: text/plain"),
    ),
    ("date beyond 32 bits", mail(b"X: y", date=b"Date: Sat, 01 Jan 1966 12:00:00 -0400\r\n")),
    ("date beyond 32 bits", mail(b"X: y", date=b"Date: Mon, 30 Jun 3609 15:33:50 +0600\r\n")),
    ("missing date", mail(b"Subject: undated", date=b"")),
    ("invalid date", mail(b"X: y", date=b"Date: Whenever\r\n")),
    ("invalid date", mail(b"X: y", date=b"Date: Wed 29 May 2019 06:09:22 PM EDT\r\n")),
    ("spaces at folds", mail(b"Subject: two \n\twords")),
    ("spaces at folds", mail(b"Subject: two a")),
    ("no break space", mail(b"Subject: =?iso-8859-1?Q?RE=A0=3A_two?=")),
    ("sharp s", mail(b"Subject: =?utf-8?Q?Gru=C3=9F?=")),
    ("encoded word with a language", mail(b"Subject: =?utf-8*sl?Q?ab?= b")),
    ("unknown or wrong charset", mail(b"Subject: =?koi8_r?B?wcLD?= =?utf-8?Q?a=C3?=")),
    (
        "unknown or wrong charset",
        mail(b"Content-Type: text/plain; charset=ks_c_5601-1987", b"\xc5\xd7 the\r\n"),
    ),
    ("undeclared charset", mail(b"Subject: \xe4\xf6\xfc\nTo: M\xfcller <m@example.org>")),
    ("address in envelope form", mail(b"Subject: to nobody\nTo: \nBcc:")),
    ("text in an unknown encoding", mail(b"Content-Transfer-Encoding: 8bits", b"the text\r\n")),
    ("type without subtype", mail(b"Content-Type: text", b"the text of a kind\r\n")),
)

ORDINARY = (
    ("every field that BODYSTRUCTURE has", FORWARD),
    ("a question", mail(b"Subject: one\nMessage-ID: <q@example.org>")),
    ("an answer", mail(b"Subject: two\nMessage-ID: <a@example.org>\nIn-Reply-To: <q@example.org>")),
    (
        "one more",
        mail(b"Subject: three\nMessage-ID: <m@example.org>\nReferences: <x@y>\n\t<q@example.org>"),
    ),
    ("addresses", mail(b'To: nobody, (c) <@r:a@b> , g: x@y,z;\nReply-To: <>\nBcc: "q\\"" <a>')),
)


class DifferentialTests(SynchronousTestCase):
    def test_every_difference_has_a_rule_and_every_rule_is_needed(self) -> None:
        """Each difference is explained by a rule, and each rule is needed."""
        from_corpus = [(f"corpus {index}", data) for index, data in enumerate(messages(150))]
        tally, unexplained = compare([*AWKWARD, *ORDINARY, *from_corpus], words=60)
        self.assertEqual(unexplained, [], "\n\n".join(unexplained))
        self.assertEqual(set(tally.by_rule), {rule.name for rule in RULES}, tally.table())
        self.assertEqual(set(tally.by_rule), {name for name, _ in AWKWARD})

    def test_unexplained_difference_shows_both_answers(self) -> None:
        """A difference that no rule explains is described with both answers."""
        tally, unexplained = compare(AWKWARD[:4], words=0, rules=())
        self.assertEqual(len(tally.unexplained), len(unexplained))
        self.assertIn("message 4, missing part", "\n".join(unexplained))
        self.assertIn("theirs b'the octets'\n  ours   b''", "\n".join(unexplained))

    def test_every_rule_is_documented_once(self) -> None:
        """docs/divergences.rst has exactly one row for each rule, with its name."""
        with open(os.path.join(REPOSITORY, "docs", "divergences.rst"), encoding="utf-8") as file:
            names = re.findall(r"^   \* - \*\*(.+)\*\*", file.read(), re.MULTILINE)
        self.assertEqual(sorted(names), sorted(rule.name for rule in RULES))
