"""The command table: the states in which each command is allowed, and commands that are not in it."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.events import BadCommandReceived
from imapshield.session.command_spec import SELECTED, Result
from imapshield.session.handlers import idle
from imapshield.session.state import State
from imapshield.session.table import TABLE, spec
from imapshield.testing import Server
from imapshield.wire.commands.base import BareCommand, LiteralData, MemoryLiteral
from imapshield.wire.commands.search import Search
from imapshield.wire.grammar import PARSERS, parse
from imapshield.wire.responses import ok
from tests.session.session_case import SessionTestCase, without_text

ARGUMENTS = {
    b"ID": b"NIL",
    b"AUTHENTICATE": b"PLAIN",
    b"LOGIN": b"user password",
    b"ENABLE": b"CONDSTORE",
    b"SELECT": b"INBOX",
    b"EXAMINE": b"INBOX",
    b"CREATE": b"a",
    b"DELETE": b"a",
    b"RENAME": b"a b",
    b"SUBSCRIBE": b"a",
    b"UNSUBSCRIBE": b"a",
    b"LIST": b'"" *',
    b"LSUB": b'"" *',
    b"STATUS": b"a (MESSAGES)",
    b"APPEND": b"a ",
    b"REPLACE": b"1 a ",
    b"COMPRESS": b"DEFLATE",
    b"GETQUOTA": b'""',
    b"GETQUOTAROOT": b"INBOX",
    b"SETQUOTA": b'"" (STORAGE 1)',
    b"GETMETADATA": b"a /private/comment",
    b"SETMETADATA": b"a (/private/comment NIL)",
    b"UID EXPUNGE": b"1",
    b"SEARCH": b"ALL",
    b"NOTIFY": b"NONE",
    b"CANCELUPDATE": b'"a"',
    b"ESEARCH": b"IN (personal) ALL",
    b"SORT": b"(DATE) UTF-8 ALL",
    b"THREAD": b"REFERENCES UTF-8 ALL",
    b"FETCH": b"1 FLAGS",
    b"STORE": b"1 FLAGS ()",
    b"COPY": b"1 a",
    b"MOVE": b"1 a",
}


async def takes_no_session(_session: str, _: BareCommand) -> Result:
    return ok("Never called")


class CommandTableTests(SynchronousTestCase):
    def test_every_command_has_a_parser(self) -> None:
        """Every command of the table has a parser."""
        self.assertEqual(set(TABLE) - set(PARSERS), set())

    def test_wrong_state_is_bad(self) -> None:
        """A command in the wrong state is BAD, with one of three texts that name the required state."""
        server = Server()
        reasons: dict[str, set[bytes]] = {"log in": set(), "logged in": set(), "select": set()}
        for name, row in TABLE.items():
            if State.NOT_AUTHENTICATED not in row.states:
                reasons["log in"].add(server.connect()(b"a " + name))
            elif State.AUTHENTICATED not in row.states:
                reasons["logged in"].add(server.login()(b"a " + name))
        client = server.login()
        for name, row in TABLE.items():
            if row.states == SELECTED:
                reasons["select"].add(client(b"a " + name))
                client(b"ok NOOP")
        for texts in reasons.values():
            self.assertEqual([without_text(text) for text in texts], [b"a BAD\r\n"])
        self.assertEqual(len(set.union(*reasons.values())), 3)

    def test_handler_takes_the_type_that_the_parser_makes(self) -> None:
        """The handler of each row takes the type of command that its parser makes."""
        for name in PARSERS:
            base = name.removeprefix(b"UID ")
            arguments = ARGUMENTS.get(name) or ARGUMENTS.get(base)
            parts: list[bytes | LiteralData] = [
                name if arguments is None else name + b" " + arguments
            ]
            if base in (b"APPEND", b"REPLACE"):
                parts += [MemoryLiteral(b"message"), b""]
            with self.subTest(command=name):
                self.assertIs(type(parse(parts)), TABLE[base].command)

    def test_mypy_rejects_a_handler_of_another_command(self) -> None:
        """Mypy rejects a handler of another command, and a handler with another session type.

        Mypy is the test: with `warn_unused_ignores` it fails if it no longer needs these comments.
        """
        spec(SELECTED, Search, idle.noop)  # type: ignore[arg-type]
        spec(SELECTED, BareCommand, takes_no_session)  # type: ignore[arg-type]


class UnknownCommandTests(SessionTestCase):
    def test_unknown_command_is_bad_and_not_repeated(self) -> None:
        """An unknown command is BAD, and the response repeats none of its bytes."""
        self.assertEqual(without_text(self.client(b"a FROBNICATE \x01x")), b"a BAD\r\n")

    def test_lone_word_is_not_logged(self) -> None:
        """A single word is treated as a tag and is not logged: it may be a password that came after its mechanism was
        refused."""
        client = self.server.connect()
        self.assertIn(b"a NO [CANNOT]", client(b"a AUTHENTICATE X-NONE"))
        self.assertIn(b"AGFsaWNlAHNlY3JldA== BAD", client(b"AGFsaWNlAHNlY3JldA=="))
        self.assertEqual(
            [event.sample for event in self.server.events_of(BadCommandReceived)], [""]
        )
