"""Hashes passwords, and verifies passwords against stored hashes. Blocking and slow on purpose; without Twisted.

Formats
-------
Each hash contains its parameters, so old hashes stay valid when the defaults change:

* ``$argon2id$v=19$m=65536,t=3,p=1$SALT$DIGEST``, with argon2-cffi, an optional dependency of this package;
* ``$scrypt$ln=15,r=8,p=1$SALT$DIGEST``, with the standard library alone;
* ``$scram-sha-256$i=65536$SALT$STOREDKEY$SERVERKEY`` (the values of RFC 5803), with which a client can prove that it
  knows the password without sending it. A thief of the file can try far more passwords per second than with the other
  two.
"""

from __future__ import annotations

import hmac
import re
import secrets
from base64 import b64decode, b64encode
from hashlib import pbkdf2_hmac, scrypt, sha256
from types import ModuleType
from typing import NamedTuple

try:
    import argon2
except ImportError:
    _argon2: ModuleType | None = None
else:
    _argon2 = argon2

# 32 MiB and about 0.1 s for each hash: twice the interactive parameters of RFC 7914.
LN, R, P = 15, 8, 1
MAX_MEMORY = 1 << 30
"""Bytes that verifying one password may take. A mistyped ``ln=30`` in a file must not exhaust the server's memory."""

# The second choice of RFC 9106 section 4, but with one lane. argon2 starts a thread for each lane, while the thread
# pool that calls this module already has as many threads as should hash passwords at once.
ARGON2 = {"time_cost": 3, "memory_cost": 64 << 10, "parallelism": 1}

ITERATIONS = 15_000
"""PBKDF2 iterations of a new `ScramSecret`. RFC 7677 section 4 requires 4096, and recommends as many as practical."""
STORED_ITERATIONS = 1 << 16
"""PBKDF2 iterations in password files. A phone takes a tenth of a second for them at each login. Cyrus SASL, which
mbsync and mutt use, refuses more."""
MAX_ITERATIONS = 10_000_000

_SCRAM = re.compile(
    r"\$scram-sha-256\$i=(\d{1,8})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)", re.ASCII
)
_SCRYPT = re.compile(
    r"\$scrypt\$ln=(\d{1,2}),r=(\d{1,4}),p=(\d{1,3})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)", re.ASCII
)


class UnusableHash(ValueError):
    """A stored value is not a hash that can be verified. The text says why and what to do."""


def hash_password(password: bytes) -> str:
    """Return the hash of a password with a new salt: argon2id if argon2-cffi is installed, else scrypt."""
    if _argon2 is not None:
        hashed: str = _argon2.PasswordHasher(**ARGON2).hash(password)
        return hashed
    return hash_scrypt(password)


def hash_scrypt(password: bytes, *, ln: int = LN, r: int = R, p: int = P) -> str:
    """Return the scrypt hash of a password with a new salt: cost 2**ln, block size r, parallelism p."""
    salt = secrets.token_bytes(16)
    digest = _scrypt(password, salt, ln, r, p, 32)
    return f"$scrypt$ln={ln},r={r},p={p}${_base64(salt)}${_base64(digest)}"


class NotAscii(ValueError):
    """The password has characters that are not permitted with SCRAM: "implementations MUST either implement SASLprep
    or disallow use of non US-ASCII" (RFC 5802 section 2.2)."""


class ScramSecret(NamedTuple):
    """What a server stores of a password for SCRAM-SHA-256. Nobody can log in with it."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes

    @classmethod
    def make(
        cls, password: bytes, salt: bytes | None = None, iterations: int = ITERATIONS
    ) -> ScramSecret:
        """Derive the secret of a password (UTF-8), by default with a new salt. Slow: never call this on the reactor."""
        salt = secrets.token_bytes(16) if salt is None else salt
        salted = pbkdf2_hmac("sha256", password, salt, iterations)
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        server_key = hmac.digest(salted, b"Server Key", "sha256")
        return cls(salt, iterations, sha256(client_key).digest(), server_key)


def hash_scram(password: bytes, *, iterations: int = STORED_ITERATIONS) -> str:
    """Return the SCRAM-SHA-256 hash of a password with a new salt.

    Raises:
        NotAscii: the password is not printable ASCII.
    """
    if not password.isascii() or not password.decode("ascii").isprintable():
        raise NotAscii
    secret = ScramSecret.make(password, iterations=iterations)
    salt, stored, server = map(_base64, (secret.salt, secret.stored_key, secret.server_key))
    return f"$scram-sha-256$i={iterations}${salt}${stored}${server}"


def parse_scram(stored: str) -> ScramSecret | None:
    """Return the SCRAM secret of a stored hash, or None if the hash has another format.

    Raises:
        UnusableHash: the secret is damaged, or has too many iterations.
    """
    if not stored.startswith("$scram-"):
        return None
    match = _SCRAM.fullmatch(stored)
    try:
        if match is None:
            raise ValueError
        salt, stored_key, server_key = map(_from_base64, match.group(2, 3, 4))
        secret = ScramSecret(salt, int(match[1]), stored_key, server_key)
        if not len(secret.stored_key) == len(secret.server_key) == 32:
            raise ValueError
    except ValueError:
        raise UnusableHash("the SCRAM secret is damaged; set the password again") from None
    if not 1 <= secret.iterations <= MAX_ITERATIONS:
        raise UnusableHash(f"i must be 1 to {MAX_ITERATIONS}; set the password again")
    return secret


def verify(stored: str, password: bytes) -> bool:
    """Return whether `password` has the hash `stored`. The comparison takes the same time for all wrong passwords.

    Raises:
        UnusableHash: no password can be verified against `stored`.
    """
    validate(stored)
    if stored.startswith("$argon2"):
        assert _argon2 is not None
        try:
            return bool(_argon2.PasswordHasher().verify(stored, password))
        except _argon2.exceptions.VerifyMismatchError:
            return False
        except (_argon2.exceptions.VerificationError, _argon2.exceptions.InvalidHashError):
            raise UnusableHash("the argon2 hash is damaged; set the password again") from None
    secret = parse_scram(stored)
    if secret is not None:
        derived = ScramSecret.make(password, secret.salt, secret.iterations)
        return hmac.compare_digest(derived.stored_key, secret.stored_key)
    ln, r, p, salt, digest = _parse_scrypt(stored)
    return hmac.compare_digest(_scrypt(password, salt, ln, r, p, len(digest)), digest)


def validate(stored: str) -> None:
    """Check the format and the cost of a stored hash, without hashing anything.

    Raises:
        UnusableHash: with a text for the log. It never contains `stored`, which may be a password.
    """
    if parse_scram(stored) is not None:
        return
    if stored.startswith("$argon2"):
        if _argon2 is None:
            raise UnusableHash("argon2-cffi is not installed: pip install 'imapshield[argon2]'")
        try:
            memory = _argon2.extract_parameters(stored).memory_cost << 10
        except _argon2.exceptions.InvalidHashError:
            raise UnusableHash("the argon2 hash is damaged; set the password again") from None
    elif stored.startswith("$scrypt$"):
        ln, r, p, _, _ = _parse_scrypt(stored)
        memory = _memory(ln, r, p)
    else:
        raise UnusableHash(
            "not a hash; plain text passwords are not accepted: set the password with `imapshield passwd`"
        )
    if memory > MAX_MEMORY:
        raise UnusableHash(f"verifying it takes {memory >> 20} MiB; set the password again")


def _parse_scrypt(stored: str) -> tuple[int, int, int, bytes, bytes]:
    match = _SCRYPT.fullmatch(stored)
    try:
        if match is None:
            raise ValueError
        ln, r, p = map(int, match.group(1, 2, 3))
        salt, digest = map(_from_base64, match.group(4, 5))
        if not (1 <= ln and 1 <= r and 1 <= p and len(digest) >= 16):
            raise ValueError
    except ValueError:
        raise UnusableHash("the scrypt hash is damaged; set the password again") from None
    return ln, r, p, salt, digest


def _memory(ln: int, r: int, p: int) -> int:
    return 128 * r * ((1 << ln) + p + 2)


def _scrypt(password: bytes, salt: bytes, ln: int, r: int, p: int, size: int) -> bytes:
    # OpenSSL refuses to use more memory than maxmem. Its default of 32 MiB is slightly less than ln=15, r=8 needs.
    memory = _memory(ln, r, p) + (1 << 20)
    return scrypt(password, salt=salt, n=1 << ln, r=r, p=p, maxmem=memory, dklen=size)


def _base64(data: bytes) -> str:
    return b64encode(data).decode("ascii").rstrip("=")


def _from_base64(text: str) -> bytes:
    return b64decode(text + "=" * (-len(text) % 4), validate=True)
