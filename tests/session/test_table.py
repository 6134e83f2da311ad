"""The command table: the states in which each command is allowed, and commands that are not in it."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.events import BadCommandReceived
from imapshield.session import table
from imapshield.session.states import SELECTED, State
from imapshield.testing import Server
from imapshield.wire.grammar import PARSERS
from tests.session.session_case import SessionTestCase


class CommandTableTests(SynchronousTestCase):
    def test_every_row_parses(self) -> None:
        """Every command of the table has a parser."""
        self.assertEqual(set(table.TABLE) - set(PARSERS), set())

    def test_states(self) -> None:
        """A command in the wrong state is BAD, says why, and changes nothing."""
        server = Server()
        for name, entry in table.TABLE.items():
            client = server.connect()
            if State.NOT_AUTHENTICATED not in entry.states:
                self.assertIn(b"a BAD Log in first", client(b"a " + name), name)
            elif State.AUTHENTICATED not in entry.states:
                user = server.login()
                self.assertIn(b"a BAD You are logged in already", user(b"a " + name), name)
        user = server.login()
        for name, entry in table.TABLE.items():
            if entry.states == SELECTED:
                self.assertIn(b"a BAD Select a mailbox first", user(b"a " + name), name)
                user(b"ok NOOP")


class UnknownCommandTests(SessionTestCase):
    def test_unknown(self) -> None:
        """An unknown command is BAD, and none of its bytes come back."""
        self.assertEqual(self.client(b"a FROBNICATE \x01x"), b"a BAD Unknown command\r\n")

    def test_lone_word(self) -> None:
        """A word alone is answered as a tag, and not logged: it may be a password that came too late for its mechanism."""
        client = self.server.connect()
        self.assertIn(b"a NO [CANNOT]", client(b"a AUTHENTICATE X-NONE"))
        self.assertIn(b"AGFsaWNlAHNlY3JldA== BAD", client(b"AGFsaWNlAHNlY3JldA=="))
        self.assertEqual([fact.sample for fact in self.server.events_of(BadCommandReceived)], [""])
