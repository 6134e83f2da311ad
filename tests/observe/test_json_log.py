"""With --log-format json, each line of the log is one JSON object."""

import io
import json
from typing import Any

from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile
from twisted.trial.unittest import SynchronousTestCase

from imapshield import events
from imapshield.config import ConfigError
from imapshield.observe.json_log import JsonLogObserver
from imapshield.observe.log_observer import LogObserver
from imapshield.process.json_log_file import json_log_observer


class JsonLogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.file = io.StringIO()
        self.log = Logger(namespace="imapshield", observer=JsonLogObserver(self.file))

    def line(self) -> dict[str, Any]:
        """Return the only line of the log."""
        text = self.file.getvalue()
        self.assertEqual(text.count("\n"), 1)
        parsed: dict[str, Any] = json.loads(text)
        return parsed

    def test_event_has_its_fields(self) -> None:
        """The line of an event has time, level, name, text and fields."""
        observer = LogObserver(self.log)
        observer(events.LoginFailed(7, "192.0.2.1", 'x" peer=192.0.2.9\n', "LOGIN", False, 2.0))
        line = self.line()
        self.assertRegex(line["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        self.assertEqual((line["level"], line["event"]), ("warn", "LoginFailed"))
        self.assertTrue(line["message"].startswith("login failed peer=192.0.2.1 "))
        self.assertEqual(
            (line["connection"], line["user"], line["delay"]), (7, 'x" peer=192.0.2.9\n', 2.0)
        )
        self.assertNotIn("user_json", line)

    def test_end_of_a_connection_has_all_figures(self) -> None:
        """The summary of a connection has its figures as numbers."""
        end = events.ConnectionClosed(
            *(7, "192.0.2.1", "logged out", "alice"), commands=3, octets_in=10, octets_out=20,
            last_commands=("NOOP", "LOGOUT"), seconds=1.5,
        )  # fmt: skip
        LogObserver(self.log)(end)
        line = self.line()
        self.assertEqual((line["commands"], line["octets_in"], line["octets_out"]), (3, 10, 20))
        self.assertEqual(
            (line["reason"], line["last_commands"]), ("logged out", ["NOOP", "LOGOUT"])
        )

    def test_other_lines_are_json_too(self) -> None:
        """A line of another part has the name of that part; a failure has a traceback in one field."""
        self.log.info("several\nlines {object}", object=object())
        self.assertEqual(self.line()["event"], "imapshield")
        self.file.truncate(0)
        self.file.seek(0)
        try:
            raise ValueError("x")
        except ValueError:
            self.log.failure("it failed", Failure())
        line = self.line()
        self.assertEqual((line["level"], line["message"]), ("critical", "it failed"))
        self.assertIn("ValueError: x", line["traceback"])

    def test_log_file_is_that_of_twistd(self) -> None:
        """It writes where twistd would, in a file that can be opened again."""
        path = self.mktemp()
        observer = json_log_observer({"logfile": path, "nodaemon": True})
        assert observer is not None
        Logger(observer=observer).emit(LogLevel.info, "hello")
        self.assertIsInstance(observer._file, LogFile)
        observer._file.close()
        with open(path, encoding="utf-8") as file:
            self.assertEqual(json.loads(file.read())["message"], "hello")
        self.assertIsNone(json_log_observer(None))

    def test_conflicts_are_errors(self) -> None:
        """Another logger, and a file that cannot be opened, are errors that say what to do."""
        for options in ({"syslog": True}, {"logger": "x.y"}, {"logfile": "/nonexistent/x/log"}):
            with self.assertRaisesRegex(ConfigError, "omit one|name a file"):
                json_log_observer(options)
