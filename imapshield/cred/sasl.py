"""SASL mechanisms besides PLAIN: SCRAM-SHA-256 with channel binding (RFC 7677, RFC 5802), OAUTHBEARER (RFC 7628) and
XOAUTH2.

Each mechanism is a class of challenge credentials like those of `twisted.mail`. `challengers` returns them for
`edge.factory.ShieldedIMAP4Factory`. A mechanism is offered only if a checker of the portal accepts its credentials
(`offered`).
"""

import base64
import binascii
import hmac
import json
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from hashlib import sha256, shake_256
from typing import Any, Protocol

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ICredentials
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, fail, succeed
from twisted.mail.imap4 import IllegalClientResponse
from twisted.mail.interfaces import IChallengeResponse
from zope.interface import Attribute, implementer

from imapshield.cred.passwords import DEFAULT_ITERATIONS, ScramSecret
from imapshield.cred.user_names import EXACT, UserNames

_CLIENT_FIRST = re.compile(
    rb"(n|y|p=([A-Za-z0-9.-]+)),(?:a=([^,]+))?,(n=([^,]+),r=([!-+\--~]+)(?:,.*)?)"
)
_CLIENT_FINAL = re.compile(rb"(c=([A-Za-z0-9+/=]+),r=([!-+\--~]+)(?:,.*)?),p=([A-Za-z0-9+/=]+)")
_BEARER = re.compile(rb"[Bb]earer +([A-Za-z0-9._~+/=-]+)")

Mechanisms = Mapping[bytes, Callable[[], Any]]
"""SASL mechanisms: name → factory of challenge credentials."""


class IScramProof(ICredentials):
    """Credentials of a client that has proved by SCRAM that it knows a password."""

    username: bytes = Attribute("the user name")
    proved: bool = Attribute("whether the proof was correct")
    source: object = Attribute("the checker that supplied the secret, a `ScramSource`")


class IBearerToken(ICredentials):
    """A token of an authorization server (RFC 6750), which a checker of the operator verifies."""

    username: bytes = Attribute("the user name that the client claims, which may be empty")
    token: bytes = Attribute("the token")


class ScramSource(Protocol):
    """The methods that a checker of `IScramProof` has in addition to those of `ICredentialsChecker`.

    With a method ``has_user(name)``, it permits the other ways to write a name (`UserNames`).
    """

    @property
    def ready(self) -> bool:
        """Whether SCRAM can be offered now."""

    def secret(self, user: bytes) -> ScramSecret:
        """Return the secret of `user`, or a `fake_secret` for an unknown user. Must not block."""


def fake_secret(
    key: bytes, user: bytes, iterations: int = DEFAULT_ITERATIONS, salt_size: int = 16
) -> ScramSecret:
    """Return a secret for an unknown `user` that no password matches.

    Like the salt of a known user, its salt of `salt_size` bytes is always the same for one `user` and `key`. So clients
    cannot find out which users exist.
    """
    salt = shake_256(_hmac(key, user)).digest(salt_size)
    return ScramSecret(salt, iterations, secrets.token_bytes(32), secrets.token_bytes(32))


@implementer(ICredentialsChecker)
class ScramChecker:
    """Accepts clients that have proved by SCRAM that they know a password.

    Args:
        lookup: returns the `ScramSecret` of a user name, or None. It runs on the reactor, so it must not block.
        decoy_key: initial value of the attribute; by default it is random. A client that asks before and after a
            restart then knows which users exist.

    Attributes:
        decoy_key: a secret of up to 64 bytes that stays the same over restarts. From it come the salts of unknown
            users.
    """

    credentialInterfaces = (IScramProof,)
    ready = True

    def __init__(
        self, lookup: Callable[[bytes], ScramSecret | None], *, decoy_key: bytes | None = None
    ) -> None:
        self._lookup = lookup
        self.decoy_key = decoy_key or secrets.token_bytes(32)

    def has_user(self, user: bytes) -> bool:
        """Return whether `lookup` has a secret of exactly this name."""
        return self._lookup(user) is not None

    def secret(self, user: bytes) -> ScramSecret:
        """Return the secret of `user`, or a fake one if `lookup` has none (`ScramSource`)."""
        # Also for a known user, so that both take the same time.
        fake = fake_secret(self.decoy_key, user)
        return self._lookup(user) or fake

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes | tuple[()]]:
        """Return the user name. Fails with `UnauthorizedLogin`."""
        if credentials.proved and credentials.source is self:
            return succeed(credentials.username)
        return fail(UnauthorizedLogin())


@implementer(IScramProof, IChallengeResponse)
class Scram:
    """One exchange of SCRAM-SHA-256.

    Args:
        source: the checker that supplies the secret and accepts the proof.
        plus: the mechanism is SCRAM-SHA-256-PLUS, which requires channel binding and thus TLS.
        names: the ways to write a user name.

    Attributes:
        username: the name of the user whose secret is used, which may be written in another way than the client did.
    """

    def __init__(
        self, source: ScramSource, plus: bool = False, *, names: UserNames = EXACT
    ) -> None:
        self._names = names
        self.username = b""
        self.proved = False
        self.source = source
        self.plus = plus
        self._bindings: Mapping[bytes, bytes] = {}
        self._challenge = b""
        self._next_step: Callable[[bytes], None] | None = self._client_first
        self._client_first_bare = self._channel_binding = self._nonce = b""
        self._secret: ScramSecret | None = None

    def bind_channel(self, bindings: Mapping[bytes, bytes]) -> None:
        """Set the channel bindings of the TLS connection: type, such as ``tls-exporter``, → data."""
        self._bindings = bindings

    def getChallenge(self) -> bytes:
        """Return the server's next message."""
        return self._challenge

    def setResponse(self, response: bytes) -> None:
        """Process the client's next message; raises `IllegalClientResponse` if it is invalid."""
        assert self._next_step is not None
        self._next_step(response)

    def moreChallenges(self) -> bool:
        """Return whether the exchange continues."""
        return self._next_step is not None

    def _client_first(self, message: bytes) -> None:
        match = _CLIENT_FIRST.fullmatch(message)
        if match is None:
            raise IllegalClientResponse("client-first-message")
        flag, binding_type, authzid, self._client_first_bare, user, nonce = match.groups()
        given = _saslname(user)
        # Before the secret is read: what follows is about this one user, also if the file changes meanwhile.
        knows_users = hasattr(self.source, "has_user")
        self.username = self._names.resolve(given, [self.source]) if knows_users else given
        if authzid is not None and _saslname(authzid) != given:
            raise IllegalClientResponse("acting for another user is not supported")
        if (binding_type is not None) != self.plus:
            raise IllegalClientResponse("channel binding does not match the mechanism")
        if binding_type is not None and binding_type not in self._bindings:
            raise IllegalClientResponse("channel binding type is not supported")
        if flag == b"y" and self._bindings:
            # The server offered channel binding, and the client supports it but did not see the offer.
            raise IllegalClientResponse("-PLUS was removed from the offered mechanisms")
        header = message[: len(message) - len(self._client_first_bare)]
        binding = self._bindings[binding_type] if binding_type else b""
        self._channel_binding = base64.b64encode(header + binding)
        self._secret = self.source.secret(self.username)
        self._nonce = nonce + base64.b64encode(secrets.token_bytes(18))
        salt = base64.b64encode(self._secret.salt)
        self._challenge = b"r=%b,s=%b,i=%d" % (self._nonce, salt, self._secret.iterations)
        self._next_step = self._client_final

    def _client_final(self, message: bytes) -> None:
        match = _CLIENT_FINAL.fullmatch(message)
        if match is None:
            raise IllegalClientResponse("client-final-message")
        without_proof, channel_binding, nonce, encoded_proof = match.groups()
        assert self._secret is not None
        try:
            proof = base64.b64decode(encoded_proof, validate=True)
        except binascii.Error:
            raise IllegalClientResponse("proof") from None
        auth_message = b",".join((self._client_first_bare, self._challenge, without_proof))
        client_signature = _hmac(self._secret.stored_key, auth_message)
        client_key = bytes(a ^ b for a, b in zip(proof, client_signature, strict=False))
        self.proved = (
            hmac.compare_digest(sha256(client_key).digest(), self._secret.stored_key)
            and hmac.compare_digest(channel_binding, self._channel_binding)
            and nonce == self._nonce
        )
        server_signature = _hmac(self._secret.server_key, auth_message)
        self._challenge = b"v=" + base64.b64encode(server_signature)
        self._next_step = self._end if self.proved else None

    def _end(self, _message: bytes) -> None:
        self._next_step = None


@implementer(IBearerToken, IChallengeResponse)
class Bearer:
    """OAUTHBEARER (RFC 7628), or the older XOAUTH2 of Google and Microsoft.

    If the message of the client has no token, the login fails without a call of a checker.

    Args:
        xoauth2: the mechanism is XOAUTH2.
    """

    needs_privacy = True
    """The mechanism is offered only on private connections, because a token can be used like a password."""

    def __init__(self, xoauth2: bool = False) -> None:
        self.username = self.token = b""
        self._xoauth2 = xoauth2
        self._responded = False

    def getChallenge(self) -> bytes:
        """Return an empty challenge, because the client sends the first message."""
        return b""

    def setResponse(self, response: bytes) -> None:
        """Process the client's message; raises `IllegalClientResponse` if it is invalid."""
        self._responded = True
        gs2_header, *pairs = response.split(b"\1")
        if self._xoauth2:
            pairs, gs2_header = [gs2_header, *pairs], b"n,,"
        gs2 = re.fullmatch(rb"[ny],(?:a=([^,]+))?,", gs2_header)
        if gs2 is None or pairs[-2:] != [b"", b""]:
            raise IllegalClientResponse("bearer token message")
        fields = dict(pair.partition(b"=")[::2] for pair in pairs[:-2])
        token = _BEARER.fullmatch(fields.get(b"auth", b""))
        self.token = b"" if token is None else token[1]
        self.username = fields.get(b"user", b"") if self._xoauth2 else _saslname(gs2[1] or b"")

    def moreChallenges(self) -> bool:
        """Return whether the message of the client has not arrived."""
        return not self._responded

    def failure(self) -> bytes:
        """Return the error that the client acknowledges before the NO response (RFC 7628 section 3.2.2)."""
        status = "401" if self._xoauth2 else "invalid_token"
        return json.dumps({"status": status, "schemes": "bearer"}).encode("ascii")


def challengers(
    checkers: Iterable[Any], *, bearer: bool = True, names: UserNames = EXACT
) -> dict[bytes, Callable[[], Any]]:
    """Return the SASL mechanisms of the portal's checkers, for the `challengers` of `ShieldedIMAP4Factory`.

    Args:
        checkers: the first one that accepts `IScramProof` and is a `ScramSource` supplies the SCRAM secrets.
        bearer: include OAUTHBEARER and XOAUTH2, if a checker accepts `IBearerToken`.
        names: the ways to write a user name, for SCRAM.

    Returns:
        mechanism name → factory of challenge credentials.
    """
    mechanisms: dict[bytes, Callable[[], Any]] = {}
    for checker in checkers:
        # A `CheckerChain` accepts a proof, but has no secrets.
        if IScramProof in checker.credentialInterfaces and hasattr(checker, "secret"):
            mechanisms.setdefault(b"SCRAM-SHA-256-PLUS", partial(Scram, checker, True, names=names))
            mechanisms.setdefault(b"SCRAM-SHA-256", partial(Scram, checker, names=names))
        if bearer and IBearerToken in checker.credentialInterfaces:
            mechanisms[b"OAUTHBEARER"] = Bearer
            mechanisms[b"XOAUTH2"] = partial(Bearer, True)
    return mechanisms


def offered(
    mechanisms: Mechanisms, portal: Any, *, private: bool, bindings: Mapping[bytes, bytes]
) -> list[bytes]:
    """Return the names of the `mechanisms` that a client can use now on its connection.

    Args:
        mechanisms: mechanism name → factory of challenge credentials.
        portal: a mechanism can be used if one of the checkers of this portal accepts its credentials.
        private: whether the connection is encrypted or local.
        bindings: the channel bindings of the connection: type → data.
    """
    accepted = portal.listCredentialsInterfaces()
    names = []
    for name, factory in mechanisms.items():
        credentials = factory()
        if (
            any(interface.providedBy(credentials) for interface in accepted)
            and (private or not getattr(credentials, "needs_privacy", False))
            and (bindings or not getattr(credentials, "plus", False))
            and getattr(getattr(credentials, "source", None), "ready", True)
        ):
            names.append(name)
    return names


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _saslname(name: bytes) -> bytes:
    """Decode the escapes of ``,`` and ``=`` in a name (RFC 5802 section 5.1)."""
    if re.search(rb"=(?!2C|3D)", name):
        raise IllegalClientResponse("saslname")
    return name.replace(b"=2C", b",").replace(b"=3D", b"=")
