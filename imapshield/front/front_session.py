"""`FrontSession`: executes the commands of one client in front mode.

Before the login it answers by itself, so nothing that a stranger sends reaches the backend except a login that the
guard has admitted. After it the backend executes everything but what ends at the shield: TLS and compression.
"""

from contextlib import suppress

from imapshield.edge.session_io import SessionIO
from imapshield.errors import BadCommand, CommandRefused
from imapshield.front.backend_login import BackendLogin, LoggedIn, LoginRefused
from imapshield.front.nodes import Nodes
from imapshield.front.offered_capabilities import MECHANISMS, before_login, capability_names
from imapshield.front.relay import BackendRelay
from imapshield.front.sasl_user import user_and_secret
from imapshield.session.dispatcher import OTHER_PROTOCOLS
from imapshield.wire import encode
from imapshield.wire.commands.base import BareCommand
from imapshield.wire.commands.login import Authenticate, Compress, Id, Login
from imapshield.wire.framing import RawCommand
from imapshield.wire.grammar import parse
from imapshield.wire.grammar.login import decode_base64
from imapshield.wire.responses import Tagged, bad, no, ok
from imapshield.wire.traits import log_sample

_BEFORE_LOGIN = frozenset(b"CAPABILITY NOOP LOGOUT STARTTLS ID LOGIN AUTHENTICATE".split())
_NOT_AFTER_LOGIN = frozenset(b"STARTTLS LOGIN AUTHENTICATE UNAUTHENTICATE PROXYAUTH".split())
_UNSENDABLE = (b"\r", b"\n", b"\0")


class FrontSession:
    """The session of one client.

    Args:
        io: the connection of the client.
        nodes: where the mail is.
    """

    def __init__(self, io: SessionIO, nodes: Nodes) -> None:
        self._io, self._nodes = io, nodes
        self._login = BackendLogin(io, nodes)
        self._relay: BackendRelay | None = None
        # Old messages have NUL, and clients that copy them from one server to another send them as they are.
        io.permit_nul_in_messages()

    def greeting(self) -> bytes:
        """Return the greeting of the backends, with the capabilities that pass."""
        code = encode.capability_code(self.capabilities())
        return encode.untagged(b"OK", self._nodes.greeting.decode("ascii", "replace"), code)

    def capabilities(self) -> list[bytes]:
        """Return the capabilities before the login. After it the backend lists them."""
        io = self._io
        return before_login(
            self._nodes.capabilities, secure=io.secure, can_start_tls=io.can_start_tls
        )

    def disconnected(self) -> None:
        """End the connection to the backend."""
        self._login.close()
        if self._relay is not None:
            self._relay.close()

    async def run(self, command: RawCommand) -> None:
        """Execute one command, and write its response."""
        try:
            if self._relay is None:
                await self._run_before_login(command)
            else:
                await self._run_after_login(self._relay, command)
        except BadCommand as error:
            self._io.bad_command(log_sample(command.tag, command.name), error.text)
            self._respond(command, bad(error.text, error.code))
        except CommandRefused as error:
            if error.reached is not None:
                self._io.limit_reached(error.reached, log_sample(command.tag, command.name))
            self._respond(command, no(error.text, error.code))
        finally:
            command.close()

    def _respond(self, command: RawCommand, tagged: Tagged) -> None:
        if command.tag is None:
            assert tagged.code is None or isinstance(tagged.code, bytes)
            self._io.write(encode.untagged(tagged.condition, tagged.text, tagged.code))
        else:
            self._io.write(encode.short_tagged(command.tag, tagged))

    # Before the login

    async def _run_before_login(self, command: RawCommand) -> None:
        if command.rejection is not None:
            raise command.rejection
        if command.name not in _BEFORE_LOGIN:
            self._refuse(command)
            return
        parsed = parse(command.parts)
        self._io.command_parsed()
        match parsed:
            case Login():
                user, password = parsed.user, parsed.password.value
                self._check_login(user, password)
                self._logged_in(command, await self._login.password(user, password))
            case Authenticate():
                self._logged_in(command, await self._authenticate(parsed))
            case Id():
                self._io.client_identified(parsed.fields)
                self._io.write(encode.identity([(b"name", b"imapshield")]))
                self._respond(command, ok("ID completed"))
            case BareCommand():
                self._run_bare(command, parsed.name)

    def _refuse(self, command: RawCommand) -> None:
        if (command.tag or b"").upper() not in OTHER_PROTOCOLS:
            raise BadCommand("Unknown command, or one that needs a login")
        text = "This is an IMAP server"
        self._io.bad_command(log_sample(command.tag, command.name), text)
        self._io.bye(text)

    def _run_bare(self, command: RawCommand, name: bytes) -> None:
        io = self._io
        if name == b"STARTTLS":
            if not io.can_start_tls:
                raise BadCommand("STARTTLS is not available")
            self._respond(command, ok("Begin TLS negotiation now"))
            io.start_tls()
            return
        if name == b"CAPABILITY":
            io.write(encode.capability(self.capabilities()))
        elif name == b"LOGOUT":
            io.write(encode.untagged(b"BYE", "Logging out"))
        self._respond(command, ok(f"{name.decode()} completed"))
        if name == b"LOGOUT":
            io.close(logged_out=True)

    def _check_login(self, user: bytes, password: bytes) -> None:
        self._require_privacy(user, "LOGIN")
        if any(byte in user + password for byte in _UNSENDABLE):
            raise BadCommand("CR, LF and NUL are not permitted in a user name or password")

    def _require_privacy(self, user: bytes, mechanism: str) -> None:
        if not self._io.secure:
            self._io.login_refused(user, mechanism)
            advice = "use STARTTLS first" if self._io.can_start_tls else "this server offers no TLS"
            raise CommandRefused(b"PRIVACYREQUIRED", f"Cleartext login is not allowed; {advice}")

    async def _authenticate(self, command: Authenticate) -> LoggedIn:
        mechanism = command.mechanism
        capabilities = [name.upper() for name in self._nodes.capabilities]
        offered = b"AUTH=" + mechanism in capabilities
        # Courier and others accept PLAIN without saying so. LOGIN passes on the same user and password.
        as_login = mechanism == b"PLAIN" and not offered and b"LOGINDISABLED" not in capabilities
        if mechanism not in MECHANISMS or not (offered or as_login):
            text = "Unsupported authentication mechanism; CAPABILITY lists the supported ones"
            raise CommandRefused(b"CANNOT", text)
        if MECHANISMS[mechanism]:
            self._require_privacy(b"", mechanism.decode())
        if command.initial_response is None:
            message = decode_base64(await self._challenge(b""))
        else:
            message = command.initial_response.value
        user, secret = user_and_secret(mechanism, message)
        if secret is None:
            return await self._login.exchange(mechanism, user, message, self._challenge)
        if as_login:
            self._check_login(user, secret)
            return await self._login.password(user, secret)
        try:
            return await self._login.bearer(mechanism, user, secret, message)
        except LoginRefused as refused:
            with suppress(BadCommand):  # whatever the client answers, also "*"
                await self._challenge(refused.reason)
            raise refused.refused from None

    async def _challenge(self, challenge: bytes) -> bytes:
        """Send a challenge, and return the response of the client, both in base64."""
        self._io.write(encode.continuation(challenge))
        line = await self._io.read_line()
        if line == b"*":
            raise BadCommand("Authentication cancelled")
        decode_base64(line)
        return line

    def _logged_in(self, command: RawCommand, logged_in: LoggedIn) -> None:
        """Answer the login as the backend has, and relay from now on."""
        io, (connection, answer, session, backend) = self._io, logged_in
        relay = self._relay = BackendRelay(io, connection, backend)
        for line in answer.untagged:
            io.write((relay.rewrite(line) if capability_names(line) else line) + b"\r\n")
        text = answer.text
        if answer.text[:12].upper() == b"[CAPABILITY ":
            text = relay.rewrite(text)
        assert command.tag is not None
        io.write(b"%b OK %b\r\n" % (command.tag, text))
        connection.start_relay(relay)
        session.logged_in(relay)

    # After the login

    async def _run_after_login(self, relay: BackendRelay, command: RawCommand) -> None:
        if command.rejection is None and command.name in _NOT_AFTER_LOGIN:
            raise BadCommand("Not permitted after the login")
        if command.rejection is None and command.name == b"COMPRESS":
            self._compress(command)
            return
        condition = await relay.run(command)
        if condition == b"BAD":
            text = "The backend has answered BAD"
            self._io.bad_command(log_sample(command.tag, command.name), text)
        elif condition:
            self._io.command_parsed()
            # Courier refuses UID LOGOUT, and the session goes on.
            if command.name == b"LOGOUT" and condition == b"OK":
                self._io.close(logged_out=True)

    def _compress(self, command: RawCommand) -> None:
        """Compress the connection of the client (RFC 4978)."""
        parsed = parse(command.parts)
        assert isinstance(parsed, Compress)
        if parsed.algorithm != b"DEFLATE":
            raise BadCommand("Unknown compression algorithm; use DEFLATE")
        if not self._io.can_compress:
            raise BadCommand("Compression is already active", b"COMPRESSIONACTIVE")
        self._io.check_compression()
        self._respond(command, ok("Begin compression now"))
        self._io.start_compression()
