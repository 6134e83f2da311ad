"""Maildir file names ⇄ base, flags and sizes. Pure.

``1700000000.M123456P42Q7R9f3a.host,S=2048,W=2100:2,FSab``: up to the colon it is the *base*, which never changes and
is what a message is known by; after ``:2,`` stand the flags, one letter each, in ASCII order. ``S=`` is the size of
the file, ``W=`` the size on the wire, as Dovecot and Courier write them. Letters a–z are keywords, numbered by the
folder's ``dovecot-keywords``. ``P`` (passed on) is ``$Forwarded`` here, as it is for mbsync.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from imapshield.wire.flags import SYSTEM_FLAGS, flag_list

FORWARDED = b"$Forwarded"
KEYWORD_LETTERS = 26

_LETTERS = {
    b"\\Draft": b"D",
    b"\\Flagged": b"F",
    FORWARDED: b"P",
    b"\\Answered": b"R",
    b"\\Seen": b"S",
    b"\\Deleted": b"T",
}
_FLAGS = {letter[0]: flag for flag, letter in _LETTERS.items()}
_SIZE = re.compile(rb",S=([0-9]{1,15})(?![0-9])")
_WIRE_SIZE = re.compile(rb",W=([0-9]{1,15})(?![0-9])")
_ORDER = re.compile(rb"([0-9]{1,15})\.(?:M([0-9]{1,9}))?(?:P[0-9]+)?(?:Q([0-9]{1,9}))?")
_KEYWORD = re.compile(rb"[!#$&'+,\-./0-9:;<=>?@A-Z^_`a-z|}~]{1,128}")


def unique(now: float, pid: int, counter: int, host: str, tag: str) -> bytes:
    """Return a base name nobody else makes: `counter` tells a process's names apart, `tag` its stores."""
    seconds, micros = divmod(int(now * 1_000_000), 1_000_000)
    safe = host.replace("/", "\\057").replace(":", "\\072").replace(",", "\\054")
    name = f"{seconds}.M{micros:06d}P{pid}Q{counter}R{tag}.{safe}"
    return name.encode("ascii", "backslashreplace")


def sized(base: bytes, physical: int, wire: int | None) -> bytes:
    """Return `base` with the sizes added; without ``W=`` where the wire size is not known."""
    name = b"%b,S=%d" % (base, physical)
    return name if wire is None else b"%b,W=%d" % (name, wire)


def wire_size(base: bytes) -> int | None:
    """Return the size on the wire that the name promises, if it does."""
    found = _WIRE_SIZE.search(base)
    return int(found[1]) if found else None


def physical_size(base: bytes) -> int | None:
    """Return the size of the file that the name promises, if it does."""
    found = _SIZE.search(base)
    return int(found[1]) if found else None


def base(name: bytes) -> bytes:
    """Return the part of a file name that stays."""
    return name.partition(b":")[0]


def arrival(name: bytes, mtime: float) -> tuple[float, int, int, bytes]:
    """Return a sort key for messages that were found together: the order in which they were delivered."""
    found = _ORDER.match(name)
    if found is None:
        return mtime, 0, 0, name
    return int(found[1]), int(found[2] or 0), int(found[3] or 0), name


@dataclass(slots=True)
class Keywords:
    """The keywords of one folder: `lettered` has that of letter a at 0 (b"" unused), `others` have no letter left.

    The first spelling that a folder sees is the one everybody is told.
    """

    lettered: list[bytes] = field(default_factory=list)
    others: list[bytes] = field(default_factory=list)
    _spelled: dict[bytes, tuple[bytes, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for flag in SYSTEM_FLAGS:
            self._spelled[flag.lower()] = (flag, _LETTERS[flag])
        self._spelled[FORWARDED.lower()] = (FORWARDED, b"P")
        for i, keyword in enumerate(self.lettered[:KEYWORD_LETTERS]):
            if keyword and keyword.lower() not in self._spelled:
                self._spelled[keyword.lower()] = (keyword, bytes([97 + i]))
        for keyword in self.others:
            self._spelled.setdefault(keyword.lower(), (keyword, b""))

    def knows(self, flag: bytes) -> bool:
        """Whether the folder has this flag already."""
        return flag.lower() in self._spelled

    def learn(self, flag: bytes) -> bool:
        """Take in a new keyword; True when it got a letter, so that the folder's file must be written."""
        for i in range(KEYWORD_LETTERS):
            if i == len(self.lettered):
                self.lettered.append(b"")
            if not self.lettered[i]:
                self.lettered[i] = flag
                self._spelled[flag.lower()] = (flag, bytes([97 + i]))
                return True
        self.others.append(flag)
        self._spelled[flag.lower()] = (flag, b"")
        return False

    def spell(self, flag: bytes) -> bytes:
        """Return the folder's spelling of `flag`."""
        known = self._spelled.get(flag.lower())
        return flag if known is None else known[0]

    def letter(self, flag: bytes) -> bytes:
        """Return the letter of `flag`, b"" for one that lives in the index alone."""
        known = self._spelled.get(flag.lower())
        return b"" if known is None else known[1]

    def flag_of(self, letter: int) -> bytes | None:
        """Return the flag that `letter` means, None for a letter that has no meaning here."""
        flag = _FLAGS.get(letter)
        if flag is None and 97 <= letter < 97 + len(self.lettered):
            flag = self.lettered[letter - 97] or None
            return None if flag is None else self.spell(flag)
        return flag


def parse_keywords(content: bytes, others: bytes = b"") -> Keywords:
    """Read ``dovecot-keywords`` (lines of ``0 $Junk``) and the keywords of the index, space between them.

    Lines that are not such, and keywords that could not be sent to a client, are passed over.
    """
    lettered: list[bytes] = []
    for line in content.split(b"\n"):
        number, _, keyword = line.partition(b" ")
        if number.isdigit() and len(number) <= 2 and int(number) < KEYWORD_LETTERS:
            if _KEYWORD.fullmatch(keyword) is None:
                continue
            lettered.extend([b""] * (int(number) + 1 - len(lettered)))
            lettered[int(number)] = keyword
    return Keywords(lettered, others.split())


def format_keywords(keywords: Keywords) -> bytes:
    """Write ``dovecot-keywords``."""
    return b"".join(b"%d %b\n" % (i, word) for i, word in enumerate(keywords.lettered) if word)


def _info(name: bytes) -> tuple[bytes, bytes, bytes]:
    start, _, info = name.partition(b":")
    if not info.startswith(b"2,"):
        return start, b"", b""
    letters, comma, rest = info[2:].partition(b",")
    return start, letters, comma + rest


def flags_of(name: bytes, keywords: Keywords) -> list[bytes]:
    """Return the flags that a file name tells."""
    found = (keywords.flag_of(letter) for letter in _info(name)[1])
    return [flag for flag in found if flag is not None]


def canonical(name: bytes, kept: bytes, keywords: Keywords) -> bytes:
    """Return the flag list that a file name tells, with those of the list `kept` that no letter can tell."""
    flags = flags_of(name, keywords)
    flags += [flag for flag in kept.split() if not keywords.letter(flag)]
    return flag_list(flags)


def named(name: bytes, flags: Iterable[bytes], keywords: Keywords) -> bytes:
    """Return `name` with the letters of `flags`; letters without a meaning here stay, as others gave them one."""
    start, letters, rest = _info(name)
    wanted = {keywords.letter(flag) for flag in flags}
    wanted |= {bytes([c]) for c in letters if keywords.flag_of(c) is None}
    return b"%b:2,%b%b" % (start, b"".join(sorted(wanted)), rest)
