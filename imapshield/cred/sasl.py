"""SASL beyond PLAIN: SCRAM-SHA-256 with channel binding (RFC 7677, RFC 5802), and bearer tokens (RFC 7628, XOAUTH2).

Each mechanism is a class of challenge credentials, as `twisted.mail` has them, for the `challengers` of
`edge.factory.ShieldedIMAP4Factory`; `challengers` makes that dictionary. A mechanism is offered only if a checker of
the portal takes its credentials (`offered`).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from hashlib import sha256
from typing import Any, Protocol

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ICredentials
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, fail, succeed
from twisted.mail.imap4 import IllegalClientResponse
from twisted.mail.interfaces import IChallengeResponse
from zope.interface import Attribute, implementer

from imapshield.cred.passwords import ITERATIONS, ScramSecret

_CLIENT_FIRST = re.compile(
    rb"(n|y|p=([A-Za-z0-9.-]+)),(?:a=([^,]+))?,(n=([^,]+),r=([!-+\--~]+)(?:,.*)?)"
)
_CLIENT_FINAL = re.compile(rb"(c=([A-Za-z0-9+/=]+),r=([!-+\--~]+)(?:,.*)?),p=([A-Za-z0-9+/=]+)")
_BEARER = re.compile(rb"[Bb]earer +([A-Za-z0-9._~+/=-]+)")


class IScramProof(ICredentials):
    """Credentials of a client that has proved to know a password."""

    username: bytes = Attribute("whose")
    proved: bool = Attribute("whether the proof was right")
    secrets: object = Attribute("the checker that gave the secret, a `ScramSource`")


class IBearerToken(ICredentials):
    """A token that somebody else gave out, for a checker of the operator's to look at (RFC 6750)."""

    username: bytes = Attribute("who the client says it is; of OAUTHBEARER it may be empty")
    token: bytes = Attribute("the token")


class ScramSource(Protocol):
    """What a checker of `IScramProof` is besides."""

    @property
    def ready(self) -> bool:
        """Whether SCRAM can be offered now."""

    def secret(self, user: bytes) -> ScramSecret:
        """The secret of `user`, or `no_secret`; must not block."""


def no_secret(key: bytes, user: bytes, iterations: int = ITERATIONS) -> ScramSecret:
    """Return for an unknown `user` a secret that fits nothing, with a salt that is always the same under one `key`."""
    salt = _hmac(key, user)[:16]
    return ScramSecret(salt, iterations, secrets.token_bytes(32), secrets.token_bytes(32))


@implementer(ICredentialsChecker)
class ScramChecker:
    """Accepts who has proved, by SCRAM, to know the password behind what `lookup` gives.

    Args:
        lookup: the `ScramSecret` of a user name, or None; called on the reactor, so it must not block.
    """

    credentialInterfaces = (IScramProof,)
    ready = True

    def __init__(self, lookup: Callable[[bytes], ScramSecret | None]) -> None:
        self._lookup = lookup
        self._key = secrets.token_bytes(32)

    def secret(self, user: bytes) -> ScramSecret:
        """See `ScramSource`."""
        return self._lookup(user) or no_secret(self._key, user)

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes | tuple[()]]:
        """The user name. Fails with `UnauthorizedLogin`."""
        if credentials.proved and credentials.secrets is self:
            return succeed(credentials.username)
        return fail(UnauthorizedLogin())


@implementer(IScramProof, IChallengeResponse)
class Scram:
    """One exchange of SCRAM-SHA-256; with `plus` of SCRAM-SHA-256-PLUS, which needs TLS."""

    def __init__(self, checker: ScramSource, plus: bool = False) -> None:
        self.username = b""
        self.proved = False
        self.secrets = checker
        self.plus = plus
        self._bindings: Mapping[bytes, bytes] = {}
        self._challenge = b""
        self._next: Callable[[bytes], None] | None = self._client_first
        self._bare = self._bound = self._nonce = b""
        self._secret: ScramSecret | None = None

    def bind_channel(self, bindings: Mapping[bytes, bytes]) -> None:
        """Say what identifies the TLS connection: binding types, such as ``tls-exporter``, and their data."""
        self._bindings = bindings

    def getChallenge(self) -> bytes:
        """The server's next message."""
        return self._challenge

    def setResponse(self, response: bytes) -> None:
        """Take the client's next message; raises `IllegalClientResponse` if it is none."""
        assert self._next is not None
        self._next(response)

    def moreChallenges(self) -> bool:
        """Whether the exchange goes on."""
        return self._next is not None

    def _client_first(self, message: bytes) -> None:
        found = _CLIENT_FIRST.fullmatch(message)
        if found is None:
            raise IllegalClientResponse("client-first-message")
        flag, kind, authzid, self._bare, user, nonce = found.groups()
        self.username = _saslname(user)
        if authzid is not None and _saslname(authzid) != self.username:
            raise IllegalClientResponse("acting for another user is not offered")
        if (kind is not None) != self.plus or (kind is not None and kind not in self._bindings):
            raise IllegalClientResponse("channel binding")
        if flag == b"y" and self._bindings:
            raise IllegalClientResponse("somebody has taken -PLUS out of what was offered")
        header = message[: len(message) - len(self._bare)]
        self._bound = base64.b64encode(header + (self._bindings[kind] if kind else b""))
        self._secret = self.secrets.secret(self.username)
        self._nonce = nonce + base64.b64encode(secrets.token_bytes(18))
        salt = base64.b64encode(self._secret.salt)
        self._challenge = b"r=%b,s=%b,i=%d" % (self._nonce, salt, self._secret.iterations)
        self._next = self._client_final

    def _client_final(self, message: bytes) -> None:
        found = _CLIENT_FINAL.fullmatch(message)
        if found is None:
            raise IllegalClientResponse("client-final-message")
        without_proof, bound, nonce, proof64 = found.groups()
        assert self._secret is not None
        try:
            proof = base64.b64decode(proof64, validate=True)
        except binascii.Error:
            raise IllegalClientResponse("proof") from None
        signed = b",".join((self._bare, self._challenge, without_proof))
        signature = _hmac(self._secret.stored_key, signed)
        client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=False))
        self.proved = (
            hmac.compare_digest(sha256(client_key).digest(), self._secret.stored_key)
            and hmac.compare_digest(bound, self._bound)
            and nonce == self._nonce
        )
        server_signature = _hmac(self._secret.server_key, signed)
        self._challenge = b"v=" + base64.b64encode(server_signature)
        self._next = self._end if self.proved else None

    def _end(self, _message: bytes) -> None:
        self._next = None


@implementer(IBearerToken, IChallengeResponse)
class Bearer:
    """OAUTHBEARER (RFC 7628), or Google's and Microsoft's older XOAUTH2. Without a token no checker is asked."""

    needs_privacy = True
    """A token is as good as a password: it is not taken over a connection that others can read."""

    def __init__(self, old: bool = False) -> None:
        self.username = self.token = b""
        self._old = old
        self._asked = False

    def getChallenge(self) -> bytes:
        """Nothing: the client begins."""
        return b""

    def setResponse(self, response: bytes) -> None:
        """Take the client's message; raises `IllegalClientResponse` if it is none."""
        self._asked = True
        head, *pairs = response.split(b"\1")
        if self._old:
            pairs, head = [head, *pairs], b"n,,"
        gs2 = re.fullmatch(rb"[ny],(?:a=([^,]+))?,", head)
        if gs2 is None or pairs[-2:] != [b"", b""]:
            raise IllegalClientResponse("client message")
        fields = dict(pair.partition(b"=")[::2] for pair in pairs[:-2])
        token = _BEARER.fullmatch(fields.get(b"auth", b""))
        self.token = b"" if token is None else token[1]
        self.username = fields.get(b"user", b"") if self._old else _saslname(gs2[1] or b"")

    def moreChallenges(self) -> bool:
        """Whether the client has still to speak."""
        return not self._asked

    def failure(self) -> bytes:
        """What a client is told, and answers with nothing, before the NO (RFC 7628 section 3.2.2)."""
        status = "401" if self._old else "invalid_token"
        return json.dumps({"status": status, "schemes": "bearer"}).encode("ascii")


def challengers(checkers: Iterable[Any], *, bearer: bool = True) -> dict[bytes, Callable[[], Any]]:
    """Make `ShieldedIMAP4Factory`'s `challengers` of the portal's checkers.

    Args:
        checkers: of them the first that takes `IScramProof` is asked for secrets.
        bearer: offer OAUTHBEARER and XOAUTH2, if a checker takes `IBearerToken`.
    """
    found: dict[bytes, Callable[[], Any]] = {}
    for checker in checkers:
        if IScramProof in checker.credentialInterfaces:
            found.setdefault(b"SCRAM-SHA-256-PLUS", partial(Scram, checker, True))
            found.setdefault(b"SCRAM-SHA-256", partial(Scram, checker))
        if bearer and IBearerToken in checker.credentialInterfaces:
            found[b"OAUTHBEARER"] = Bearer
            found[b"XOAUTH2"] = partial(Bearer, True)
    return found


def offered(
    mechanisms: Mapping[bytes, Callable[[], Any]],
    portal: Any,
    *,
    private: bool,
    bindings: Mapping[bytes, bytes],
) -> list[bytes]:
    """Return which of `mechanisms` a client can use now.

    Args:
        mechanisms: name → factory of challenge credentials.
        portal: whose checkers say which credentials they take.
        private: whether nobody else can read the connection.
        bindings: see `Scram.bind_channel`.
    """
    taken = portal.listCredentialsInterfaces()
    names = []
    for name, factory in mechanisms.items():
        credentials = factory()
        if (
            any(interface.providedBy(credentials) for interface in taken)
            and (private or not getattr(credentials, "needs_privacy", False))
            and (bindings or not getattr(credentials, "plus", False))
            and getattr(getattr(credentials, "secrets", None), "ready", True)
        ):
            names.append(name)
    return names


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _saslname(name: bytes) -> bytes:
    """Take the escapes of ``,`` and ``=`` out of a name (RFC 5802 section 5.1)."""
    if re.search(rb"=(?!2C|3D)", name):
        raise IllegalClientResponse("saslname")
    return name.replace(b"=2C", b",").replace(b"=3D", b"=")
