"""The separator and the prefix of mailbox names, in every command and response that has a name."""

from __future__ import annotations

from imapshield.mailbox.values import Namespace
from imapshield.testing import MAIL, MemoryRealm, Server
from tests.session.session_case import SessionTestCase, lines


class NamespaceTests(SessionTestCase):
    prefix = "INBOX."

    def setUp(self) -> None:
        namespace = Namespace.as_shown(self.prefix, ".")
        self.server = Server(realm=MemoryRealm(namespace=namespace))
        self.client = self.server.login()

    def check(self, command: bytes, *expected: bytes) -> None:
        """Send a command and check its untagged responses, and that it is OK."""
        *untagged, tagged = lines(self.client(b"t " + command))
        self.assertEqual((untagged, tagged[:4]), (list(expected), b"t OK"))

    def stored(self) -> list[str]:
        """Return the names of the mailboxes in the store."""
        return sorted(self.server.realm.account()._store._store._mailboxes)


class PrefixTests(NamespaceTests):
    def test_names_of_the_store_have_no_prefix(self) -> None:
        """Mailboxes below the prefix have names without it in the store; INBOX is INBOX, in any letter case."""
        for name in (b"INBOX.Sent", b"inbox.Lists.a", b"INBOX.v1/2", b"Inbox.&AOk-."):
            self.check(b"CREATE " + name)
        self.assertEqual(self.stored(), ["INBOX", "Lists", "Lists/a", "Sent", "v1.2", "é"])
        self.assertIn(b"t NO [ALREADYEXISTS]", self.client(b"t CREATE INBOX."))

    def test_name_without_the_prefix(self) -> None:
        """CREATE of a name without the prefix is NO [CANNOT] and says what is expected; others are NONEXISTENT."""
        self.assertEqual(
            self.client(b"t CREATE Sent"),
            b't NO [CANNOT] Mailbox names must begin with "INBOX."\r\n',
        )
        self.assertIn(b"t NO [CANNOT]", self.client(b"t RENAME INBOX Old"))
        for command in (
            b"SELECT Sent",
            b"STATUS Sent (MESSAGES)",
            b"DELETE Sent",
            b"SUBSCRIBE Sent",
        ):
            self.assertIn(b"t NO [NONEXISTENT]", self.client(b"t " + command))
        self.assertIn(b"app NO [TRYCREATE]", self.client.append(mailbox=b"Sent"))

    def test_namespace_and_list_show_prefix_and_separator(self) -> None:
        """NAMESPACE and LIST have the prefix and the separator, in patterns as well as in names."""
        self.check(b"NAMESPACE", b'* NAMESPACE (("INBOX." ".")) NIL NIL')
        self.check(b'LIST "" ""', b'* LIST (\\Noselect) "." ""')
        self.check(b"CREATE INBOX.a.b")
        inbox = b'* LIST (\\HasChildren) "." INBOX'
        a = b'* LIST (\\HasChildren) "." INBOX.a'
        b = b'* LIST (\\HasNoChildren) "." INBOX.a.b'
        self.check(b'LIST "" *', inbox, a, b)
        self.check(b'LIST "" %', inbox)
        self.check(b'LIST "" INBOX.%', a)
        self.check(b"LIST INBOX. %", a)
        self.check(b'LIST "" inbox.a*', a, b)
        self.check(b"SUBSCRIBE INBOX.a.b")
        self.check(b'LSUB "" INBOX.%', b'* LSUB (\\Noselect) "." INBOX.a')
        self.check(
            b'LIST (SUBSCRIBED RECURSIVEMATCH) "" INBOX.% RETURN (STATUS (MESSAGES))',
            b'* LIST (\\HasChildren) "." INBOX.a ("CHILDINFO" ("SUBSCRIBED"))',
        )
        self.check(b"DELETE INBOX.a")
        self.check(b'LIST "" INBOX.%', b'* LIST (\\Noselect \\HasChildren) "." INBOX.a')
        self.assertIn(b"t NO [HASCHILDREN]", self.client(b"t DELETE INBOX.a"))

    def test_names_of_all_commands_are_mapped(self) -> None:
        """Every command with a mailbox name takes it with the prefix, and responses repeat it so."""
        self.check(b"CREATE INBOX.a")
        self.check(b"CREATE INBOX.b (USE (\\Sent))")
        self.assertIn(b"app OK", self.client.append(mailbox=b"INBOX.a"))
        self.check(b"STATUS INBOX.a (MESSAGES)", b"* STATUS INBOX.a (MESSAGES 1)")
        self.check(b"SETMETADATA INBOX.a (/private/comment {1+}\r\nx)")
        self.check(
            b"GETMETADATA INBOX.a /private/comment", b'* METADATA INBOX.a (/private/comment "x")'
        )
        self.check(b'GETMETADATA "" /private/comment', b'* METADATA "" (/private/comment NIL)')
        self.assertIn(b'* QUOTAROOT INBOX.a ""\r\n', self.client(b"t GETQUOTAROOT INBOX.a"))
        self.assertIn(b"t OK [READ-WRITE]", self.client(b"t SELECT inbox.a"))
        self.assertIn(b"t OK [COPYUID", self.client(b"t COPY 1 INBOX.b"))
        self.assertIn(b"t OK", self.client(b"t MOVE 1 INBOX"))
        self.assertIn(b"t OK", self.client(b"t RENAME INBOX.a INBOX.c"))
        self.assertEqual(self.stored(), ["INBOX", "b", "c"])
        self.assertIn(
            b'(TAG "t" MAILBOX INBOX.b UIDVALIDITY',
            self.client(b"t ESEARCH IN (SUBTREE (INBOX) MAILBOXES INBOX.b) ALL"),
        )
        self.assertIn(b"* OK [CLOSED]", self.client(b"t DELETE INBOX.c"))
        self.client(b"t ENABLE IMAP4rev2")
        self.assertIn(
            b'* LIST (\\HasNoChildren \\Sent) "." INBOX.b', self.client(b"t EXAMINE INBOX.b")
        )

    def test_catenate_urls(self) -> None:
        """URLs of CATENATE have the names that clients see. A relative URL is relative to slashes, not to levels."""
        for name in (b"INBOX.a", b"INBOX.x/y", b"INBOX.x/z"):
            self.check(b"CREATE " + name)
            self.client.append(mailbox=name)
        self.client(b"t SELECT INBOX.x/y")
        for url in (
            b"/INBOX.a/;UID=1",
            b"/inbox.a/;UID=1",
            b";UID=1",
            b"z/;UID=1",
            b"/INBOX.x%2Fz/;UID=1",
        ):
            self.assertIn(b"t OK", self.client(b't APPEND INBOX CATENATE (URL "%b")' % url), url)
        self.assertIn(b"BADURL", self.client(b"t APPEND INBOX CATENATE (URL /a/;UID=1)"))

    def test_notify_reports_names_with_the_prefix(self) -> None:
        """NOTIFY takes and reports names with the prefix; the subtree of INBOX contains all mailboxes."""
        self.check(b"CREATE INBOX.a")
        self.client(b"n NOTIFY SET (subtree INBOX (MessageNew MessageExpunge MailboxName))")
        other = self.server.login()
        other.append(mailbox=b"INBOX.a")
        self.assertIn(b"* STATUS INBOX.a (MESSAGES 1", self.client.read())
        other(b"b RENAME INBOX.a INBOX.b")
        self.assertIn(
            b'* LIST (\\HasNoChildren) "." INBOX.b ("OLDNAME" (INBOX.a))', self.client.read()
        )

    def test_selected_mailbox_follows_a_rename(self) -> None:
        """A selected mailbox below the prefix gets new messages after a rename."""
        self.check(b"CREATE INBOX.a")
        self.client(b"s SELECT INBOX.a")
        other = self.server.login()
        other(b"a RENAME INBOX.a INBOX.b")
        other.append(MAIL, b"INBOX.b")
        self.assertIn(b"* 1 EXISTS", self.client(b"t NOOP"))


class SeparatorTests(NamespaceTests):
    prefix = ""

    def stored(self) -> list[str]:
        return sorted(self.server.realm.account()._store._mailboxes)

    def test_separator_and_slash_are_exchanged(self) -> None:
        """With the separator "." a slash is part of a level, and stands for a dot inside a level of the store."""
        self.check(b"NAMESPACE", b'* NAMESPACE (("" ".")) NIL NIL')
        self.check(b"CREATE a.b/c.")
        self.check(b"CREATE inbox.x")
        self.assertEqual(self.stored(), ["INBOX", "INBOX/x", "a", "a/b.c"])
        self.check(
            b'LIST "" %', b'* LIST (\\HasChildren) "." INBOX', b'* LIST (\\HasChildren) "." a'
        )
        self.check(b'LIST "" a.*', b'* LIST (\\HasNoChildren) "." a.b/c')
        self.check(b'LIST "" a/*')
        self.client(b"e ENABLE UTF8=ACCEPT")
        self.client(b"s SELECT a.b/c")
        self.check(b'LIST "" a.%', b'* LIST (\\HasNoChildren) "." a.b/c')
