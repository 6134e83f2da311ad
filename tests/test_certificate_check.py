"""What the check of the configuration says about certificates and their chains, of each kind of option."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from imapshield import certificate_check
from imapshield.certificate_check import check_source
from imapshield.certificates import CertificateSource, DirectoryFiles, PairFiles
from imapshield.check_findings import ERROR, OK, WARNING
from tests.certificates import issued, self_signed


class ChainTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def write(self, name: str, *pems: bytes) -> str:
        path = self.folder / name
        path.write_bytes(b"".join(pems))
        return str(path)

    def check(self, *pems: bytes) -> tuple[int, str]:
        """Return what is found in a file: the highest severity, and all lines."""
        return self.findings(CertificateSource(PairFiles(self.write("c", *pems), option="--x")))

    def findings(self, source: CertificateSource) -> tuple[int, str]:
        found = [*check_source(source)]
        return max(severity for severity, _ in found), "\n".join(text for _, text in found)

    def test_good_chain(self) -> None:
        """A chain whose certificates have issued each other is good."""
        (leaf, key), issuer = issued("mail.example.org")
        severity, text = self.check(leaf, issuer, key)
        self.assertEqual(severity, OK)
        self.assertIn("--x: for mail.example.org, valid until", text)
        self.assertIn("--x: sent with a chain of 1", text)

    def test_bad_chains(self) -> None:
        """A chain of another issuer, one with another key, and one that has ended, are named, with what to do."""
        (leaf, key), _ = issued()
        stranger, namesake = self_signed("Other")[0], issued()[1]
        (old_leaf, old_key), old = issued(issuer_days=1)
        for pems, expected, words in (
            (
                (leaf, stranger),
                WARNING,
                "2 of its chain (Other) has not issued the one before; put",
            ),
            ((leaf, namesake), ERROR, "2 of its chain (Issuer) has another key than the issuer"),
            ((old_leaf, old), ERROR, "2 of its chain (Issuer) is valid from 20"),
        ):
            severity, text = self.check(*pems, old_key if pems[0] == old_leaf else key)
            self.assertEqual(severity, expected, text)
            self.assertIn(words, text)

    def test_dates(self) -> None:
        """A certificate that will end, has ended, or has not begun, is named."""
        for days, severity, words in ((1, ERROR, "; renew it"), (9, WARNING, "; renew it")):
            found = self.check(*self_signed(days=days))
            self.assertEqual(found[0], severity)
            self.assertIn(words, found[1])
        past = datetime.now(UTC) - timedelta(days=3)

        class Earlier(datetime):
            @classmethod
            def now(cls, tz: object = None) -> Earlier:
                return cls.fromtimestamp(past.timestamp(), UTC)

        self.patch(certificate_check, "datetime", Earlier)
        severity, text = self.check(*self_signed())
        self.assertEqual(severity, ERROR)
        self.assertIn("--x: valid only from", text)

    def test_automatic_certificate(self) -> None:
        """A certificate that the server renews by itself may end soon, but not have ended."""
        for days, expected in ((9, WARNING), (1, ERROR)):  # WARNING: it is signed by itself
            path = self.write("c", *self_signed(days=days))
            source = CertificateSource(PairFiles(path, option="--acme x", is_automatic=True))
            severity, text = self.findings(source)
            self.assertEqual(severity, expected)
            self.assertEqual("renew it" in text, days == 1)

    def test_directory(self) -> None:
        """Each certificate of a directory is checked, and a key or certificate that has no counterpart is named."""
        (leaf, key), issuer = issued("mail.example.org")
        self.write("mail.pem", leaf, key)
        self.write("chain.pem", issuer)
        source = CertificateSource(DirectoryFiles(str(self.folder)))
        severity, text = self.findings(source)
        self.assertEqual(severity, OK, text)
        self.assertIn(
            f"--listen tls:{self.folder} (mail.example.org): sent with a chain of 1", text
        )
        key_path = self.write("key.pem", self_signed()[1])
        other = self.write("other.pem", self_signed("other.example.org")[0])
        severity, text = self.findings(source)
        self.assertEqual(severity, WARNING)
        self.assertIn(f"{key_path} has a private key that fits no certificate there", text)
        self.assertIn(f"{other}: no private key there fits the certificate for other.exam", text)
        (self.folder / "chain.pem").unlink()
        _, text = self.findings(CertificateSource(DirectoryFiles(str(self.folder))))
        self.assertIn("put that of its issuer into the directory, such as fullchain.pem", text)
