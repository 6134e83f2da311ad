"""The values of front mode: addresses, options, capabilities, the PROXY header, users of SASL, the circuit breaker."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from imapshield.config import ConfigError, load_settings
from imapshield.errors import BadCommand
from imapshield.front.backend_address import BackendAddress
from imapshield.front.circuit_breaker import CircuitBreaker
from imapshield.front.offered_capabilities import (
    after_login,
    before_login,
    capability_names,
    replace_capabilities,
)
from imapshield.front.proxy_v2 import proxy_header
from imapshield.front.sasl_user import user_and_secret
from imapshield.wire.proxy_header import ProxyHeader, ProxyHeaderReader


class AddressTests(SynchronousTestCase):
    def test_kinds(self) -> None:
        """TLS, STARTTLS, a UNIX socket and this machine are accepted."""
        address = BackendAddress.parse("tls:mail.example.org:993:ca=/etc/ca.pem:name=exchange")
        self.assertEqual(
            (address.host, address.port, address.uses_tls), ("mail.example.org", 993, True)
        )
        self.assertEqual((address.name, address.authority), ("exchange", "/etc/ca.pem"))
        address = BackendAddress.parse("starttls:[2001:db8::1]:143")
        self.assertEqual(
            (address.host, address.name, address.uses_tls), ("2001:db8::1",) * 2 + (True,)
        )
        self.assertEqual(BackendAddress.parse(r"unix:/run/a\:b").host, "/run/a:b")
        for host in ("127.0.0.1", "[::1]", "localhost"):
            address = BackendAddress.parse(f"tcp:{host}:143")
            self.assertFalse(address.uses_tls)
            self.assertIn(address.host, ("127.0.0.1", "::1"))  # no name service is asked

    def test_passwords_do_not_cross_a_network_in_the_clear(self) -> None:
        """Without TLS, only this machine is accepted; the error says what to type."""
        for host in ("mail.example.org", "10.0.0.1", "[2001:db8::1]"):
            with self.assertRaisesRegex(ValueError, "in the clear; use tls:"):
                BackendAddress.parse(f"tcp:{host}:143")

    def test_errors_say_what_to_type(self) -> None:
        """Every other text is an error with an example."""
        for text, said in (
            ("mail.example.org", "unknown kind"),
            ("tcp:143", "write tcp:HOST:PORT"),
            ("tls:mail:imaps", "write tls:HOST:PORT"),
            ("tls:mail:0", "the port"),
            ("tcp:127.0.0.1:143:ca=x", "ca= and name="),
            ("unix:", "write unix:PATH"),
            ("unix:/a:ca=x", "write unix:PATH"),
        ):
            with self.assertRaisesRegex(ValueError, said):
                BackendAddress.parse(text)


class OptionTests(SynchronousTestCase):
    def test_settings(self) -> None:
        """The options become settings."""
        settings = load_settings(
            {"backend": ["unix:/run/imap"], "backend-proxy": True, "backend-id": True}
        )
        self.assertEqual(settings.backend, ("unix:/run/imap",))
        self.assertTrue(settings.backend_proxy and settings.backend_id)
        self.assertEqual(load_settings({}).backend, ())

    def test_options_of_mail_and_users_are_refused(self) -> None:
        """With a backend, options about mail and passwords have no meaning, and are errors."""
        for name, value in (("mail-root", "/srv"), ("auth", ["pam"]), ("no-text-index", True)):
            with self.assertRaisesRegex(ConfigError, f"--{name} and --backend exclude each other"):
                load_settings({"backend": ["unix:/run/imap"], name: value})

    def test_companions_need_a_backend(self) -> None:
        """--backend-proxy and --backend-id need --backend, which must be an address."""
        for options, said in (
            ({"backend-proxy": True}, "--backend-proxy needs --backend"),
            ({"backend-id": True}, "--backend-id needs --backend"),
            ({"backend": ["x"]}, "--backend x: unknown kind"),
        ):
            with self.assertRaisesRegex(ConfigError, said):
                load_settings(options)


class CapabilityTests(SynchronousTestCase):
    def test_before_login(self) -> None:
        """TLS is the shield's, and only mechanisms that pass are offered; secrets only over TLS."""
        names = b"IMAP4rev1 STARTTLS LOGINDISABLED MAILBOX-REFERRALS AUTH=plain AUTH=SCRAM-SHA-256 AUTH=SCRAM-SHA-256-PLUS AUTH=NTLM".split()
        secure = before_login(names, secure=True, can_start_tls=False)
        self.assertEqual(secure, [b"IMAP4rev1", b"AUTH=plain", b"AUTH=SCRAM-SHA-256"])
        self.assertEqual(
            before_login(names, secure=False, can_start_tls=True),
            [b"IMAP4rev1", b"STARTTLS", b"AUTH=SCRAM-SHA-256", b"LOGINDISABLED"],
        )

    def test_after_login(self) -> None:
        """Compression is the shield's, and APPENDLIMIT is the smaller limit."""
        names = b"IDLE COMPRESS=DEFLATE UNAUTHENTICATE APPENDLIMIT=500 AUTH=PLAIN NOTIFY".split()
        self.assertEqual(
            after_login(names, can_compress=True, max_message_size=100),
            [b"IDLE", b"APPENDLIMIT=100", b"NOTIFY", b"COMPRESS=DEFLATE"],
        )
        self.assertEqual(
            after_login([b"APPENDLIMIT"], can_compress=False, max_message_size=100),
            [b"APPENDLIMIT=100"],
        )

    def test_lines(self) -> None:
        """Capabilities are read from and written to responses and response codes."""
        line = b"a OK [CAPABILITY A B] Hello CAPABILITY C\r\n"
        self.assertEqual(capability_names(line), (b"A", b"B"))
        self.assertEqual(
            replace_capabilities(line, [b"X"]), b"a OK [CAPABILITY X] Hello CAPABILITY C\r\n"
        )
        for text in (
            b"* OK hello",
            b"OK CAPABILITY completed",
            b"CAPABILITY completed",
            b"* OK [X] CAPABILITY A",
        ):
            self.assertEqual(capability_names(text), (), text)


class ProxyHeaderTests(SynchronousTestCase):
    def test_header_is_what_the_reader_reads(self) -> None:
        """The header of each kind of address is read as that address."""
        for client, server, expected in (
            (("192.0.2.1", 5), ("192.0.2.2", 143), ProxyHeader("192.0.2.1", 5)),
            (("2001:db8::1", 5), ("2001:db8::2", 143), ProxyHeader("2001:db8::1", 5)),
            (("::ffff:192.0.2.1", 5), ("::ffff:192.0.2.2", 143), ProxyHeader("192.0.2.1", 5)),
            (("fe80::1%eth0", 5), None, ProxyHeader("fe80::1", 5)),
            (("192.0.2.1", 5), ("2001:db8::2", 143), ProxyHeader("192.0.2.1", 5)),
            (("192.0.2.1", 5), None, ProxyHeader("192.0.2.1", 5)),
            (None, None, ProxyHeader(from_proxy=True)),
            (("unknown", 0), None, ProxyHeader(from_proxy=True)),
        ):
            header = proxy_header(client, server)
            self.assertEqual(ProxyHeaderReader().feed(header), expected)


class SaslUserTests(SynchronousTestCase):
    def test_user_and_secret(self) -> None:
        """Each mechanism names the user in its first message."""
        for mechanism, message, expected in (
            (b"PLAIN", b"\0alice\0secret", (b"alice", b"secret")),
            (b"PLAIN", b"bob\0alice\0secret", (b"bob*alice", b"secret")),
            (b"XOAUTH2", b"user=alice\x01auth=Bearer t\x01\x01", (b"alice", b"Bearer t")),
            (b"OAUTHBEARER", b"n,a=al=2Cice,\x01host=h\x01auth=Bearer t\x01\x01", (b"al,ice", b"Bearer t")),
            (b"SCRAM-SHA-256", b"n,,n=alice,r=abc", (b"alice", None)),
            (b"SCRAM-SHA-1", b"y,a=bob,n=al=3Dice,r=abc", (b"bob*al=ice", None)),
        ):  # fmt: skip
            self.assertEqual(user_and_secret(mechanism, message), expected)

    def test_token_in_another_field_is_none(self) -> None:
        """The guard counts the token that the backend takes: that of the field auth, not what looks like it."""
        message = b"n,a=alice,\x01host=auth=Bearer same\x01auth=Bearer guess\x01port=1\x01\x01"
        self.assertEqual(user_and_secret(b"OAUTHBEARER", message), (b"alice", b"Bearer guess"))

    def test_malformed_messages(self) -> None:
        """A message without a user, and the channel binding of another connection, are refused."""
        for mechanism, message in (
            (b"PLAIN", b"alice"),
            (b"PLAIN", b"\0\0secret"),
            (b"PLAIN", b"bob\0carol*master\0secret"),
            (b"SCRAM-SHA-256", b"n,a=bob*carol,n=master,r=abc"),
            (b"XOAUTH2", b"auth=x"),
            (b"XOAUTH2", b"user=alice\x01auth=Bearer t\x01user=bob\x01\x01"),
            (b"OAUTHBEARER", b"n,,\x01auth=x\x01\x01"),
            (b"OAUTHBEARER", b"n,a=alice,\x01\x01"),
            (b"OAUTHBEARER", b"n,a=alice,\x01auth=Bearer a\x01auth=Bearer b\x01\x01"),
            (b"OAUTHBEARER", b"n,a=alice,\x01auth=Bearer a\x01AUTH=Bearer b\x01\x01"),
            (b"OAUTHBEARER", b"n,a=alice,\x01user=bob\x01auth=Bearer a\x01\x01"),
            (b"OAUTHBEARER", b"n,a=alice,\x01auth=Bearer a\x01\x01auth=Bearer b\x01\x01"),
            (b"OAUTHBEARER", b"n,a=alice\x01auth=Bearer a\x01,\x01auth=Bearer b\x01\x01"),
            (b"OAUTHBEARER", b"n,a=alice\0x,\x01auth=Bearer a\x01\x01"),
            (b"XOAUTH2", b"user=alice\0x\x01auth=Bearer t\x01\x01"),
            (b"XOAUTH2", b"user=alice\x01auth=Bearer a\x01auth=Bearer b\x01\x01"),
            (b"SCRAM-SHA-256", b"n,,n=alice\0x,r=abc"),
            (b"SCRAM-SHA-256", b"p=tls-exporter,,n=alice,r=abc"),
            (b"SCRAM-SHA-256", b"n,,n=,r=abc"),
        ):
            self.assertRaises(BadCommand, user_and_secret, mechanism, message)


class CircuitBreakerTests(SynchronousTestCase):
    def test_opens_after_consecutive_failures(self) -> None:
        """It opens at the limit, says so once, and closes with one success."""
        breaker = CircuitBreaker(lambda: 2)
        self.assertFalse(breaker.failed("a"))
        self.assertFalse(breaker.succeeded())
        self.assertEqual([breaker.failed("a") for _ in range(3)], [False, True, False])
        self.assertTrue(breaker.is_open)
        self.assertEqual(breaker.reason, "a")
        self.assertTrue(breaker.succeeded())
        self.assertFalse(breaker.is_open)
