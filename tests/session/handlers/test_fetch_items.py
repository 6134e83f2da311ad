"""FETCH items beyond IMAP4rev1: BINARY (RFC 3516), OBJECTID (RFC 8474), SAVEDATE (RFC 8514), PREVIEW (RFC 8970)."""

import re

from imapshield.testing import MAIL
from tests.session.session_case import SessionTestCase, lines

ENCODED = (
    b"Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
    b"Content-Type: text/plain\r\n\r\nhello\r\n--b\r\nContent-Type: application/x\r\nContent-Transfer-Encoding: base64\r\n"
    b"\r\nAGEA\r\n--b\r\nContent-Type: application/y\r\nContent-Transfer-Encoding: x-unknown\r\n\r\n?\r\n--b--\r\n"
)


class BinaryTests(SessionTestCase):
    def test_binary_returns_decoded_content(self) -> None:
        """BINARY decodes a part and returns NUL in a literal8. BINARY.SIZE is the decoded size (RFC 3516)."""
        self.client.append(ENCODED)
        self.client(b"s SELECT INBOX")
        response = self.client(
            b"a FETCH 1 (BINARY.PEEK[1] BINARY.PEEK[2] BINARY.SIZE[2] BINARY.PEEK[2]<1.1>)"
        )
        self.assertIn(
            b"BINARY[1] {5}\r\nhello BINARY[2] ~{3}\r\n\0a\0 BINARY.SIZE[2] 3 BINARY[2]<1> {1}\r\na)",
            response,
        )

    def test_unknown_encoding_is_unknown_cte(self) -> None:
        """BINARY of a part with an unknown encoding is NO [UNKNOWN-CTE]."""
        self.client.append(ENCODED)
        self.client(b"s SELECT INBOX")
        for item in (b"BINARY.PEEK[3]", b"BINARY.SIZE[3]"):
            self.assertIn(b"a NO [UNKNOWN-CTE]", self.client(b"a FETCH 1 " + item))

    def test_undecodable_message_does_not_become_seen(self) -> None:
        r"""A message that cannot be decoded does not get \Seen, and neither do the messages after it."""
        for mail in (ENCODED.replace(b"x-unknown", b"8bit"), ENCODED, MAIL):
            self.client.append(mail)
        self.client(b"s SELECT INBOX")
        for item in (b"BINARY[3]", b"(BODY[1] BINARY.SIZE[3])"):
            response = self.client(b"a FETCH 1:3 " + item)
            self.assertIn(b"* 1 FETCH", response)
            self.assertIn(b"a NO [UNKNOWN-CTE]", response)
            self.assertIn(b"* SEARCH 1\r\n", self.client(b"b SEARCH SEEN"))

    def test_append_takes_a_literal8(self) -> None:
        """APPEND takes a literal8 that contains NUL (RFC 3516 section 4.4)."""
        mail = MAIL + b"\0\r\n"
        self.assertIn(
            b"a OK", self.client.send(b"a APPEND INBOX ~{%d+}\r\n%b\r\n" % (len(mail), mail))
        )
        self.client(b"s SELECT INBOX")
        self.assertIn(b"~{%d}\r\n%b" % (len(mail), mail), self.client(b"b FETCH 1 BINARY.PEEK[]"))


class ObjectIdTests(SessionTestCase):
    def test_identifiers_are_stable(self) -> None:
        """CREATE, SELECT and STATUS return the same MAILBOXID. MOVE keeps the EMAILID (RFC 8474)."""
        created = re.findall(rb"MAILBOXID \((\w+)\)", self.client(b"a CREATE foo"))
        self.assertEqual(re.findall(rb"MAILBOXID \((\w+)\)", self.client(b"b SELECT foo")), created)
        self.client(b"c RENAME foo bar")
        self.assertEqual(
            re.findall(rb"MAILBOXID \((\w+)\)", self.client(b"d STATUS bar (MAILBOXID)")), created
        )
        self.select_inbox(1)
        email = re.findall(
            rb"EMAILID \((\w+)\) THREADID (\S+)\)", self.client(b"e FETCH 1 (EMAILID THREADID)")
        )
        self.assertEqual(email[0][1], b"NIL")
        self.client(b"f MOVE 1 bar")
        self.client(b"g SELECT bar")
        self.assertIn(b"* SEARCH 1", self.client(b"h SEARCH EMAILID " + email[0][0]))
        self.assertIn(b"* SEARCH\r\n", self.client(b"i SEARCH THREADID T1"))


class OtherItemTests(SessionTestCase):
    def test_savedate_is_the_time_of_arrival_in_the_mailbox(self) -> None:
        """SAVEDATE is the time at which a message was added to its mailbox, whatever its INTERNALDATE (RFC 8514)."""
        self.client.send(
            b'a APPEND INBOX "01-Jan-2001 00:00:00 +0000" {%d+}\r\n%b\r\n' % (len(MAIL), MAIL)
        )
        self.client(b"s SELECT INBOX")
        self.assertIn(b'SAVEDATE "14-Nov-2023 22:13:20 +0000"', self.client(b"b FETCH 1 SAVEDATE"))
        for key, expected in (
            (b"SAVEDON 14-Nov-2023", b" 1"),
            (b"SAVEDBEFORE 14-Nov-2023", b""),
            (b"SAVEDSINCE 1-Jan-2023", b" 1"),
            (b"SAVEDATESUPPORTED", b" 1"),
        ):
            self.assertEqual(lines(self.client(b"c SEARCH " + key))[0], b"* SEARCH" + expected)

    def test_preview_is_the_beginning_of_the_text(self) -> None:
        """PREVIEW is the beginning of the text, with or without LAZY (RFC 8970)."""
        self.select_inbox(1)
        self.assertIn(b'PREVIEW "At noon?"', self.client(b"a FETCH 1 (PREVIEW)"))
        self.assertIn(b'PREVIEW "At noon?"', self.client(b"b FETCH 1 (RFC822.SIZE PREVIEW (LAZY))"))
