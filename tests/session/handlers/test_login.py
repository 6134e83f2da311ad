"""LOGIN, AUTHENTICATE and UNAUTHENTICATE (RFC 8437)."""

from tests.session.session_case import SessionTestCase, without_text


class LoginTests(SessionTestCase):
    def test_cancelled_authenticate_counts_as_an_invalid_command(self) -> None:
        """The third AUTHENTICATE that the client cancels ends the connection, like any other invalid command."""
        client = self.server.connect()
        for _ in range(2):
            client(b"a AUTHENTICATE PLAIN")
            self.assertEqual(client(b"*"), b"a BAD Authentication cancelled\r\n")
        client(b"a AUTHENTICATE PLAIN")
        self.assertIn(b"* BYE", client(b"*"))

    def test_password_without_tls(self) -> None:
        """The text of the refusal says whether the server offers TLS."""
        response = self.server.connect("192.0.2.1")(b"a LOGIN alice secret")
        self.assertIn(
            b"a NO [PRIVACYREQUIRED] Cleartext login is not allowed; this server", response
        )


class UnauthenticateTests(SessionTestCase):
    def test_another_user_can_log_in_after_unauthenticate(self) -> None:
        """UNAUTHENTICATE closes the mailbox and the account and disables extensions. Another user can log in."""
        self.select_inbox(1)
        self.client(b"a ENABLE QRESYNC IMAP4rev2")
        self.assertEqual(without_text(self.client(b"b UNAUTHENTICATE")), b"b OK\r\n")
        self.assertIn(b"c BAD", self.client(b'c LIST "" *'))
        self.assertIn(b"d OK", self.client(b"d LOGIN bob word"))
        self.assertIn(b"* 0 EXISTS", self.client(b"e SELECT INBOX"))
        self.assertIn(b"* SEARCH\r\n", self.client(b"f SEARCH ALL"))
        self.assertEqual(self.server.realm.accounts[b"alice"].sessions, 0)
        self.client.lose_connection()
        self.assertEqual(self.server.realm.accounts[b"bob"].sessions, 0)

    def test_unauthenticate_restores_limits_and_capabilities(self) -> None:
        """After UNAUTHENTICATE the limits and the capabilities of a connection before login apply."""
        self.client(b"a UNAUTHENTICATE")
        self.assertEqual(
            self.client.protocol.MAX_LENGTH, self.server.factory.limits.preauth_line_length
        )
        self.assertIn(b"LOGIN", self.client(b"b CAPABILITY") + b"LOGIN")
        self.assertNotIn(b"UNAUTHENTICATE", self.client(b"c CAPABILITY"))
