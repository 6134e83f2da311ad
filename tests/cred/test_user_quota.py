"""The quota in a line of the password file takes the place of the limits, over IMAP and at once."""

import os
from functools import partial

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from imapshield import events
from imapshield.auth_option import quota_of, quota_setting
from imapshield.cred import passwords, users
from imapshield.cred.checker_chain import CheckerChain
from imapshield.cred.checkers import PasswordFile
from imapshield.cred.realm import MaildirRealm
from imapshield.testing import Client, Server
from tests.cred.fakes import FakePool, FakeReactor


class UserQuotaTests(SynchronousTestCase):
    def setUp(self) -> None:
        mail = self.mktemp()
        os.mkdir(mail)
        reactor = FakeReactor()
        self.users = self.mktemp()
        self.checker = PasswordFile(
            self.users, reactor=reactor, pool=FakePool(), reading_pool=FakePool()
        )
        self.realm = MaildirRealm(
            mail, reactor=reactor, pool=FakePool(), has_text_index=False, quota=(10240, 3)
        )
        self.realm.quota_of = partial(quota_of, [object(), self.checker])
        self.realm.quota_setting = partial(quota_setting, [object(), self.checker])
        self.events: list[events.Event] = []
        self.server = Server(
            realm=self.realm,
            checker=CheckerChain([self.checker]),
            clock=reactor,
            observers=[self.events.append],
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(self.realm.close()))

    def login(self, fields: str) -> Client:
        stored = passwords.hash_scrypt(b"secret", ln=2)
        users.add_lines(self.users, {"alice": f"{stored}{fields}".encode()})
        return self.server.login()

    def test_the_line_of_a_user_has_precedence(self) -> None:
        """GETQUOTA shows the quota of the user; what the line does not say is that of the limits, and 0 is no limit."""
        for fields, expected in (
            ("", b"(STORAGE 0 10 MESSAGE 0 3)"),
            (":quota=2K", b"(STORAGE 0 2 MESSAGE 0 3)"),
            ("::::::userdb_quota_rule=*:bytes=1M:messages=7", b"(STORAGE 0 1024 MESSAGE 0 7)"),
            (":quota=0", b"(MESSAGE 0 3)"),
        ):
            self.assertIn(b'* QUOTA "" ' + expected, self.login(fields)(b'a GETQUOTA ""'))

    def test_a_changed_quota_applies_to_open_accounts(self) -> None:
        """A session that is open has the new quota as soon as the file has been read."""
        client = self.login(":quota=1K")
        self.assertIn(b"NO [OVERQUOTA]", client.append(b"x" * 2000))
        self.login(":quota=3K")
        self.assertIn(b"OK", client.append(b"x" * 2000))
        self.assertIn(b"NO [OVERQUOTA]", client.append(b"x" * 2000))

    def test_the_log_names_the_line_that_changes_a_quota(self) -> None:
        """A quota of the file is not changed by an option; one of the limits is, also for a user in the file."""
        for field, name in ((":quota=1K", "quota_bytes"), (":quota_messages=1", "quota_messages")):
            self.login(field).append(b"x" * 20)
            self.events.clear()
            self.login(field).append(b"x" * 2000)
            (event,) = [each for each in self.events if isinstance(each, events.LimitTriggered)]
            self.assertEqual(event.limit, name)
            self.assertEqual(event.setting, f"the line of alice in {self.checker.path}")
        self.events.clear()
        self.login("").append(b"x" * 20000)
        (event,) = [each for each in self.events if isinstance(each, events.LimitTriggered)]
        self.assertEqual(event.setting, "--limit=quota_bytes=N")

    def test_users_of_other_checkers_have_the_limits(self) -> None:
        """A user who is in no password file has the quota of the limits."""
        self.assertEqual(quota_of([self.checker], "bob"), (None, None))
        self.assertEqual(quota_setting([self.checker], "bob", "quota_bytes"), "")
