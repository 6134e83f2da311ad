"""METADATA (RFC 5464) of mailboxes and of the account, and its limits."""

from imapshield.limits import Limits
from imapshield.mailbox.values import MAX_METADATA_ENTRIES
from imapshield.testing import Server
from tests.session.session_case import SessionTestCase, lines, without_text


class MetadataTests(SessionTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.client(
            b'a SETMETADATA INBOX (/shared/comment "Shared comment" /private/comment "My own comment")'
        )
        self.client(
            b'a SETMETADATA INBOX (/private/filters/values/small "s" /private/filters/values/boss "b" /private/filters "f")'
        )

    def test_getmetadata_returns_entries_in_any_case(self) -> None:
        """GETMETADATA returns one or several entries, in any letter case. A missing entry is NIL (section 4.2)."""
        self.assertEqual(
            lines(self.client(b'a GETMETADATA "INBOX" /shared/comment'))[0],
            b'* METADATA INBOX (/shared/comment "Shared comment")',
        )
        self.assertEqual(
            lines(
                self.client(b"a GETMETADATA INBOX (/SHARED/Comment /private/comment /private/none)")
            )[0],
            b'* METADATA INBOX (/shared/comment "Shared comment" /private/comment "My own comment" /private/none NIL)',
        )
        # The example of section 4.4.1.
        self.assertEqual(
            lines(self.client(b'a GETMETADATA "INBOX" /private/comment /shared/comment'))[0],
            b'* METADATA INBOX (/private/comment "My own comment" /shared/comment "Shared comment")',
        )
        self.assertEqual(
            lines(self.client(b'a GETMETADATA "" /shared/comment'))[0],
            b'* METADATA "" (/shared/comment NIL)',
        )

    def test_special_use_entry_is_read_only(self) -> None:
        """/private/specialuse equals the special uses in LIST, and cannot be set (RFC 6154 section 4)."""
        self.client(b"a CREATE MyDrafts (USE (\\Drafts \\Sent))")
        for name, value in ((b"MyDrafts", b'"\\\\Drafts \\\\Sent"'), (b"INBOX", b"NIL")):
            self.assertEqual(
                lines(self.client(b"t2 GETMETADATA %b /private/specialuse" % name))[0],
                b"* METADATA %b (/private/specialuse %b)" % (name, value),
            )
        for name, value in ((b"INBOX", b'"\\\\Junk"'), (b"MyDrafts", b"NIL")):
            self.assertIn(
                b"t3 NO [CANNOT]",
                self.client(b"t3 SETMETADATA %b (/private/specialuse %b)" % (name, value)),
            )

    def test_maxsize_omits_longer_values(self) -> None:
        """MAXSIZE omits longer values and returns the longest size, before or after the name (section 4.2.1)."""
        for command in (b"GETMETADATA (MAXSIZE 10) INBOX", b"GETMETADATA INBOX (MAXSIZE 10)"):
            response = lines(self.client(b"a " + command + b" (/shared/comment /private/filters)"))
            self.assertEqual(response[0], b'* METADATA INBOX (/private/filters "f")')
            self.assertIn(b"a OK [METADATA LONGENTRIES 14]", response[1])

    def test_depth_returns_inferior_entries(self) -> None:
        """DEPTH 1 returns the next level, infinity returns all levels (section 4.2.2)."""
        self.assertEqual(
            lines(self.client(b'a GETMETADATA (DEPTH 1) "INBOX" (/private/filters/values)'))[0],
            b'* METADATA INBOX (/private/filters/values/boss "b" /private/filters/values/small "s")',
        )
        self.assertEqual(
            lines(self.client(b"a GETMETADATA (DEPTH 1 MAXSIZE 99) INBOX /private/filters"))[0],
            b'* METADATA INBOX (/private/filters "f")',
        )
        self.assertEqual(
            lines(self.client(b"a GETMETADATA (DEPTH infinity) INBOX /private/filters"))[0].count(
                b"/private/"
            ),
            3,
        )
        self.assertEqual(
            without_text(self.client(b"a GETMETADATA (DEPTH infinity) INBOX /private/none")),
            b"a OK\r\n",
        )

    def test_setmetadata_stores_and_removes_values(self) -> None:
        """SETMETADATA stores binary values and removes NIL values. RENAME and DELETE apply to metadata too."""
        self.client(b"a SETMETADATA INBOX (/private/comment NIL)")
        self.assertIn(b"/private/comment NIL", self.client(b"a GETMETADATA INBOX /private/comment"))
        self.client.send(b'a SETMETADATA "" (/shared/vendor/x ~{3+}\r\na\0b)\r\n')
        self.assertIn(
            b"(/shared/vendor/x ~{3}\r\na\0b)", self.client(b'a GETMETADATA "" /shared/vendor/x')
        )
        self.client(b'a SETMETADATA "" ("/private/a b" "c")')
        self.assertIn(b'("/private/a b" "c")', self.client(b'a GETMETADATA "" "/private/a b"'))
        self.client(b"a CREATE x")
        self.client(b'a SETMETADATA x (/private/comment "moved")')
        self.client(b"a RENAME x y")
        self.assertIn(b'"moved"', self.client(b"a GETMETADATA y /private/comment"))
        self.client(b"a DELETE y")
        self.client(b"a CREATE y")
        self.assertNotIn(b'"moved"', self.client(b"a GETMETADATA y /private/comment"))

    def test_invalid_metadata_commands_are_refused(self) -> None:
        """Bad entry names are BAD. Missing mailboxes, long values and too many entries are NO."""
        for entry in (
            b"comment",
            b"/other/x",
            b"/private/",
            b"/private/a//b",
            b"/private/a*",
            b"/private/a%",
            b"/private",
        ):
            self.assertIn(b"a BAD", self.client(b"a GETMETADATA INBOX " + entry), entry)
        self.assertIn(b"a NO [NONEXISTENT]", self.client(b"a GETMETADATA nowhere /private/a"))
        self.assertIn(b"a NO [NONEXISTENT]", self.client(b'a SETMETADATA nowhere (/private/a "x")'))
        max_size = Limits().max_metadata_size
        for octets in (max_size + 1, 1 << 20):
            response = self.client.send(
                b"a SETMETADATA INBOX (/private/a {%d+}\r\n%b)\r\n" % (octets, b"x" * octets)
            )
            self.assertIn(b"a NO [METADATA MAXSIZE %d]" % max_size, response)
        command = b'a SETMETADATA INBOX (/private/a "%b")' % (b"x" * (max_size + 1))
        self.assertIn(b"a NO [METADATA MAXSIZE %d]" % max_size, self.client(command))
        entries = b" ".join(b'/private/n%d "x"' % i for i in range(MAX_METADATA_ENTRIES))
        self.assertIn(
            b"a NO [METADATA TOOMANY]", self.client(b"a SETMETADATA INBOX (%b)" % entries)
        )
        self.assertIn(b"NIL", self.client(b"a GETMETADATA INBOX /private/n1"))

    def test_server_admin_is_read_only(self) -> None:
        """/shared/admin of a mailbox can be set. /shared/admin of the server cannot: the whole command fails (section
        3.2.1.1)."""
        response = self.client(b'a SETMETADATA "" (/private/a "x" /shared/Admin "mailto:me")')
        self.assertIn(b"a NO [NOPERM]", response)
        response = self.client(b'a GETMETADATA "" (/private/a /shared/admin)')
        self.assertIn(b"(/private/a NIL /shared/admin NIL)", response)
        self.assertIn(b"a OK", self.client(b'a SETMETADATA INBOX (/shared/admin "x")'))

    def test_rename_of_inbox_copies_its_metadata(self) -> None:
        """RENAME INBOX keeps the metadata of INBOX and copies it to the new mailbox (section 4.1)."""
        self.client(b"a RENAME INBOX old")
        for name in (b"INBOX", b"old"):
            response = self.client(b"b GETMETADATA %b /private/comment" % name)
            self.assertIn(b'"My own comment"', response)

    def test_name_that_no_mailbox_can_have(self) -> None:
        """A mailbox name that is not valid is refused, as in other commands."""
        for command in (b"GETMETADATA &bad /shared/a", b'SETMETADATA &bad (/shared/a "x")'):
            self.assertIn(b"a NO [CANNOT]", self.client(b"a " + command))

    def test_raised_limit_of_values(self) -> None:
        """A value may be as long as `max_metadata_size`, even if that is longer than other literals may be."""
        client = Server(max_metadata_size=100_000).login()
        value = b"x" * 80_000
        command = b"a SETMETADATA INBOX (/shared/a {%d+}\r\n%b)\r\n" % (len(value), value)
        self.assertIn(b"a OK", client.send(command))
        self.assertIn(value, client(b"b GETMETADATA INBOX /shared/a"))
