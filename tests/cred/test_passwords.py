import base64
import time
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.cred import passwords
from imapshield.cred.passwords import (
    NotAscii,
    ScramSecret,
    UnusableHash,
    check,
    hash_password,
    hash_scram,
    hash_scrypt,
    scram,
    verify,
)

# Known answer of RFC 7914 section 12: scrypt("password", "NaCl", N=1024, r=8, p=16), its first 32 octets
NACL = "$scrypt$ln=10,r=8,p=16$TmFDbA$/bq+HJ00cgB4VucZDQHp/nxq18vII3gw53N2Y0s3MWI"


# The password of RFC 7677 section 3; its server's signature is checked in test_sasl
PENCIL = "$scram-sha-256$i=4096$W22ZaJ0SNY7soEsUEjb6gQ$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY$wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU"


class PasswordTests(SynchronousTestCase):
    def test_known_answer(self) -> None:
        """A hash is RFC 7914's scrypt, so that other programs can write the file."""
        self.assertTrue(verify(NACL, b"password"))
        self.assertFalse(verify(NACL, b"passwore"))

    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(st.binary(max_size=40), st.binary(max_size=40))
    def test_only_the_password_fits(self, password, other) -> None:
        """Any octets are a password, and only they open its hash."""
        stored = hash_scrypt(password, ln=2, r=1, p=1)
        self.assertTrue(verify(stored, password))
        self.assertEqual(verify(stored, other), other == password)

    def test_salted(self) -> None:
        """Two users with one password have two hashes."""
        self.assertNotEqual(hash_scrypt(b"x", ln=2), hash_scrypt(b"x", ln=2))

    def test_argon2_is_preferred(self) -> None:
        """With argon2-cffi installed, new passwords are argon2id with one lane."""
        stored = hash_password(b"secret")
        self.assertTrue(stored.startswith("$argon2id$v=19$m=65536,t=3,p=1$"), stored)
        self.assertTrue(verify(stored, b"secret"))
        self.assertFalse(verify(stored, b"Secret"))

    def test_scrypt_without_argon2(self) -> None:
        """Without argon2-cffi new passwords are scrypt, and an argon2 hash says what is missing."""
        with mock.patch.object(passwords, "_argon2", None):
            stored = hash_password(b"secret")
            self.assertTrue(stored.startswith("$scrypt$ln=15,r=8,p=1$"), stored)
            self.assertTrue(verify(stored, b"secret"))
            with self.assertRaisesRegex(UnusableHash, r"imapshield\[argon2\]"):
                verify(
                    "$argon2id$v=19$m=65536,t=3,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA", b"secret"
                )

    def test_plain_text_is_refused(self) -> None:
        """A line with a plain password is never compared, and its text is not repeated."""
        with self.assertRaises(UnusableHash) as caught:
            verify("hunter2", b"hunter2")
        self.assertIn("imapshield passwd", str(caught.exception))
        self.assertNotIn("hunter2", str(caught.exception))

    def test_scram(self) -> None:
        """SCRAM's secret is a hash too; 65,536 rounds for a new one, and other programs' are read."""
        self.assertTrue(verify(PENCIL, b"pencil"))
        self.assertFalse(verify(PENCIL, b"pencils"))
        salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
        self.assertEqual(scram(PENCIL), ScramSecret.make(b"pencil", salt, 4096))
        stored = hash_scram(b"secret")
        self.assertTrue(stored.startswith("$scram-sha-256$i=65536$"))
        self.assertTrue(verify(stored, b"secret"))
        self.assertIsNone(scram(NACL))

    def test_scram_ascii(self) -> None:
        """Without SASLprep two clients may spell what is not ASCII in two ways, so it is refused (RFC 5802 section 2.2)."""
        for password in ("é".encode(), b"\xff", b"a\tb", b"\x7f"):
            self.assertRaises(NotAscii, hash_scram, password)

    def test_damaged_hashes(self) -> None:
        """What is no whole hash is an error of its own, never "wrong password" and never a traceback."""
        for stored in (
            "", "$", "$scrypt$", "$scrypt$ln=10,r=8,p=16$TmFDbA$", "$scrypt$ln=0,r=8,p=1$TmFDbA$AAAAAAAAAAAAAAAAAAAAAAAA",
            "$scrypt$ln=4,r=8,p=1$TmFDb$AAAAAAAAAAAAAAAAAAAAAAAA", NACL + "\n", NACL.replace("10", "-1"),
            "$scram-sha-256$", PENCIL[:-1], PENCIL + "=", PENCIL.replace("sha-256", "sha-1"),
            PENCIL.replace("i=4096", "i=0"), PENCIL.replace("i=4096", "i=99999999"),
            "$argon2id$", "$argon2id$v=19$m=8,t=1,p=1$x", "$2b$12$abcdefghijklmnopqrstuv",
        ):  # fmt: skip
            with self.subTest(stored=stored), self.assertRaises(UnusableHash):
                verify(stored, b"")

    def test_memory_is_bounded(self) -> None:
        """A mistyped parameter that would take all memory is refused before it does."""
        began = time.monotonic()
        for stored in (NACL.replace("ln=10", "ln=30"), NACL.replace("r=8", "r=9999"),
                       "$argon2id$v=19$m=99999999,t=3,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"):  # fmt: skip
            with self.assertRaisesRegex(UnusableHash, "MiB"):
                check(stored)
        self.assertLess(time.monotonic() - began, 1)
