"""ENABLE (RFC 5161): CONDSTORE, QRESYNC, UTF8=ACCEPT (RFC 6855) and IMAP4rev2 (RFC 9051), and what each changes."""

from tests.session.session_case import SessionTestCase, lines


class InformationTests(SessionTestCase):
    def test_capability(self) -> None:
        """CAPABILITY, the greeting and the answer to LOGIN say the same as the session can do."""
        stranger = self.server.connect()
        answer = lines(stranger(b"a CAPABILITY"))
        self.assertIn(answer[0][2:], stranger.greeting)
        self.assertIn(b"IMAP4rev1", answer[0])
        self.assertNotIn(b"STARTTLS", answer[0])
        self.assertEqual(lines(self.client(b"a CAPABILITY"))[1][:4], b"a OK")

    def test_id(self) -> None:
        """ID is answered, before login too."""
        self.assertIn(
            b'* ID ("name" "imapshield")', self.server.connect()(b'a ID ("name" "x" "version" NIL)')
        )

    def test_namespace(self) -> None:
        """NAMESPACE: one, personal, delimiter ``/``."""
        self.assertIn(b'* NAMESPACE (("" "/")) NIL NIL', self.client(b"a NAMESPACE"))


class Enabling(SessionTestCase):
    def test_known_and_unknown(self) -> None:
        """What is known is enabled and named; what is not is passed over."""
        self.assertEqual(
            lines(self.client(b"t1 ENABLE CONDSTORE X-UNKNOWN imap4REV2")),
            [b"* ENABLED CONDSTORE IMAP4rev2", b"t1 OK Enabled"],
        )
        self.assertEqual(lines(self.client(b"t2 ENABLE X-NO"))[0], b"* ENABLED")

    def test_advertised(self) -> None:
        """What ENABLE can turn on is advertised; IMAP4rev2 to strangers too."""
        self.assertIn(b"IMAP4rev1 IMAP4rev2 ", self.server.connect().greeting)
        answer = self.client(b"a CAPABILITY")
        for name in (b"CONDSTORE", b"QRESYNC", b"UTF8=ACCEPT", b"IMAP4rev2"):
            self.assertIn(b" " + name, answer)


class Utf8(SessionTestCase):
    def test_names(self) -> None:
        """Names are UTF-8 after ENABLE UTF8=ACCEPT, and modified UTF-7 for those who did not."""
        self.client(b"a ENABLE UTF8=ACCEPT")
        self.client('b CREATE "Entwürfe & mehr"'.encode())
        self.assertIn('"Entwürfe & mehr"'.encode(), self.client(b'c LIST "" *'))
        self.assertIn(b'"Entw&APw-rfe &- mehr"', self.server.login()(b'c LIST "" *'))

    def test_net_unicode(self) -> None:
        """New names are normalized (RFC 9051 section 5.1), except where they come as modified UTF-7."""
        self.assertIn(b"a OK", self.client(b"a CREATE e&AwE-"))
        self.client(b"b ENABLE UTF8=ACCEPT")
        self.assertIn(b"c OK", self.client('c SELECT "e\u0301"'.encode()))
        self.assertIn(b"d NO [CANNOT]", self.client('d CREATE "o\u0301"'.encode()))
        self.assertIn(b"e NO [CANNOT]", self.client('e RENAME "e\u0301" "o\u0301"'.encode()))
        self.assertIn(b"f OK", self.client('f RENAME "e\u0301" "ó"'.encode()))

    def test_not_utf8(self) -> None:
        """Octets in quotes that are no UTF-8 are BAD, wherever they stand (RFC 6855 section 3)."""
        self.client(b"a ENABLE UTF8=ACCEPT")
        for command in (b'CREATE "\xff"', b'LIST "" "\xff"', b'ID ("name" "\xc3")'):
            self.assertIn(b"b BAD", self.client(b"b " + command), command)
        self.assertIn(b"b NO", self.client.send(b"b CREATE {1+}\r\n\xff\r\n"))

    def test_charset(self) -> None:
        """SEARCH with CHARSET is BAD afterwards (RFC 6855 section 3)."""
        self.select_inbox(1)
        self.assertIn(b"a OK", self.client(b"a SEARCH CHARSET UTF-8 ALL"))
        self.client(b"b ENABLE UTF8=ACCEPT")
        self.assertIn(b"c BAD", self.client(b"c SEARCH CHARSET UTF-8 ALL"))
        self.assertIn(b"* SEARCH 1", self.client('d SEARCH NOT SUBJECT "é"'.encode()))

    def test_append(self) -> None:
        """A message in UTF8 (~{…}) is stored as it is."""
        self.client(b"a ENABLE UTF8=ACCEPT")
        mail = "Subject: é\r\n\r\n".encode()
        answer = self.client.send(b"b APPEND INBOX UTF8 (~{%d+}\r\n%b)\r\n" % (len(mail), mail))
        self.assertIn(b"b OK [APPENDUID", answer)
        self.client(b"c SELECT INBOX")
        self.assertIn(mail, self.client(b"d FETCH 1 BODY[]"))


class Rev2(SessionTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.client.append(flags=b"(\\Seen)")
        self.client.append()
        self.client(b"e ENABLE IMAP4rev2")

    def test_select(self) -> None:
        """SELECT tells the name in a LIST response, and neither RECENT nor UNSEEN (RFC 9051 section 6.3.2)."""
        answer = self.client(b"A142 SELECT inbox")
        self.assertIn(b'* LIST (\\HasNoChildren) "/" INBOX\r\n', answer)
        self.assertNotIn(b"RECENT", answer)
        self.assertNotIn(b"UNSEEN", answer)

    def test_attributes(self) -> None:
        """The attributes in that LIST response are those of LIST ("MUST be accurate")."""
        self.client(b"a CREATE x/y (USE (\\Sent))")
        listed = lines(self.client(b'b LIST "" x*'))[:-1]
        selected = self.client(b"c SELECT x") + self.client(b"d EXAMINE x/y")
        self.assertEqual([s for s in lines(selected) if s.startswith(b"* LIST")], listed)

    def test_no_recent(self) -> None:
        r"""\Recent and RECENT are not told any more."""
        self.client(b"a SELECT INBOX")
        self.assertEqual(lines(self.client(b"b FETCH 2 FLAGS"))[0], b"* 2 FETCH (FLAGS ())")
        self.assertNotIn(b"RECENT", self.client.append())

    def test_unsolicited(self) -> None:
        """FETCH responses that were not asked for have the UID (RFC 9051 section 7.5.2)."""
        self.client(b"a SELECT INBOX")
        other = self.second_client()
        other(b"b STORE 2 +FLAGS.SILENT (\\Flagged)")
        self.assertIn(b"* 2 FETCH (UID 2 FLAGS (\\Flagged))", self.client(b"c NOOP"))
        self.client(b"d IDLE")
        other(b"e STORE 2 -FLAGS.SILENT (\\Flagged)")
        self.assertEqual(self.client.read(), b"* 2 FETCH (UID 2 FLAGS ())\r\n")

    def test_search(self) -> None:
        """SEARCH is answered with ESEARCH, also when nothing was found."""
        self.client(b"s SELECT INBOX")
        self.assertEqual(lines(self.client(b"A1 SEARCH ALL"))[0], b'* ESEARCH (TAG "A1") ALL 1:2')
        self.assertEqual(
            lines(self.client(b"A2 UID SEARCH FLAGGED"))[0], b'* ESEARCH (TAG "A2") UID'
        )

    def test_nonexistent(self) -> None:
        r"""A name that only has inferiors is \NonExistent."""
        self.client(b"a CREATE x/y")
        self.client(b"b DELETE x")
        self.assertIn(b'* LIST (\\NonExistent \\HasChildren) "/" x', self.client(b'c LIST "" *'))
