"""The unit, its user and its directories belong together, and work with the configuration beside them."""

import os
import subprocess
import tomllib
from collections import defaultdict

from twisted.trial.unittest import SynchronousTestCase

from imapshield.config import load_settings
from imapshield.control.socket_file import SYSTEM_PATH
from tests.test_contrib import CONTRIB


def unit(name: str) -> dict[str, dict[str, list[str]]]:
    """Return the values of a unit by section and name."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    section = ""
    for line in read(f"systemd/{name}").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[section][key].append(value)
    return found


def read(name: str) -> str:
    with open(os.path.join(CONTRIB, name), encoding="utf-8") as file:
        return file.read()


def entries(name: str) -> list[list[str]]:
    """Return the words of each line of a file for sysusers or tmpfiles."""
    lines = read(name).splitlines()
    return [line.split() for line in lines if line and not line.startswith("#")]


class SystemdTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.service = unit("imapshield.service")["Service"]

    def test_unit_can_be_enabled(self) -> None:
        """The service and the socket have a section [Install]."""
        self.assertEqual(unit("imapshield.service")["Install"]["WantedBy"], ["multi-user.target"])
        self.assertEqual(unit("imapshield.socket")["Install"]["WantedBy"], ["sockets.target"])

    def test_service_notifies(self) -> None:
        """Systemd waits until the server serves and has reloaded, and watches it; old versions send SIGHUP."""
        self.assertEqual(self.service["Type"], ["notify", "notify-reload"])
        self.assertEqual(self.service["ExecReload"], ["/bin/kill -HUP $MAINPID"])
        self.assertEqual(self.service["WatchdogSec"], ["60"])

    def test_user_and_directories(self) -> None:
        """The user of the service owns its state, and the group of the service may read the configuration."""
        ((kind, user, *_, home),) = entries("sysusers.d/imapshield.conf")
        self.assertEqual((kind, [user]), ("u", self.service["User"]))
        self.assertEqual(home, f"/var/lib/{self.service['StateDirectory'][0]}")
        directories = {path: owner for _, path, *owner, _ in entries("tmpfiles.d/imapshield.conf")}
        self.assertEqual(directories[home], ["0700", user, user])
        configuration = f"/etc/{self.service['ConfigurationDirectory'][0]}"
        self.assertEqual(directories[configuration], ["0750", "root", user])
        self.assertEqual(self.service["ConfigurationDirectoryMode"], ["0750"])
        path = load_settings({}, os.path.join(CONTRIB, "systemd/config.toml")).mail_root
        self.assertEqual(directories[str(path)], ["0700", user, user])

    def test_control_socket(self) -> None:
        """The commands of ``imapshield`` find the control socket of the service."""
        (directory,) = self.service["RuntimeDirectory"]
        self.assertEqual(os.path.dirname(SYSTEM_PATH), f"/run/{directory}")

    def test_configuration(self) -> None:
        """The configuration is valid, also with the lines that are comments."""
        text = read("systemd/config.toml")
        lines = [line.removeprefix("# ") for line in text.splitlines() if " = " in line]
        whole = tomllib.loads("\n".join(lines[1:]))
        self.assertEqual(whole["listen"], ["tcp:143", "imaps:993"])
        self.assertIn("--config /etc/imapshield/config.toml", self.service["ExecStart"][0])

    def test_indexes_of_sockets(self) -> None:
        """The endpoints in the comment of the socket unit are those of its ports, in the same order."""
        self.assertEqual(unit("imapshield.socket")["Socket"]["ListenStream"], ["143", "993"])
        text = read("systemd/imapshield.socket")
        expected = '["systemd:domain=INET6:index=0", "imaps:systemd:domain=INET6:index=1"]'
        self.assertIn(expected, text)


class DeployHookTests(SynchronousTestCase):
    """The hook of certbot copies a certificate to where the server may read it."""

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        self.lineage, self.target = f"{self.folder}/live", f"{self.folder}/tls"
        for folder in (self.lineage, self.target):
            os.makedirs(folder)
        os.symlink("real", f"{self.lineage}/privkey.pem")
        for name in ("real", "fullchain.pem"):
            with open(f"{self.lineage}/{name}", "w") as file:
                file.write(name)

    def run_hook(self, **environ: str) -> list[str]:
        program = os.path.join(CONTRIB, "certbot/deploy-hook")
        given = {"RENEWED_LINEAGE": self.lineage, "TARGET": self.target, **environ}
        subprocess.run([program], env={"PATH": os.environ["PATH"], **given}, check=True)
        return sorted(os.listdir(self.target))

    def test_files_are_copied(self) -> None:
        """The files behind the links are copied, for the group of the directory."""
        for _ in range(2):
            self.assertEqual(self.run_hook(), ["fullchain.pem", "privkey.pem"])
        path = f"{self.target}/privkey.pem"
        self.assertFalse(os.path.islink(path))
        status, folder = os.stat(path), os.stat(self.target)
        self.assertEqual(status.st_mode & 0o777, 0o640)
        self.assertEqual((status.st_uid, status.st_gid), (folder.st_uid, folder.st_gid))
        with open(path) as file:
            self.assertEqual(file.read(), "real")

    def test_other_certificates_are_left_alone(self) -> None:
        """With LINEAGE only that certificate is copied."""
        self.assertEqual(self.run_hook(LINEAGE="/etc/letsencrypt/live/other"), [])
        self.assertEqual(len(self.run_hook(LINEAGE=self.lineage)), 2)

    def test_pages_name_the_certificate(self) -> None:
        """Where a page installs the hook, it writes into it which certificate is copied, in the line that has it."""
        command = "sed -i 's|^LINEAGE=.*|LINEAGE=/etc/letsencrypt/live/mail.example.org|' "
        for page in ("running.rst", "household.rst"):
            with open(os.path.join(os.path.dirname(CONTRIB), "docs", page)) as file:
                text = file.read()
            self.assertEqual(text.count("contrib/certbot/deploy-hook /"), text.count(command), page)
        self.assertEqual(read("certbot/deploy-hook").count("\nLINEAGE="), 1)
