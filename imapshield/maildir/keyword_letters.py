"""Keywords of a folder ⇄ the letters a–z of file names, and the file ``dovecot-keywords``. Pure.

A Maildir file name holds one letter for each flag. System flags have letters of their own. The letters a–z stand for
keywords; the folder's ``dovecot-keywords`` says which letter is which. The 27th keyword finds no letter and is stored
in the index alone. ``P`` (passed on) is ``$Forwarded`` here, as it is for mbsync.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from imapshield.wire.flags import SYSTEM_FLAGS

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
_FIRST = ord("a")
_KEYWORD = re.compile(rb"[!#$&'+,\-./0-9:;<=>?@A-Z^_`a-z|}~]{1,128}")


@dataclass(slots=True)
class Keywords:
    """The flags that one folder knows.

    A keyword is searched_texts without case, and is sent to all clients as it was spelled when the folder first got it.

    Args:
        lettered: the keyword of letter ``a`` at index 0, and so on; b"" where a letter is free.
        others: keywords that have no letter.
    """

    lettered: list[bytes] = field(default_factory=list)
    others: list[bytes] = field(default_factory=list)
    # lower case → (spelling, letter or b"")
    _flags: dict[bytes, tuple[bytes, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for flag in SYSTEM_FLAGS:
            self._flags[flag.lower()] = (flag, _LETTERS[flag])
        self._flags[FORWARDED.lower()] = (FORWARDED, b"P")
        for i, keyword in enumerate(self.lettered[:KEYWORD_LETTERS]):
            if keyword and keyword.lower() not in self._flags:
                self._flags[keyword.lower()] = (keyword, bytes([_FIRST + i]))
        for keyword in self.others:
            self._flags.setdefault(keyword.lower(), (keyword, b""))

    def __contains__(self, flag: bytes) -> bool:
        return flag.lower() in self._flags

    def __len__(self) -> int:
        """Return the number of keywords, counting free letters between used ones."""
        return len(self.lettered) + len(self.others)

    def add(self, keyword: bytes) -> bool:
        """Add a new keyword; return True if it got a letter, so that ``dovecot-keywords`` must be written."""
        for i in range(KEYWORD_LETTERS):
            if i == len(self.lettered):
                self.lettered.append(b"")
            if not self.lettered[i]:
                self.lettered[i] = keyword
                self._flags[keyword.lower()] = (keyword, bytes([_FIRST + i]))
                return True
        self.others.append(keyword)
        self._flags[keyword.lower()] = (keyword, b"")
        return False

    def spelling(self, flag: bytes) -> bytes:
        """Return `flag` as the folder spells it, or unchanged if the folder does not have it."""
        known = self._flags.get(flag.lower())
        return flag if known is None else known[0]

    def letter(self, flag: bytes) -> bytes:
        """Return the letter of `flag`, or b"" if it has none."""
        known = self._flags.get(flag.lower())
        return b"" if known is None else known[1]

    def flag_of(self, letter: int) -> bytes | None:
        """Return the flag of a letter, given as its byte value; None for a letter without a meaning in this folder."""
        flag = _FLAGS.get(letter)
        if flag is None and _FIRST <= letter < _FIRST + len(self.lettered):
            flag = self.lettered[letter - _FIRST] or None
            return None if flag is None else self.spelling(flag)
        return flag


def parse_keywords(content: bytes, others: bytes = b"") -> Keywords:
    """Read ``dovecot-keywords``, whose lines look like ``0 $Junk``.

    Lines of another form, and keywords that cannot be sent to a client, are ignored.

    Args:
        content: the file.
        others: the keywords without a letter, separated by spaces, as the index has them.
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
    """Return the content of ``dovecot-keywords``."""
    return b"".join(b"%d %b\n" % (i, word) for i, word in enumerate(keywords.lettered) if word)
