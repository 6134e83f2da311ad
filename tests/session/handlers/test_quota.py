"""QUOTA (RFC 9208), which an account may support, and [OVERQUOTA]."""

from imapshield.testing import MAIL, NOW, MemoryRealm, MemoryStore, Server
from tests.session.session_case import SessionTestCase, lines, without_text


class QuotaTests(SessionTestCase):
    def setUp(self) -> None:
        self.server = Server(
            realm=MemoryRealm(open_store=lambda: MemoryStore(lambda: NOW, 2048, 3))
        )
        self.client = self.server.login()

    def test_one_quota_root_covers_all_mailboxes(self) -> None:
        """There is one quota root, "", for all mailboxes. STORAGE is in units of 1,024 octets."""
        self.client.append(MAIL + b"x" * 1000)
        self.assertEqual(
            lines(without_text(self.client(b'G0001 GETQUOTA ""'))),
            [b'* QUOTA "" (STORAGE 2 2 MESSAGE 1 3)', b"G0001 OK"],
        )
        self.assertEqual(
            lines(self.client(b"G0002 GETQUOTAROOT nowhere"))[:2],
            [b'* QUOTAROOT nowhere ""', b'* QUOTA "" (STORAGE 2 2 MESSAGE 1 3)'],
        )
        self.assertIn(b"a NO [NONEXISTENT]", self.client(b"a GETQUOTA other"))

    def test_quota_root_has_an_alias(self) -> None:
        """The root can be queried as "User quota", as the tests of Perl's Mail::IMAPClient do."""
        self.assertIn(b'* QUOTA "User quota" (STORAGE 0', self.client(b'a GETQUOTA "User quota"'))

    def test_setquota_is_refused(self) -> None:
        """SETQUOTA is NO [NOPERM]."""
        self.assertIn(b"S0000 NO [NOPERM]", self.client(b'S0000 SETQUOTA "" (STORAGE 510)'))

    def test_append_and_copy_over_quota_are_overquota(self) -> None:
        """APPEND and COPY over the quota are NO [OVERQUOTA]. MOVE always fits."""
        self.assertIn(b"app NO [OVERQUOTA]", self.client.append(MAIL + b"x" * 2048))
        self.select_inbox(2)
        self.client(b"c CREATE there")
        self.assertIn(b"a NO [OVERQUOTA]", self.client(b"a COPY 1:2 there"))
        self.assertIn(b"b OK", self.client(b"b COPY 1 there"))
        self.assertIn(b"c OK", self.client(b"c MOVE 1:2 there"))

    def test_replace_in_a_full_account_succeeds(self) -> None:
        """REPLACE in a full account succeeds: the old message makes room for the new one (RFC 8508 section 3.4)."""
        self.select_inbox(3)
        size = len(MAIL) + 3 * 400
        response = self.client.send(b"a REPLACE 3 INBOX {%d+}\r\n%b\r\n" % (size, MAIL.ljust(size)))
        self.assertIn(b"a OK", response)
        response = self.client.send(b"b REPLACE 1 INBOX {2000+}\r\n%b\r\n" % MAIL.ljust(2000))
        self.assertIn(b"b NO [OVERQUOTA]", response)
        self.assertIn(b"MESSAGES 3", self.client(b"c STATUS INBOX (MESSAGES)"))

    def test_deleted_storage_is_what_expunge_would_free(self) -> None:
        """STATUS DELETED-STORAGE is the storage that an EXPUNGE would free (section 4.1.4)."""
        self.client.append(flags=b"(\\Deleted)")
        self.assertIn(
            b"(DELETED 1 DELETED-STORAGE 1)",
            self.client(b"S STATUS INBOX (DELETED DELETED-STORAGE)"),
        )

    def test_limit_is_rounded_up(self) -> None:
        """A limit is rounded up to whole units, as usage is, so usage never exceeds the limit."""
        server = Server(realm=MemoryRealm(open_store=lambda: MemoryStore(lambda: NOW, 1025, None)))
        client = server.login()
        client.append(b"x" * 1025)
        self.assertIn(b'* QUOTA "" (STORAGE 2 2)\r\n', client(b'a GETQUOTA ""'))

    def test_unlimited_account_lists_no_resource(self) -> None:
        """The quota root of an unlimited account lists no resource."""
        self.assertIn(b'* QUOTA "" ()\r\n', Server().login()(b'a GETQUOTA ""'))

    def test_account_without_quota_has_no_quota_commands(self) -> None:
        """An account without a quota has neither the capability nor the commands."""
        self.assertIn(b"QUOTA=RES-STORAGE", self.client(b"a CAPABILITY"))
        client = Server(realm=MemoryRealm(optional_interfaces=())).login()
        response = client(b"a CAPABILITY")
        self.assertNotIn(b"QUOTA", response)
        self.assertNotIn(b"METADATA", response)
        self.assertIn(b"b BAD", client(b'b GETQUOTA ""'))
