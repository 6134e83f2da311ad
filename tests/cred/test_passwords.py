"""Passwords are hashed with argon2id, scrypt or for SCRAM, and every stored format is verified or refused."""

import base64
from unittest import mock

import argon2
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.cred import passwords
from imapshield.cred.passwords import (
    NotAscii,
    ScramSecret,
    UnusableHash,
    hash_password,
    hash_scram,
    hash_scrypt,
    parse_scram,
    validate,
    verify,
)

# The known answer of RFC 7914 section 12: scrypt("password", "NaCl", N=1024, r=8, p=16), first 32 bytes.
NACL = "$scrypt$ln=10,r=8,p=16$TmFDbA$/bq+HJ00cgB4VucZDQHp/nxq18vII3gw53N2Y0s3MWI"

# The password of RFC 7677 section 3. test_sasl checks the server signature of the example.
PENCIL = "$scram-sha-256$i=4096$W22ZaJ0SNY7soEsUEjb6gQ$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY$wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU"


class PasswordTests(SynchronousTestCase):
    def test_scrypt_hash_is_that_of_rfc_7914(self) -> None:
        """The hash is scrypt as in RFC 7914, so other programs can write the file too."""
        self.assertTrue(verify(NACL, b"password"))
        self.assertFalse(verify(NACL, b"passwore"))

    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(st.binary(max_size=40), st.binary(max_size=40))
    def test_only_the_password_verifies(self, password: bytes, other: bytes) -> None:
        """Any bytes can be a password, and only the same bytes verify."""
        stored = hash_scrypt(password, ln=2, r=1, p=1)
        self.assertTrue(verify(stored, password))
        self.assertEqual(verify(stored, other), other == password)

    def test_hashes_of_one_password_differ(self) -> None:
        """Two hashes of the same password differ."""
        self.assertNotEqual(hash_scrypt(b"x", ln=2), hash_scrypt(b"x", ln=2))

    def test_installed_argon2_is_preferred(self) -> None:
        """If argon2-cffi is installed, new hashes are argon2id with one lane."""
        stored = hash_password(b"secret")
        self.assertTrue(stored.startswith("$argon2id$v=19$m=65536,t=3,p=1$"), stored)
        self.assertTrue(verify(stored, b"secret"))
        self.assertFalse(verify(stored, b"Secret"))

    def test_hashes_are_scrypt_without_argon2(self) -> None:
        """Without argon2-cffi new hashes are scrypt, and verifying an argon2 hash says what to install."""
        self.addCleanup(setattr, passwords, "_next_attempt", 0.0)
        with mock.patch.multiple(passwords, _argon2=None, _import_argon2=lambda: None):
            stored = hash_password(b"secret")
            self.assertTrue(stored.startswith("$scrypt$ln=15,r=8,p=1$"), stored)
            self.assertTrue(verify(stored, b"secret"))
            with self.assertRaisesRegex(UnusableHash, r"imapshield\[argon2\]"):
                verify(
                    "$argon2id$v=19$m=65536,t=3,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA", b"secret"
                )

    def test_plain_text_is_refused(self) -> None:
        """A plain text password never verifies, and the error does not contain it."""
        with self.assertRaises(UnusableHash) as caught:
            verify("hunter2", b"hunter2")
        self.assertIn("imapshield passwd", str(caught.exception))
        self.assertNotIn("hunter2", str(caught.exception))

    def test_scram_secret_is_a_hash(self) -> None:
        """A SCRAM secret is a hash too: new ones have 65,536 iterations, and those of other programs verify."""
        self.assertTrue(verify(PENCIL, b"pencil"))
        self.assertFalse(verify(PENCIL, b"pencils"))
        salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
        self.assertEqual(parse_scram(PENCIL), ScramSecret.make(b"pencil", salt, 4096))
        stored = hash_scram(b"secret")
        self.assertTrue(stored.startswith("$scram-sha-256$i=65536$"))
        self.assertTrue(verify(stored, b"secret"))
        self.assertIsNone(parse_scram(NACL))

    def test_scram_requires_ascii(self) -> None:
        """SCRAM requires ASCII: clients without SASLprep may encode other text differently (RFC 5802 section 2.2)."""
        for password in ("é".encode(), b"\xff", b"a\tb", b"\x7f"):
            self.assertRaises(NotAscii, hash_scram, password)

    def test_damaged_hash_raises_unusable_hash(self) -> None:
        """A damaged hash raises UnusableHash; it is never a wrong password or another exception."""
        for stored in (
            "", "$", "$scrypt$", "$scrypt$ln=10,r=8,p=16$TmFDbA$", "$scrypt$ln=0,r=8,p=1$TmFDbA$AAAAAAAAAAAAAAAAAAAAAAAA",
            "$scrypt$ln=4,r=8,p=1$TmFDb$AAAAAAAAAAAAAAAAAAAAAAAA", NACL + "\n", NACL.replace("10", "-1"),
            "$scram-sha-256$", PENCIL[:-1], PENCIL + "=", PENCIL.replace("sha-256", "sha-1"),
            PENCIL.replace("i=4096", "i=0"), PENCIL.replace("i=4096", "i=99999999"),
            "$argon2id$", "$argon2id$v=19$m=8,t=1,p=1$x", "$2b$12$abcdefghijklmnopqrstuv",
        ):  # fmt: skip
            with self.subTest(stored=stored), self.assertRaises(UnusableHash):
                verify(stored, b"")

    def test_parameter_for_too_much_memory_is_refused(self) -> None:
        """A mistyped parameter that would take too much memory is refused without using the memory."""
        self.patch(passwords, "scrypt", None)
        self.patch(argon2, "PasswordHasher", None)
        for stored in (NACL.replace("ln=10", "ln=30"), NACL.replace("r=8", "r=9999"),
                       "$argon2id$v=19$m=99999999,t=3,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"):  # fmt: skip
            with self.assertRaisesRegex(UnusableHash, "MiB"):
                validate(stored)

    def test_parameter_for_too_much_time_is_refused(self) -> None:
        """A hash that would occupy a thread for hours is refused: ten times the cost of a new hash are permitted."""
        argon2 = hash_password(b"secret")
        for stored, text in (
            (argon2.replace("t=3", "t=31"), "11 times"),
            (argon2.replace("t=3", "t=1000000"), "10 are permitted; set the password again"),
            (argon2.replace("p=1", "p=65"), "65 threads"),
            (NACL.replace("ln=10,r=8,p=16", "ln=15,r=8,p=256"), "256 times"),
            (PENCIL.replace("i=4096", "i=1000001"), "1000001 iterations"),
        ):
            with self.subTest(stored=stored), self.assertRaisesRegex(UnusableHash, text):
                validate(stored)
        validate(argon2.replace("t=3", "t=30"))
        validate(argon2.replace("m=65536,t=3,p=1", "m=1048576,t=1,p=4"))
        validate(NACL.replace("ln=10,r=8,p=16", "ln=18,r=8,p=1"))
