"""The dispatcher: raw commands → tagged responses, one command at a time.

Rules
-----
* After every error the client gets a tagged response with a text of this server: BAD for a malformed command, NO for a
  refusal by a handler or the store, and NO [SERVERBUG] for an internal error, with a reference to its traceback in the
  log.
* A message that cannot be read or changed stops no command. The command is executed for the others, and its response is
  NO [CONTACTADMIN] with the number of messages that are missing.
* A command that fails because the selected mailbox was deleted gets BYE instead of NO: clients do not expect that NOOP
  fails (RFC 9051 section 6.1.2).
* Pending updates precede the tagged response, except after commands whose `CommandSpec.sync` is False.
"""

import time
import traceback
from collections.abc import Callable
from functools import lru_cache

from imapshield.errors import BadCommand, CommandRefused, StoreError
from imapshield.limits import Limits
from imapshield.mailbox.request import current_request
from imapshield.session.capabilities import CommandCapabilities
from imapshield.session.command_spec import AfterResponse, CommandSpec, Response, Result
from imapshield.session.connection import Connection
from imapshield.session.handlers.search import saves_result, uses_sequence_numbers
from imapshield.session.session import Session
from imapshield.session.state import State
from imapshield.session.table import TABLE
from imapshield.wire import encode
from imapshield.wire.commands.base import Command
from imapshield.wire.cursor import GrammarLimits
from imapshield.wire.framing import RawCommand
from imapshield.wire.grammar import bare_command, parse
from imapshield.wire.grammar.search import SaveRefused
from imapshield.wire.responses import Tagged, bad, no
from imapshield.wire.traits import log_sample

_INCOMPLETE = "Not all messages were processed"
_FAILED_CODE = b"CONTACTADMIN"
"""The response code of a command that failed for some messages only (RFC 5530). To repeat the command does not help,
whatever the reason: the administrator has to repair the file, or to report the bug."""

LONG_COMMAND = 8192
"""Bytes of a command whose execution begins in another turn than its parsing: the numbers of thousands of messages take
milliseconds in both."""

OTHER_PROTOCOLS = frozenset(
    b"GET POST PUT HEAD OPTIONS DELETE CONNECT TRACE PATCH PRI EHLO HELO LHLO MAIL USER".split()
)
"""The first words of other protocols. An attacker has redirected a browser or a mail client here (ALPACA)."""

_CAPABILITIES = CommandCapabilities(TABLE.values())


@lru_cache(1)  # all connections share it
def _grammar_limits(limits: Limits) -> GrammarLimits:
    return GrammarLimits(max_string_size=max(limits.max_literal_size, limits.max_metadata_size))


class Dispatcher:
    """Executes the commands of one connection.

    Args:
        io: the connection.
        limits: the limits of the server.
        now: returns the seconds since the epoch.
    """

    def __init__(
        self, io: Connection, limits: Limits, now: Callable[[], float] = time.time
    ) -> None:
        self.session = Session(io, limits, _CAPABILITIES, now)
        self._grammar_limits = _grammar_limits(limits)

    def greeting(self) -> bytes:
        """Return the greeting. It contains the capabilities, which saves the client a round trip."""
        code = encode.capability_code(self.capabilities())
        return encode.untagged(b"OK", "imapshield ready", code)

    def capabilities(self) -> list[bytes]:
        """Return the capabilities of the session in its present state."""
        return self.session.capabilities()

    def disconnected(self) -> None:
        """Release the account and the selected mailbox with all subscriptions, because the connection has ended."""
        self.session.disconnected()

    async def run(self, command: RawCommand) -> None:
        """Execute one command and write its response.

        A malformed command without a tag gets an untagged response.
        """
        session, spec = self.session, TABLE.get(command.name)
        session.begin_command(command.tag or b"")
        current_request.set(session.request)
        try:
            if session.sending:
                await session.sent()  # the rest of an unsolicited response
            result = await self._respond(command, spec)
            if result is not None and not self._replaced_by_bye(result):
                await self._finish(command, spec, result)
        finally:
            session.end_command()
        if session.state is not State.LOGOUT:
            session.after_command()

    def _replaced_by_bye(self, result: Result) -> bool:
        """Whether the connection has ended while the command was running, or ends instead of a NO."""
        if self.session.state is State.LOGOUT:
            return True
        failed = isinstance(result, Tagged) and result.condition == b"NO"
        return failed and self.session.has_lost_mailbox

    async def _respond(
        self, command: RawCommand, spec: CommandSpec[Session] | None
    ) -> Result | None:
        """Execute a command and turn errors into responses; return None if it failed because the connection ended."""
        try:
            return await self._execute(command, spec)
        except BadCommand as error:
            self._report_bad_command(command, error.text)
            return bad(error.text, error.code)
        except (CommandRefused, StoreError) as error:
            if error.reached is not None:
                sample = log_sample(command.tag, command.name)
                self.session.io.limit_reached(error.reached, sample)
            return no(error.text, error.code)
        except Exception as error:
            if self.session.state is State.LOGOUT:
                error.__traceback__ = None  # it refers to all that the command holds
                return None
            reference = self.session.io.command_failed(
                command.name.decode("ascii", "replace"),
                "".join(traceback.format_exception(error)),
            )
            text = f"Internal error; tell the administrator reference {reference}"
            return no(text, b"SERVERBUG")
        finally:
            command.close()

    async def _execute(self, command: RawCommand, spec: CommandSpec[Session] | None) -> Result:
        session = self.session
        if command.rejection is not None:
            raise command.rejection
        if spec is None:
            return self._unknown_command(command)
        missing = spec.requires is not None and not session.supports(spec.requires)
        if missing and session.state is not State.NOT_AUTHENTICATED:
            raise BadCommand("Unknown command")
        if session.state not in spec.states:
            raise BadCommand(spec.wrong_state_text(session.state))
        try:
            parsed = self._parse(command, spec)
            if command.octets >= LONG_COMMAND:
                await session.io.drain()
            return await spec.handler(session, parsed)
        except BadCommand:
            raise
        except Exception as error:
            # A NO clears the saved result, and a BAD does not (RFC 5182 section 2.1).
            if saves_result(session.command) or isinstance(error, SaveRefused):
                session.saved_search = ()
            raise

    def _parse(self, raw: RawCommand, spec: CommandSpec[Session]) -> Command:
        session = self.session
        command = bare_command(raw.parts)
        if command is None:
            command = parse(raw.parts, limits=self._grammar_limits, names=session.names)
        session.command = command
        session.io.command_parsed()
        if session.uid_only and command.uid is False:
            raise session.uid_required()
        assert isinstance(command, spec.command)
        return command

    def _unknown_command(self, command: RawCommand) -> Response:
        text = "Unknown command" if command.name else "Expected a command name after the tag"
        tag = (command.tag or b"").upper()
        if self.session.state is not State.NOT_AUTHENTICATED or tag not in OTHER_PROTOCOLS:
            raise BadCommand(text)
        # An attacker has redirected a browser or a mail client to this port (ALPACA), so no IMAP will follow.
        self._report_bad_command(command, text)
        self.session.io.write(encode.untagged(b"BYE", "This is an IMAP server"))
        return Response(bad(text), AfterResponse.CLOSE)

    def _report_bad_command(self, command: RawCommand, text: str) -> None:
        self.session.io.bad_command(log_sample(command.tag, command.name), text)

    async def _finish(
        self, command: RawCommand, spec: CommandSpec[Session] | None, result: Result
    ) -> None:
        session = self.session
        tagged, then = result if isinstance(result, Response) else (result, None)
        if session.limit_code is not None or session.failed_messages:
            tagged = self._with_failures(self._with_limit_code(tagged))
        if command.tag is None:
            await session.send(encode.untagged_pieces(*tagged))
        else:
            if session.state is State.SELECTED and spec is not None and spec.sync:
                await self._send_updates(command, spec)
            if tagged.code is None or isinstance(tagged.code, bytes):
                # Even if the client does not read: what follows the response must not wait for the client.
                session.io.write(encode.short_tagged(command.tag, tagged))
            else:
                await session.send(encode.tagged(command.tag, tagged))
        if then is not None:
            self._after_response(then)

    def _with_limit_code(self, tagged: Tagged) -> Tagged:
        code = self.session.limit_code
        if code is None:
            return tagged
        if tagged.code is None:
            return tagged._replace(code=code)
        # A response has only one code.
        self.session.io.write(encode.untagged(b"NO", _INCOMPLETE, code))
        return tagged

    def _with_failures(self, tagged: Tagged) -> Tagged:
        """Return NO in place of OK if the command could not process some messages."""
        session, count = self.session, self.session.failed_messages
        if not count:
            return tagged
        if saves_result(session.command):
            session.saved_search = ()  # as after any NO
        messages = "1 message" if count == 1 else f"{count} messages"
        failure = no(f"Failed for {messages}; ask the administrator to see the log", _FAILED_CODE)
        if tagged.condition == b"OK" and tagged.code is None:
            return failure
        session.io.write(encode.untagged(b"NO", failure.text, _FAILED_CODE))
        return no(_INCOMPLETE, tagged.code) if tagged.condition == b"OK" else tagged

    async def _send_updates(self, command: RawCommand, spec: CommandSpec[Session]) -> None:
        session = self.session
        # DONE ends IDLE at once, even if the client reads slowly; then updates stay pending.
        wait = command.name != b"IDLE"
        if not session.view.is_in_sync():  # after most commands it is
            uid = command.has_uid_prefix
            expunge = spec.expunge or (uid and not uses_sequence_numbers(session.command))
            own = spec.changes_mailbox and session.mailbox_changed
            await session.send_pending_updates(expunge=expunge, uid=uid, own=own, wait=wait)
        if wait or not session.io.full:
            await session.refresh_contexts()

    def _after_response(self, then: AfterResponse) -> None:
        session = self.session
        match then:
            case AfterResponse.START_TLS:
                session.io.start_tls()
            case AfterResponse.START_COMPRESSION:
                session.io.start_compression()
            case AfterResponse.UNAUTHENTICATE:
                session.log_out()
                session.io.log_out()
            case AfterResponse.CLOSE:
                session.io.close()
            case AfterResponse.LOG_OUT:
                session.io.close(logged_out=True)
