"""Verifies the password hashes of other servers: those of Dovecot's passwd-file and of ``/etc/shadow``. Blocking.

Formats
-------
* ``{SHA512-CRYPT}$6$…``, ``{SHA256-CRYPT}$5$…``, ``{BLF-CRYPT}$2y$…``, ``{MD5-CRYPT}$1$…``, ``{CRYPT}…``, and the same
  without the scheme; also ``$y$…`` (yescrypt, the default of Debian and Fedora).
* ``{SHA}``, ``{SHA256}``, ``{SHA512}``, ``{PLAIN-MD5}`` and ``{LDAP-MD5}``, and with a salt ``{SSHA}``, ``{SSHA256}``,
  ``{SSHA512}`` and ``{SMD5}``; with ``.HEX`` or ``.B64`` as Dovecot has it.
* ``{PBKDF2}$1$SALT$ROUNDS$HEX`` and ``{SCRAM-SHA-1}ROUNDS,SALT,STOREDKEY,SERVERKEY``.
* ``{PLAIN}`` and ``{CLEARTEXT}``: the password itself, which the next login replaces (`PasswordFile.rehashes`).

`native` undoes ``.HEX`` and ``.B64`` where what they encode is text.

The hashes of crypt are verified by the system's libcrypt. Python 3.13 has no module ``crypt``, passlib is not
maintained, and the packages that call libcrypt (legacycrypt, crypt-r) hold the interpreter's lock while it works or
are not safe in threads: a hash with many rounds would stop the server. Called through ctypes, ``crypt_r`` does neither.
"""

import ctypes
import hmac
import re
from base64 import b64decode
from hashlib import new, pbkdf2_hmac
from typing import Any

MAX_ROUNDS = 1_000_000
"""Rounds of SHA crypt and PBKDF2 that are permitted: half a second. A mistyped number must not stop all logins."""

_CRYPT_SCHEMES = ("CRYPT", "SHA512-CRYPT", "SHA256-CRYPT", "BLF-CRYPT", "MD5-CRYPT", "MD5")
_PLAIN_SCHEMES = ("PLAIN", "CLEARTEXT", "CLEAR")
_OURS = ("ARGON2ID", "ARGON2I", "SCRAM-SHA-256")
_TEXT_SCHEMES = (*_CRYPT_SCHEMES, *_PLAIN_SCHEMES, *_OURS, "PBKDF2", "SCRAM-SHA-1")
_DIGESTS = {"MD5": "md5", "SHA": "sha1", "SHA1": "sha1", "SHA256": "sha256", "SHA512": "sha512"}
_SCHEME = re.compile(r"\{([A-Za-z0-9-]+)(\.(?:HEX|B64|BASE64|hex|b64|base64))?\}(.*)", re.ASCII)
_CRYPT = re.compile(
    r"(?P<cost>\$(?:1|5|6|y\$j[./0-9A-D][./0-9A-T]|2[aby]\$(?:0[4-9]|1[0-4])))"
    r"\$(?:rounds=(?P<rounds>\d{1,9})\$)?[./A-Za-z0-9]{1,64}(?:\$[./A-Za-z0-9]{1,128})?",
    re.ASCII,
)
_PBKDF2 = re.compile(r"\$1\$([^$]{1,64})\$(\d{1,9})\$([0-9a-fA-F]{40})", re.ASCII)
_SCRAM = re.compile(r"(\d{1,8}),([A-Za-z0-9+/=]+),([A-Za-z0-9+/=]+),([A-Za-z0-9+/=]+)", re.ASCII)
_CRYPT_DATA = 1 << 18
"""Bytes of a struct crypt_data: 32 KiB in libxcrypt, 128 KiB in the older glibc."""


def _load_crypt() -> Any:
    """Return ``crypt_r`` of libcrypt, or of the libc of musl; None if there is none that knows these formats."""
    for name in ("libcrypt.so.2", "libcrypt.so.1", None):
        try:
            function = ctypes.CDLL(name).crypt_r
        except (OSError, AttributeError):
            continue
        function.restype = ctypes.c_char_p
        function.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p]
        return function
    return None


_crypt_r = _load_crypt()


def native(stored: str) -> str:
    """Return a stored hash in the format of `passwords` or of `verify`, if it is only written in another way.

    These are ``{ARGON2ID}$argon2id$…`` and ``{SCRAM-SHA-256}ITERATIONS,SALT,STOREDKEY,SERVERKEY``, and text in base64
    or hexadecimal digits, such as ``{SHA512-CRYPT.B64}``.
    """
    scheme, encoding, value = _split(stored)
    if encoding and scheme in _TEXT_SCHEMES:
        try:
            value = _decoded(encoding, value).decode("utf-8", "surrogateescape")
        except ValueError:
            return stored
        stored = f"{{{scheme}}}{value}"
    if scheme in _OURS[:2] and value.startswith("$argon2"):
        return value
    match = _SCRAM.fullmatch(value) if scheme == "SCRAM-SHA-256" else None
    if match is not None:
        iterations, *rest = match.groups()
        return "$".join(("$scram-sha-256", f"i={iterations}", *(each.rstrip("=") for each in rest)))
    return stored


def is_foreign(stored: str) -> bool:
    """Return whether a stored hash is one for `verify`, as far as its beginning says."""
    return bool(re.match(r"\{|\$(?:1|2[aby]|5|6|y)\$", stored))


def plain_password(stored: str) -> bytes | None:
    """Return the password of an entry that has it in plain text, such as ``{PLAIN}secret``; otherwise None."""
    scheme, encoding, value = _split(native(stored))
    return _octets(value) if scheme in _PLAIN_SCHEMES and not encoding else None


def verify(stored: str, password: bytes) -> bool:
    """Return whether `password` has the valid hash `stored`."""
    if b"\0" in password:  # libcrypt would see its beginning only, and PBKDF2 ignores it at the end
        return False
    scheme, _, value = _split(stored)
    if scheme == "PBKDF2":
        salt, rounds, digest = _parse_pbkdf2(value)
        derived = pbkdf2_hmac("sha1", password, salt, rounds, 20)
        return hmac.compare_digest(derived, digest)
    if scheme == "SCRAM-SHA-1":
        rounds, salt, key = _parse_scram_sha1(value)
        derived = hmac.digest(pbkdf2_hmac("sha1", password, salt, rounds), b"Client Key", "sha1")
        return hmac.compare_digest(_hash("sha1", derived), key)
    if scheme in _PLAIN_SCHEMES:
        # Of two digests, so that the time does not reveal the length.
        return hmac.compare_digest(_hash("sha256", password), _hash("sha256", _octets(value)))
    if scheme not in ("", *_CRYPT_SCHEMES):
        name, digest, salt = _parse_digest(stored)
        return hmac.compare_digest(_hash(name, password + salt), digest)
    data = ctypes.create_string_buffer(_CRYPT_DATA)
    found = _crypt_r(password, value.encode(), data)
    return found is not None and hmac.compare_digest(found, value.encode())


def validate(stored: str) -> None:
    """Check the format and the cost of a hash.

    Raises:
        ValueError: no password can be verified. The text never contains `stored`.
    """
    cost(stored)
    scheme, _, value = _split(stored)
    if scheme in ("", *_CRYPT_SCHEMES):
        if _crypt_r is None:
            raise ValueError(
                "this system has no libcrypt; set the password with `imapshield passwd`"
            )
        _check_length(value)


def cost(stored: str) -> str:
    """Return the part of a hash that decides how long `verify` takes; raises ValueError as `validate` does."""
    scheme, encoding, value = _split(stored)
    if scheme in _TEXT_SCHEMES and (encoding or not value):
        raise ValueError("the hash is damaged; set the password again")
    if scheme in _PLAIN_SCHEMES:
        return "{PLAIN}"
    if scheme == "SCRAM-SHA-1":
        return f"{{SCRAM-SHA-1}}{_parse_scram_sha1(value)[0]}"
    if scheme == "PBKDF2":
        return f"{{PBKDF2}}{_parse_pbkdf2(value)[1]}"
    if scheme not in ("", *_CRYPT_SCHEMES):
        return f"{{{_parse_digest(stored)[0]}}}"
    match = _CRYPT.fullmatch(value)
    if match is None:
        raise ValueError(
            "the hash is damaged, or of a kind that is not supported; set the password again"
        )
    _check_rounds(int(match["rounds"] or 0))
    return f"{match['cost']}{match['rounds'] or ''}"


def _split(stored: str) -> tuple[str, str, str]:
    """Return the scheme in capitals, its encoding, and the rest; the first two are empty if there is no scheme."""
    match = _SCHEME.fullmatch(stored)
    if match is None:
        return "", "", stored
    return match[1].upper(), (match[2] or "").upper(), match[3]


def _check_rounds(rounds: int) -> None:
    if rounds > MAX_ROUNDS:
        raise ValueError(f"the hash has {rounds} rounds; set the password again")


def _check_length(value: str) -> None:
    """Raise ValueError if crypt never returns such a text: a part of it is missing."""
    sizes = {"$1": 22, "$5": 43, "$6": 86, "$y": 43}
    kind, last = value[:2], value.rpartition("$")[2]
    if len(last) != sizes.get(kind, 53) or (kind in sizes and value.count("$") < 3):
        raise ValueError("the hash is damaged; set the password again")


def _parse_pbkdf2(value: str) -> tuple[bytes, int, bytes]:
    match = _PBKDF2.fullmatch(value)
    if match is None:
        raise ValueError("the hash is damaged; set the password again")
    rounds = int(match[2])
    _check_rounds(rounds)
    if not rounds:
        raise ValueError("the hash has no rounds; set the password again")
    return match[1].encode(), rounds, bytes.fromhex(match[3])


def _parse_scram_sha1(value: str) -> tuple[int, bytes, bytes]:
    """Return the rounds, the salt and the stored key of RFC 5802."""
    match = _SCRAM.fullmatch(value)
    try:
        rounds, salt, key = int(match[1]), b64decode(match[2]), b64decode(match[3])  # type: ignore[index]
    except (TypeError, ValueError):
        raise ValueError("the hash is damaged; set the password again") from None
    _check_rounds(rounds)
    if not rounds or len(key) != 20:
        raise ValueError("the hash is damaged; set the password again")
    return rounds, salt, key


def _parse_digest(stored: str) -> tuple[str, bytes, bytes]:
    """Return the name of the hash function, the digest and the salt of a scheme such as SSHA512."""
    scheme, encoding, value = _split(stored)
    encoding = encoding or (".HEX" if scheme == "PLAIN-MD5" else ".B64")
    name = scheme.removeprefix("PLAIN-").removeprefix("LDAP-")
    salted = name.startswith("S") and name[1:] in _DIGESTS
    name = name[1:] if salted else name
    if name not in _DIGESTS or scheme in ("PLAIN-SHA", "LDAP-SHA"):
        raise ValueError("the scheme of the hash is not supported; set the password again")
    try:
        data = _decoded(encoding, value)
    except ValueError:
        raise ValueError("the hash is damaged; set the password again") from None
    size = new(_DIGESTS[name], usedforsecurity=False).digest_size
    if len(data) < size + salted or (not salted and len(data) > size):
        raise ValueError("the hash is damaged; set the password again")
    return _DIGESTS[name], data[:size], data[size:]


def _decoded(encoding: str, value: str) -> bytes:
    """Return what a scheme with ``.HEX`` or with ``.B64`` encodes; raises ValueError if it is damaged."""
    return bytes.fromhex(value) if encoding == ".HEX" else b64decode(value, validate=True)


def _octets(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")


def _hash(name: str, data: bytes) -> bytes:
    return new(name, data, usedforsecurity=False).digest()
