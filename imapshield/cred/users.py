"""Validates user names, and reads and writes the password file: lines ``user:hash`` that a person may edit.

Blocking, and without Twisted: the console script writes the file, and the checker reads it. Comments (``#``), the
order of the lines, and fields after the hash, which belong to other programs, are kept.

The lines may be those of Dovecot's passwd-file: ``user:hash:uid:gid:gecos:home:shell:extra``. A ``!`` before the hash
disables the user, as in ``/etc/shadow``. ``extra`` has fields with spaces between them; it may also follow the hash
at once. These have a meaning here:

* ``quota=1G`` and ``quota_messages=5000``, or Dovecot's ``userdb_quota_rule=*:bytes=1G:messages=5000``; 0 is no limit.
* ``nologin`` disables the user.
* `UNSUPPORTED` fields restrict or redirect logins in ways that this server cannot follow, so it accepts none.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from imapshield.cred import foreign_hashes, passwords
from imapshield.cred.locked_lines import rewrite_lines

MAX_NAME_BYTES = 255
"""Maximum length of a user name in bytes, which is that of a file name."""


UNSUPPORTED = ("allow_nets", "allow_real_nets", "user", "proxy", "proxy_maybe", "host", "pass")
"""Extra fields of Dovecot that decide who may log in, from where, or as which user."""

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"(\d{1,12})([bkmgt]?)", re.ASCII | re.IGNORECASE)


class UserEntry(NamedTuple):
    """What a password file says of one user.

    Attributes:
        stored: the hash; "" if nobody can log in with this line.
        is_disabled: whether the line says so itself.
        quota: the maximum number of bytes and of messages; 0 means no limit, None that the line does not say.
        lacks: which package is not installed that verifies the hash, and what to do. Until then, nobody can log in with
            the line.
    """

    stored: str
    is_disabled: bool = False
    quota: tuple[int | None, int | None] = (None, None)
    lacks: str = ""


class BadUserName(ValueError):
    """A user name is not permitted. The text says why, for the log and the command line."""


def user_name(raw: bytes) -> str:
    """Return the user name of a login as text that is safe to use in a path.

    Letter case is significant, because it is significant in the path of the mail, too.

    Raises:
        BadUserName: the name could lead outside the mail root, be hidden in it, or damage a log.
    """
    if not raw:
        raise BadUserName("the user name is empty")
    if len(raw) > MAX_NAME_BYTES:
        raise BadUserName(f"the user name is longer than {MAX_NAME_BYTES} bytes")
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise BadUserName("the user name is not UTF-8") from None
    if name.startswith("."):
        raise BadUserName("the user name begins with a dot")
    if "/" in name or not name.isprintable():
        raise BadUserName("the user name contains a slash or a control character")
    return name


class ParsedLine(NamedTuple):
    """What `parse` finds in one line: a name, which is "" if it is not permitted, an entry, and what is wrong."""

    name: str
    entry: UserEntry
    problem: str


def parse(
    text: bytes, known: dict[bytes, ParsedLine] | None = None
) -> tuple[dict[str, UserEntry], list[str]]:
    """Parse a password file.

    Args:
        text: its content.
        known: what an earlier call has found in its lines, so that only other lines cost time; it becomes what this
            call has found.

    Returns:
        The entry of each user, and a text for each invalid line. If a user has two lines, the first one is used. A user
        with an invalid line is one who cannot log in. What all users lack that need the same package is one text, the
        first one.
    """
    known = {} if known is None else known
    lines: dict[bytes, ParsedLine] = {}
    entries: dict[str, UserEntry] = {}
    problems = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith(b"#"):
            continue
        parsed = known.get(line)
        if parsed is None or parsed.entry.lacks:  # the package may be installed now
            parsed = _parse_line(line)
        lines[line] = parsed
        name, entry, problem = parsed
        if name in entries:
            problem = f"{name} has an earlier line, which is used"
        elif name:
            entries[name] = entry
        if problem:
            problems.append(f"line {number}: {problem}")
    known.clear()
    known.update(lines)
    return entries, [*_lacking(entries), *problems]


def _lacking(entries: Mapping[str, UserEntry]) -> Iterator[str]:
    """Yield what packages are not installed that hashes need."""
    lacking = {user: entry.lacks for user, entry in entries.items() if entry.lacks}
    for lacks in dict.fromkeys(lacking.values()):
        first, *others = (user for user in lacking if lacking[user] == lacks)
        more = f" and {len(others)} more" if others else ""
        yield f"{first}{more} cannot log in: {lacks}"


def _parse_line(line: bytes) -> ParsedLine:
    raw, _, rest = line.partition(b":")
    name = ""
    try:
        name = user_name(raw)
        return ParsedLine(name, *parse_entry(rest))
    except passwords.MissingPackage as error:
        return ParsedLine(name, UserEntry("", lacks=str(error)), "")
    except ValueError as error:
        return ParsedLine(name, UserEntry(""), str(error))


def usable(entries: dict[str, UserEntry]) -> dict[str, str]:
    """Return the hashes of the users who can log in."""
    return {user: entry.stored for user, entry in entries.items() if entry.stored}


def parse_entry(rest: bytes) -> tuple[UserEntry, str]:
    """Parse what follows the name and the colon in a line.

    Returns:
        The entry, and what is wrong with it, although it can be used.

    Raises:
        ValueError: no password can be verified with it. The text says why.
    """
    stored, *others = rest.split(b":", 6)
    hashed = stored.decode("utf-8", "surrogateescape").strip()
    is_short = bool(others) and (b"=" in others[0] or others[0].strip() == b"nologin")
    extra = others[5] if len(others) == 6 and not is_short else b":".join(others) * is_short
    fields = dict(each.partition("=")[::2] for each in extra.decode("utf-8", "replace").split())
    is_disabled = hashed.startswith(("!", "*")) or "nologin" in fields
    if not is_disabled:
        hashed = foreign_hashes.native(hashed)
        passwords.validate(hashed)
    for name in UNSUPPORTED:
        if name in fields:
            raise ValueError(f"{name} is not supported, so the user cannot log in; remove it")
    problem = ""
    if foreign_hashes.plain_password(hashed) is not None and not is_disabled:
        problem = (
            "the password is in plain text; the next login replaces it, or `imapshield passwd`"
        )
    quota: tuple[int | None, int | None] = (None, None)
    try:
        quota = _quota(fields)
    except ValueError:
        problem = "the quota is not a number, as in quota=1G quota_messages=5000; it is ignored"
    return UserEntry("" if is_disabled else hashed, is_disabled, quota), problem


def _quota(fields: dict[str, str]) -> tuple[int | None, int | None]:
    """Return the bytes and the messages of the extra fields."""
    folder, *limits = fields.get("userdb_quota_rule", "").split(":")
    rules = dict(each.partition("=")[::2] for each in limits) if folder == "*" else {}
    octets = fields.get("quota", rules.get("bytes"))
    if octets is None and "storage" in rules:  # its unit is KiB
        octets = rules["storage"] + ("K" if rules["storage"].isdigit() else "")
    messages = fields.get("quota_messages", rules.get("messages"))
    return _number(octets), _number(messages)


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return int(match[1]) * _UNITS[match[2].lower()]


def name_in_file(user: str) -> bytes:
    """Return the name of a user as it is in a password file.

    Raises:
        BadUserName: such a file cannot have this name.
    """
    name = user_name(user.encode("utf-8", "surrogateescape")).encode()
    if b":" in name or name.startswith(b"#") or name != name.strip():
        raise BadUserName(
            "a user name in a password file cannot contain a colon, begin with #, or begin or "
            "end with a space"
        )
    return name


def set_hash(path: str, user: str, stored: str) -> bool:
    """Set the hash of a user. A new user is added at the end of the file, which is created if it does not exist.

    A user who is disabled stays disabled.

    Returns:
        Whether the user is new.

    Raises:
        BadUserName, OSError: nothing was changed.
    """
    is_new = False

    def edit(lines: list[bytes]) -> list[bytes]:
        nonlocal is_new
        edited = lines_with_hash(lines, user, stored)
        is_new = len(edited) > len(lines)
        return edited

    rewrite_lines(path, edit, create=True)
    return is_new


def replace_hashes(path: str, hashes: Mapping[str, tuple[str, str]]) -> list[str]:
    """Replace hashes that are still in the file: user → the hash that the user has, and the new one.

    Returns:
        The users whose hash was replaced. Other users have another hash now, or are not in the file.

    Raises:
        OSError: nothing was changed.
    """
    wanted = {user.encode("utf-8", "surrogateescape"): user for user in hashes}
    replaced: list[str] = []

    def edit(lines: list[bytes]) -> list[bytes]:
        remaining = dict(wanted)
        return [edited(line, remaining) for line in lines]

    def edited(line: bytes, remaining: dict[bytes, str]) -> bytes:
        name, _, rest = line.partition(b":")
        user = remaining.pop(name, None)  # a second line of the user has no meaning
        if user is None:
            return line
        old, new = hashes[user]
        stored, colon, others = rest.partition(b":")
        text = stored.decode("utf-8", "surrogateescape").strip()
        if foreign_hashes.native(text) != old:
            return line
        replaced.append(user)
        # With the scheme, Dovecot can still read what it could read before.
        scheme = "{ARGON2ID}" if text.startswith("{") and new.startswith("$argon2id$") else ""
        return name + b":" + f"{scheme}{new}".encode() + colon + others

    rewrite_lines(path, edit, create=False)
    return replaced


def lines_with_hash(lines: list[bytes], user: str, stored: str) -> list[bytes]:
    """Return the lines of a password file in which a user has another hash, as `set_hash` writes them.

    Raises:
        BadUserName: the file cannot have the name.
    """
    name = name_in_file(user)

    def changed(old: bytes) -> bytes:
        return b"!" * old.startswith(b"!") + stored.encode()

    edited, exists = _edit_hashes(lines, name, changed)
    return edited if exists else [*edited, name + b":" + stored.encode()]


def set_disabled(path: str, user: str, *, is_disabled: bool) -> bool:
    """Disable a user, who then cannot log in, or enable a user again. The hash is kept.

    Returns:
        Whether the file has the user.

    Raises:
        OSError: nothing was changed.
    """
    exists = False

    def changed(old: bytes) -> bytes:
        return b"!" * is_disabled + old.lstrip(b"!")

    def edit(lines: list[bytes]) -> list[bytes]:
        nonlocal exists
        edited, exists = _edit_hashes(lines, user.encode("utf-8", "surrogateescape"), changed)
        return edited

    rewrite_lines(path, edit, create=False)
    return exists


def add_lines(path: str, lines: dict[str, bytes]) -> None:
    """Replace the lines of users, or add them at the end: name → the line after the name and the colon.

    Raises:
        BadUserName, OSError: nothing was changed.
    """
    new = {name_in_file(user): rest for user, rest in lines.items()}

    def edit(old: list[bytes]) -> list[bytes]:
        kept = [line for line in old if line.startswith(b"#") or line.partition(b":")[0] not in new]
        return [*kept, *(name + b":" + rest for name, rest in new.items())]

    rewrite_lines(path, edit, create=True)


def _edit_hashes(
    lines: list[bytes], name: bytes, change: Callable[[bytes], bytes]
) -> tuple[list[bytes], bool]:
    """Return the lines with another hash for one user, without further lines of that user; and whether there is one."""
    edited, exists = [], False
    for line in lines:
        owner, _, rest = line.partition(b":")
        if owner != name or line.startswith(b"#"):
            edited.append(line)
        elif not exists:
            exists = True
            old, colon, others = rest.partition(b":")
            edited.append(name + b":" + change(old) + colon + others)
    return edited, exists


def remove(path: str, user: str) -> bool:
    """Remove all lines of a user.

    Returns:
        Whether there were any.

    Raises:
        OSError: nothing was changed.
    """
    name = user.encode("utf-8", "surrogateescape")

    def edit(lines: list[bytes]) -> list[bytes]:
        return [line for line in lines if line.startswith(b"#") or line.partition(b":")[0] != name]

    return rewrite_lines(path, edit, create=False) < 0
