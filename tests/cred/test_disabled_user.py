"""A client of a disabled user gets the answer to a wrong password, and the log says what it is."""

from typing import Any, cast

from twisted.logger import Logger, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from imapshield.cred import passwords, users
from imapshield.cred.checker_chain import CheckerChain
from imapshield.cred.checkers import PasswordFile
from imapshield.observe.log_observer import LogObserver
from imapshield.testing import Server
from tests.cred.fakes import FakePool, FakeReactor


class DisabledUserTests(SynchronousTestCase):
    def test_log_says_that_a_user_is_disabled(self) -> None:
        """The correct password of a disabled user fails like a wrong one, and only the log tells the two apart."""
        reactor, path = FakeReactor(), self.mktemp()
        for name in ("alice", "bob"):
            users.set_hash(path, name, passwords.hash_scrypt(b"secret", ln=2))
        users.set_disabled(path, "bob", is_disabled=True)
        lines: list[str] = []
        log = Logger(observer=cast("Any", lambda event: lines.append(formatEvent(event))))
        checker = PasswordFile(path, reactor=reactor, pool=FakePool(), reading_pool=FakePool())
        chain = CheckerChain([_Unknowing(), checker])
        server = Server(checker=chain, clock=reactor, observers=[LogObserver(log)])
        answers = []
        for login in (b"bob secret", b"alice wrong", b"carol secret"):
            client = server.connect()
            client.send(b"a LOGIN " + login + b"\r\n")
            answers.append(client.read())
        self.assertEqual(answers[0], answers[1])
        self.assertEqual(answers[0], answers[2])
        failed = [
            line.partition("delay=")[2].partition(" ")[2] for line in lines if "failed" in line
        ]
        self.assertEqual(failed, ['disabled=True user="bob"', 'user="alice"', 'user="carol"'])


class _Unknowing:
    """A checker that does not know its users."""

    credentialInterfaces = ()
