"""QUOTA (RFC 9208), for accounts that have one, and OVERQUOTA."""

from imapshield.mailbox.store_account import StoreAccount
from imapshield.testing import MAIL, NOW, MemoryRealm, MemoryStore, Server
from tests.session.session_case import SessionTestCase, lines


class Quota(SessionTestCase):
    def setUp(self) -> None:
        self.server = Server(
            realm=MemoryRealm(open_store=lambda: MemoryStore(lambda: NOW, 2048, 3))
        )
        self.client = self.server.login()

    def test_get(self) -> None:
        """One root, "", tells storage in kibioctets and messages; mailboxes of any name are under it."""
        self.client.append(MAIL + b"x" * 1000)
        self.assertEqual(
            lines(self.client(b'G0001 GETQUOTA ""')),
            [b'* QUOTA "" (STORAGE 2 2 MESSAGE 1 3)', b"G0001 OK That is the quota"],
        )
        self.assertEqual(
            lines(self.client(b"G0002 GETQUOTAROOT nowhere"))[:2],
            [b'* QUOTAROOT nowhere ""', b'* QUOTA "" (STORAGE 2 2 MESSAGE 1 3)'],
        )
        self.assertIn(b"a NO [NONEXISTENT]", self.client(b"a GETQUOTA other"))

    def test_alias(self) -> None:
        """The root is also found as "User quota", by which Perl's Mail::IMAPClient tests a server."""
        self.assertIn(b'* QUOTA "User quota" (STORAGE 0', self.client(b'a GETQUOTA "User quota"'))

    def test_set(self) -> None:
        """SETQUOTA is not for users."""
        self.assertIn(b"S0000 NO [NOPERM]", self.client(b'S0000 SETQUOTA "" (STORAGE 510)'))

    def test_over(self) -> None:
        """What does not fit is NO [OVERQUOTA]: APPEND and COPY; MOVE always fits."""
        self.assertIn(b"app NO [OVERQUOTA]", self.client.append(MAIL + b"x" * 2048))
        self.select_inbox(2)
        self.client(b"c CREATE there")
        self.assertIn(b"a NO [OVERQUOTA]", self.client(b"a COPY 1:2 there"))
        self.assertIn(b"b OK", self.client(b"b COPY 1 there"))
        self.assertIn(b"c OK", self.client(b"c MOVE 1:2 there"))

    def test_replace(self) -> None:
        """A draft in a full account can be replaced: what goes makes room for what comes (RFC 8508 section 3.4)."""
        self.select_inbox(3)
        size = len(MAIL) + 3 * 400
        answer = self.client.send(b"a REPLACE 3 INBOX {%d+}\r\n%b\r\n" % (size, MAIL.ljust(size)))
        self.assertIn(b"a OK", answer)
        answer = self.client.send(b"b REPLACE 1 INBOX {2000+}\r\n%b\r\n" % MAIL.ljust(2000))
        self.assertIn(b"b NO [OVERQUOTA]", answer)
        self.assertIn(b"MESSAGES 3", self.client(b"c STATUS INBOX (MESSAGES)"))

    def test_deleted(self) -> None:
        """STATUS tells what deletion would give back (section 4.1.4)."""
        self.client.append(flags=b"(\\Deleted)")
        self.assertIn(
            b"(DELETED 1 DELETED-STORAGE 1)",
            self.client(b"S STATUS INBOX (DELETED DELETED-STORAGE)"),
        )

    def test_rounding(self) -> None:
        """A limit that is no whole number of kibioctets is told rounded up, as usage is: never more used than may be."""
        server = Server(realm=MemoryRealm(open_store=lambda: MemoryStore(lambda: NOW, 1025, None)))
        client = server.login()
        client.append(b"x" * 1025)
        self.assertIn(b'* QUOTA "" (STORAGE 2 2)\r\n', client(b'a GETQUOTA ""'))

    def test_unlimited(self) -> None:
        """Without a limit nothing is listed."""
        self.assertIn(b'* QUOTA "" ()\r\n', Server().login()(b'a GETQUOTA ""'))

    def test_advertised(self) -> None:
        """Accounts without a quota have no such capability and no such command."""
        self.assertIn(b"QUOTA=RES-STORAGE", self.client(b"a CAPABILITY"))

        class Plain(MemoryRealm):
            def account(self, user: bytes = b"alice") -> StoreAccount:
                return self.accounts.setdefault(
                    user, StoreAccount("x", self.open_store, self.worker)
                )

        client = Server(realm=Plain()).login()
        answer = client(b"a CAPABILITY")
        self.assertNotIn(b"QUOTA", answer)
        self.assertNotIn(b"METADATA", answer)
        self.assertIn(b"b BAD", client(b'b GETQUOTA ""'))
