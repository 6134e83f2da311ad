"""The file of --user-map is read again when it changes, completely or not at all."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from imapshield.config import ConfigError, load_settings
from imapshield.front import map_ldap
from imapshield.front.backend_address import parse_nodes
from imapshield.front.map_file import MapFile
from imapshield.front.map_lines import read_map, with_node
from imapshield.front.map_sources import make_source
from imapshield.front.user_map import Answer, LookUpFailed, Query
from imapshield.limits import Limits

NODES = ("mail1", "mail2", "mail3")


class MapFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = self.mktemp()
        self.clock = Clock()

    def write(self, text: str) -> str:
        """Write the file as an editor does, and return its path."""
        path: str = self.path
        with open(path + ".new", "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(path + ".new", path)
        return path

    def make(self, text: str) -> MapFile:
        """Return the map of a file."""
        run: Any = execute
        return MapFile(self.write(text), NODES, self.clock, run)

    def node(self, found: MapFile, user: str) -> str:
        """Return the node of a user."""
        answer = self.successResultOf(Deferred.fromCoroutine(found.look_up(Query(user))))
        self.assertEqual(answer, found.known(user))
        return answer.node

    def test_lines(self) -> None:
        """A user, a domain, and everybody else; the most exact line counts."""
        found = self.make(
            "# our users\n\nAlice mail1\nbob@example.org mail2\n*@example.org mail3\n* mail1\n"
        )
        for user, node in (
            *(("alice", "mail1"), ("bob@example.org", "mail2"), ("carol@example.org", "mail3")),
            ("dave", "mail1"),
        ):
            self.assertEqual(self.node(found, user), node, user)
        self.assertEqual(self.node(self.make("alice mail1\n"), "bob"), "")

    def test_errors_have_the_number_of_the_line(self) -> None:
        """Whatever is wrong is an error with the line, and says what to write."""
        for text, said in (
            ("alice mail1\nbob\n", "line 2: has 1 words; write a user and a node"),
            ("alice mail1 mail2", "line 1: has 3 words"),
            ("\nalice mail9", "line 2: no --backend has the name mail9; known are mail1, mail2"),
            ("a mail1\nA mail2", "line 2: a is in line 1 already"),
            ("*.example.org mail1", r"line 1: \* stands for everybody"),
        ):
            with self.assertRaisesRegex(ValueError, said):
                read_map(self.write(text), NODES)
        with self.assertRaisesRegex(ValueError, "name a readable file"):
            read_map("/does/not/exist", NODES)
        with open(self.path, "wb") as file:
            file.write(b"\xff mail1\n")
        with self.assertRaisesRegex(ValueError, "not UTF-8"):
            read_map(self.path, NODES)

    def test_empty_file(self) -> None:
        """It names nobody, so it is wrong: all users would otherwise get the answer to a wrong password."""
        found = self.make("alice mail1\n")
        found.start()
        self.write("# our users\n\n")
        self.clock.advance(2)
        self.assertEqual(self.node(found, "alice"), "mail1")
        self.assertIn("has no line with a user and a node", found.problem)
        found.stop()

    def test_mark_of_an_editor(self) -> None:
        """The mark that some editors write at the begin of a file is no part of the first user."""
        self.assertEqual(self.node(self.make("\ufeffalice mail1\n"), "alice"), "mail1")

    def test_changes(self) -> None:
        """A changed file is read within two seconds; a wrong one changes nothing and is logged once."""
        found = self.make("alice mail1\n")
        self.assertEqual(found.problem, "")
        found.start()
        self.write("alice mail2\n")
        self.clock.advance(2)
        self.assertEqual(self.node(found, "alice"), "mail2")
        self.write("alice mail2\nbob\n")
        with capturedLogs() as logged:
            for _ in range(3):
                self.clock.advance(2)
        (line,) = [formatEvent(event) for event in logged]
        self.assertIn("line 2: has 1 words; write a user and a node; nothing is changed", line)
        self.assertIn(f"file:{self.path}: line 2: has 1 words", found.problem)
        self.assertIn("what was read before applies", found.problem)
        self.assertEqual(self.node(found, "alice"), "mail2")
        os.unlink(self.path)
        self.clock.advance(2)
        self.assertEqual(self.node(found, "alice"), "mail2")
        self.write("alice mail3\n")
        self.clock.advance(2)
        self.assertEqual(self.node(found, "alice"), "mail3")
        found.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_file_that_is_wrong_at_the_start(self) -> None:
        """A worker starts all the same: the log says what is wrong, and nobody can log in until the file is correct."""
        path, run = self.write("alice mail1\nbob\n"), execute
        with self.assertRaises(ValueError):
            MapFile(path, NODES, self.clock, run)
        found = MapFile(path, NODES, self.clock, run, waits_for_file=True)
        with capturedLogs() as logged:
            found.start()
            self.clock.advance(2)
        (line,) = [formatEvent(event) for event in logged]
        self.assertIn("line 2: has 1 words; write a user and a node; nobody can log in", line)
        answer = self.successResultOf(Deferred.fromCoroutine(found.look_up(Query("alice"))))
        self.assertEqual((answer.node, answer), ("", found.known("alice")))
        self.assertIn("line 2: has 1 words", answer.problem)
        self.failureResultOf(Deferred.fromCoroutine(found.refresh("alice")), LookUpFailed)
        self.write("alice mail1\nbob mail2\n")
        self.clock.advance(2)
        self.assertEqual((self.node(found, "bob"), found.problem), ("mail2", ""))
        answer = self.successResultOf(Deferred.fromCoroutine(found.look_up(Query("bob"))))
        self.assertEqual((answer.node, answer.problem), ("mail2", ""))
        found.stop()

    def test_refresh(self) -> None:
        """A user who is released has the node of the file at this moment; a wrong file is an error."""
        found = self.make("alice mail1\n")
        self.write("alice mail2\n")
        self.successResultOf(Deferred.fromCoroutine(found.refresh("alice")))
        self.assertEqual(self.node(found, "alice"), "mail2")
        self.write("alice\n")
        self.failureResultOf(Deferred.fromCoroutine(found.refresh("alice")), LookUpFailed)

    def test_map_that_takes_over(self) -> None:
        """If the map of before has read the file since, as at a release, the first answer waits for another read."""
        run: Any = execute
        old = self.make("alice mail1\n")
        new, later = (MapFile(self.path, NODES, self.clock, run) for _ in range(2))
        self.write("alice mail2\n")
        self.successResultOf(Deferred.fromCoroutine(old.refresh("alice")))
        for each in (new, later):
            each.take_over(old)
            self.assertIsNone(each.known("alice"))
        self.assertEqual(self.node(new, "alice"), "mail2")
        later.start()
        self.assertEqual(later.known("alice"), Answer("mail2"))
        later.take_over(new)
        self.assertEqual(later.known("alice"), Answer("mail2"))
        later.stop()

    def test_two_reads_at_once(self) -> None:
        """A read that begins while another one runs waits for it, so an older table is not put back."""
        found = self.make("alice mail1\n")
        begun: list[tuple[Deferred[Any], Any]] = []

        def run_later(function: Any) -> Deferred[Any]:
            begun.append((Deferred(), function()))
            return begun[-1][0]

        run: Any = run_later
        found._run_in_thread = run
        self.write("alice mail2\n")
        reads = [Deferred.fromCoroutine(found.refresh("alice"))]
        self.write("alice mail3 \n")
        reads.append(Deferred.fromCoroutine(found.refresh("alice")))
        while begun:
            done, table = begun.pop()
            done.callback(table)
        for read in reads:
            self.successResultOf(read)
        self.assertEqual(self.node(found, "alice"), "mail3")


class MovedUserTests(SynchronousTestCase):
    """A user who moves has one line in the file, and nobody else has another node."""

    def moved(self, text: str, user: str) -> str:
        return b"\n".join(with_node(text.encode().splitlines(), "map", user, "two")).decode()

    def test_line_is_replaced_or_added(self) -> None:
        lines = "# alice\nALICE one\n* two"
        self.assertEqual(self.moved(lines, "alice"), "# alice\nALICE two\n* two")
        self.assertEqual(self.moved(lines, "Bob"), lines + "\nbob two")
        self.assertEqual(self.moved("", "bob"), "bob two")

    def test_names_are_compared_as_they_are_read(self) -> None:
        """Letters beyond ASCII, spaces that only Unicode has, and the mark of an editor make no second line."""
        self.assertEqual(self.moved("BÄRBEL one", "bärbel"), "BÄRBEL two")
        self.assertEqual(self.moved("bärbel one", "BÄRBEL"), "bärbel two")
        self.assertEqual(self.moved("alice\u00a0one", "alice"), "alice two")
        self.assertEqual(self.moved("\ufeffalice one", "alice"), "alice two")

    def test_names_that_no_line_can_have(self) -> None:
        for user in ("ann lee", "#x", "a\u00a0b", "a\nb", "", "*", "*@example.org", "alice*admin"):
            with self.assertRaisesRegex(ValueError, "no line of a map can name the user"):
                self.moved("alice one", user)
        with self.assertRaisesRegex(ValueError, "would not be read"):
            self.moved("", "\ufeffx")

    def test_wrong_file_stays_as_it_is(self) -> None:
        for text, said in (("bob", "line 1: has 1 words"), ("a one\nA one", "is in line 1")):
            with self.assertRaisesRegex(ValueError, said):
                self.moved(text, "alice")


class SourceTests(SynchronousTestCase):
    def make(self, user_map: str, **more: Any) -> Any:
        """Return the source of an option."""
        backends = [f"{name}=unix:/run/{name}" for name in NODES]
        settings = load_settings({"backend": backends, "user-map": user_map, **more})
        return make_source(settings, parse_nodes(settings.backend), Clock(), Limits)

    def test_kinds(self) -> None:
        """Each kind of --user-map makes its source."""
        path = self.mktemp()
        with open(path, "w", encoding="ascii") as file:
            file.write("* mail1\n")
        self.assertEqual(self.make(f"file:{path}").text, f"file:{path}")
        self.assertEqual(self.make("https://auth.example/map?key=1").text, "https://auth.example/map")  # fmt: skip
        with self.assertRaisesRegex(ConfigError, "--user-map file:/does/not/exist: No such file"):
            self.make("file:/does/not/exist")
        self.patch(map_ldap, "is_available", lambda: False)
        with self.assertRaisesRegex(ConfigError, "--user-map ldap: python-ldap is not installed"):
            self.make("ldap:/does/not/exist")
        self.assertIsNone(make_source(load_settings({"backend": ["unix:/a"]}), [], Clock(), Limits))

    def test_options(self) -> None:
        """What cannot be meant is an error that says what to type."""
        several = {"backend": ["a=unix:/a", "b=unix:/b"]}
        for options, said in (
            (several, "several --backend need --user-map"),
            ({"backend": ["unix:/a", "b=unix:/b"]}, "need names; write --backend mail1=unix:/a"),
            ({"backend": ["a=unix:/a", "a=unix:/b"]}, "two backends have this name"),
            ({"backend": ["a=unix:/a:connections=x"]}, "connections=x: write a number"),
            ({"user-map": "file:x"}, "--user-map needs --backend"),
            ({**several, "user-map": "nis:x"}, "unknown kind 'nis'"),
            ({**several, "user-map": "file:"}, "unknown kind 'file'"),
            ({**several, "user-map": "http:///x"}, "not a URL with a host"),
            ({**several, "user-map": "http://a b/"}, "not a URL with a host"),
            ({**several, "user-map": "http://[/"}, "not a URL with a host"),
            ({**several, "user-map": "https://me@a/"}, "a user in the URL is not sent"),
            ({"backend": ["unix:/a"], "user-map-password": True}, "--user-map-password needs"),
            (
                {**several, "user-map": "http://a.example/", "user-map-password": True},
                "passwords would be sent in the clear; use https:",
            ),
            (
                {**several, "user-map": "file:x", "user-map-password": True},
                "--user-map-password is for --user-map https:",
            ),
        ):
            with self.assertRaisesRegex(ConfigError, said):
                load_settings(options)
        settings = load_settings(
            {**several, "user-map": "http://127.0.0.1/", "user-map-password": True}
        )
        self.assertTrue(settings.user_map_password)
