"""Hashes of Dovecot's passwd-file and of /etc/shadow are verified, and damaged or costly ones are refused."""

import ctypes

from twisted.trial.unittest import SynchronousTestCase

from imapshield.cred import foreign_hashes, passwords
from imapshield.cred.foreign_hashes import native, plain_password
from imapshield.cred.passwords import UnusableHash

CRYPT_6 = "$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1"

# Made by `doveadm pw` of Dovecot 2.3 and by libcrypt from the password "secret".
HASHES = (
    CRYPT_6,
    "{SHA512-CRYPT}" + CRYPT_6,
    "{CRYPT}" + CRYPT_6,
    "{SHA256-CRYPT}$5$h0x.RIp8GwdpGrO1$x/M5F9WMu9RJ8Ruje2srpW2OB9oIro6KE3Qzu7schZ5",
    "$5$rounds=1000$ab$bw4PhTdETPYycBP1S/MfHGVqzf4cldTXkxqJJ2X8w.3",
    "{BLF-CRYPT}$2y$05$jZk00UKziBZNXm5NJkdLO.83Uxgjt3mS3O8LUjh3nzdf0QJkXpuR2",
    "$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a",
    "$y$j9T$abcdefgh$IUWJt2doU4Kf6E/JP1UkAT3S5O3Q7SSA8SJirXIlEu9",
    "{MD5-CRYPT}$1$t8fCtEZJ$qMFtsxsNnUaVI.hO03WVR/",
    "{SSHA512}Wx/78AP1eyBT1lAeW2BzjEdg+ZD5Mb5UrqevYGvORA/aotvTxPVl4+hqQuO220FDByCgOpfCOnA7W4GdUm5GGOUqSBA=",
    "{SSHA512.HEX}06b1be91c8a3bc0fff31387a4095133a642a4fed8591a4705f4adbce76a8e04cd52eba2d8736dc84a76b38b93d26a2474c776a8cdf184fcbcc6892b5b93f60c43c8404af",
    "{SSHA256}XTD1BNk4pc0Rd5ETKRDysdc4aBjzUwQOFTuq7EYeCyDg9Yio",
    "{SSHA}2cSdgtpZrM8FOJvJQd/gKHP4aPxu5w45",
    "{SMD5}RRdwYpMYLTjWzUz8RegySIlcHfM=",
    "{SHA512}vSsar3708Jvp9Szi2NWZZ02Bqp1qRCFpbcTZPdBhnWgs5WtNZKnvCXdhztmeD2cmW192CF5bDufKRpayrW/isg==",
    "{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols=",
    "{SHA256.b64}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols=",
    "{sha}5en6G6MezRroT3XKqkdPOmY/BfQ=",
    "{PLAIN-MD5}5ebe2294ecd0e0f08eab7690d2a6ee69",
    "{LDAP-MD5}Xr4ilOzQ4PCOq3aQ0qbuaQ==",
    "{PBKDF2}$1$AOQLK94KYxoVSNlK$5000$c45824191c78c3137b0b8c1769309e4e33b6d605",
    "{SCRAM-SHA-1}4096,VJ2VtureHCzUuiAjkX2zMQ==,Q+ECxAnjzihy9nYkZw+Ncr1tQLw=,e11wjPvnEbrres6zvmhvbP1Dyks=",
    "{MD5}$1$vSeYjYUp$tUFcnxwmgTGOxlMP4ytCa/",
    "{SHA512-CRYPT.B64}JDYkZ0hKaWFDTXNpOEFPVTJMUyRNN1hKTlVLUVBWRzkvR2kuOERyWWYxQkRYZ3I5TlIvTktUT3BoeXUyc1RKSnBSN2dmWVY3VmZvZmd4ZWhOMGtUbkh0WlFLNERhbUcxVC5QbjV4cnVNMA==",
    "{BLF-CRYPT.HEX}2432792430352473486436582e3169696c394e7a714d3253444c434565416e3631646f63526c676f5958546b69434e76305238544a4b773537345853",
    "{PBKDF2.B64}JDEkc1lKc1RVYXR1aGEzWEZybyQ1MDAwJDM3NjA3ZTI4YjhjMGJiZGNkMWQ3MzNkZDY4ZGRjOTc5OTU3Y2IyOWE=",
    "{PLAIN}secret",
    "{CLEARTEXT}secret",
    "{PLAIN.B64}c2VjcmV0",
    "{PLAIN.HEX}736563726574",
)
SAME_AS_OURS = (
    "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$3J5CmOFOeoQEks7J86+4ng$J5wj2oAOTsZj3cBTQUt6SaiQgt9jP4kmmnq/4mX2PK8",
    "{SCRAM-SHA-256}4096,vUgdbjbIWbJULomm5v8mcA==,H+UTpFbVfognwlis5OxqNmWWztZ8QJkTkqUqzd5u+qA=,vUsSuwsj432GL1u7snpIg7GjwjnFxfkx/CRZZb8z5hs=",
    "{ARGON2ID.B64}JGFyZ29uMmlkJHY9MTkkbT02NTUzNix0PTMscD0xJEZjSVV1RlBEb0pYdU5La2UvOElFOEEkQVViek5uV25BVi8yVDh6NzRrc3g3b0dVb1FDZVMwTkxJNDU5MGVWTEtXVQ==",
    "{SCRAM-SHA-256.HEX}343039362c4e53307165537330496c34626f5667444e53754f54673d3d2c706c6a446e466936384a33436e66357431756a5668617a53396464464f3036444c416846544842635a454d3d2c6d657564362f6369674b756641377278737952564756576238447a6b56774a694e4236476d6a42557746633d",
    "{ARGON2I}$argon2i$v=19$m=32768,t=4,p=1$N8l4+ogC0WSASYL+CMS9cw$YHpd6iKWo7YRLICBflzDwHm8MWkRf4n4/sjxqTR5eF0",
)


class ForeignHashTests(SynchronousTestCase):
    def test_hashes_of_other_servers_are_verified(self) -> None:
        """Each format verifies its password and no other one."""
        for stored in HASHES:
            with self.subTest(stored=stored):
                stored = native(stored)  # noqa: PLW2901
                self.assertTrue(foreign_hashes.is_foreign(stored))
                self.assertTrue(passwords.verify(stored, b"secret"))
                for wrong in (b"Secret", b"", b"secret\0", b"secret\0x", b"\0"):
                    self.assertFalse(passwords.verify(stored, wrong))

    def test_formats_that_are_ours_too(self) -> None:
        """Argon2 and SCRAM hashes with Dovecot's scheme are our own formats, so SCRAM can be offered with them."""
        for stored in SAME_AS_OURS:
            self.assertFalse(foreign_hashes.is_foreign(native(stored)))
            self.assertTrue(passwords.verify(native(stored), b"secret"))
        self.assertIsNotNone(passwords.parse_scram(native(SAME_AS_OURS[1])))
        for stored in ("{ARGON2ID}x", "{SCRAM-SHA-256}1,2", "{SHA}x", "plain", "{PLAIN.HEX}x"):
            self.assertEqual(native(stored), stored)

    def test_damaged_hashes_are_refused(self) -> None:
        """A hash that is cut off, is too costly or has an unknown scheme is refused, and the error does not show it."""
        for stored in (
            CRYPT_6[:-1], "$6$saltsalt", "$6$", "$2y$05$abc", "$2y$31$" + "a" * 53, "{CRYPT}abcdefghijklm",
            "$6$rounds=99999999" + CRYPT_6[2:], "$y$jzT$abc$" + "a" * 43, "{MD5-CRYPT}" + "x" * 30, "$1$" + "a" * 22,
            "{SHA}", "{SHA}x", "{SHA512}5en6G6MezRroT3XKqkdPOmY/BfQ=", "{SSHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "{SHA.HEX}xy",
            "{PBKDF2}$1$a$0$" + "a" * 40, "{PBKDF2}$1$a$99999999$" + "a" * 40, "{PBKDF2}x", "{CRAM-MD5}abc", "{X}sesame",
            "{MD5}5ebe2294", "{sesame", "{PLAIN}", "{PLAIN.HEX}sesame", "{SCRAM-SHA-1}sesame", "{PLAIN-SHA}sesame",
            "{SCRAM-SHA-1}0,YWJj,5en6G6MezRroT3XKqkdPOmY/BfQ=,YQ==", "{SCRAM-SHA-1}9,YWJj,YQ==,YQ==", "{SCRAM-SHA-1}9,a,a,a",
        ):  # fmt: skip
            with self.subTest(stored=stored), self.assertRaises(UnusableHash) as caught:
                passwords.verify(stored, b"secret")
            self.assertNotIn("sesame", str(caught.exception))

    def test_the_time_of_a_hash_is_in_its_cost(self) -> None:
        """Hashes that take differently long have different costs, and salts do not matter."""
        costs = {passwords.cost(native(stored)) for stored in HASHES}
        self.assertTrue({"$6", "$51000", "$2y$05", "$y$j9T", "{sha512}", "{PBKDF2}5000"} <= costs)

    def test_without_libcrypt(self) -> None:
        """A system without libcrypt says so, and digests are verified all the same."""
        self.patch(foreign_hashes, "_crypt_r", None)
        with self.assertRaisesRegex(UnusableHash, "no libcrypt"):
            passwords.verify(CRYPT_6, b"secret")
        self.assertTrue(passwords.verify("{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", b"secret"))
        self.patch(ctypes, "CDLL", lambda _: object())
        self.assertIsNone(foreign_hashes._load_crypt())

    def test_plain_passwords_are_known_as_such(self) -> None:
        """An entry with the password itself is recognized, so that it can be hashed."""
        self.assertEqual(plain_password("{PLAIN}se:cret"), b"se:cret")
        self.assertEqual(plain_password("{clear}x"), b"x")
        self.assertEqual(plain_password("{PLAIN.HEX}c3a4ff"), b"\xc3\xa4\xff")
        self.assertIsNone(plain_password("{SHA}x"))
