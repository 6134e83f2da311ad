"""What root's ``imapshield setup`` does: system user, owners, unit, and copies of a certificate."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import subprocess
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from imapshield.config import load_settings
from imapshield.setup import installation, plan, setup_command, steps
from imapshield.setup.installation import SYSTEM_USER, Installation
from imapshield.setup.steps import Directory, Owner, StepError, SystemUser
from imapshield.setup.undo import Undo
from imapshield.setup.unit_file import contrib
from tests.setup.setup_case import ME, SetupCase


class SystemTests(SetupCase):
    is_system = True

    def test_unit(self) -> None:
        """The unit is that of contrib with the program, the configuration, the user and the mail of this machine."""
        status, out, err = self.run_setup("--yes", "--start", "systemd", "--server-user", ME)
        self.assertEqual((status, err), (0, ""), out)
        unit = self.read(self.unit)
        self.assertIn(f"\nUser={ME}\n", unit)
        self.assertIn(f"\nReadWritePaths={self.path('state')} {self.path('state/mail')}\n", unit)
        self.assertIn(f"imapshield --config {self.config}\n", unit)
        self.assertNotIn("/opt/imapshield", unit)
        self.assertIn("    systemctl daemon-reload\n    systemctl enable --now imapshield\n", out)
        self.assertEqual(load_settings({}, self.config).state, self.path("state/guard.sqlite"))
        self.assertEqual((self.mode(self.config), self.mode(self.users)), (0o640, 0o640))
        self.assertEqual(self.mode(self.path("etc")), 0o750)

    def test_unit_of_a_new_user(self) -> None:
        """The usual server is the user imapshield, who is created, with the rights of the unit in contrib."""
        self.installation = Installation(
            True, self.config, "/var/lib/imapshield", self.path("units")
        )
        arguments = "--yes", "--dry-run", "--start", "systemd", "--mail-root", self.path("mail")
        with mock.patch.object(pwd, "getpwnam", side_effect=KeyError):
            out = self.run_setup(*arguments)[1]
        self.assertIn("    create the system user imapshield\n", out)
        self.assertIn(f"create {self.path('mail')}/ (700, imapshield:imapshield)", out)
        self.assertIn("| AmbientCapabilities=CAP_NET_BIND_SERVICE\n", out)
        self.assertIn(f"| ReadWritePaths={self.path('mail')}\n", out)

    def test_mail_that_belongs_to_its_users(self) -> None:
        """Mail in the home directories is served by root, without the lines that would keep root from it."""
        self.patch(setup_command, "server_user", lambda *_: "root")
        arguments = (
            "--yes",
            "--dry-run",
            "--start",
            "systemd",
            "--mail-root",
            "/home/{user}/Maildir",
        )
        with mock.patch("os.access", return_value=True):  # as root
            out = self.run_setup(*arguments)[1]
        for line in ("User=root", "ProtectHome=no", "ReadWritePaths=", "CapabilityBoundingSet=~"):
            self.assertIn(f"| {line}", out)
        self.assertNotIn("| SystemCallFilter", out)
        self.assertNotIn("| AmbientCapabilities", out)

    def test_started_by_hand(self) -> None:
        """Started by hand, the server changes its user, and its control socket is where that user can make it."""
        out = self.run_setup("--yes", "--start", "hand", "--server-user", ME)[1]
        self.assertEqual(load_settings({}, self.config).control, self.path("state/control"))
        self.assertIn(f"status --control {self.path('state/control')}\n", out)
        with open(self.config) as file:
            self.assertIn(
                f"`imapshield reload --control {self.path('state/control')}` applies", file.read()
            )

    def test_unreadable_certificate_is_copied(self) -> None:
        """A key that the server cannot read is copied to where it can, and the end says how to renew the copy."""
        pem = self.certificate()
        self.patch(plan, "can_read", lambda _, paths: pem not in paths)
        arguments = (
            "--host",
            "mail.example.org",
            "--certificate",
            pem,
            "--key",
            pem,
            "--server-user",
            ME,
        )
        dry = self.run_setup("--yes", "--dry-run", *arguments)[1]
        self.assertNotIn("PRIVATE KEY", dry)
        status, out, _ = self.run_setup("--yes", *arguments)
        self.assertEqual(status, 0, out)
        settings = load_settings({}, self.config)
        self.assertEqual(settings.certificate, self.path("etc/tls/fullchain.pem"))
        self.assertEqual(settings.key, self.path("etc/tls/privkey.pem"))
        self.assertEqual(self.read(self.path("etc/tls/privkey.pem")), self.read(pem))
        self.assertEqual(self.mode(self.path("etc/tls/privkey.pem")), 0o640)
        self.assertIn(f"{pem} {self.path('etc/tls/privkey.pem')}\n        after each renewal", out)
        self.assertIn("Nothing is to be changed", self.run_setup("--yes", "--server-user", ME)[1])

    def test_certificate_of_certbot(self) -> None:
        """Certbot's hook copies a renewed certificate, if it is to be where the hook puts it."""
        answers = mock.Mock(certificate="/etc/letsencrypt/live/x/fullchain.pem")
        usual = Installation(True, "/etc/imapshield/config.toml", "/var/lib/imapshield", "/units")
        self.assertTrue(plan.needs_hook(answers, usual))
        self.assertFalse(plan.needs_hook(answers, self.installation))
        self.patch(plan, "can_read", lambda *_: False)
        self.patch(plan, "needs_hook", lambda *_: True)
        self.patch(plan, "_HOOKS", self.path("hooks"))
        arguments = "--host", "mail.example.org", "--certificate", self.certificate()
        out = self.run_setup("--yes", "--dry-run", *arguments, "--server-user", ME)[1]
        self.assertIn(f"write {self.path('hooks/imapshield')} (755, root:root)", out)
        self.assertIn("        | #!/bin/sh\n", out)

    def test_hook_copies_one_certificate(self) -> None:
        """The hook names the certificate of the server, so that no other certificate that is renewed replaces it."""
        answers = mock.Mock(certificate="/etc/letsencrypt/live/mail.example.org-1/fullchain.pem")
        hook = plan.hook_text(answers)
        self.assertIn("\nLINEAGE=/etc/letsencrypt/live/mail.example.org-1\n", hook)
        self.assertEqual(hook.count("LINEAGE="), contrib("certbot/deploy-hook").count("LINEAGE="))
        other = {"RENEWED_LINEAGE": "/etc/letsencrypt/live/other.example.org", "TARGET": "/no/such"}
        subprocess.run(
            ["/bin/sh", "-c", hook], env={"PATH": os.environ["PATH"], **other}, check=True
        )
        answers.certificate = "/etc/letsencrypt/live/a'; b/fullchain.pem"
        self.assertIn(
            f"\nLINEAGE={shlex.quote(os.path.dirname(answers.certificate))}\n",
            plan.hook_text(answers),
        )

    def test_user_who_cannot_run_the_server(self) -> None:
        """If the user cannot run Python, the server is root, and a line says why; a user who was asked for is refused."""
        self.patch(setup_command, "unusable_program", lambda _: "/root/python")
        _, out, err = self.run_setup("--yes", "--dry-run")
        self.assertIn(
            f"the user {SYSTEM_USER} cannot run /root/python, so the server will be root", err
        )
        self.assertNotIn("create the system user", out)
        err = self.run_setup("--yes", "--dry-run", "--server-user", SYSTEM_USER)[2]
        self.assertIn("cannot run /root/python; install imapshield in /opt", err)
        err = self.run_setup("--yes", "--dry-run", "--server-user", "no-such-user")[2]
        self.assertIn("no such user; create it first", err)


class InstallationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.makedirs(f"{self.folder}/mail")
        self.installation = Installation(
            True, "/etc/imapshield/config.toml", "/var/lib/imapshield", "/units"
        )

    def test_paths(self) -> None:
        """Root writes to /etc, /var/lib and systemd's directory, and others to their home directory."""
        environ = {"XDG_CONFIG_HOME": "/home/a/c", "XDG_DATA_HOME": "/home/a/d"}
        with mock.patch("os.geteuid", return_value=0):
            found = Installation.from_environ(environ, None, None)
        self.assertTrue(found.is_system)
        self.assertEqual(
            (found.config, found.state), (self.installation.config, self.installation.state)
        )
        self.assertEqual(found.unit, "/etc/systemd/system/imapshield.service")
        with mock.patch("os.geteuid", return_value=1000):
            found = Installation.from_environ(environ, None, None)
            other = Installation.from_environ({}, "/x/config.toml", "/y")
        self.assertFalse(found.is_system)
        self.assertEqual(found.config, "/home/a/c/imapshield/config.toml")
        self.assertEqual(found.mail, "/home/a/d/imapshield/mail")
        self.assertEqual((other.users, other.state), ("/x/users", "/y"))
        self.assertTrue(other.unit.endswith("/.config/systemd/user/imapshield.service"))

    def test_server_user(self) -> None:
        """The owner of the mail runs the server: root if it belongs to its users, imapshield if there is none."""
        mail = f"{self.folder}/mail"

        def user_of(owner: int, mail_root: str = mail) -> str:
            status = os.stat_result([0o40700, 0, 0, 0, owner, 0, 0, 0, 0, 0])
            with (
                mock.patch("os.stat", return_value=status),
                mock.patch("os.path.isdir", os.path.exists),
            ):
                return installation.server_user(self.installation, mail_root)

        self.assertEqual(
            installation.server_user(self.installation, "/no/such/{user}"), SYSTEM_USER
        )
        self.assertEqual(user_of(0), SYSTEM_USER)
        self.assertEqual(user_of(8), pwd.getpwuid(8).pw_name)
        self.assertEqual(user_of(4_000_000), "root")
        os.mkdir(f"{mail}/alice")
        self.assertEqual(user_of(0), "root")
        own = Installation(False, "/c", "/s", "/u")
        self.assertEqual(installation.server_user(own, mail), ME)

    def test_rights_of_users(self) -> None:
        """A user who does not exist yet has the rights of nobody, and a group of the same name."""
        self.assertEqual(installation.acting_as("no-such-user").uid, 65534)
        self.assertEqual(installation.group_of("no-such-user"), "no-such-user")
        self.assertTrue(installation.can_read(ME, ["/etc/passwd"]))
        self.assertFalse(installation.can_read(ME, ["/no/such"]))
        self.assertEqual(installation.unusable_program(ME), "")
        with mock.patch("os.access", return_value=False):
            self.assertEqual(installation.unusable_program(ME), installation.program("twistd"))


class StepTests(SynchronousTestCase):
    def test_system_user(self) -> None:
        """A system user is created with useradd, and removed if a later step fails. An error says what to do."""
        step, runs = SystemUser("no-such-user", "/var/lib/x"), list[list[str]]()
        status = [0]

        def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
            runs.append(command)
            return subprocess.CompletedProcess(command, status[0], "", "no space\n")

        self.patch(shutil, "which", lambda name: f"/sbin/{name}")
        self.patch(subprocess, "run", run)
        self.assertEqual(step.describe(), "create the system user no-such-user")
        self.assertEqual(SystemUser(ME, "/").describe(), "")
        undo = Undo()
        step.apply(undo)
        self.assertEqual(undo.run(), [])
        self.assertEqual([command[0] for command in runs], ["/sbin/useradd", "/sbin/userdel"])
        status[0] = 1
        with self.assertRaisesRegex(StepError, "useradd: no space; create the system user"):
            step.apply(Undo())
        self.patch(shutil, "which", lambda _: None)
        with self.assertRaisesRegex(StepError, "no program useradd; create the system user"):
            step.apply(Undo())

    def test_empty_directory_of_root_is_given_to_the_server(self) -> None:
        """An empty directory that root has made becomes the server's; one with something in it stays as it is."""
        path = os.path.abspath(self.mktemp())
        os.mkdir(path, 0o755)
        step, changes = Directory(path, 0o700, Owner("nobody", "no-group")), list[object]()
        entry = mock.Mock(pw_uid=65534, gr_gid=65534)
        root = os.stat_result([0o40755, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        with (
            mock.patch("os.geteuid", return_value=0),
            mock.patch("os.fstat", return_value=root),
            mock.patch("os.fchown", lambda _, *call: changes.append(call)),
            mock.patch("os.fchmod", lambda _, *call: changes.append(call)),
            mock.patch("pwd.getpwnam", return_value=entry),
            mock.patch("grp.getgrnam", return_value=entry),
        ):
            self.assertEqual(step.describe(), f"give {path}/ to nobody")
            undo = Undo()
            with undo.files:
                step.apply(undo)
                self.assertEqual(undo.run(), [])
            self.assertEqual(changes[:2], [(0o700,), (65534, 65534)])
            self.assertEqual(changes[2:], [(0, 0), (0o755,)])
            with open(f"{path}/x", "w"):
                pass
            self.assertEqual(step.describe(), "")
            del changes[:]
            step.apply(Undo())
            self.assertEqual(changes, [])

    def test_missing_owner(self) -> None:
        """A user or a group that does not exist is an error that says what to do."""
        with (
            mock.patch("os.geteuid", return_value=0),
            mock.patch("os.fchmod"),
            self.assertRaisesRegex(StepError, "no user no-such-user with a group x; create both"),
        ):
            Owner("no-such-user", "x").set(0, 0o700)

    def test_unreadable_file(self) -> None:
        """A file that cannot be read is an error that says who can run setup."""
        path = os.path.abspath(self.mktemp())
        os.mkdir(path)
        owner = Owner(ME, ME)
        with self.assertRaisesRegex(StepError, "is not a file; run setup as its owner"):
            steps.File(path, b"", 0o600, owner).describe()
        with self.assertRaisesRegex(StepError, "run setup as its owner"):
            steps.stored_hash(path, "alice")
