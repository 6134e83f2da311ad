"""What ``--acme`` and its companions accept."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.acme.acme_names import (
    DEFAULT_SERVER,
    MAX_NAMES,
    email_address,
    host_names,
    server_folder,
    server_url,
)


class NameTests(SynchronousTestCase):
    def test_names(self) -> None:
        """Names are in lower case, each once, and international ones as a certificate has them."""
        given = ["Mail.Example.ORG, imap.example.org", "mail.example.org", "bücher.example"]
        expected = ("mail.example.org", "imap.example.org", "xn--bcher-kva.example")
        self.assertEqual(host_names(given), expected)

    def test_names_that_no_certificate_can_have(self) -> None:
        """An address, a wildcard, a URL, and anything else that is not a name, is an error with an example."""
        for text in (
            "192.0.2.1",
            "*.example.org",
            "https://x",
            "a..b",
            "",
            "-a.b",
            "a_b.c",
            "é" * 70,
        ):
            with self.subTest(text=text):
                error = self.assertRaises(ValueError, host_names, [text])
                self.assertRegex(str(error), "mail.example.org|the name that clients use")
        many = [f"m{n}.example.org" for n in range(MAX_NAMES + 1)]
        self.assertRaisesRegex(ValueError, "at most 100 names", host_names, many)

    def test_server(self) -> None:
        """The authority is a URL with https, and each has a directory of its own."""
        self.assertEqual(server_url(DEFAULT_SERVER), DEFAULT_SERVER)
        for text in ("http://x/dir", "x", "https://", "https://x:port/", "https://[::1/"):
            self.assertRaisesRegex(ValueError, "https URL", server_url, text)
        self.assertEqual(server_folder(DEFAULT_SERVER), "acme-v02.api.letsencrypt.org_directory")
        self.assertEqual(
            server_folder("https://CA.example:14000/../dir"), "ca.example_14000_.._dir"
        )
        self.assertNotIn("/", server_folder("https://../../etc"))

    def test_email(self) -> None:
        """The address is an e-mail address, and nothing that adds to the URL in which it is sent."""
        self.assertEqual(email_address("me@example.org"), "me@example.org")
        for text in ("me", "me@x", "a b@c.d", "a@b.c?subject=x", "a@b.c,d@e.f"):
            self.assertRaises(ValueError, email_address, text)
