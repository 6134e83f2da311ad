"""Passwords become hashes and are compared with them: blocking, slow on purpose, and free of Twisted.

Formats, each with its parameters inside, so that old hashes stay good when the defaults move:

* ``$argon2id$v=19$m=65536,t=3,p=1$SALT$DIGEST`` with argon2-cffi, an extra of this package;
* ``$scrypt$ln=15,r=8,p=1$SALT$DIGEST`` with the standard library alone;
* ``$scram-sha-256$i=65536$SALT$STOREDKEY$SERVERKEY`` (RFC 5803's values), with which a client may prove that it knows
  the password instead of sending it. Whoever steals the file tries far more passwords a second.
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

# 32 MiB and about 0.1 s each: RFC 7914's interactive parameters, doubled.
LN, R, P = 15, 8, 1
MOST_MEMORY = 1 << 30
"""Octets one check may take: a mistyped ``ln=30`` in a file must not be the end of the server."""

# RFC 9106 section 4, second choice, but one lane: argon2 makes a thread of each lane, and the pool that runs us has
# as many as shall be busy with passwords at once.
ARGON2 = {"time_cost": 3, "memory_cost": 64 << 10, "parallelism": 1}

ITERATIONS = 15_000
"""Of PBKDF2 for a new `ScramSecret`. RFC 7677 section 4 asks for 4096 at least, and for as many as can be borne."""
STORED_ITERATIONS = 1 << 16
"""For password files: a telephone takes a tenth of a second for it, at each login. Cyrus SASL, which mbsync and mutt
have, refuses more."""
MOST_ITERATIONS = 10_000_000

_SCRAM = re.compile(
    r"\$scram-sha-256\$i=(\d{1,8})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)", re.ASCII
)
_SCRYPT = re.compile(
    r"\$scrypt\$ln=(\d{1,2}),r=(\d{1,4}),p=(\d{1,3})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)", re.ASCII
)


class UnusableHash(ValueError):
    """What is stored is no hash that we can check; the text says why and what to do."""


def hash_password(password: bytes) -> str:
    """Hash for storage, with a new salt: argon2id where argon2-cffi is installed, else scrypt."""
    if _argon2 is not None:
        hashed: str = _argon2.PasswordHasher(**ARGON2).hash(password)
        return hashed
    return hash_scrypt(password)


def hash_scrypt(password: bytes, *, ln: int = LN, r: int = R, p: int = P) -> str:
    """Hash with scrypt of the standard library: cost 2**ln, block size r, parallelism p."""
    salt = secrets.token_bytes(16)
    return (
        f"$scrypt$ln={ln},r={r},p={p}${_text(salt)}${_text(_digest(password, salt, ln, r, p, 32))}"
    )


class NotAscii(ValueError):
    """A password that SCRAM cannot have here: "implementations MUST either implement SASLprep or disallow use of non
    US-ASCII" (RFC 5802 section 2.2)."""


class ScramSecret(NamedTuple):
    """What is kept of a password for SCRAM-SHA-256; who has it cannot log in with it."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes

    @classmethod
    def make(
        cls, password: bytes, salt: bytes | None = None, iterations: int = ITERATIONS
    ) -> ScramSecret:
        """Make the secret of a password (UTF-8), by default with a new salt. Slow on purpose: not for the reactor."""
        salt = secrets.token_bytes(16) if salt is None else salt
        salted = pbkdf2_hmac("sha256", password, salt, iterations)
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        server_key = hmac.digest(salted, b"Server Key", "sha256")
        return cls(salt, iterations, sha256(client_key).digest(), server_key)


def hash_scram(password: bytes, *, iterations: int = STORED_ITERATIONS) -> str:
    """Hash for SCRAM-SHA-256, with a new salt. NotAscii."""
    if not password.isascii() or not password.decode("ascii").isprintable():
        raise NotAscii
    secret = ScramSecret.make(password, iterations=iterations)
    salt, stored, server = map(_text, (secret.salt, secret.stored_key, secret.server_key))
    return f"$scram-sha-256$i={iterations}${salt}${stored}${server}"


def scram(stored: str) -> ScramSecret | None:
    """Return what SCRAM needs, None if `stored` is of another format.

    Raises:
        UnusableHash: it is damaged, or one check would take too long.
    """
    if not stored.startswith("$scram-"):
        return None
    found = _SCRAM.fullmatch(stored)
    try:
        if found is None:
            raise ValueError
        secret = ScramSecret(_octets(found[2]), int(found[1]), _octets(found[3]), _octets(found[4]))
        if not len(secret.stored_key) == len(secret.server_key) == 32:
            raise ValueError
    except ValueError:
        raise UnusableHash("the SCRAM secret is damaged; set the password again") from None
    if not 1 <= secret.iterations <= MOST_ITERATIONS:
        raise UnusableHash(f"i may be 1 to {MOST_ITERATIONS}; set the password again")
    return secret


def verify(stored: str, password: bytes) -> bool:
    """Whether `password` is the one of `stored`, in a time that does not depend on how near it is.

    Raises:
        UnusableHash: no password can be checked against `stored`.
    """
    check(stored)
    if stored.startswith("$argon2"):
        assert _argon2 is not None
        try:
            return bool(_argon2.PasswordHasher().verify(stored, password))
        except _argon2.exceptions.VerifyMismatchError:
            return False
        except (_argon2.exceptions.VerificationError, _argon2.exceptions.InvalidHashError):
            raise UnusableHash("the argon2 hash is damaged; set the password again") from None
    secret = scram(stored)
    if secret is not None:
        made = ScramSecret.make(password, secret.salt, secret.iterations)
        return hmac.compare_digest(made.stored_key, secret.stored_key)
    ln, r, p, salt, digest = _parts(stored)
    return hmac.compare_digest(_digest(password, salt, ln, r, p, len(digest)), digest)


def check(stored: str) -> None:
    """Look at a stored hash without hashing anything.

    Raises:
        UnusableHash: with a text for the log, which never holds what was stored: it may be a password.
    """
    if scram(stored) is not None:
        return
    if stored.startswith("$argon2"):
        if _argon2 is None:
            raise UnusableHash("argon2 needs an extra: pip install 'imapshield[argon2]'")
        try:
            memory = _argon2.extract_parameters(stored).memory_cost << 10
        except _argon2.exceptions.InvalidHashError:
            raise UnusableHash("the argon2 hash is damaged; set the password again") from None
    elif stored.startswith("$scrypt$"):
        ln, r, p, _, _ = _parts(stored)
        memory = _memory(ln, r, p)
    else:
        raise UnusableHash(
            "not a hash; passwords in plain text are not read: set it with `imapshield passwd`"
        )
    if memory > MOST_MEMORY:
        raise UnusableHash(f"one check would take {memory >> 20} MiB; set the password again")


def _parts(stored: str) -> tuple[int, int, int, bytes, bytes]:
    found = _SCRYPT.fullmatch(stored)
    try:
        if found is None:
            raise ValueError
        ln, r, p = (int(number) for number in found.group(1, 2, 3))
        salt, digest = (_octets(text) for text in found.group(4, 5))
        if not (1 <= ln and 1 <= r and 1 <= p and len(digest) >= 16):
            raise ValueError
    except ValueError:
        raise UnusableHash("the scrypt hash is damaged; set the password again") from None
    return ln, r, p, salt, digest


def _memory(ln: int, r: int, p: int) -> int:
    return 128 * r * ((1 << ln) + p + 2)


def _digest(password: bytes, salt: bytes, ln: int, r: int, p: int, size: int) -> bytes:
    # OpenSSL refuses what takes more than maxmem, by default 32 MiB: a hair less than ln=15, r=8 takes.
    memory = _memory(ln, r, p) + (1 << 20)
    return scrypt(password, salt=salt, n=1 << ln, r=r, p=p, maxmem=memory, dklen=size)


def _text(octets: bytes) -> str:
    return b64encode(octets).decode("ascii").rstrip("=")


def _octets(text: str) -> bytes:
    return b64decode(text + "=" * (-len(text) % 4), validate=True)
