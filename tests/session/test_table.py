"""The command table: each row has the value that its parser makes, and a handler that mypy has checked."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.session import table
from imapshield.session.command_spec import Result
from imapshield.session.handlers import store_copy
from imapshield.session.states import SELECTED
from imapshield.wire.commands.base import BareCommand, LiteralData, MemoryLiteral
from imapshield.wire.commands.fetch import Fetch
from imapshield.wire.grammar import PARSERS, parse
from imapshield.wire.responses import ok

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


class TableTests(SynchronousTestCase):
    def test_command_types(self) -> None:
        """The command type of each row is the type of the value that its parser makes."""
        for name in PARSERS:
            base = name.removeprefix(b"UID ")
            arguments = ARGUMENTS.get(name) or ARGUMENTS.get(base)
            parts: list[bytes | LiteralData] = [
                name if arguments is None else name + b" " + arguments
            ]
            if base in (b"APPEND", b"REPLACE"):
                parts += [MemoryLiteral(b"message"), b""]
            with self.subTest(command=name):
                self.assertIs(type(parse(parts)), table.TABLE[base].command)

    def test_typed_handlers(self) -> None:
        """Mypy rejects a handler of another command and a handler of another session type.

        The test is that mypy needs these comments: with `warn_unused_ignores` it fails when it no longer does.
        """
        table.spec(SELECTED, Fetch, store_copy.store)  # type: ignore[arg-type]
        table.spec(SELECTED, BareCommand, takes_no_session)  # type: ignore[arg-type]
