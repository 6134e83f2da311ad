"""Reads the users of other programs for a password file: Dovecot's passwd-file, and files like ``/etc/shadow``."""

import re
import time
from collections.abc import Iterator
from typing import NamedTuple

from imapshield.cred import foreign_hashes, passwords, users

_AGES = re.compile(rb"\d*(?::\d*){6,7}")  # the fields of /etc/shadow after the hash


class ImportedLine(NamedTuple):
    """What becomes of one line.

    Attributes:
        number: that of the line, beginning with 1.
        user: the name, or "" if the line has no valid one.
        rest: what follows the name and the colon in a password file; None if the user is not imported.
        reason: why not, which begins with ``skipped`` or ``refused``; otherwise what is to be said, or "".
    """

    number: int
    user: str
    rest: bytes | None
    reason: str


def read_import(text: bytes, today: int | None = None) -> Iterator[ImportedLine]:
    """Yield what becomes of each line that is neither empty nor a comment.

    Plain passwords (``{PLAIN}``) are hashed. Dovecot's extra fields are kept. The dates of ``/etc/shadow`` are not, but
    an account that has expired is disabled.

    Args:
        text: the file.
        today: days since the epoch; by default the present day.
    """
    days = int(time.time()) // 86400 if today is None else today
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith(b"#"):
            continue
        raw, colon, rest = line.partition(b":")
        try:
            user = users.name_in_file(raw.decode("utf-8", "surrogateescape")).decode()
        except users.BadUserName as error:
            yield ImportedLine(number, "", None, f"refused: {error}")
            continue
        if not colon:
            yield ImportedLine(number, user, None, "refused: there is no colon after the name")
            continue
        yield _imported(number, user, rest, days)


def _imported(number: int, user: str, rest: bytes, today: int) -> ImportedLine:
    stored, _, others = rest.partition(b":")
    text = stored.decode("utf-8", "surrogateescape").strip()
    locked, hashed = text.startswith("!"), text.lstrip("!")
    if not hashed or hashed == "x" or hashed.startswith("*"):
        return ImportedLine(number, user, None, "skipped: there is no password")
    has_expired = False
    if _AGES.fullmatch(others):
        expires = others.split(b":")[5]
        has_expired = bool(expires) and int(expires) <= today
        others = b""
    plain = foreign_hashes.plain_password(hashed)
    if plain is not None:
        hashed = passwords.hash_password(plain)
    kept = hashed.encode("utf-8", "surrogateescape") + (b":" + others if others else b"")
    try:
        entry, problem = users.parse_entry(kept)
    except ValueError as error:
        return ImportedLine(number, user, None, f"refused: {error}")
    is_disabled = locked or has_expired or entry.is_disabled
    reason = ", disabled" if is_disabled else ""
    reason += f"; {problem}" if problem else ""
    return ImportedLine(number, user, b"!" * (locked or has_expired) + kept, reason)
