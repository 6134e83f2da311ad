"""Where `setup` writes: below ``/etc`` and ``/var/lib`` for root, otherwise in the home directory."""

import grp
import os
import pwd
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import imapshield
from imapshield.cred.realm import MailRoot
from imapshield.first_run import FirstRunFolder
from imapshield.process.server_user import ServerUser

SYSTEM_USER = "imapshield"
"""The user of a server that root sets up, unless the mail belongs to another one."""

SYSTEM_STATE = "/var/lib/imapshield"
"""The directory of bans and mail of such a server: ``StateDirectory=`` of the unit."""

_NOBODY = 65534


@dataclass(frozen=True, slots=True)
class Installation:
    """The paths of one installation.

    Attributes:
        is_system: whether root sets up a server of the machine.
        config: the configuration file. The password file is beside it.
        state: the directory of bans, and by default of the mail.
        units: the directory of systemd's units.
    """

    is_system: bool
    config: str
    state: str
    units: str

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], config: str | None, data: str | None) -> Self:
        """Return the paths for the user of the process.

        Args:
            environ: the environment; the XDG specification says to ignore relative directories in it.
            config: the configuration file, or None for the usual one.
            data: the directory of bans and mail, or None for the usual one.
        """
        given = os.path.abspath(config) if config else None
        state = os.path.abspath(data) if data else None
        if os.geteuid() == 0:
            usual = "/etc/imapshield/config.toml"
            return cls(True, given or usual, state or SYSTEM_STATE, "/etc/systemd/system")
        home = environ.get("XDG_CONFIG_HOME", "")
        home = home if os.path.isabs(home) else os.path.expanduser("~/.config")
        usual = os.path.join(home, "imapshield", "config.toml")
        state = state or FirstRunFolder.from_environ(environ).folder
        return cls(False, given or usual, state, os.path.join(home, "systemd", "user"))

    @property
    def users(self) -> str:
        """The password file."""
        return os.path.join(os.path.dirname(self.config), "users")

    @property
    def tls(self) -> str:
        """The directory for copies of a certificate and a key that the user of the server cannot read."""
        return os.path.join(os.path.dirname(self.config), "tls")

    @property
    def unit(self) -> str:
        """The unit of systemd."""
        return os.path.join(self.units, "imapshield.service")

    @property
    def mail(self) -> str:
        """The directory of the mail, unless the user names another one."""
        return os.path.join(self.state, "mail")


def program(name: str) -> str:
    """Return the absolute path of a program in the directory of this one, which need not be on PATH."""
    beside = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), name)
    return beside if os.path.exists(beside) else os.path.join(sys.prefix, "bin", name)


def server_user(installation: Installation, mail_root: str) -> str:
    """Return the user that a server for this mail should have.

    It is the owner of the directory above all Maildirs. If that is root, and there is something in it, as in /home, the
    Maildirs belong to their users, and only root can serve them all. ``imapshield`` serves new directories.
    """
    if not installation.is_system:
        return pwd.getpwuid(os.geteuid()).pw_name
    base = MailRoot(mail_root).base
    if not os.path.isdir(base):
        return SYSTEM_USER
    owner = os.stat(base).st_uid
    if owner == 0:
        return "root" if os.listdir(base) else SYSTEM_USER
    try:
        return pwd.getpwuid(owner).pw_name
    except KeyError:
        return "root"


def group_of(user: str) -> str:
    """Return the group of the user of a server. One that does not exist yet gets a group of its own name."""
    try:
        return grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name
    except KeyError:
        return user


def acting_as(user: str) -> ServerUser:
    """Return the user of a server. One that does not exist yet has the rights of nobody."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return ServerUser(_NOBODY, _NOBODY)
    return ServerUser(entry.pw_uid, entry.pw_gid)


def can_read(user: str, paths: Sequence[str]) -> bool:
    """Return whether the user of a server can read files."""
    with acting_as(user).acting():
        return all(os.access(path, os.R_OK, effective_ids=True) for path in paths)


def program_files() -> Sequence[str]:
    """Return paths of twistd, of Python and of this package, which the server needs."""
    package = os.path.dirname(os.path.abspath(imapshield.__file__))
    return program("twistd"), os.path.realpath(sys.executable), package


def unusable_program(user: str) -> str:
    """Return what of this installation a user cannot read, such as a Python below /root; "" if all can be used."""
    with acting_as(user).acting():
        for path in program_files():
            if not os.access(path, os.R_OK | os.X_OK, effective_ids=True):
                return path
    return ""
