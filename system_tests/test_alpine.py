"""alpine in a terminal: opens INBOX with a typed password, reads, flags, saves, deletes and expunges."""

from __future__ import annotations

from system_tests.maildirs import (
    deliver,
    flags_by_subject,
    small_message,
    stored_messages,
    with_lf,
)
from system_tests.server_case import PASSWORD, USER, ServerCase, find_program


class AlpineTests(ServerCase):
    def setUp(self) -> None:
        super().setUp()
        for number in range(5):
            deliver(self.maildir(), small_message(f"m{number}"), f"1700000000.{number}.host")
        self.ok(self.login().create("Kept"))

    def alpine(self, *replies: tuple[bytes, bytes]) -> None:
        """Run alpine; each reply is a text to wait for and the keys to type then."""
        server = f"{{127.0.0.1:{self.port}/imap/user={USER}/notls}}"
        config = self.write_home_file(
            "pinerc",
            f"""\
personal-name=Alice
user-domain=example.org
inbox-path={server}INBOX
folder-collections=Mail {server}[]
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
        self.run_in_terminal(
            find_program("alpine", "alpine"), "-p", config, "-i", "-n", "1",
            replies=[*login, *replies],
        )  # fmt: skip

    def test_messages_are_read_flagged_saved_and_expunged(self) -> None:
        """A message is read, one is flagged, one saved to another folder, one deleted; then alpine expunges."""
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
        self.assertEqual(flags_by_subject(self.maildir()), {b"m0": "S", b"m1": "F", b"m3": ""})
        self.assertEqual(stored_messages(self.maildir(".Kept")), {with_lf(small_message("m2")): 1})
