"""Commands that work beside a running server know it by its control socket."""

import os
import socket
import sys
from io import StringIO
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from imapshield import live_server
from imapshield.check_findings import OK, WARNING
from imapshield.config import Settings
from imapshield.control.request_lines import NoServer, Request
from imapshield.operator_ports import OperatorPorts
from imapshield.port_check import PortCheck


class LiveServerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.answer: Any = {}
        self.patch(live_server, "ask", self.ask)

    def ask(self, path: str, request: Request) -> Any:
        self.assertEqual(request.command, "options")
        if not self.answer:
            raise NoServer(path)
        return self.answer

    def test_own_ports_are_no_warning(self) -> None:
        """A port that the running server has for the same option is no warning; that of another program is."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            option = f"--listen tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            endpoint = serverFromString(MemoryReactorClock(), option.removeprefix("--listen "))
            for endpoints, severity, text in (
                ([option], OK, "the server is running, and has it"),
                (["--listen tcp:1"], WARNING, "another program uses this address"),
                (None, WARNING, "another program uses this address"),
            ):
                self.answer = endpoints and {"endpoints": endpoints}
                ports = PortCheck(lambda: live_server.live_server("x").get("endpoints", ()))
                ((found, line),) = ports.check(option, endpoint)
                self.assertEqual(found, severity)
                self.assertIn(text, line)

    def test_own_sockets_are_no_warning(self) -> None:
        """The same for a UNIX socket."""
        path = os.path.abspath(self.mktemp())
        endpoint = serverFromString(MemoryReactorClock(), f"unix:{path}")
        with open(path, "wb"):
            ((found, _),) = PortCheck(lambda: ["--x"]).check("--x", endpoint)
            self.assertEqual(found, OK)
            ((found, _),) = PortCheck().check("--x", endpoint)
            self.assertEqual(found, WARNING)

    def test_what_a_server_says(self) -> None:
        """The answer has each option that names an endpoint, as the check of a configuration writes it."""
        settings = Settings(
            listen=("tcp:1143", "tls:1993"), mail_root=None, metrics="tcp:9143", acme=("x.test",)
        )
        ports = OperatorPorts(settings, MemoryReactorClock())
        ports._first_mail = "/d/mail"
        answer = Deferred.fromCoroutine(ports._options(Request("options")))
        endpoints = ["tcp:1143", "tls:1993"]
        expected = [f"--listen {text}" for text in endpoints] + ["--metrics tcp:9143"]
        expected.append(f"--acme-http {settings.acme_http}")
        self.assertEqual(
            self.successResultOf(answer), {"endpoints": expected, "mail_root": "/d/mail"}
        )

    def test_warning_about_mail_that_a_server_has(self) -> None:
        """The mail of the running server is found by the pattern of its mail root; other mail has no warning."""
        for mail_root, maildir, has_warning in (
            ("/srv/mail", "/srv/mail/alice", True),
            ("/srv/mail/{user}", "/srv/mail/alice", True),
            ("/home/{user}/Maildir", "/home/alice/Maildir", True),
            ("/srv/mail/{user}", "/srv/mail2/alice", False),
            ("/srv/mail", "/srv/mail2/alice", False),
            ("", "/srv/mail/alice", False),
        ):
            self.answer = {"mail_root": mail_root} if mail_root else None
            errors = StringIO()
            self.patch(sys, "stderr", errors)
            live_server.warn_if_served(maildir)
            self.assertEqual("the server is running" in errors.getvalue(), has_warning, mail_root)
