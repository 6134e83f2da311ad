"""neomutt in a terminal: opens, reads, flags, copies, moves, deletes, and stores sent mail in a folder."""

from __future__ import annotations

from system_tests.maildirs import (
    deliver,
    flags_by_subject,
    small_message,
    stored_messages,
    subject_of,
    with_lf,
)
from system_tests.server_case import PASSWORD, USER, ServerCase, find_program


class NeomuttTests(ServerCase):
    def setUp(self) -> None:
        super().setUp()
        for number in range(6):
            deliver(self.maildir(), small_message(f"m{number}"), f"1700000000.{number}.host")
        self.ok(self.login().create("Kept"))

    def neomutt(self, keys: str, *arguments: str, settings: str = "") -> None:
        """Run neomutt; it types `keys` by itself, and then quits."""
        config = self.write_home_file(
            "muttrc",
            f"""\
set imap_user={USER} imap_pass="{PASSWORD}" ssl_starttls=no ssl_force_tls=no
set folder=imap://127.0.0.1:{self.port}/ spoolfile=imap://127.0.0.1:{self.port}/INBOX
set delete=yes confirmappend=no confirmcreate=no wait_key=no mark_old=no sort=mailbox-order mail_check=1 copy=no
set sendmail=/bin/true realname=Alice from=alice@example.org abort_nosubject=no autoedit=yes editor=true
{settings}
push "{keys}<quit>"
""",
        )
        self.run_in_terminal(find_program("neomutt", "neomutt"), "-n", "-F", config, *arguments)

    def test_displayed_message_becomes_seen_and_others_stay_unseen(self) -> None:
        """A displayed message becomes \\Seen, a piped one is complete, and the others stay unseen."""
        # Keys that are typed ahead keep neomutt from drawing its screen: the message goes into a pipe instead.
        self.neomutt(
            "<first-entry><next-entry><display-message><exit>"
            f"<first-entry><next-entry><pipe-entry>cat >{self.home}/piped<enter>",
            settings="set pipe_decode=no",
        )
        with open(f"{self.home}/piped", "rb") as file:
            self.assertEqual(file.read(), with_lf(small_message("m1")))
        self.assertEqual(
            flags_by_subject(self.maildir()),
            {b"m%d" % n: "S" if n == 1 else "" for n in range(6)},
        )

    def test_flagging_changes_the_file_name(self) -> None:
        """Flagging and marking as answered change the file name."""
        self.neomutt("<first-entry><flag-message><first-entry><set-flag>r<sync-mailbox>")
        self.assertEqual(flags_by_subject(self.maildir())[b"m0"].replace("S", ""), "FR")

    def test_copy_keeps_the_original_and_move_removes_it(self) -> None:
        """copy-message leaves the original, save-message moves it; both store one complete message."""
        self.neomutt(
            "<first-entry><copy-message>=Kept<enter>"
            "<last-entry><save-message>=Kept<enter><sync-mailbox>"
        )
        self.assertEqual(
            stored_messages(self.maildir(".Kept")),
            {with_lf(small_message("m0")): 1, with_lf(small_message("m5")): 1},
        )
        self.assertEqual(set(flags_by_subject(self.maildir())), {b"m0", b"m1", b"m2", b"m3", b"m4"})

    def test_tagged_messages_are_moved_together(self) -> None:
        """Tagged messages are moved together."""
        self.neomutt(
            "<tag-pattern>~s m[1-4]<enter><tag-prefix><save-message>=Kept<enter><sync-mailbox>"
        )
        self.assertEqual(set(flags_by_subject(self.maildir(".Kept"))), {b"m1", b"m2", b"m3", b"m4"})
        self.assertEqual(set(flags_by_subject(self.maildir())), {b"m0", b"m5"})

    def test_only_deleted_messages_are_removed(self) -> None:
        """Deleted messages are removed, and no others are."""
        self.neomutt(
            "<first-entry><next-entry><delete-message><last-entry><delete-message><sync-mailbox>"
        )
        self.assertEqual(set(flags_by_subject(self.maildir())), {b"m0", b"m2", b"m3", b"m4"})

    def test_sent_message_is_appended_to_the_record_folder(self) -> None:
        """A sent message with 8-bit text is appended to the record folder."""
        # Not in batch mode: "Fcc to an IMAP mailbox is not supported in batch mode".
        editor = self.write_home_file("editor", '#!/bin/sh\nprintf "Grüße\\n" >>"$1"\n', 0o700)
        self.neomutt(
            "<mail>bob@example.org<enter>Greetings<enter><send-message>",
            settings=f"set copy=yes record==Kept editor={editor} abort_unmodified=no autoedit=no send_charset=utf-8",
        )
        (message,) = stored_messages(self.maildir(".Kept"))
        self.assertIn(b"To: bob@example.org", message)
        self.assertRegex(message, rb"Gr=C3=BC=C3=9Fe|Gr\xc3\xbc\xc3\x9fe|R3LDvMOfZQ")

    def test_local_messages_are_appended_to_the_server(self) -> None:
        """Messages of a local Maildir are copied to the server with APPEND."""
        local = f"{self.home}/Here"
        for number in range(3):
            deliver(local, with_lf(small_message(f"here{number}")), f"1700000000.{number}.home")
        self.neomutt("<tag-pattern>~A<enter><tag-prefix><copy-message>=Kept<enter>", "-f", local)
        self.assertEqual(
            {subject_of(message) for message in stored_messages(self.maildir(".Kept"))},
            {b"here0", b"here1", b"here2"},
        )

    def test_trycreate_makes_neomutt_create_the_folder(self) -> None:
        """After NO [TRYCREATE] for an absent folder, neomutt creates it and copies again."""
        self.neomutt("<first-entry><copy-message>=Fresh<enter>")
        self.assertEqual(stored_messages(self.maildir(".Fresh")), {with_lf(small_message("m0")): 1})

    def test_new_mail_is_shown_in_an_open_folder(self) -> None:
        """Mail that is delivered while the folder is open is shown, and can be flagged."""
        self.write_home_file("late.sh", f"""\
#!/bin/sh
printf 'Subject: late\\nFrom: bob@example.org\\n\\ntext\\n' >{self.maildir()}/tmp/late
mv {self.maildir()}/tmp/late {self.maildir()}/new/1800000000.late.host
""", 0o700)  # fmt: skip
        self.neomutt(
            f"<shell-escape>{self.home}/late.sh<enter><imap-fetch-mail><check-stats><sync-mailbox>"
            "<last-entry><flag-message><sync-mailbox>"
        )
        self.assertIn("F", flags_by_subject(self.maildir())[b"late"])
