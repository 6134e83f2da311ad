"""The programs in docs/extending.rst, docs/imap-howto.rst and README.rst run as they are there."""

import imaplib
import os
import re
import signal
import subprocess
import sys
import textwrap
import types
import unittest
from importlib import import_module
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.portal import IRealm
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyClass

import imapshield.testing
from imapshield.mailbox.account_api import IAccount
from imapshield.mailbox.storage import IStore
from tests.test_architecture import CHECKOUT, read


def programs(page: str) -> list[str]:
    """Return the literal blocks of a page that are Python."""
    blocks = re.findall(r"::\n\n((?:    .*\n|\n)+)", read(os.path.join(CHECKOUT, page)))
    return [text for block in blocks if "import " in (text := textwrap.dedent(block))]


def program_with(text: str, page: str = "docs/extending.rst") -> str:
    """Return the first program of a page that contains `text`."""
    return next(program for program in programs(page) if text in program)


def run(program: str) -> dict[str, Any]:
    """Run a program in this process and return its names."""
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(program, "example", "exec"), names)  # noqa: S102, text of this repository
    return names


def run_tests(case: type[unittest.TestCase], name: str) -> None:
    """Run one test of a test case, which must succeed."""
    result = unittest.TestResult()
    case(name).run(result)
    assert result.testsRun == 1 and result.wasSuccessful(), result


class PytestStandIn(types.ModuleType):
    """What the example uses of pytest, which is not installed for these tests."""

    @staticmethod
    def fixture(scope: str) -> Any:
        return lambda function: function


class ExtendingTests(SynchronousTestCase):
    def use_stand_in(self) -> None:
        """Let the example import the stand-in, also where pytest is installed."""
        real = sys.modules.get("pytest")
        sys.modules["pytest"] = PytestStandIn("pytest")
        if real is None:
            self.addCleanup(sys.modules.pop, "pytest")
        else:
            self.addCleanup(sys.modules.__setitem__, "pytest", real)

    def test_every_program_runs(self) -> None:
        """Each program of docs/extending.rst runs, and what it asserts is true."""
        self.use_stand_in()
        found = programs("docs/extending.rst")
        self.assertEqual(len(found), 13)
        for program in found:
            if "reactor.run()" not in program:
                run(program)

    def test_classes_have_the_methods_of_their_interfaces(self) -> None:
        """The checkers, realms, stores and the account of the page have what their interfaces demand."""
        for name, interface in (
            ("OneTimePasswords", ICredentialsChecker),
            ("TicketChecker", ICredentialsChecker),
            ("TeamRealm", IRealm),
            ("MovedRealm", IRealm),
            ("NoticeStore", IStore),
            ("MovedAccount", IAccount),
        ):
            names = run(program_with(f"class {name}"))
            self.assertTrue(verifyClass(interface, names[name]))

    def test_store_tests_run(self) -> None:
        """The test case for a store has the tests of the contract, and its store passes one of them."""
        case = run(program_with("StoreContract"))["MyStoreTests"]
        self.assertTrue(issubclass(case, imapshield.testing.StoreContract))
        run_tests(case, "test_uids_are_never_reused")

    def test_client_tests_run(self) -> None:
        """The tests of a mail client with unittest and with pytest run."""
        run_tests(run(program_with("unittest.TestCase"))["ClientTests"], "test_client_reads_mail")
        self.use_stand_in()
        names = run(program_with("import pytest"))
        fixture = names["imap_server"]()
        names["test_client_logs_in"](next(fixture))
        self.assertEqual(list(fixture), [])

    def test_stable_names_exist(self) -> None:
        """Each name that the page calls stable exists."""
        table = read(os.path.join(CHECKOUT, "docs/extending.rst")).partition("- stable names\n")[2]
        rows = re.findall(r"\* - ``(imapshield[\w.]*)``\n     - (.*)", table)
        self.assertGreater(len(rows), 15)
        for module, names in rows:
            for name in re.findall(r"``(\w+)``", names):
                self.assertTrue(hasattr(import_module(module), name), f"{module}.{name}")
        for name in imapshield.__all__:
            self.assertIn(f"``{name}``", rows[0][1])


class ServerProgramTests(SynchronousTestCase):
    def start(self, program: str) -> tuple[subprocess.Popen[str], str, int]:
        """Run a program on a free port; return the process, its output until it listens, and the port."""
        self.assertIn("listenTCP(1143,", program)
        folder = self.mktemp()
        os.mkdir(folder)
        process = subprocess.Popen(
            [sys.executable, "-c", program.replace("listenTCP(1143,", "listenTCP(0,")],
            cwd=folder, env={**os.environ, "PYTHONPATH": CHECKOUT}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        output = ""
        while (port := re.search(r"listening on 127\.0\.0\.1 port (\d+)", output)) is None:
            line = process.stdout.readline()
            self.assertTrue(line, output)
            output += line
        return process, output, int(port[1])

    def check(self, program: str) -> str:
        """Run a program that serves alice, use it, stop it, and return what it has printed."""
        process, output, port = self.start(program)
        client = imaplib.IMAP4("127.0.0.1", port, timeout=30)
        client.login("alice", "secret")
        self.assertEqual(client.append("INBOX", "", "", b"Subject: 1\r\n\r\n")[0], "OK")
        self.assertEqual(client.select(), ("OK", [b"1"]))
        process.send_signal(signal.SIGTERM)
        self.assertIn(b"* BYE", client.readline())
        client.shutdown()
        assert process.stdout is not None
        output += process.stdout.read()  # `communicate` would lose what is in the buffer
        self.assertNotIn("Traceback", output)
        self.assertIn('user="alice"', output)
        self.assertIn("closed peer=127.0.0.1", output)
        return output

    def test_program_of_the_readme_serves_and_logs(self) -> None:
        """The program of README.rst says where it listens and what to try, serves Maildirs, and logs."""
        output = self.check(program_with("reactor.run()", "README.rst"))
        self.assertIn("curl -u alice:secret imap://127.0.0.1:", output)

    def test_program_of_extending_serves_and_logs(self) -> None:
        """The program of docs/extending.rst says where it listens, serves its own store, and logs."""
        self.check(program_with("reactor.run()"))

    def test_programs_of_the_howto_serve(self) -> None:
        """The server of docs/imap-howto.rst serves with Twisted's protocol and with that of imapshield."""
        program, shielded = programs("docs/imap-howto.rst")
        factory = "factory = Factory(Portal(Realm(), [checker]))"
        self.assertIn(factory, program)
        for text in (program, program.replace(factory, shielded)):
            process, _, port = self.start(text)
            client = imaplib.IMAP4("127.0.0.1", port, timeout=30)
            client.login("alice", "secret")
            client.append("INBOX", r"\Flagged", "", b"Subject: 2\r\n\r\nTwo\r\n")
            self.assertEqual(client.select("INBOX"), ("OK", [b"2"]))
            found = client.fetch("1:*", "(UID FLAGS BODY[TEXT])")[1]
            bodies = [item[1] for item in found if isinstance(item, tuple)]
            self.assertEqual(bodies, [b"This server runs on Twisted.\r\n", b"Two\r\n"])
            self.assertEqual(client.uid("STORE", "1", "+FLAGS", r"(\Deleted)")[0], "OK")
            self.assertEqual(client.expunge(), ("OK", [b"1"]))
            self.assertEqual(client.uid("SEARCH", "FLAGGED"), ("OK", [b"2"]))
            client.logout()
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(30), 0)
