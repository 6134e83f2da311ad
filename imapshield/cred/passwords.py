"""Hashes passwords, and verifies passwords against stored hashes. Blocking, slow on purpose, and without Twisted.

Formats
-------
Each hash contains its parameters, so old hashes stay valid when the defaults change:

* ``$argon2id$v=19$m=65536,t=3,p=1$SALT$DIGEST`` needs argon2-cffi, an optional dependency of this package.
* ``$scrypt$ln=15,r=8,p=1$SALT$DIGEST`` needs only the standard library.
* ``$scram-sha-256$i=65536$SALT$STOREDKEY$SERVERKEY`` (the values of RFC 5803) lets a client prove that it knows the
  password without sending it. A thief of the file can try far more passwords per second than with the other formats.

`foreign_hashes` has those of other servers.
"""

import hmac
import re
import secrets
from base64 import b64decode, b64encode
from hashlib import pbkdf2_hmac, scrypt, sha256
from importlib import import_module, invalidate_caches
from time import monotonic
from types import ModuleType
from typing import NamedTuple, Self

from imapshield.cred import foreign_hashes
from imapshield.extras import install_command


def _import_argon2() -> ModuleType | None:
    invalidate_caches()  # it may just have been installed
    try:
        return import_module("argon2")
    except ImportError:
        return None


_argon2 = _import_argon2()

RETRY_SECONDS = 1.0
"""Seconds between two attempts to import a missing package. A file may have very many hashes that need it."""

_next_attempt = 0.0

# 32 MiB and about 0.1 s for each hash. RFC 7914 section 2 suggests r=8 and p=1, and leaves the cost to the operator.
SCRYPT_LN, SCRYPT_R, SCRYPT_P = 15, 8, 1
MAX_MEMORY = 1 << 30
"""Bytes that verifying one password may take. A mistyped ``ln=30`` in a file must not exhaust the server's memory."""
MAX_SCRYPT_WORK = 2_621_440
"""Maximum of ``p * 2**ln * r`` of a scrypt hash: ten times that of our own, a second. A hash that takes hours, which a
mistyped number makes, would occupy the threads that verify passwords, and nobody could log in."""

# The second choice of RFC 9106 section 4, but with one lane, because argon2 starts a thread for each lane. The thread
# pool that calls this module already limits how many passwords are hashed at once.
ARGON2 = {"time_cost": 3, "memory_cost": 64 << 10, "parallelism": 1}
MAX_ARGON2_WORK = 1_966_080
"""Maximum of ``t * m`` of an argon2 hash: ten times that of our own, a second, as `MAX_SCRYPT_WORK`."""
MAX_ARGON2_LANES = 64
"""Maximum of ``p`` of an argon2 hash, because each lane is a thread. Packages suggest one for each core, or 8."""

DEFAULT_ITERATIONS = 15_000
"""PBKDF2 iterations of a new `ScramSecret`: the rule of thumb of RFC 7677 section 4, which wants at least 4096."""
FILE_ITERATIONS = 1 << 16
"""PBKDF2 iterations in password files. A phone takes a tenth of a second for them at each login. Cyrus SASL, which
mbsync and mutt use, refuses a larger number."""
MAX_ITERATIONS = 1_000_000
"""PBKDF2 iterations that are permitted: half a second, as `MAX_SCRYPT_WORK`."""

_SCRAM = re.compile(
    r"\$scram-sha-256\$i=(\d{1,8})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)", re.ASCII
)
_SCRYPT = re.compile(
    r"\$scrypt\$ln=(\d{1,2}),r=(\d{1,4}),p=(\d{1,3})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)", re.ASCII
)
_DAMAGED = "the hash is damaged; set the password again"


class UnusableHash(ValueError):
    """No password can be verified against a stored value. The text says why, and what to do."""


class MissingPackage(UnusableHash):
    """The hash is right, but this installation lacks the package that verifies it."""


def hash_password(password: bytes) -> str:
    """Return the hash of a password with a new salt: argon2id if argon2-cffi is installed, else scrypt."""
    if _argon2 is not None:
        hashed: str = _argon2.PasswordHasher(**ARGON2).hash(password)
        return hashed
    return hash_scrypt(password)


def hash_scrypt(
    password: bytes, *, ln: int = SCRYPT_LN, r: int = SCRYPT_R, p: int = SCRYPT_P
) -> str:
    """Return the scrypt hash of a password with a new salt: cost 2**ln, block size r, parallelism p."""
    salt = secrets.token_bytes(16)
    digest = _scrypt(password, salt, ln, r, p, 32)
    return f"$scrypt$ln={ln},r={r},p={p}${_base64(salt)}${_base64(digest)}"


class NotAscii(ValueError):
    """A password for SCRAM is not printable ASCII.

    RFC 5802 section 2.2: "implementations MUST either implement SASLprep or disallow use of non US-ASCII".
    """


class ScramSecret(NamedTuple):
    """The values that a server stores for SCRAM-SHA-256 (RFC 5802). A thief cannot log in with them."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes

    @classmethod
    def make(cls, password: bytes, salt: bytes = b"", iterations: int = DEFAULT_ITERATIONS) -> Self:
        """Derive the secret of a password (UTF-8), by default with a new salt. Slow: never call this on the reactor."""
        salt = salt or secrets.token_bytes(16)
        salted = pbkdf2_hmac("sha256", password, salt, iterations)
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        server_key = hmac.digest(salted, b"Server Key", "sha256")
        return cls(salt, iterations, sha256(client_key).digest(), server_key)


def hash_scram(password: bytes, *, iterations: int = FILE_ITERATIONS) -> str:
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
    (iterations,), (salt, stored_key, server_key) = _parse(_SCRAM, stored, 1)
    if not len(stored_key) == len(server_key) == 32:
        raise UnusableHash(_DAMAGED)
    if not 1 <= iterations <= MAX_ITERATIONS:
        raise UnusableHash(f"the hash has {iterations} iterations; set the password again")
    return ScramSecret(salt, iterations, stored_key, server_key)


def verify(stored: str, password: bytes) -> bool:
    """Return whether `password` has the hash `stored`. The comparison takes the same time for all wrong passwords.

    Raises:
        UnusableHash: no password can be verified against `stored`.
    """
    validate(stored)
    if foreign_hashes.is_foreign(stored):
        return foreign_hashes.verify(stored, password)
    if stored.startswith("$argon2"):
        assert _argon2 is not None
        try:
            return bool(_argon2.PasswordHasher().verify(stored, password))
        except _argon2.exceptions.VerifyMismatchError:
            return False
        except (_argon2.exceptions.VerificationError, _argon2.exceptions.InvalidHashError):
            raise UnusableHash(_DAMAGED) from None
    secret = parse_scram(stored)
    if secret is not None:
        derived = ScramSecret.make(password, secret.salt, secret.iterations)
        return hmac.compare_digest(derived.stored_key, secret.stored_key)
    ln, r, p, salt, digest = _parse_scrypt(stored)
    return hmac.compare_digest(_scrypt(password, salt, ln, r, p, len(digest)), digest)


def validate(stored: str) -> None:
    """Check the format and the cost of a stored hash, without verifying a password.

    Raises:
        UnusableHash: no password can be verified. The text never contains `stored`, which may be a password.
    """
    if foreign_hashes.is_foreign(stored):
        try:
            foreign_hashes.validate(stored)
        except ValueError as error:
            raise UnusableHash(str(error)) from None
        return
    if parse_scram(stored) is not None:
        return
    memory, work, most = _needs(stored)
    if memory > MAX_MEMORY:
        raise UnusableHash(f"the hash needs {memory >> 20} MiB; set the password again")
    if work > most:
        times = -(-10 * work // most)
        raise UnusableHash(
            f"the hash takes {times} times as long as a usual one, and 10 are permitted; set the password again"
        )


def _look_for_argon2() -> None:
    """Import argon2-cffi if it was installed after the start of the server, such as by the one who adds users."""
    global _argon2, _next_attempt  # noqa: PLW0603  as the import of a module is
    if _argon2 is None and monotonic() >= _next_attempt:
        _next_attempt = monotonic() + RETRY_SECONDS
        _argon2 = _import_argon2()


def _needs(stored: str) -> tuple[int, int, int]:
    """Return the bytes of memory that an argon2 or scrypt hash takes, its work, and the maximum of work."""
    if stored.startswith("$argon2"):
        _look_for_argon2()
        if _argon2 is None:
            advice = f"type `{install_command('argon2')}`, and restart the server"
            raise MissingPackage(f"argon2-cffi is not installed; {advice}")
        try:
            found = _argon2.extract_parameters(stored)
        except _argon2.exceptions.InvalidHashError:
            raise UnusableHash(_DAMAGED) from None
        if found.parallelism > MAX_ARGON2_LANES:
            raise UnusableHash(
                f"the hash needs {found.parallelism} threads; set the password again"
            )
        return found.memory_cost << 10, found.time_cost * found.memory_cost, MAX_ARGON2_WORK
    if stored.startswith("$scrypt$"):
        ln, r, p, _, _ = _parse_scrypt(stored)
        return _memory(ln, r, p), p * r << ln, MAX_SCRYPT_WORK
    raise UnusableHash(
        "not a hash; plain text passwords are not accepted: set the password with "
        "`imapshield passwd`"
    )


def cost(stored: str) -> str:
    """Return the part of a valid stored hash that decides how long `verify` takes: its kind and its parameters."""
    if foreign_hashes.is_foreign(stored):
        return foreign_hashes.cost(stored)
    return stored.rsplit("$", 3 if stored.startswith("$scram-") else 2)[0]


def _parse_scrypt(stored: str) -> tuple[int, int, int, bytes, bytes]:
    (ln, r, p), (salt, digest) = _parse(_SCRYPT, stored, 3)
    if not (1 <= ln and 1 <= r and 1 <= p and len(digest) >= 16):
        raise UnusableHash(_DAMAGED)
    return ln, r, p, salt, digest


def _parse(pattern: re.Pattern[str], stored: str, numbers: int) -> tuple[list[int], list[bytes]]:
    """Return the first groups of `pattern`, which are `numbers` integers, and the decoded bytes of the others."""
    match = pattern.fullmatch(stored)
    if match is None:
        raise UnusableHash(_DAMAGED)
    groups = match.groups()
    try:
        return [*map(int, groups[:numbers])], [*map(_from_base64, groups[numbers:])]
    except ValueError:
        raise UnusableHash(_DAMAGED) from None


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
