"""CAPABILITY, ID, NAMESPACE and ENABLE (RFC 5161) of UTF8=ACCEPT (RFC 6855) and IMAP4rev2 (RFC 9051)."""

from tests.session.session_case import SessionTestCase, lines, without_text


class InformationTests(SessionTestCase):
    def test_capability_and_greeting_agree(self) -> None:
        """CAPABILITY returns the same list as the greeting, and no STARTTLS without a certificate."""
        client = self.server.connect()
        response = lines(client(b"a CAPABILITY"))
        self.assertIn(response[0][2:], client.greeting)
        self.assertIn(b"IMAP4rev1", response[0])
        self.assertNotIn(b"STARTTLS", response[0])
        self.assertEqual(lines(self.client(b"a CAPABILITY"))[1][:4], b"a OK")

    def test_id_is_answered_before_login(self) -> None:
        """ID is answered before login too."""
        self.assertIn(
            b'* ID ("name" "imapshield")', self.server.connect()(b'a ID ("name" "x" "version" NIL)')
        )

    def test_namespace_is_one_personal_namespace(self) -> None:
        """NAMESPACE has one personal namespace with the delimiter `/`."""
        self.assertIn(b'* NAMESPACE (("" "/")) NIL NIL', self.client(b"a NAMESPACE"))


class EnableTests(SessionTestCase):
    def test_enable_returns_the_enabled_extensions(self) -> None:
        """ENABLE returns the known extensions that it enabled and ignores unknown extensions."""
        self.assertEqual(
            lines(without_text(self.client(b"t1 ENABLE CONDSTORE X-UNKNOWN imap4REV2"))),
            [b"* ENABLED CONDSTORE IMAP4rev2", b"t1 OK"],
        )
        self.assertEqual(lines(self.client(b"t2 ENABLE X-NO"))[0], b"* ENABLED")

    def test_every_extension_to_enable_is_a_capability(self) -> None:
        """Every extension that can be enabled is a capability; IMAP4rev2 is a capability before login too."""
        self.assertIn(b"IMAP4rev1 IMAP4rev2 ", self.server.connect().greeting)
        response = self.client(b"a CAPABILITY")
        for name in (b"CONDSTORE", b"QRESYNC", b"UTF8=ACCEPT", b"IMAP4rev2"):
            self.assertIn(b" " + name, response)


class Utf8AcceptTests(SessionTestCase):
    def test_utf8_accept_makes_names_utf8(self) -> None:
        """After ENABLE UTF8=ACCEPT, mailbox names are UTF-8. Other sessions get modified UTF-7."""
        self.client(b"a ENABLE UTF8=ACCEPT")
        self.client('b CREATE "Entwürfe & mehr"'.encode())
        self.assertIn('"Entwürfe & mehr"'.encode(), self.client(b'c LIST "" *'))
        self.assertIn(b'"Entw&APw-rfe &- mehr"', self.server.login()(b'c LIST "" *'))

    def test_new_utf8_names_must_be_normalized(self) -> None:
        """New names in UTF-8 have to be normalized (RFC 9051 section 5.1). Names in modified UTF-7 do not."""
        self.assertIn(b"a OK", self.client(b"a CREATE e&AwE-"))
        self.client(b"b ENABLE UTF8=ACCEPT")
        self.assertIn(b"c OK", self.client('c SELECT "e\u0301"'.encode()))
        self.assertIn(b"d NO [CANNOT]", self.client('d CREATE "o\u0301"'.encode()))
        self.assertIn(b"e NO [CANNOT]", self.client('e RENAME "e\u0301" "o\u0301"'.encode()))
        self.assertIn(b"f OK", self.client('f RENAME "e\u0301" "ó"'.encode()))

    def test_invalid_utf8_in_quotes_is_bad(self) -> None:
        """A quoted string that is not UTF-8 is BAD in every command (RFC 6855 section 3)."""
        self.client(b"a ENABLE UTF8=ACCEPT")
        for command in (b'CREATE "\xff"', b'LIST "" "\xff"', b'ID ("name" "\xc3")'):
            self.assertIn(b"b BAD", self.client(b"b " + command), command)
        self.assertIn(b"b NO", self.client.send(b"b CREATE {1+}\r\n\xff\r\n"))

    def test_search_charset_is_bad(self) -> None:
        """SEARCH with CHARSET is BAD after ENABLE UTF8=ACCEPT (RFC 6855 section 3)."""
        self.select_inbox(1)
        self.assertIn(b"a OK", self.client(b"a SEARCH CHARSET UTF-8 ALL"))
        self.client(b"b ENABLE UTF8=ACCEPT")
        self.assertIn(b"c BAD", self.client(b"c SEARCH CHARSET UTF-8 ALL"))
        self.assertIn(b"* SEARCH 1", self.client('d SEARCH NOT SUBJECT "é"'.encode()))

    def test_append_utf8_stores_the_message_unchanged(self) -> None:
        """APPEND UTF8 (~{…}) stores the message unchanged."""
        self.client(b"a ENABLE UTF8=ACCEPT")
        mail = "Subject: é\r\n\r\n".encode()
        response = self.client.send(b"b APPEND INBOX UTF8 (~{%d+}\r\n%b)\r\n" % (len(mail), mail))
        self.assertIn(b"b OK [APPENDUID", response)
        self.client(b"c SELECT INBOX")
        self.assertIn(mail, self.client(b"d FETCH 1 BODY[]"))


class Imap4rev2Tests(SessionTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.client.append(flags=b"(\\Seen)")
        self.client.append()
        self.client(b"e ENABLE IMAP4rev2")

    def test_select_returns_list_instead_of_recent(self) -> None:
        """SELECT returns a LIST response, and neither RECENT nor UNSEEN (RFC 9051 section 6.3.2)."""
        response = self.client(b"A142 SELECT inbox")
        self.assertIn(b'* LIST (\\HasNoChildren) "/" INBOX\r\n', response)
        self.assertNotIn(b"RECENT", response)
        self.assertNotIn(b"UNSEEN", response)

    def test_list_attributes_of_select_are_accurate(self) -> None:
        """The attributes in the LIST response of SELECT equal those of LIST, because they "MUST be accurate"."""
        self.client(b"a CREATE x/y (USE (\\Sent))")
        listed = lines(self.client(b'b LIST "" x*'))[:-1]
        selected = self.client(b"c SELECT x") + self.client(b"d EXAMINE x/y")
        self.assertEqual([s for s in lines(selected) if s.startswith(b"* LIST")], listed)

    def test_recent_is_never_sent(self) -> None:
        r"""\Recent and RECENT are never sent."""
        self.client(b"a SELECT INBOX")
        self.assertEqual(lines(self.client(b"b FETCH 2 FLAGS"))[0], b"* 2 FETCH (FLAGS ())")
        self.assertNotIn(b"RECENT", self.client.append())

    def test_unsolicited_fetch_has_uid(self) -> None:
        """Unsolicited FETCH responses contain the UID (RFC 9051 section 7.5.2)."""
        self.client(b"a SELECT INBOX")
        other = self.second_client()
        other(b"b STORE 2 +FLAGS.SILENT (\\Flagged)")
        self.assertIn(b"* 2 FETCH (UID 2 FLAGS (\\Flagged))", self.client(b"c NOOP"))
        self.client(b"d IDLE")
        other(b"e STORE 2 -FLAGS.SILENT (\\Flagged)")
        self.assertEqual(self.client.read(), b"* 2 FETCH (UID 2 FLAGS ())\r\n")

    def test_search_returns_esearch(self) -> None:
        """The response to SEARCH is ESEARCH, even if nothing matches."""
        self.client(b"s SELECT INBOX")
        self.assertEqual(lines(self.client(b"A1 SEARCH ALL"))[0], b'* ESEARCH (TAG "A1") ALL 1:2')
        self.assertEqual(
            lines(self.client(b"A2 UID SEARCH FLAGGED"))[0], b'* ESEARCH (TAG "A2") UID'
        )

    def test_parent_is_nonexistent(self) -> None:
        r"""A name that exists only as a parent is \NonExistent."""
        self.client(b"a CREATE x/y")
        self.client(b"b DELETE x")
        self.assertIn(b'* LIST (\\NonExistent \\HasChildren) "/" x', self.client(b'c LIST "" *'))
