"""neomutt, in a terminal: opens, reads, flags, copies, moves, deletes, and keeps what it sends in a folder."""

from __future__ import annotations

import re

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


class NeomuttTests(ServerCase):
    def setUp(self) -> None:
        super().setUp()
        for number in range(6):
            deliver(self.maildir(), simple(f"m{number}"), f"1700000000.{number}.host")
        self.ok(self.login().create("Kept"))

    def config(self, keys="", more=""):
        return self.write(
            "muttrc",
            f"""\
set imap_user={USER} imap_pass="{PASSWORD}" ssl_starttls=no ssl_force_tls=no
set folder=imap://127.0.0.1:{self.port}/ spoolfile=imap://127.0.0.1:{self.port}/INBOX
set delete=yes confirmappend=no confirmcreate=no wait_key=no mark_old=no sort=mailbox-order mail_check=1 copy=no
set sendmail=/bin/true realname=Alice from=alice@example.org abort_nosubject=no autoedit=yes editor=true
{more}
push "{keys}"
""",
        )

    def mutt(self, keys, more=""):
        return self.in_terminal(
            tool("neomutt", "neomutt"), "-n", "-F", self.config(keys + "<quit>", more)
        )

    def test_read(self) -> None:
        """A message that is displayed is \\Seen and one that is piped is whole; the others stay unseen."""
        # Keys that are typed ahead keep neomutt from drawing its screen: what it read goes into a pipe.
        self.mutt(
            "<first-entry><next-entry><display-message><exit>"
            f"<first-entry><next-entry><pipe-entry>cat >{self.home}/piped<enter>",
            "set pipe_decode=no",
        )
        with open(f"{self.home}/piped", "rb") as file:
            self.assertEqual(file.read(), plain(simple("m1")))
        self.assertEqual(
            letters(self.maildir()),
            {b"m%d" % n: "S" if n == 1 else "" for n in range(6)},
        )

    def test_flag(self) -> None:
        """Flagged, marked as new and marked as answered: all as in the file names."""
        self.mutt("<first-entry><flag-message><first-entry><set-flag>r<sync-mailbox>")
        self.assertEqual(letters(self.maildir())[b"m0"].replace("S", ""), "FR")

    def test_copy_and_move(self) -> None:
        """copy-message leaves the original; save-message moves; both are one whole message in the other folder."""
        self.mutt(
            "<first-entry><copy-message>=Kept<enter>"
            "<last-entry><save-message>=Kept<enter><sync-mailbox>"
        )
        self.assertEqual(
            stored(self.maildir(".Kept")), {plain(simple("m0")): 1, plain(simple("m5")): 1}
        )
        self.assertEqual(set(letters(self.maildir())), {b"m0", b"m1", b"m2", b"m3", b"m4"})

    def test_move_many(self) -> None:
        """Tagged messages are moved together."""
        self.mutt(
            "<tag-pattern>~s m[1-4]<enter><tag-prefix><save-message>=Kept<enter><sync-mailbox>"
        )
        self.assertEqual(set(letters(self.maildir(".Kept"))), {b"m1", b"m2", b"m3", b"m4"})
        self.assertEqual(set(letters(self.maildir())), {b"m0", b"m5"})

    def test_delete(self) -> None:
        """Deleted and purged, and nothing else is."""
        self.mutt(
            "<first-entry><next-entry><delete-message><last-entry><delete-message><sync-mailbox>"
        )
        self.assertEqual(set(letters(self.maildir())), {b"m0", b"m2", b"m3", b"m4"})

    def test_sent(self) -> None:
        """What is sent is appended to the record folder, 8-bit text and all."""
        # Not in batch mode: "Fcc to an IMAP mailbox is not supported in batch mode".
        editor = self.write("editor", '#!/bin/sh\nprintf "Grüße\\n" >>"$1"\n', 0o700)
        self.mutt(
            "<mail>bob@example.org<enter>Greetings<enter><send-message>",
            f"set copy=yes record==Kept editor={editor} abort_unmodified=no autoedit=no send_charset=utf-8",
        )
        (octets,) = stored(self.maildir(".Kept"))
        self.assertIn(b"To: bob@example.org", octets)
        self.assertTrue(
            re.search(rb"Gr=C3=BC=C3=9Fe|Gr\xc3\xbc\xc3\x9fe|R3LDvMOfZQ", octets), octets
        )

    def test_save_from_elsewhere(self) -> None:
        """From a Maildir of its own to the server: APPEND."""
        here = f"{self.home}/Here"
        for number in range(3):
            deliver(here, plain(simple(f"here{number}")), f"1700000000.{number}.home")
        config = self.config("<tag-pattern>~A<enter><tag-prefix><copy-message>=Kept<enter><quit>")
        self.in_terminal(tool("neomutt", "neomutt"), "-n", "-F", config, "-f", here)
        found = {plain(o) for o in stored(self.maildir(".Kept"))}
        self.assertEqual(
            {re.search(rb"Subject: (.*)", o)[1] for o in found}, {b"here0", b"here1", b"here2"}
        )

    def test_new_folder(self) -> None:
        """Copying to a folder that is not there: NO [TRYCREATE] makes neomutt create it and try again."""
        self.mutt("<first-entry><copy-message>=Fresh<enter>")
        self.assertEqual(stored(self.maildir(".Fresh")), {plain(simple("m0")): 1})

    def test_new_mail(self) -> None:
        """Mail that is delivered while the folder is open is shown and read."""
        self.write("late.sh", f"""\
#!/bin/sh
printf 'Subject: late\\nFrom: bob@example.org\\n\\ntext\\n' >{self.maildir()}/tmp/late
mv {self.maildir()}/tmp/late {self.maildir()}/new/1800000000.late.host
""", 0o700)  # fmt: skip
        self.mutt(
            f"<shell-escape>{self.home}/late.sh<enter><imap-fetch-mail><check-stats><sync-mailbox>"
            "<last-entry><flag-message><sync-mailbox>"
        )
        self.assertIn("F", letters(self.maildir())[b"late"])
