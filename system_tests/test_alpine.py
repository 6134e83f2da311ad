"""alpine, in a terminal: opens INBOX with a password that is typed, reads, flags, saves, deletes and expunges."""

from __future__ import annotations

from system_tests.cases import (
    PASSWORD,
    USER,
    ServerCase,
    deliver,
    letters,
    plain,
    simple,
    stored,
    tool,
)


class AlpineTests(ServerCase):
    def setUp(self) -> None:
        super().setUp()
        for number in range(5):
            deliver(self.maildir(), simple(f"m{number}"), f"1700000000.{number}.host")
        self.ok(self.login().create("Kept"))

    def alpine(self, *answers) -> None:
        where = f"{{127.0.0.1:{self.port}/imap/user={USER}/notls}}"
        config = self.write(
            "pinerc",
            f"""\
personal-name=Alice
user-domain=example.org
inbox-path={where}INBOX
folder-collections=Mail {where}[]
feature-list=quit-without-confirm,expunge-without-confirm,expunge-without-confirm-everywhere,
\tsave-will-quote-leading-froms,enable-flag-cmd,enable-full-header-cmd,enable-tab-completion,
\tno-save-will-advance,no-enable-newmail-in-xterm-icon,enable-aggregate-command-set
sort-key=arrival
last-version-used=9.99
disable-these-drivers=
use-only-domain-name=No
color-style=no-color
""",
        )
        login = (b"PASSWORD", f"{PASSWORD}\r".encode()), (b"Preserve password on DISK", b"n")
        self.in_terminal(
            tool("alpine", "alpine"), "-p", config, "-i", "-n", "1", answers=[*login, *answers]
        )

    def test_session(self) -> None:
        """The first is read, the second flagged, the third saved elsewhere, the fifth deleted; then all is expunged."""
        self.alpine(
            (b"m4", b"\r"),
            (b"hello", b"<"),
            (b"m4", b"n"),
            (b"m1", b"*"),
            (b"or Important ?", b"*"),
            (b"Flagged message 2", b"n"),
            (b"m2", b"s"),
            (b"SAVE", b"Kept\r"),
            (b"DEL", b"n"),
            (b"m3", b"n"),
            (b"m4", b"d"),
            (b"marked for deletion", b"x"),
            (b"xpunged", b"q"),
        )
        self.assertEqual(letters(self.maildir()), {b"m0": "S", b"m1": "F", b"m3": ""})
        self.assertEqual(stored(self.maildir(".Kept")), {plain(simple("m2")): 1})
