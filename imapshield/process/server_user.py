"""Lets root check at the start what the user of the server (``twistd --uid``) may do."""

import os
import pwd
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ServerUser:
    """The user and the group to which twistd changes when it listens. None is the present one."""

    uid: int | None = None
    gid: int | None = None

    @classmethod
    def of_twistd(cls, options: Mapping[str, Any]) -> "ServerUser":
        """Return the user of the options ``--uid`` and ``--gid``; without ``--gid`` the group is that of the user."""
        uid, gid = options.get("uid"), options.get("gid")
        if uid is not None and gid is None:
            with suppress(KeyError):  # a number without a user
                gid = pwd.getpwuid(uid).pw_gid
        return cls(uid, gid)

    @property
    def is_other(self) -> bool:
        """Whether the process is root, and will not stay so."""
        return os.geteuid() == 0 and self.uid not in (None, 0)

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Have the rights of this user for a while. Does nothing unless the process is root and will not stay so."""
        if not self.is_other:
            yield
            return
        assert self.uid is not None
        groups, gid = os.getgroups(), os.getegid()
        try:
            group = gid if self.gid is None else self.gid
            os.setegid(group)
            try:
                os.initgroups(pwd.getpwuid(self.uid).pw_name, group)
            except KeyError:  # a number without a user
                os.setgroups([group])
            os.seteuid(self.uid)
            yield
        finally:
            os.seteuid(0)
            os.setegid(gid)
            os.setgroups(groups)
