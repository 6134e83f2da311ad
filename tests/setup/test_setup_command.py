"""``imapshield setup``: questions and options, what it writes, and that it replaces and leaves nothing unasked."""

from __future__ import annotations

import os
import signal
from mailbox import Maildir
from unittest import mock

from imapshield.config import load_settings
from imapshield.cred import passwords, users
from imapshield.replace_file import replace_file_in
from imapshield.setup import directory_entry, setup_command
from imapshield.setup.installation import Installation
from tests.setup.setup_case import ME, PASSWORD, SetupCase


class SetupTests(SetupCase):
    def test_five_questions(self) -> None:
        """With Enter for every question, a server for this machine is set up, and the end says how to use it."""
        status, out, err = self.run_setup(typed=["", "", "", "", "hand"])
        self.assertEqual((status, err), (0, ""), out)
        self.assertEqual(len(self.questions), 5)
        settings = load_settings({}, self.config)
        self.assertEqual(settings.mail_root, self.path("state/mail"))
        self.assertEqual(settings.auth, (f"file:{self.users}",))
        self.assertEqual(settings.listen, ("tcp:1143:interface=127.0.0.1",))
        stored = users.parse(self.read(self.users).encode())[0]["alice"].stored
        self.assertTrue(passwords.verify(stored, PASSWORD.encode()))
        (message,) = Maildir(self.path("state/mail/alice"))
        self.assertEqual(message["Subject"], "Welcome to imapshield")
        for path in (self.config, self.users):
            self.assertEqual(self.mode(path), 0o600)
        for path in ("etc", "state", "state/mail", "state/mail/alice/new"):
            self.assertEqual(self.mode(self.path(path)), 0o700)
        self.assertIn("0 errors", out)
        self.assertIn(f"imapshield --config {self.config}\n", out)
        self.assertIn("server 127.0.0.1, port 1143, security none, user alice", out)
        self.assertNotIn(PASSWORD, out + self.read(self.config))
        self.assertFalse(os.path.exists(self.path("units")))

    def test_wrong_answers_are_asked_for_again(self) -> None:
        """A wrong answer is followed at once by what is wrong and what to type, and by the same question."""
        pem = self.certificate()
        status, out, _ = self.run_setup(
            typed=[
                *("mail", "/nowhere/{usr}", ""),
                *("mail example", "MAIL.example.org."),
                *("/no/such.pem", f"'{pem}", f"a b {pem}", self.certificate("localhost"), pem),
                *("../alice", "alice"),
                *("later", "sys"),
            ],
            secrets=["abc", PASSWORD, "another", PASSWORD, PASSWORD],
        )
        self.assertEqual((status, self.answers), (0, []))
        for text in (
            "mail: is not a path; type one that begins with /",
            "unknown {usr}; use {user}, {local} or {domain}; type",
            "mail example: is not the name of a host; type",
            "/no/such.pem: No such file or directory; type the path of a readable PEM file; or type none",
            "a quote is missing; type",
            "type one or two files",
            "is for localhost, so clients of mail.example.org refuse it; type another file",
            "the user name begins with a dot; type another name",
            "fewer than 6 characters; choose",
            "the passwords do not match; type them again",
            "later: type systemd or hand",
        ):
            self.assertIn(text, out)
        self.assertEqual(load_settings({}, self.config).certificate, pem)
        self.assertIn("systemctl --user enable --now imapshield", out)
        self.assertIn("server mail.example.org, port 1993, security SSL/TLS, user alice", out)
        self.assertIn("server mail.example.org, port 1143, security STARTTLS, user alice", out)
        self.assertIn(f"curl --cacert {pem} ", out)

    def test_options_answer_all_questions(self) -> None:
        """With --yes nothing is asked, and the options are the answers."""
        pem, secret = self.certificate(), self.path("secret")
        with open(secret, "w") as file:
            file.write(f"{PASSWORD}\nmore\n")
        status, out, err = self.run_setup(
            *(
                "--yes",
                "--mail-root",
                self.path("mail/{domain}/{local}"),
                "--host",
                "mail.example.org",
            ),
            *(
                "--certificate",
                pem,
                "--key",
                pem,
                "--user",
                "bob@example.org",
                "--start",
                "systemd",
            ),
            *("--password-file", secret, "--listen", "tcp:0", "--listen", "imaps:0"),
            stdin="",
        )
        self.assertEqual((status, err), (0, ""))
        self.assertEqual(self.questions, [])
        settings = load_settings({}, self.config)
        self.assertEqual((settings.certificate, settings.key), (pem, pem))
        self.assertEqual(settings.listen, ("tcp:0", "imaps:0"))
        self.assertEqual(len(Maildir(self.path("mail/example.org/bob"))), 1)
        self.assertIn(f"imapshield --config {self.config}\n", self.read(self.unit))
        self.assertIn("imaps:0: clients see TLS, then PLAIN, LOGIN", out)

    def test_wrong_options(self) -> None:
        """A wrong or missing option is one line that says what to type, and nothing is written."""
        before = self.tree()
        for arguments, stdin, words in (
            ((), PASSWORD, "is not a terminal; use --yes"),
            (("--yes",), "", "the password of alice is missing; add --password-file"),
            (("--yes",), "password1", "among the first that are guessed"),
            (("--yes", "--user", ".x"), PASSWORD, "--user the user name begins with a dot"),
            (("--yes", "--key", "x"), PASSWORD, "--certificate a key needs a certificate"),
            (("--yes", "--start", "x"), PASSWORD, "--start x: type systemd or hand"),
            (("--yes", "--host", "1.2.3"), PASSWORD, "--host 1.2.3: is not the name of a host"),
            (("--yes", "--server-user", "x"), PASSWORD, "only root can choose it"),
            (("--yes", "--password-file", "/no/such"), "", "/no/such: No such file"),
            (("--yes", "--mail-root", "/dev/null/x"), PASSWORD, "/dev/null: is not a directory"),
            (
                ("--yes", "--mail-root", "/m\udcff"),
                PASSWORD,
                "--mail-root '/m\\udcff': has a character",
            ),
            (("--yes", "--mail-root", "/m\nx"), PASSWORD, "--mail-root '/m\\nx': has a character"),
            (
                ("--yes", "--certificate", "/c\n"),
                PASSWORD,
                "--certificate '/c\\n': has a character",
            ),
            (("--yes", "--listen", "tcp:0\n"), PASSWORD, "'tcp:0\\n': has a character"),
            (("--yes", "--listen", "143"), PASSWORD, "--listen 143: did you mean tcp:143?"),
            (("--yes", "--listen", "tcp:x"), PASSWORD, "tcp:x: the port is not a number; use for"),
            (("--yes", "--listen", "tcp:70000"), PASSWORD, "tcp:70000: a port is at most 65535"),
            (("--yes", "--listen", "imaps:993"), PASSWORD, "imaps:993 needs a certificate; add"),
        ):
            with self.subTest(arguments=arguments, stdin=stdin):
                status, out, err = self.run_setup(*arguments, stdin=stdin)
                self.assertEqual((status, out, err.count("\n")), (1, "", 1))
                self.assertIn(words, err)
        pem = self.certificate()
        key = "--yes", "--host", "mail.example.org", "--certificate", pem, "--key", "/k\udcff"
        self.assertIn("'/k\\udcff': has a character that cannot", self.run_setup(*key)[2])
        os.unlink(pem)
        for name in "/c\udcff", "/c\n":
            self.installation = Installation(False, f"{name}/config.toml", "/s", "/u")
            self.assertIn(f"--config {f'{name}/config.toml'!a}: has", self.run_setup("--yes")[2])
        self.installation = Installation(False, self.config, "/s\n", "/u")
        self.assertIn("--data '/s\\n': has a character", self.run_setup("--yes")[2])
        self.installation = Installation(False, self.config, self.path("state"), "/u")
        self.patch(setup_command, "_own_user", lambda: "")
        self.assertIn("--user is missing; add it", self.run_setup("--yes")[2])
        self.assertEqual(self.tree(), before)

    def test_sockets_of_systemd(self) -> None:
        """An endpoint that systemd will pass to the server need not exist yet."""
        status, out, _ = self.run_setup(
            "--yes", "--dry-run", "--listen", "systemd:domain=INET6:index=0"
        )
        self.assertEqual(status, 0)
        self.assertIn('| listen = ["systemd:domain=INET6:index=0"]', out)

    def test_second_run_changes_nothing(self) -> None:
        """A second run has the answers of the first as its defaults, keeps the password, and changes nothing."""
        pem = self.certificate()
        self.run_setup(
            "--yes", "--host", "mail.example.org", "--certificate", pem, "--listen", "tcp:0"
        )
        before = self.tree(), self.read(self.config), self.read(self.users)
        status, out, err = self.run_setup("--yes", stdin="")
        self.assertEqual((status, err), (0, ""))
        self.assertIn("Nothing is to be changed.", out)
        self.assertEqual(self.run_setup(typed=[""] * 5, secrets=[])[0], 0)
        self.assertEqual(
            self.run_setup("--yes", "--dry-run", stdin="")[1], "\nNothing would be changed.\n"
        )
        self.assertEqual((self.tree(), self.read(self.config), self.read(self.users)), before)

    def test_existing_files_are_replaced_only_on_demand(self) -> None:
        """A file with another content is shown and asked about, refused with --yes, and replaced with --force."""
        self.run_setup("--yes")
        edited = self.read(self.config) + 'separator = "."\n'
        with open(self.config, "w") as file:
            file.write(edited)
        status, _, err = self.run_setup("--yes", stdin="")
        self.assertEqual(status, 1)
        self.assertIn(f"{self.config} exists, with other content; --dry-run shows", err)
        self.assertIn('| -separator = "."\n', self.run_setup("--yes", "--dry-run", stdin="")[1])
        status, out, _ = self.run_setup(typed=["", "", "", "", "", "n"])
        self.assertEqual((status, self.questions[-1]), (0, f"Replace {self.config}? [y/N]: "))
        self.assertIn('| -separator = "."\n', out)
        self.assertEqual(self.read(self.config), edited)
        self.run_setup(typed=["", "", "", "", "", "y"])
        self.assertNotIn("separator", self.read(self.config))
        with open(self.config, "w") as file:
            file.write(edited)
        self.assertEqual(self.run_setup("--yes", "--force", stdin="")[0], 0)
        self.assertNotIn("separator", self.read(self.config))

    def test_existing_passwords_are_replaced_only_on_demand(self) -> None:
        """Another password for a user who exists is refused with --yes, and set with --force."""
        self.run_setup("--yes")
        secret = self.path("secret")
        with open(secret, "w") as file:
            file.write("another horse")
        arguments = "--yes", "--password-file", secret
        status, _, err = self.run_setup(*arguments)
        self.assertEqual(status, 1)
        self.assertIn(f"the password of alice in {self.users} is another one", err)
        self.assertEqual(self.run_setup(*arguments, "--force")[0], 0)
        self.assertEqual(self.run_setup(*arguments)[0], 0)

    def test_dry_run(self) -> None:
        """--dry-run shows the files and writes nothing; no secret is shown."""
        before = self.tree()
        status, out, _ = self.run_setup("--yes", "--start", "systemd", "--dry-run")
        self.assertEqual(status, 0)
        self.assertIn(f"write {self.config} (600, {ME}:", out)
        self.assertIn("        | mail-root = ", out)
        self.assertIn("        | ExecStart=", out)
        self.assertNotIn(PASSWORD, out)
        self.assertEqual(self.tree(), before)

    def test_interruption_leaves_nothing(self) -> None:
        """Ctrl-C and the end of the input at any question leave nothing."""
        before = self.tree()
        for kind in (KeyboardInterrupt, EOFError):
            for number in range(5):
                status, _, err = self.run_setup(typed=[*[""] * number, kind])
                self.assertEqual(
                    (status, err), (1, "imapshield: interrupted; nothing was changed\n")
                )
            status, _, err = self.run_setup(typed=[""] * 5, secrets=[kind])
            self.assertEqual(status, 1)
        self.assertEqual(self.tree(), before)

    def test_failure_is_undone(self) -> None:
        """An error or a signal while files are written undoes all of them, and an old file has its content again."""
        self.run_setup("--yes")
        for path in (self.config, self.users):
            os.chmod(path, 0o640)
        before = self.tree(), self.read(self.config), self.read(self.users)

        def fail(folder: int, name: str, *arguments: object) -> None:
            if name == os.path.basename(self.unit):
                raise errors[-1]
            replace_file_in(folder, name, *arguments)  # type: ignore[arg-type]

        new = "--yes", "--force", "--start", "systemd", "--host", "new.example.org", "--user", "bob"
        errors: list[BaseException] = []
        for error, text in (
            (OSError(28, "No space", self.unit), "No space"),
            (KeyboardInterrupt(), "interrupted"),
        ):
            errors.append(error)
            with mock.patch.object(directory_entry, "replace_file_in", fail):
                status, out, err = self.run_setup(*new)
            self.assertEqual((status, out), (1, ""))
            self.assertIn(text, err)
            self.assertIn("nothing was changed", err)
            self.assertEqual((self.tree(), self.read(self.config), self.read(self.users)), before)
            self.assertEqual((self.mode(self.config), self.mode(self.users)), (0o640, 0o640))

    def test_what_cannot_be_undone_is_named(self) -> None:
        """If a step cannot be reversed, the message names what is left, and the other steps are reversed."""

        def fail(folder: int, name: str, *arguments: object) -> None:
            if name == os.path.basename(self.config):
                with open(self.path("state/mail/alice/new/1.delivered"), "w"):
                    pass  # by another program
                raise OSError(28, "No space", self.config)
            replace_file_in(folder, name, *arguments)  # type: ignore[arg-type]

        with mock.patch.object(directory_entry, "replace_file_in", fail):
            status, out, err = self.run_setup("--yes")
        self.assertEqual((status, out, err.count("\n")), (1, "", 1))
        self.assertIn(f"{self.config}: No space; this is left, reverse it yourself: ", err)
        self.assertIn(f"created {self.path('state/mail/alice/new')}/ (Directory not empty)", err)
        self.assertNotIn("nothing was changed", err)
        self.assertFalse(os.path.exists(self.path("etc")))
        self.assertEqual(os.listdir(self.path("state/mail/alice")), ["new"])

    def test_signals_interrupt(self) -> None:
        """SIGTERM while files are written undoes them, too. Afterwards the signals are as before."""
        before, handler = self.tree(), signal.getsignal(signal.SIGTERM)
        with mock.patch.object(
            directory_entry, "replace_file_in", lambda *_: os.kill(os.getpid(), signal.SIGTERM)
        ):
            status, _, err = self.run_setup("--yes")
        self.assertEqual((status, err), (1, "imapshield: interrupted; nothing was changed\n"))
        self.assertEqual(self.tree(), before)
        self.assertIs(signal.getsignal(signal.SIGTERM), handler)

    def test_errors_of_the_check_are_the_end(self) -> None:
        """If the configuration has errors, because the old one was kept, the status says so, and what to do."""
        self.run_setup("--yes")
        with open(self.config, "a") as file:
            file.write("verbos = true\n")
        status, out, err = self.run_setup(typed=["", "", "", "", "", "n"])
        self.assertEqual(status, 1)
        self.assertIn("correct the errors above, then: ", err)
        self.assertNotIn("Start it", out)

    def test_single_maildir(self) -> None:
        """The Maildir of one user is not a directory of Maildirs; the answer says what to type."""
        os.makedirs(self.path("Maildir/cur"))
        with mock.patch("os.geteuid", return_value=1000):
            err = self.run_setup("--yes", "--mail-root", self.path("Maildir"))[2]
        self.assertIn("is the Maildir of one user; type the directory above it; `mkdir -p", err)
        with mock.patch("os.geteuid", return_value=0):
            err = self.run_setup("--yes", "--mail-root", self.path("Maildir"))[2]
        self.assertIn("/{user}/Maildir, or the directory above all Maildirs", err)
