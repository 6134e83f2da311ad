"""Nobody can find out which users exist: what unknown users have is as stable as what known users have."""

from __future__ import annotations

from collections import Counter
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.cred import decoys, passwords, users
from imapshield.cred.checkers import PasswordFile
from imapshield.cred.sasl import ScramChecker, fake_secret
from tests.cred.fakes import FakePool, FakeReactor

KEY = b"k" * 32
UNKNOWN = [b"nobody%d" % number for number in range(200)]

counts = st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.integers(1, 9), min_size=1)


class ChooseTests(SynchronousTestCase):
    @settings(deadline=None)
    @given(counts, st.sampled_from(["a", "b", "c", "d", "e"]), st.binary(max_size=8))
    def test_another_user_changes_only_to_the_own_value(
        self, counts: dict[str, int], new: str, user: bytes
    ) -> None:
        """If a user is added, an unknown user keeps the value, or gets that of the new user; removal is the reverse."""
        before = decoys.choose(KEY, user, counts)
        after = decoys.choose(KEY, user, Counter(counts) + Counter([new]))
        self.assertIn(after, (before, new))

    def test_values_are_as_frequent_as_among_known_users(self) -> None:
        """Each value is about as frequent among unknown users as among known users."""
        names = [b"%d" % number for number in range(1000)]
        chosen = Counter(decoys.choose(KEY, name, {"a": 3, "b": 1}) for name in names)
        self.assertTrue(700 < chosen["a"] < 800, chosen)

    def test_number_of_values_is_bounded(self) -> None:
        """A file with a different number of iterations for each user does not make each answer cost thousands of
        hashes.
        """
        self.assertEqual(len(decoys.frequencies(range(1000))), decoys.MAX_VALUES)
        self.assertIsNone(decoys.choose(KEY, b"nobody", decoys.frequencies(())))


class StabilityTests(SynchronousTestCase):
    """With a key that the server keeps, and without one."""

    def setUp(self) -> None:
        self.path = self.mktemp()
        self.set("first", 4096)
        self.set("alice", 4096)
        self.set("bob", 5000)

    def set(self, user: str, iterations: int = 4096) -> None:
        stored = passwords.hash_scram(b"x", iterations=iterations)
        users.set_hash(self.path, user, stored)

    def start(self, key: bytes | None) -> PasswordFile:
        checker = PasswordFile(
            self.path,
            reactor=FakeReactor(),
            pool=FakePool(),
            reading_pool=FakePool(),
            decoy_key=key,
        )
        checker.load()
        return checker

    def seen(self, checker: PasswordFile | ScramChecker) -> list[tuple[bytes, int]]:
        """Return what anybody can see of the unknown users: their salts and iterations."""
        if isinstance(checker, PasswordFile):
            checker.load()
        secrets = [checker.secret(user) for user in UNKNOWN]
        return [(secret.salt, secret.iterations) for secret in secrets]

    def test_restart(self) -> None:
        """A restart changes nothing."""
        for key in (KEY, None):
            self.assertEqual(self.seen(self.start(key)), self.seen(self.start(key)))
        checker = self.start(None)
        checker.decoy_key = KEY
        self.assertEqual(self.seen(checker), self.seen(self.start(KEY)))
        self.assertNotEqual(self.seen(checker), self.seen(self.start(None)))
        checkers = [ScramChecker(lambda _: None, decoy_key=KEY) for _ in range(2)]
        self.assertEqual(*map(self.seen, checkers))

    def test_another_user(self) -> None:
        """Another user changes no salt, and iterations only of as many unknown users as known users would have it."""
        for key in (KEY, None):
            checker = self.start(key)
            before = self.seen(checker)
            self.set("carol" if key else "dave", 6000)
            after = self.seen(checker)
            self.assertEqual([salt for salt, _ in before], [salt for salt, _ in after])
            changed = [new for (_, old), (_, new) in zip(before, after, strict=True) if old != new]
            self.assertEqual(set(changed), {6000})
            self.assertLess(len(changed), len(UNKNOWN) / 3)
            users.remove(self.path, "carol" if key else "dave")
            self.assertEqual(self.seen(checker), before)

    def test_another_password(self) -> None:
        """Another password of a user, who keeps the number of iterations, changes nothing for unknown users."""
        for key in (KEY, None):
            checker = self.start(key)
            before = self.seen(checker)
            self.set("alice", 4096)
            self.assertEqual(self.seen(checker), before)
        checker = self.start(KEY)
        before = self.seen(checker)
        self.set("first", 4096)
        self.assertEqual(self.seen(checker), before)

    def test_salts_have_the_size_of_known_salts(self) -> None:
        """Salts that come from another server may have another size: those of unknown users have it too."""
        for user, size in (("first", 12), ("alice", 12), ("bob", 40)):
            secret = passwords.ScramSecret.make(b"x", b"s" * size, 4096)
            parts = "$".join(map(passwords._base64, (secret[0], secret[2], secret[3])))
            users.set_hash(self.path, user, f"$scram-sha-256$i=4096${parts}")
        checker = self.start(KEY)
        self.assertEqual({len(salt) for salt, _ in self.seen(checker)}, {12, 40})

    def test_known_and_unknown_users_cost_the_same(self) -> None:
        """The answer for a known user costs the same hashes as that for an unknown user."""
        checker = self.start(KEY)
        for user in (b"alice", b"nobody"):
            with (
                mock.patch("imapshield.cred.checkers.fake_secret", wraps=fake_secret) as fake,
                mock.patch.object(decoys, "choose", wraps=decoys.choose) as choose,
            ):
                checker.secret(user)
            self.assertEqual((fake.call_count, choose.call_count), (1, 1), user)

    def test_cost_of_a_password(self) -> None:
        """The password of an unknown user is verified at the cost of a known hash, the same one after a restart."""
        stored = [passwords.hash_scrypt(b"x", ln=ln) for ln in (2, 3)]
        for user, each in zip(("alice", "bob"), stored, strict=True):
            users.set_hash(self.path, user, each)
        users.remove(self.path, "first")

        def verified(checker: PasswordFile, user: bytes) -> str:
            with mock.patch.object(passwords, "verify", return_value=False) as verify:
                checker._check(user.decode(), b"x")
            return passwords.cost(verify.call_args[0][0])

        costs = [[verified(self.start(KEY), user) for user in UNKNOWN] for _ in range(2)]
        self.assertEqual(*costs)
        self.assertEqual(set(costs[0]), {"$scrypt$ln=2,r=8,p=1", "$scrypt$ln=3,r=8,p=1"})
        users.set_hash(self.path, "carol", passwords.hash_scrypt(b"y", ln=2))
        after = [verified(self.start(KEY), user) for user in UNKNOWN]
        changed = [new for old, new in zip(costs[0], after, strict=True) if old != new]
        self.assertLessEqual(set(changed), {"$scrypt$ln=2,r=8,p=1"})

    def test_a_cost_that_is_not_permitted_is_no_cost_of_others(self) -> None:
        """A hash that takes hours is named as the problem of its line, and no unknown user is verified against it."""
        usual = passwords.hash_scrypt(b"x", ln=2)
        with open(self.path, "w") as file:
            file.write(f"alice:{usual}\nbob:{usual.replace('ln=2,r=8,p=1', 'ln=15,r=8,p=256')}\n")
        checker = self.start(KEY)
        checker.load()
        self.assertIn("line 2: the hash takes 256 times as long", checker.problem)
        self.assertEqual([*checker._table.costs], ["$scrypt$ln=2,r=8,p=1"])
        with mock.patch.object(passwords, "verify", return_value=False) as verify:
            checker._check("bob", b"x")
        self.assertEqual(verify.call_args[0][0], usual)

    def test_cost_is_the_part_without_salt_and_digest(self) -> None:
        """The cost of a hash is its kind and its parameters."""
        for stored, cost in (
            ("$argon2id$v=19$m=65536,t=3,p=1$c2FsdA$ZGlnZXN0", "$argon2id$v=19$m=65536,t=3,p=1"),
            ("$scrypt$ln=15,r=8,p=1$c2FsdA$ZGlnZXN0", "$scrypt$ln=15,r=8,p=1"),
            ("$scram-sha-256$i=65536$c2FsdA$a$b", "$scram-sha-256$i=65536"),
        ):
            self.assertEqual(passwords.cost(stored), cost)
