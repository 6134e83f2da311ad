"""The command line and the TOML file of --config are combined into one `Settings` value."""

import os
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from imapshield.config import ConfigError, Settings, load_settings
from imapshield.limits import Limits


class ConfigTestCase(SynchronousTestCase):
    def file(self, content: bytes) -> str:
        path: str = os.path.abspath(self.mktemp())
        with open(path, "wb") as file:
            file.write(content)
        return path

    def refuses(self, options: dict[str, Any], path: str | None, *words: str) -> None:
        """Check that the options raise ConfigError with one line that contains all of `words`."""
        error = self.assertRaises(ConfigError, load_settings, options, path)
        self.assertEqual(len(str(error).splitlines()), 1, error)
        for word in words:
            self.assertIn(word, str(error))


class CommandLineTests(ConfigTestCase):
    def test_no_options_give_the_defaults(self) -> None:
        """Without options, all settings have their defaults."""
        settings = load_settings({})
        self.assertEqual(settings, Settings())
        self.assertEqual(settings.listen, ("tcp:1143:interface=127.0.0.1",))
        self.assertEqual((settings.mail_root, settings.auth, settings.limits), (None, (), Limits()))

    def test_each_limit_is_set_by_its_name(self) -> None:
        """Each limit is set by its name, with dashes or underscores; --backlog is short for --limit backlog."""
        settings = load_settings(
            {
                "limit": ["max_line_length=1000", "idle-seconds=1.5", "strict_backlog=true"],
                "backlog": "50",
                "report-only": True,
            }
        )
        self.assertEqual(
            settings.limits,
            Limits(
                max_line_length=1000,
                idle_seconds=1.5,
                strict_backlog=True,
                backlog=50,
                report_only=True,
            ),
        )

    def test_report_only_limits(self) -> None:
        """Single limits can be report-only, in the file too, where the command line replaces them."""
        path = self.file(b'report-only-limit = ["backlog", "max-failed-pairs"]')
        limits = load_settings({}, path).limits
        self.assertEqual(limits.report_only_limits, {"backlog", "max_failed_pairs"})
        self.assertTrue(limits.reports_only("backlog"))
        self.assertFalse(limits.reports_only("preauth_bytes"))
        self.assertTrue(Limits(report_only=True).reports_only("preauth_bytes"))
        limits = load_settings({"report-only-limit": ["preauth-bytes"]}, path).limits
        self.assertEqual(limits.report_only_limits, {"preauth_bytes"})

    def test_limit_that_cannot_be_report_only(self) -> None:
        """A limit that refuses single commands cannot be report-only; the error says where those are that can."""
        option = "--report-only-limit"
        can = "docs/limits.rst lists those that can be report-only"
        for name, text in (
            ("max_message_size", f"cannot be report-only; {can}"),
            ("bakclog", f"unknown limit; did you mean backlog? {can}"),
            ("xyz", f"unknown limit; {can}"),
            ("max-failed-pairs=3", "write the name alone: --report-only-limit max_failed_pairs"),
        ):
            self.refuses({"report-only-limit": [name]}, None, f"{option} {name}: {text}")

    def test_unknown_limit_error_lists_the_known_limits(self) -> None:
        """The error for an unknown limit names a similar one and the option that lists all of them."""
        self.refuses({"limit": ["bakclog=1"]}, None, "unknown limit", "backlog?", "--limit help")
        self.refuses({"limit": ["xyz=1"]}, None, "--limit xyz=1: unknown limit; `--limit help`")

    def test_invalid_limit_value_error_names_the_limit(self) -> None:
        """The error for an invalid value of a limit names the limit."""
        for assignment in (
            "max_line_length=x",
            "max_line_length=-1",
            "max_line_length=0",
            "max_line_length=1.5",
            "max_line_length=nan",
            "idle_seconds=inf",
            "report_only=1",
            "max_line_length=99999999999999",
        ):
            with self.subTest(assignment=assignment):
                self.refuses({"limit": [assignment]}, None, f"--limit {assignment}: must be")
        for assignment in ("max_line_length", "max_line_length="):
            advice = "write NAME=VALUE, such as --limit max_line_length=65536"
            self.refuses({"limit": [assignment]}, None, f"--limit {assignment}: {advice}")
        self.refuses({"limit": ["report_only"]}, None, "such as --limit report_only=false")
        for text in ("many", "0"):
            self.refuses({"backlog": text}, None, f"--backlog {text}: must be a whole number")

    def test_units(self) -> None:
        """Sizes have the units K, M, G and T, times s, m, h and d; other limits have none."""
        for assignment, value in (
            ("max_message_size=10M", 10 << 20),
            ("quota_bytes=1.5GiB", 3 << 29),
            ("max_line_length=64kb", 64 << 10),
            ("idle_seconds=30m", 1800),
            ("stalled_seconds=0.5m", 30),
        ):
            name = assignment.partition("=")[0]
            limits = load_settings({"limit": [assignment]}).limits
            self.assertEqual(getattr(limits, name), value)
        for assignment in (
            "max_message_size=10m3",
            "max_line_length=1.0001k",
            "idle_seconds=1G",
            "max_connections=1k",
        ):
            self.refuses({"limit": [assignment]}, None, f"--limit {assignment}: must be")
        self.refuses({"limit": ["max_message_size=10X"]}, None, "as in 10M")

    def test_zero_means_no_limit(self) -> None:
        """A limit that is off by default, with 0, can be set to 0; the error for another value permits 0 too."""
        settings = load_settings({"limit": ["quota_bytes=1", "quota_bytes=0"]})
        self.assertEqual(settings.limits.quota_bytes, 0)
        self.refuses(
            {"limit": ["quota_bytes=-1"]},
            None,
            "must be a whole number from 1 to 999999999999, or 0 for no limit",
        )

    def test_text_index_can_be_turned_off(self) -> None:
        """There is a text index unless an option of the command line or of the file turns it off."""
        self.assertFalse(load_settings({}).no_text_index)
        self.assertTrue(load_settings({"no-text-index": True}).no_text_index)
        self.assertTrue(load_settings({}, self.file(b"no-text-index = true")).no_text_index)

    def test_mail_root_requires_auth(self) -> None:
        """A mail root without --auth is an error that says how to add users."""
        self.refuses({"mail-root": "/x"}, None, "--auth", "file:PATH", "imapshield passwd")

    def test_options_of_the_operator(self) -> None:
        """The options of the status page and of the log are checked."""
        self.refuses({"admin-auth": "file:x"}, None, "--admin-auth needs --admin: add --admin tcp:")
        self.refuses({"log-format": "xml"}, None, "--log-format xml: must be text or json")
        options = {"admin": "unix:x", "admin-auth": "file:x", "metrics": "tcp:1"}
        settings = load_settings(options | {"log-format": "json"})
        found = settings.admin, settings.admin_auth, settings.metrics, settings.log_format
        self.assertEqual(found, ("unix:x", "file:x", "tcp:1", "json"))

    def test_key_requires_certificate(self) -> None:
        """A private key without a certificate is an error."""
        self.refuses({"key": "/x"}, None, "--key", "--certificate")
        for text in ("imaps:993", "haproxy:imaps:993", "imaps"):
            self.refuses({"listen": [text]}, None, f"--listen {text} needs --certificate")

    def test_separator_and_prefix_must_fit(self) -> None:
        """A separator is one of a few characters, and a prefix ends with it and has no other empty level."""
        self.assertEqual(load_settings({"prefix": "Mail/a/"}).prefix, "Mail/a/")
        dots = load_settings({"separator": ".", "prefix": "INBOX."})
        self.assertEqual((dots.separator, dots.prefix), (".", "INBOX."))
        for separator in ("..", "a", "*", "é", " "):
            self.refuses({"separator": separator}, None, "--separator", ".")
        self.refuses({"prefix": "INBOX."}, None, "--prefix INBOX.", "separator /", "--separator")
        for prefix in ("/", "a//", "/a/", "a*/", "a\n/"):
            self.refuses({"prefix": prefix}, None, "--prefix", "INBOX/")

    def test_user_names(self) -> None:
        """User names are folded and have no default domain, unless an option says so."""
        settings = load_settings({"exact-user-names": True, "default-domain": "example.org"})
        self.assertEqual(
            (settings.exact_user_names, settings.default_domain), (True, "example.org")
        )
        settings = load_settings({}, self.file(b'default-domain = "example.org"'))
        self.assertEqual(
            (settings.exact_user_names, settings.default_domain), (False, "example.org")
        )


class TomlFileTests(ConfigTestCase):
    def test_documented_example(self) -> None:
        """The example in docs/running.rst is a valid file."""
        page = (Path(__file__).parent.parent / "docs" / "running.rst").read_text()
        example = page.partition('    listen = ["tcp:143"')
        text = example[1] + example[2].partition("\n\nThe file is read")[0]
        content = "\n".join(line.strip() for line in text.splitlines())
        settings = load_settings({}, self.file(content.encode()))
        self.assertEqual(settings.state, "/var/lib/imapshield-guard/guard.sqlite")
        self.assertEqual((settings.proxy, settings.limits.idle_seconds), (("192.0.2.11",), 3600))

    CONTENT = (
        b'listen = ["tcp:1", "tcp:2"]\nauth = "memory:a:b"\nmail-root = "/x"\nbacklog = 7\nreport-only = true\n'
        b"[limit]\nmax_line_length = 2000\nidle_seconds = 2.5\nstrict_backlog = true\n"
    )

    def test_file_has_the_options_of_the_command_line(self) -> None:
        """The TOML file has the options of the command line, and a table of limits."""
        settings = load_settings({}, self.file(self.CONTENT))
        self.assertEqual((settings.listen, settings.auth), (("tcp:1", "tcp:2"), ("memory:a:b",)))
        self.assertEqual(
            settings.limits,
            Limits(
                backlog=7,
                report_only=True,
                max_line_length=2000,
                idle_seconds=2.5,
                strict_backlog=True,
            ),
        )

    def test_command_line_takes_precedence(self) -> None:
        """An option of the command line replaces the same option of the file; limits are replaced one by one."""
        options = {
            "listen": ["tcp:3"],
            "backlog": "8",
            "mail-root": "/y",
            "limit": ["max_line_length=3000"],
        }
        settings = load_settings(options, self.file(self.CONTENT))
        self.assertEqual((settings.listen, settings.mail_root), (("tcp:3",), "/y"))
        limits = settings.limits
        self.assertEqual(
            (limits.backlog, limits.max_line_length, limits.idle_seconds), (8, 3000, 2.5)
        )

    def test_limits_of_the_command_line_take_precedence(self) -> None:
        """A limit on the command line replaces the same limit of the file, whichever option sets it."""
        path = self.file(b"backlog = 7\nstrict-backlog = true\n[limit]\nreport_only = true\n")
        limit = ["backlog=9", "strict-backlog=false", "report_only=false"]
        self.assertEqual(load_settings({"limit": limit}, path).limits, Limits(backlog=9))
        path = self.file(b"report-only = false\n[limit]\nbacklog = 7\n")
        settings = load_settings({"backlog": "9", "report-only": True}, path)
        self.assertEqual(settings.limits, Limits(backlog=9, report_only=True))

    def test_wrong_limit_in_the_file(self) -> None:
        """The error for a limit of the file names the file."""
        path = self.file(b"backlog = 0")
        self.refuses({}, path, f"--config {path}: backlog 0: must be")

    def test_missing_file_is_an_error(self) -> None:
        """A missing file is an error that names it."""
        path: str = os.path.abspath(self.mktemp())
        self.refuses({}, path, "--config", path)

    def test_invalid_file_is_an_error(self) -> None:
        """An invalid file, an unknown option and a value of the wrong type are errors that name an option."""
        for content in (
            b"=", b"\xff", b"nonsense = 1", b"listen = 1", b"backlog = true", b"mail-root = 1", b"report-only = 1",
            b"auth = [1]", b"limit = 1", b'mail-root = ""', b"[limit]\nx = 1", b"[limit]\nline = [1]",
        ):  # fmt: skip
            with self.subTest(content=content):
                self.refuses({}, self.file(content), "--")


class AcmeTests(ConfigTestCase):
    def test_settings(self) -> None:
        """The names may be several options, or a string or a list of the file."""
        given = {"acme": ["Mail.example.org", "imap.example.org"], "acme-email": "me@example.org"}
        settings = load_settings({**given, "listen": ["imaps:993"]})
        self.assertEqual(settings.acme, ("mail.example.org", "imap.example.org"))
        self.assertEqual((settings.acme_email, settings.acme_http), ("me@example.org", "80"))
        self.assertEqual(load_settings({}, self.file(b'acme = "a.example"')).acme, ("a.example",))

    def test_errors(self) -> None:
        """What cannot be is one line that says what to write."""
        self.refuses({"acme": ["192.0.2.1"]}, None, "--acme: 192.0.2.1: is an address; write the")
        self.refuses({"acme-http": "80"}, None, "--acme-http needs --acme: add --acme mail.ex")
        both = {"acme": ["a.example"], "certificate": "x.pem"}
        self.refuses(both, None, "--acme and --certificate exclude each other")
        url = {"acme": ["a.example"], "acme-server": "http://x"}
        self.refuses(url, None, "--acme-server http://x: must be the https URL")
        self.refuses({"listen": ["imaps:993"]}, None, "needs --certificate", "or --acme NAME")
