"""The command table: the states in which each command is allowed, and commands that are not in it."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.events import BadCommandReceived
from imapshield.session import table
from imapshield.session.states import SELECTED, State
from imapshield.testing import Server
from imapshield.wire.grammar import PARSERS
from tests.session.session_case import SessionTestCase, without_text


class CommandTableTests(SynchronousTestCase):
    def test_every_command_has_a_parser(self) -> None:
        """Every command of the table has a parser."""
        self.assertEqual(set(table.TABLE) - set(PARSERS), set())

    def test_wrong_state_is_bad(self) -> None:
        """A command in the wrong state is BAD, with one of three texts that say which state it needs."""
        server = Server()
        reasons: dict[str, set[bytes]] = {"log in": set(), "logged in": set(), "select": set()}
        for name, spec in table.TABLE.items():
            if State.NOT_AUTHENTICATED not in spec.states:
                reasons["log in"].add(server.connect()(b"a " + name))
            elif State.AUTHENTICATED not in spec.states:
                reasons["logged in"].add(server.login()(b"a " + name))
        client = server.login()
        for name, spec in table.TABLE.items():
            if spec.states == SELECTED:
                reasons["select"].add(client(b"a " + name))
                client(b"ok NOOP")
        for texts in reasons.values():
            self.assertEqual([without_text(text) for text in texts], [b"a BAD\r\n"])
        self.assertEqual(len(set.union(*reasons.values())), 3)


class UnknownCommandTests(SessionTestCase):
    def test_unknown_command(self) -> None:
        """An unknown command is BAD, and the response repeats none of its bytes."""
        self.assertEqual(without_text(self.client(b"a FROBNICATE \x01x")), b"a BAD\r\n")

    def test_lone_word_is_not_logged(self) -> None:
        """A single word is answered as a tag and is not logged: it may be a password that came after its mechanism was
        refused."""
        client = self.server.connect()
        self.assertIn(b"a NO [CANNOT]", client(b"a AUTHENTICATE X-NONE"))
        self.assertIn(b"AGFsaWNlAHNlY3JldA== BAD", client(b"AGFsaWNlAHNlY3JldA=="))
        self.assertEqual([fact.sample for fact in self.server.events_of(BadCommandReceived)], [""])
