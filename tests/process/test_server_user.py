"""The checks of the start have the rights of the user to whom twistd changes."""

import os
import pwd
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from imapshield.process.server_user import ServerUser


class ServerUserTests(SynchronousTestCase):
    """The system calls are recorded in `calls`."""

    def setUp(self) -> None:
        self.calls: list[Any] = []
        self.euid = 0
        self.patch(os, "geteuid", lambda: self.euid)
        self.patch(os, "getegid", lambda: 7)
        self.patch(os, "getgroups", lambda: [7, 8])
        for name in ("seteuid", "setegid", "setgroups", "initgroups"):
            self.patch(os, name, lambda *values, name=name: self.calls.append((name, *values)))

    def test_root_acts_as_the_user(self) -> None:
        """Root takes the groups, the group and the user, in this order, and gives them back in the reverse order."""
        mail = pwd.getpwnam("mail")
        user = ServerUser.of_twistd({"uid": mail.pw_uid, "gid": None})
        self.assertEqual(user, ServerUser(mail.pw_uid, mail.pw_gid))
        with user.acting():
            taken, self.calls[:] = self.calls[:], []
        gid = mail.pw_gid
        expected = [("setegid", gid), ("initgroups", "mail", gid), ("seteuid", mail.pw_uid)]
        self.assertEqual(taken, expected)
        self.assertEqual(self.calls, [("seteuid", 0), ("setegid", 7), ("setgroups", [7, 8])])

    def test_rights_come_back_after_an_error(self) -> None:
        """Root has its rights back after a check that fails."""
        with self.assertRaises(ZeroDivisionError), ServerUser(12345, 9).acting():
            raise ZeroDivisionError
        self.assertEqual(self.calls[1], ("setgroups", [9]))  # a number without a user
        self.assertEqual(self.calls[-3], ("seteuid", 0))

    def test_number_without_a_user(self) -> None:
        """A user id without a user keeps the group, as with twistd."""
        user = ServerUser.of_twistd({"uid": 54321, "gid": None})
        with user.acting():
            pass
        self.assertEqual(self.calls[:2], [("setegid", 7), ("setgroups", [7])])

    def test_others_act_as_themselves(self) -> None:
        """Nothing changes for a server that stays root, or is not root."""
        for euid, options in ((0, {}), (0, {"uid": 0}), (1000, {"uid": 8})):
            self.euid = euid
            user = ServerUser.of_twistd(options)
            with user.acting():
                self.assertFalse(user.is_other)
        self.assertEqual(self.calls, [])
