"""The unit that ``imapshield setup`` writes: what systemd hides from the server, and how paths are written."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from imapshield.setup import unit_file
from imapshield.setup.answers import Answers
from imapshield.setup.installation import Installation

PROGRAMS = "/opt/imapshield/bin/twistd", "/usr/bin/python3"


class UnitFileTests(SynchronousTestCase):
    def lines(
        self,
        mail_root: str = "/srv/mail",
        config: str = "/etc/imapshield/config.toml",
        state: str = "/var/lib/imapshield",
        certificates: Sequence[str] = (),
        programs: Sequence[str] = PROGRAMS,
    ) -> list[str]:
        self.patch(unit_file, "program_files", lambda: programs)
        self.patch(unit_file, "program", lambda _: programs[0])
        answers = Answers(
            mail_root=mail_root, host="x", certificate=None, key=None, user="alice",
            password=None, start="systemd", listen=(), server_user="nobody",
        )  # fmt: skip
        installation = Installation(True, config, state, "/etc/systemd/system")
        return unit_file.unit_file(answers, installation, certificates).splitlines()

    def test_nothing_is_hidden_that_the_server_needs(self) -> None:
        """Each path of the server is judged: home directories can be read, or written if data is there; so can /tmp."""
        for changes, home, temporary in (
            ({}, "yes", "yes"),
            ({"programs": ("/home/me/venv/bin/twistd", "/usr/bin/python3")}, "read-only", "yes"),
            ({"programs": (PROGRAMS[0], "/root/.pyenv/bin/python")}, "read-only", "yes"),
            ({"config": "/home/me/config.toml"}, "read-only", "yes"),
            ({"certificates": ["/home/me/c.pem", "/etc/k.pem"]}, "read-only", "yes"),
            ({"certificates": ["/etc/c.pem", "/tmp/k.pem"]}, "yes", "no"),
            ({"config": "/var/tmp/x/config.toml"}, "yes", "no"),
            ({"programs": ("/tmp/venv/bin/twistd",)}, "yes", "no"),
            ({"state": "/home/me/data"}, "no", "yes"),
            ({"state": "/tmp/data"}, "yes", "no"),
            ({"mail_root": "/home/{user}/Maildir"}, "no", "yes"),
            ({"mail_root": "/homes"}, "yes", "yes"),
        ):
            with self.subTest(changes=changes):
                lines = self.lines(**changes)
                self.assertIn(f"ProtectHome={home}", lines)
                self.assertIn(f"PrivateTmp={temporary}", lines)

    def test_quotes(self) -> None:
        """Systemd reads paths as they are: no variable, specifier, quote or escape in them means something."""
        path = "/a b/$x/%h/\"q'\\e"
        lines = self.lines(config=f"{path}/c", mail_root=path, programs=("/$p/%p t/twistd",))
        quoted = "/a b/$x/%%h/\\\"q'\\\\e"
        start = '"/$p/%%p t/twistd" --nodaemon --pidfile= imapshield --config '
        self.assertIn(f'ExecStart={start}"{quoted.replace("$", "$$")}/c"', lines)
        self.assertIn(f'ReadWritePaths="{quoted}"', lines)
        self.assertIn('ReadWritePaths="/a\tb"', self.lines(mail_root="/a\tb"))
        self.assertIn("ReadWritePaths=/a-b_c/ü.d", self.lines(mail_root="/a-b_c/ü.d"))
