"""`StateFile`: the SQLite file that keeps bans, known users, peaks and a secret over a restart of the server.

It is SQLite, because the server and the commands ``imapshield bans`` and ``imapshield unban`` use it at the same time,
one of many bans can be changed without writing the others, and a server that is killed leaves a consistent file.

Rules
-----
* The file has no wall-clock time. It has a clock of its own, which only runs while a server runs: `save` stores it, and
  the server continues it. A ban has the time of that clock at which it ends.
* It has no names or passwords of users, only keyed hashes of users and addresses. The key is in the file, so the file
  can be read only by its owner.
* An error is a `StateFileError` with one line for the operator.
"""

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from imapshield.guard.bans import SavedBan, ban_target
from imapshield.guard.networks import describe, is_inside, parse_network

DEFAULT_NAME = "guard.sqlite"

COMMAND_ADVICE = (
    "add --state FILE with the file of the server, which its log names as `bans: state=`"
)
"""What `imapshield bans` and `imapshield unban` advise if they cannot use the file."""

_APPLICATION_ID = (
    0x696D7367  # "imsg" in SQLite's header, so that no other database is taken for a state file
)
_VERSION = 1
_SCHEMA = """
    CREATE TABLE bans (network TEXT PRIMARY KEY, reason TEXT, until REAL, seconds REAL, number INT, strangers_only INT);
    CREATE TABLE known (position INTEGER PRIMARY KEY AUTOINCREMENT, user BLOB UNIQUE, addresses BLOB);
    CREATE TABLE clock (id INTEGER PRIMARY KEY, seconds REAL);
    CREATE TABLE secret (id INTEGER PRIMARY KEY, value BLOB);
    INSERT INTO clock VALUES (1, 0);
    PRAGMA application_id = 1768780647;
    PRAGMA user_version = 1;
"""


class StateFileError(Exception):
    """The file cannot be used. The text is one line: what is wrong, and what to do."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What has changed since the last `StateFile.save`.

    Attributes:
        bans: network → its ban with the seconds that remain; None if it has none any more.
        known: hash of a user → hashes of the addresses; empty if there are none any more.
        peaks: what `observe.limit_peaks` has dumped; None if that is not to be saved.
    """

    bans: Mapping[str, SavedBan | None] = field(default_factory=dict)
    known: Mapping[bytes, bytes] = field(default_factory=dict)
    peaks: str | None = None


class StateFile:
    """One open state file. It may be used by one thread at a time.

    Args:
        path: the file.
        create: create the file if it is missing, as the server does. The commands do not, and their errors advise to
            name the file of the server.
        timeout: seconds to wait for another process that writes.

    Attributes:
        is_new: whether the file was created.

    Raises:
        StateFileError: the file cannot be opened.
    """

    def __init__(self, path: str, *, create: bool = False, timeout: float = 2.0) -> None:
        self.path = path
        self._server_advice = create
        self._data_version: object = None
        self.is_new = False
        if os.path.isdir(path):
            advice = self._advice("name a file in it")
            raise StateFileError(f"{path}: is a directory; {advice}")
        with self._errors():
            if create and not os.path.exists(path):
                self.is_new = _create(path)
            # Closing a descriptor of a file gives up its locks, so an existing file is opened by SQLite alone.
            uri = f"file:{quote(os.path.abspath(path))}?mode=rw"
            self._database = sqlite3.connect(
                uri, timeout, uri=True, isolation_level=None, check_same_thread=False
            )
            try:
                self._open(create)
            except BaseException:
                self._database.close()
                raise

    def _open(self, create: bool) -> None:
        # A power failure may undo the latest changes, but a killed process does not.
        self._database.execute("PRAGMA synchronous = NORMAL")
        if create and self._value("SELECT count(*) FROM sqlite_master") == 0:
            with suppress(sqlite3.OperationalError):  # another process has created the tables
                self._database.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT")
        if self._value("PRAGMA application_id") != _APPLICATION_ID:
            advice = self._advice("name another file")
            raise StateFileError(f"{self.path}: not a state file of imapshield; {advice}")
        if self._value("PRAGMA user_version") != _VERSION:
            raise StateFileError(
                f"{self.path}: written by another version of imapshield; name another file"
            )
        if create:
            # Files of earlier versions have no such table, and those versions ignore it.
            table = "CREATE TABLE IF NOT EXISTS observed (id INTEGER PRIMARY KEY, peaks TEXT)"
            self._database.execute(table)
        with suppress(OSError):
            if os.stat(self.path).st_mode & 0o077:
                os.chmod(self.path, 0o600)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def secret(self) -> bytes:
        """Return 32 random bytes, which are created once for each file."""
        with self._errors(), self._transaction():
            self._database.execute("INSERT OR IGNORE INTO secret VALUES (1, ?)", [os.urandom(32)])
            secret = self._value("SELECT value FROM secret")
            if not isinstance(secret, bytes) or len(secret) != 32:
                raise sqlite3.DatabaseError("the secret is damaged")
            return secret

    def clock(self) -> float:
        """Return the clock of the file."""
        with self._errors():
            return float(self._value("SELECT seconds FROM clock"))

    def bans(self) -> list[SavedBan]:
        """Return all bans with the seconds that remain, those that have ended included."""
        with self._errors():
            rows = self._database.execute(
                "SELECT network, reason, until - seconds_now, bans.seconds, number, strangers_only"
                " FROM bans, (SELECT seconds AS seconds_now FROM clock)"
                " WHERE typeof(network) = 'text' AND typeof(reason) = 'text' AND typeof(until) = 'real'"
                " AND typeof(bans.seconds) = 'real' AND typeof(number) = 'integer' ORDER BY until"
            )
            return [SavedBan._make((*row[:5], bool(row[5]))) for row in rows]

    def known(self) -> list[tuple[bytes, bytes]]:
        """Return hashes: of each known user, and of the user's addresses; the user who has changed last is last."""
        with self._errors():
            rows = self._database.execute(
                "SELECT user, addresses FROM known"
                " WHERE typeof(user) = 'blob' AND typeof(addresses) = 'blob' ORDER BY position"
            )
            return list(rows)

    def peaks(self) -> str:
        """Return the peaks that were saved last; "" if there are none."""
        with self._errors():
            row = self._database.execute("SELECT peaks FROM observed WHERE typeof(peaks) = 'text'")
            return str((row.fetchone() or [""])[0])

    def save(self, clock: float, changes: Changes) -> None:
        """Store the clock and `changes`, all or nothing."""
        execute = self._database.execute
        with self._errors(), self._transaction():
            execute("UPDATE clock SET seconds = ?", [clock])
            for network, ban in changes.bans.items():
                if ban is None:
                    execute("DELETE FROM bans WHERE network = ?", [network])
                else:
                    row = [network, ban.reason, clock + ban.remaining, *ban[3:]]
                    execute("INSERT OR REPLACE INTO bans VALUES (?, ?, ?, ?, ?, ?)", row)
            if changes.peaks is not None:
                execute("INSERT OR REPLACE INTO observed VALUES (1, ?)", [changes.peaks])
            for user, addresses in changes.known.items():
                execute("DELETE FROM known WHERE user = ?", [user])
                if addresses:
                    new = "INSERT INTO known (user, addresses) VALUES (?, ?)"
                    execute(new, [user, addresses])

    def exchange(self, clock: float, changes: Changes | None) -> list[SavedBan] | None:
        """Store `changes`, if there are any.

        Returns:
            All bans, as they were before, if another process has changed the file since the last call; otherwise None.
        """
        found = None
        with self._errors():
            version = self._value("PRAGMA data_version")
        if version != self._data_version:
            found = self.bans()
        if changes is not None:
            self.save(clock, changes)
        self._data_version = version
        return found

    def unban(self, network: str) -> list[str]:
        """Remove the bans of an address (IPv6: of its /64), or all bans inside a network.

        Returns:
            The networks whose bans were removed, without those whose bans had ended.

        Raises:
            ValueError: the text is neither an address nor a network.
        """
        target, removed = ban_target(network), []
        with self._errors(), self._transaction():
            for text, has_ended in self._database.execute(
                "SELECT network, until <= (SELECT seconds FROM clock) FROM bans ORDER BY network"
            ).fetchall():
                with suppress(ValueError):
                    if is_inside(parse_network(text), target):
                        self._database.execute("DELETE FROM bans WHERE network = ?", [text])
                        if not has_ended:
                            removed.append(describe(parse_network(text)))
        return removed

    def _value(self, query: str) -> Any:
        row = self._database.execute(query).fetchone()
        if row is None or row[0] is None:
            raise sqlite3.DatabaseError("a row is missing")
        return row[0]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            advice = self._advice(
                "make the file and its directory writable for the server, or name another file"
            )
            raise StateFileError(f"{self.path}: {error}; {advice}") from None
        except (sqlite3.Error, TypeError, ValueError) as error:
            advice = self._advice("move it away")
            raise StateFileError(f"{self.path}: {error}; {advice}") from None
        except OSError as error:
            name = error.filename or self.path
            advice = "make the directory writable for the server, or name another file"
            raise StateFileError(f"{name}: {error.strerror}; {advice}") from None

    def _advice(self, of_server: str) -> str:
        """Return what to do about an error: `of_server` for the server. A command has probably the wrong file."""
        return of_server if self._server_advice else COMMAND_ADVICE


def _create(path: str) -> bool:
    """Create an empty file that only its owner can read; return False if another process has created it.

    Its directory must exist: a misspelt path would otherwise lose all bans, and nobody would notice.
    """
    directory = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(directory):
        advice = "create it for the user of the server, or name another file"
        raise StateFileError(f"{path}: the directory {directory} does not exist; {advice}")
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return False
    return True


def default_path(environ: Mapping[str, str], folder: str, name: str = DEFAULT_NAME) -> str:
    """Return the path of what the server keeps: in systemd's ``$STATE_DIRECTORY``, otherwise in `folder`."""
    directory = environ.get("STATE_DIRECTORY", "").partition(":")[0] or folder
    return os.path.join(directory, name)
