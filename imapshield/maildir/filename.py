"""Parses and makes Maildir file names, and the file that says which letters stand for the keywords of a folder. No I/O.

``1700000000.M123456P42Q7R9f3a.host,S=2048,W=2100:2,FSab``: the part before the colon is the *base name*. It never
changes and identifies the message. After ``:2,`` follow the flags, one letter each, in ASCII order. ``S=`` is the size
of the file and ``W=`` the size on the wire (with CRLF), as Dovecot and Courier write them. In the name of a compressed
file ``S=`` is the size before compression.

System flags have letters of their own. The letters a–z stand for keywords; the folder's file ``dovecot-keywords`` says
which letter is which. A 27th keyword gets no letter and is stored in the index alone. ``P`` (passed on) is
``$Forwarded`` here, as it is for mbsync.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from imapshield.wire.flags import flag_list

_STORED_SIZE = re.compile(rb",S=([0-9]{1,15})(?![0-9])")
_WIRE_SIZE = re.compile(rb",W=([0-9]{1,15})(?![0-9])")
_DELIVERED = re.compile(rb"([0-9]{1,15})\.(?:M([0-9]{1,9}))?(?:P[0-9]+)?(?:Q([0-9]{1,9}))?")
_KEYWORD = re.compile(rb"[!#$&'+,\-./0-9:;<=>?@A-Z^_`a-z|}~]{1,128}")
_KEYWORD_LETTERS = 26
_FIRST_LETTER = ord("a")

_LETTERS = {
    b"\\Draft": b"D",
    b"\\Flagged": b"F",
    b"$Forwarded": b"P",
    b"\\Answered": b"R",
    b"\\Seen": b"S",
    b"\\Deleted": b"T",
}
_FLAGS = {letter[0]: flag for flag, letter in _LETTERS.items()}


@dataclass(slots=True)
class FolderFlags:
    """The flags of one folder, their spelling and their letters.

    Keywords are compared without case. Clients receive a keyword in the spelling in which the folder first got it.

    Args:
        lettered: the keyword of letter ``a`` at index 0, and so on; b"" where a letter is free.
        others: keywords that have no letter.
    """

    lettered: list[bytes] = field(default_factory=list)
    others: list[bytes] = field(default_factory=list)
    # lower case → (spelling, letter or b"")
    _flags: dict[bytes, tuple[bytes, bytes]] = field(init=False)

    def __post_init__(self) -> None:
        self._flags = {flag.lower(): (flag, letter) for flag, letter in _LETTERS.items()}
        for letter, keyword in enumerate(self.lettered[:_KEYWORD_LETTERS], _FIRST_LETTER):
            if keyword:
                self._flags.setdefault(keyword.lower(), (keyword, bytes([letter])))
        for keyword in self.others:
            self._flags.setdefault(keyword.lower(), (keyword, b""))

    def __contains__(self, flag: bytes) -> bool:
        return flag.lower() in self._flags

    def __len__(self) -> int:
        """Return the number of keywords, counting free letters between used ones."""
        return len(self.lettered) + len(self.others)

    def add(self, keyword: bytes, *, lettered: bool = True) -> bool:
        """Add a new keyword; return True if it got a letter, so that ``dovecot-keywords`` must be written.

        Args:
            keyword: the keyword.
            lettered: whether it may get a letter.
        """
        index = self.lettered.index(b"") if b"" in self.lettered else len(self.lettered)
        has_letter = lettered and index < _KEYWORD_LETTERS
        if has_letter:
            self.lettered[index : index + 1] = [keyword]
        else:
            self.others.append(keyword)
        letter = bytes([_FIRST_LETTER + index]) if has_letter else b""
        self._flags[keyword.lower()] = (keyword, letter)
        return has_letter

    def spelling(self, flag: bytes) -> bytes:
        """Return `flag` as the folder spells it, or unchanged if the folder does not have it."""
        return self._flags.get(flag.lower(), (flag, b""))[0]

    def letter(self, flag: bytes) -> bytes:
        """Return the letter of `flag`, or b"" if it has none."""
        return self._flags.get(flag.lower(), (flag, b""))[1]

    def flag_of(self, letter: int) -> bytes | None:
        """Return the flag of a letter, given as its byte value; None for a letter without a meaning in this folder."""
        if letter in _FLAGS:
            return _FLAGS[letter]
        index = letter - _FIRST_LETTER
        if 0 <= index < len(self.lettered) and self.lettered[index]:
            return self.spelling(self.lettered[index])
        return None


def parse_keywords(content: bytes, others: bytes = b"") -> FolderFlags:
    """Parse ``dovecot-keywords``, which has lines such as ``0 $Junk``.

    Lines of another form, and keywords that cannot be sent to a client, are ignored.

    Args:
        content: the content of the file.
        others: the keywords without a letter, separated by spaces, as the index stores them.
    """
    lettered: list[bytes] = []
    for line in content.split(b"\n"):
        number, _, keyword = line.partition(b" ")
        index = int(number) if number.isdigit() and len(number) <= 2 else _KEYWORD_LETTERS
        if index < _KEYWORD_LETTERS and _KEYWORD.fullmatch(keyword):
            lettered.extend([b""] * (index + 1 - len(lettered)))
            lettered[index] = keyword
    return FolderFlags(lettered, others.split())


def is_keyword(word: bytes) -> bool:
    """Whether a word from another server's file can be sent to a client as a keyword."""
    return _KEYWORD.fullmatch(word) is not None


def format_keywords(folder_flags: FolderFlags) -> bytes:
    """Return the content of ``dovecot-keywords``."""
    return b"".join(b"%d %b\n" % (i, word) for i, word in enumerate(folder_flags.lettered) if word)


def unique(now: float, pid: int, counter: int, origin: bytes) -> bytes:
    """Return a base name that no other process or host creates.

    Args:
        now: seconds since the epoch.
        pid: the process.
        counter: distinguishes the names of one store.
        origin: the result of `origin`.
    """
    seconds, micros = divmod(int(now * 1_000_000), 1_000_000)
    return b"%d.M%06dP%dQ%d%b" % (seconds, micros, pid, counter, origin)


def origin(host: str, tag: str) -> bytes:
    """Return the end of the base names of one store.

    Args:
        host: the host's name, with any characters.
        tag: distinguishes the stores of one process.
    """
    safe = host.replace("/", "\\057").replace(":", "\\072").replace(",", "\\054")
    return f"R{tag}.{safe}".encode("ascii", "backslashreplace")


def with_sizes(base_name: bytes, physical: int, wire: int | None) -> bytes:
    """Return a base name with the sizes added; without ``W=`` if the size on the wire is not known."""
    name = b"%b,S=%d" % (base_name, physical)
    return name if wire is None else b"%b,W=%d" % (name, wire)


def wire_size(base_name: bytes) -> int | None:
    """Return the size on the wire that a base name states, or None."""
    found = _WIRE_SIZE.search(base_name) if b",W=" in base_name else None
    return int(found[1]) if found else None


def stored_size(name: bytes) -> int | None:
    """Return the size of the message as it was stored, before compression, that a file name states; or None."""
    found = _STORED_SIZE.search(base(name))
    return int(found[1]) if found else None


def may_be_compressed(name: bytes, physical: int) -> bool:
    """Return whether a name says what Dovecot's names say of compressed files.

    Either ``S=`` is not the size of the file, or the letter Z is among the flags: Dovecot's manual proposes that letter
    to scripts that compress old mail.

    Args:
        name: the file name.
        physical: the size of the file.
    """
    return stored_size(name) not in (None, physical) or b"Z" in _split(name)[1]


def copy_name(name: bytes, base_name: bytes, physical: int, wire: int | None) -> bytes:
    """Return a name for a copy of a message: its base name, and the letter Z if the original has it.

    The size that the original's name states stays, so that the copy of a compressed file is recognized as compressed.

    Args:
        name: the name of the original.
        base_name: a base name without sizes for the copy.
        physical: the size of the file, for an original whose name states none.
        wire: the size on the wire, None if it is not known.
    """
    stated = stored_size(name)
    copied = with_sizes(base_name, physical if stated is None else stated, wire)
    is_marked = name.find(b"Z", name.find(b":")) >= 0 and b"Z" in _split(name)[1]
    return copied + b":2,Z" if is_marked else copied


def base(name: bytes) -> bytes:
    """Return the base name of a file name."""
    return name.partition(b":")[0]


def delivery_order(name: bytes, mtime: float) -> tuple[float, int, int, bytes]:
    """Return a sort key that puts files in the order of their delivery.

    The key begins with the time in the name, or with the file's `mtime` if the name has none.
    """
    found = _DELIVERED.match(name)
    if found is None:
        return mtime, 0, 0, name
    seconds, micros, number = found.groups(b"0")
    return int(seconds), int(micros), int(number), name


def flags_of(name: bytes, folder_flags: FolderFlags) -> list[bytes]:
    """Return the flags that a file name has letters for."""
    flags = (folder_flags.flag_of(letter) for letter in _split(name)[1])
    return [flag for flag in flags if flag is not None]


def all_flags(name: bytes, old_flags: bytes, folder_flags: FolderFlags) -> bytes:
    """Return a message's flag list: the flags of its file name, and those of `old_flags` that have no letter."""
    flags = flags_of(name, folder_flags)
    flags += [flag for flag in old_flags.split() if not folder_flags.letter(flag)]
    return flag_list(flags)


def with_flags(name: bytes, flags: Iterable[bytes], folder_flags: FolderFlags) -> bytes:
    """Return a file name with the letters of `flags`.

    Letters without a meaning in this folder stay, because another program gave them a meaning.
    """
    base_name, old_letters, rest = _split(name)
    letters = {folder_flags.letter(flag) for flag in flags}
    for letter in old_letters:
        if folder_flags.flag_of(letter) is None:
            letters.add(bytes([letter]))
    return b"%b:2,%b%b" % (base_name, b"".join(sorted(letters)), rest)


def lettered_letter(lettered: list[bytes], keyword: bytes) -> bytes:
    """Return the letter a–z of a keyword in `lettered`, which is extended if there is room; b"" if there is none."""
    lower = [word.lower() for word in lettered]
    if keyword.lower() in lower:
        index = lower.index(keyword.lower())
    else:
        index = lower.index(b"") if b"" in lower else len(lower)
        if index < _KEYWORD_LETTERS:
            lettered[index : index + 1] = [keyword]
    return bytes([_FIRST_LETTER + index]) if index < _KEYWORD_LETTERS else b""


def with_letter(name: bytes, letter: bytes, without: bytes) -> bytes:
    """Return a file name with one letter instead of another."""
    base_name, letters, rest = _split(name)
    return b"%b:2,%b%b" % (base_name, bytes(sorted({*letters, *letter} - {*without})), rest)


def _split(name: bytes) -> tuple[bytes, bytes, bytes]:
    """Return the base name, the letters, and the text that another program wrote after a comma."""
    # A mail indexer had a fault that wrote "base:2,:2,S". The flags are behind the last colon, as for Dovecot.
    base_name, info = base(name), name.rpartition(b":")[2]
    if b":" not in name or not info.startswith(b"2,"):
        return base_name, b"", b""
    letters, comma, rest = info[2:].partition(b",")
    return base_name, letters, comma + rest
