"""Python's imaplib: each of its commands, IDLE by hand, STARTTLS, and 10,000 messages."""

from __future__ import annotations

import imaplib
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable

from system_tests.maildirs import (
    corpus_messages,
    deliver,
    flags_by_subject,
    paths_by_subject,
    small_message,
    stored_messages,
    with_lf,
)
from system_tests.server import wait_until
from system_tests.server_case import (
    PASSWORD,
    SPECIAL_FOLDERS,
    USER,
    ServerCase,
    TlsServerCase,
    literals,
)

COUNT = 10_000


def set_literal(client: imaplib.IMAP4, data: bytes) -> None:
    """Append a literal to the next command."""
    client.literal = data  # type: ignore[assignment]  # typeshed declares str; imaplib sends bytes


class LargeTests(ServerCase):
    def prepare(self) -> None:
        self.fill_with_links(COUNT)

    def test_ten_thousand_messages_are_fetched_as_stored(self) -> None:
        """All of 10,000 messages are fetched as they were stored, and RFC822.SIZE is their size."""
        client = self.login()
        self.assertEqual(self.ok(client.select("INBOX", readonly=True)), [b"%d" % COUNT])
        expected = corpus_messages(COUNT)
        self.assert_same_messages(self.fetch_all(client), expected)
        data = self.ok(
            client.fetch("1:*", "(UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE)")
        )
        heads = [entry[0] if isinstance(entry, tuple) else entry for entry in data]
        self.assertEqual(sum(b"ENVELOPE (" in head for head in heads), COUNT)
        self.assertGreater(len({len(message) for message in expected}), 1000)
        # On the wire each line ends with CRLF: the size is that of the LF form plus one byte for each line.
        sizes = sorted(int(n) for head in heads for n in re.findall(rb"RFC822.SIZE (\d+)", head))
        self.assertEqual(sizes, sorted(len(m) + m.count(b"\n") for m in expected))


class ImaplibTests(ServerCase):
    def append(
        self, client: imaplib.IMAP4, *subjects: str, folder: str = "INBOX", flags: str = ""
    ) -> None:
        for subject in subjects:
            self.ok(client.append(folder, flags, "", small_message(subject)))

    def test_commands_before_and_around_login_work(self) -> None:
        """CAPABILITY, NOOP and a login that is first wrong and then right work; LOGOUT sends BYE."""
        client = imaplib.IMAP4("127.0.0.1", self.port, timeout=60)
        self.assertIn("IMAP4REV1", client.capabilities)
        self.ok(client.noop())
        self.assertRaises(imaplib.IMAP4.error, client.login, USER, "wrong")
        self.ok(client.login(USER, PASSWORD))
        self.assertEqual(client.logout()[0], "BYE")

    def test_quotes_and_backslashes_in_passwords_are_valid_syntax(self) -> None:
        """A LOGIN password of quotes and backslashes is wrong but no syntax error; AUTHENTICATE PLAIN works."""
        client = imaplib.IMAP4("127.0.0.1", self.port, timeout=60)
        self.addCleanup(client.shutdown)
        self.assertRaises(imaplib.IMAP4.error, client.login, USER, 'wr"on\\g')
        self.ok(client.authenticate("PLAIN", lambda _: f"\0{USER}\0{PASSWORD}".encode()))
        self.ok(client.select())

    def test_folder_commands_work(self) -> None:
        """CREATE, LIST, LSUB, SUBSCRIBE, UNSUBSCRIBE, STATUS, RENAME, DELETE and NAMESPACE work."""
        client = self.login()
        self.assertEqual(self.ok(client.namespace()), [b'(("" "/")) NIL NIL'])
        for name in ("Work", "Work/2025", "Play"):
            self.ok(client.create(name))
            self.ok(client.subscribe(name))
        special = {name.encode() for name in SPECIAL_FOLDERS}
        lines = self.ok(client.list())
        listed = {line.rpartition(b" ")[2] for line in lines}
        self.assertEqual(listed, {b"INBOX", b"Play", b"Work", b"Work/2025"} | special)
        for name in SPECIAL_FOLDERS:
            self.assertIn(f'(\\HasNoChildren \\{name}) "/" {name}'.encode(), lines)
        names = [line.rpartition(b" ")[2] for line in self.ok(client.list('"Work/"', "%"))]
        self.assertEqual(names, [b"Work/2025"])
        self.ok(client.unsubscribe("Play"))
        subscribed = {line.rpartition(b" ")[2] for line in self.ok(client.lsub())}
        self.assertEqual(subscribed, {b"INBOX", b"Work", b"Work/2025"} | special)
        self.append(client, "a", folder="Work/2025")
        self.ok(client.rename("Work", "Job"))
        self.assertEqual(
            self.ok(client.status("Job/2025", "(MESSAGES RECENT UNSEEN)")),
            [b"Job/2025 (MESSAGES 1 RECENT 1 UNSEEN 1)"],
        )
        self.ok(client.delete("Play"))
        self.assertEqual(client.select("Play")[0], "NO")
        self.assertEqual(client.create("INBOX")[0], "NO")
        self.assertEqual(client.delete("INBOX")[0], "NO")

    def test_modified_utf7_names_are_listed_as_created(self) -> None:
        """Folder names in modified UTF-7 are listed as created, and are on disk as other servers write them."""
        client = self.login()
        names = ("K&APY-ln", "&ZeVnLIqe-", "Q&-A", "with space", "Gr&APwA3w-e/&2D3eAA-")
        for name in names:
            self.ok(client.create(f'"{name}"'))
            self.append(client, "in it", folder=f'"{name}"')
            self.assertEqual(self.ok(client.select(f'"{name}"')), [b"1"])
        listed = b" ".join(self.ok(client.list()))
        for name in names:
            self.assertIn(name.encode(), listed)
        self.assertEqual(stored_messages(self.maildir(".K&APY-ln")).total(), 1)

    def test_names_searches_and_messages_may_be_literals(self) -> None:
        """Folder names, search strings and messages may be literals, with bytes above 127 and bare LFs."""
        client = self.login()
        set_literal(client, b"by literal")
        self.ok(client._simple_command("CREATE"))
        # imaplib sends a literal only at the end of a command: one with text after it is sent by hand.
        client.send(b"x SELECT {10}\r\n")
        self.assertTrue(client.readline().startswith(b"+"))
        client.send(b"by literal\r\n")
        self.assert_ok_line(client, b"x")
        eight_bit = b"Subject: Gr\xfc\xdfe\r\n\r\n\xff\x80 \xc3\xa4 octets\r\n"
        bare_lf = b"Subject: unix\n\nline\nline\n"
        for message in (eight_bit, bare_lf):
            # append() of imaplib turns every line end into CRLF.
            self.ok(client.append('"by literal"', "", "", message))
        self.ok(client.select('"by literal"'))
        self.assertEqual(self.ok(client.fetch("1", "BODY[]"))[0][1], eight_bit)
        self.assertEqual(
            self.ok(client.fetch("2", "BODY[]"))[0][1], bare_lf.replace(b"\n", b"\r\n")
        )
        set_literal(client, "Grüße".encode())
        self.ok(client.uid("SEARCH", "CHARSET", "UTF-8", "SUBJECT"))

    def assert_ok_line(self, client: imaplib.IMAP4, tag: bytes) -> None:
        """Read lines up to the tagged response, which must be OK."""
        while not (line := client.readline()).startswith(tag + b" "):
            pass
        self.assertTrue(line.startswith(tag + b" OK"), line)

    def test_search_in_utf8_finds_encoded_words(self) -> None:
        """SEARCH CHARSET UTF-8 with a literal finds encoded words and 8-bit headers."""
        client = self.login()
        encoded = b"Subject: =?iso-8859-1?Q?Gr=FC=DFe?=\r\n\r\nx\r\n"
        raw = "Subject: Grüße\r\n\r\nx\r\n".encode()
        for message in (encoded, raw, small_message("none")):
            self.ok(client.append("INBOX", "", "", message))
        client.select()
        set_literal(client, "grüße".encode())
        self.assertEqual(self.ok(client.search("UTF-8", "SUBJECT")), [b"1 2"])

    def test_append_date_becomes_internaldate(self) -> None:
        """The date of APPEND, with its zone, becomes INTERNALDATE, accurate to the second."""
        client = self.login()
        date = imaplib.Time2Internaldate(1_600_000_000)
        self.ok(client.append("INBOX", "", date, small_message("dated")))
        client.select()
        (response,) = self.ok(client.fetch("1", "(INTERNALDATE)"))
        internal_date = imaplib.Internaldate2tuple(response)
        assert internal_date is not None, response
        self.assertEqual(time.mktime(internal_date), 1_600_000_000)
        self.assertEqual(self.ok(client.search(None, "ON", "13-Sep-2020")), [b"1"])

    def test_commands_that_change_messages_work(self) -> None:
        """STORE in its forms, COPY, MOVE, SEARCH, EXPUNGE, UID EXPUNGE, CHECK, CLOSE and UNSELECT work."""
        client = self.login()
        self.ok(client.create("Kept"))
        self.append(client, *"abcdefgh")
        self.ok(client.select())
        self.ok(client.store("1:3", "+FLAGS", "(\\Flagged $Mine)"))
        self.ok(client.store("2", "-FLAGS", "(\\Flagged)"))
        self.ok(client.store("4", "FLAGS.SILENT", "(\\Seen \\Answered \\Draft)"))
        self.assertEqual(self.ok(client.search(None, "FLAGGED")), [b"1 3"])
        self.assertEqual(self.ok(client.search(None, "KEYWORD", "$Mine", "UNFLAGGED")), [b"2"])
        self.assertEqual(self.ok(client.search(None, "OR", "SEEN", "SUBJECT", "h")), [b"4 8"])
        self.assertIn(b"COPYUID", self.ok(client.copy("1:2", "Kept"))[0])
        self.ok(client.uid("MOVE", "3:4", "Kept"))
        # imaplib keeps untagged responses until they are read: take those of MOVE before EXPUNGE adds its own.
        self.assertEqual(len(client.response("EXPUNGE")[1]), 2)
        self.ok(client.store("1:2", "+FLAGS", "(\\Deleted)"))
        self.ok(client.uid("EXPUNGE", "1"))
        self.assertEqual(client.response("EXPUNGE")[1], [b"1"])
        self.ok(client.check())
        self.assertEqual(self.ok(client.expunge()), [b"1"])
        self.assertEqual(flags_by_subject(self.maildir(".Kept")).keys(), {b"a", b"b", b"c", b"d"})
        self.assertEqual(flags_by_subject(self.maildir()).keys(), {b"e", b"f", b"g", b"h"})
        self.assertEqual(flags_by_subject(self.maildir(".Kept"))[b"d"], "DRS")
        self.ok(client.select("Kept"))
        self.assertEqual(self.ok(client.search(None, "KEYWORD", "$Mine")), [b"1 2 3"])
        self.ok(client.store("1", "+FLAGS", "(\\Deleted)"))
        self.ok(client.unselect())
        self.assertEqual(self.ok(client.select("Kept")), [b"4"])
        self.ok(client.close())
        self.assertEqual(self.ok(client.select("Kept", readonly=True)), [b"3"])

    def test_examine_changes_nothing(self) -> None:
        """EXAMINE changes nothing: \\Seen is not set, and STORE is refused."""
        client = self.login()
        self.append(client, "a")
        client.select(readonly=True)
        self.ok(client.fetch("1", "(BODY[])"))
        self.assertEqual(client.store("1", "+FLAGS", "(\\Flagged)")[0], "NO")
        self.assertEqual(flags_by_subject(self.maildir()), {b"a": ""})

    def test_idle_reports_changes_within_a_second(self) -> None:
        """In IDLE deliveries, and another session's flags and expunges, are reported within a second."""
        client, other = self.login(), self.login()
        self.append(other, "first")
        client.select()
        other.select()
        client.send(b"idle IDLE\r\n")
        self.assertTrue(client.readline().startswith(b"+ "))
        for number in range(5):
            started = time.monotonic()
            deliver(self.maildir(), small_message(f"mail {number}"))
            self.wait_for_line(client, b"EXISTS", started)
        changes: list[tuple[Callable[[], tuple[str, object]], bytes]] = [
            (lambda: other.store("1", "+FLAGS", "(\\Flagged)"), b"FETCH (FLAGS"),
            (lambda: other.store("1", "+FLAGS", "(\\Deleted)"), b"\\Deleted"),
            (other.expunge, b"* 1 EXPUNGE"),
        ]
        for change, text in changes:
            started = time.monotonic()
            self.ok(change())
            self.wait_for_line(client, text, started)
        client.send(b"DONE\r\n")
        self.assert_ok_line(client, b"idle")
        self.assertEqual(self.ok(client.search(None, "ALL")), [b"1 2 3 4 5"])

    def wait_for_line(self, client: imaplib.IMAP4, text: bytes, started: float) -> None:
        """Read lines until one contains `text`, which must arrive within a second of `started`."""
        while text not in client.readline():
            pass
        self.assertLess(time.monotonic() - started, 1.0)

    def test_changes_by_other_programs_are_reported_at_noop(self) -> None:
        """Mail, flags and a removal by another program on disk are reported at a later NOOP."""
        client = self.login()
        for subject in "abc":
            deliver(self.maildir(), small_message(subject))
        self.assertEqual(self.ok(client.select()), [b"3"])
        paths = paths_by_subject(self.maildir())
        os.rename(paths[b"a"], paths[b"a"].replace("/new/", "/cur/").partition(":2,")[0] + ":2,FS")
        os.unlink(paths[b"b"])
        deliver(self.maildir(), small_message("d"))

        def all_reported() -> bool:
            client.noop()
            found = self.ok(client.search(None, "ALL"))
            flagged = self.ok(client.search(None, "FLAGGED", "SEEN"))
            return bool(found == [b"1 2 3"] and flagged == [b"1"])

        wait_until(all_reported, 5)
        data = self.ok(client.fetch("1:*", "(UID BODY.PEEK[HEADER.FIELDS (SUBJECT)])"))
        subjects = [header.strip() for header in literals(data)]
        self.assertEqual(subjects, [b"Subject: a", b"Subject: c", b"Subject: d"])

    def test_pipelined_commands_are_answered_in_order(self) -> None:
        """5,000 UID FETCHes that are sent without reading all get their responses, in order."""
        self.fill(50)
        client = self.login()
        client.select(readonly=True)
        lines = b"".join(b"p%d UID FETCH %d (FLAGS)\r\n" % (n, n % 50 + 1) for n in range(5000))
        sender = threading.Thread(target=client.socket().sendall, args=(lines,), daemon=True)
        sender.start()
        tags: list[int] = []
        while len(tags) < 5000:
            line = client.readline()
            if line.startswith(b"p"):
                self.assertIn(b" OK", line)
                tags.append(int(line[1 : line.index(b" ")]))
        sender.join(60)
        self.assertEqual(tags, list(range(5000)))

    def test_sessions_of_one_user_share_a_mailbox(self) -> None:
        """Two sessions of one user see the same mailbox, and another user does not."""
        first, second, other_user = self.login(), self.login(), self.login("bob")
        first.select()
        second.select()
        self.append(first, "shared")
        self.ok(second.noop())
        self.assertEqual(self.ok(second.search(None, "ALL")), [b"1"])
        self.assertEqual(self.ok(other_user.select()), [b"0"])
        self.assertEqual(stored_messages(self.maildir()), {with_lf(small_message("shared")): 1})


class StartTlsTests(TlsServerCase):
    def test_starttls_is_no_capability_after_tls(self) -> None:
        """STARTTLS works with a checked certificate, and is not among the capabilities afterwards."""
        client = imaplib.IMAP4("localhost", self.port, timeout=60)
        self.assertIn("STARTTLS", client.capabilities)
        self.ok(client.starttls(ssl.create_default_context(cafile=self.pem)))
        self.assertNotIn("STARTTLS", client.capabilities)
        self.ok(client.login(USER, PASSWORD))
        self.ok(client.append("INBOX", "", "", small_message("sealed")))
        self.ok(client.select())
        self.assertEqual(self.ok(client.fetch("1", "BODY[]"))[0][1], small_message("sealed"))
        client.logout()

    def test_plaintext_command_behind_starttls_is_not_executed(self) -> None:
        """A plaintext command behind STARTTLS is not executed within TLS."""
        connection = socket.create_connection(("127.0.0.1", self.port), 60)
        self.addCleanup(connection.close)
        connection.recv(4096)
        connection.sendall(b"a STARTTLS\r\nb NOOP\r\n")
        response = connection.recv(4096)
        context = ssl.create_default_context(cafile=self.pem)
        self.assertTrue(response.startswith(b"a OK"), response)
        try:
            encrypted = context.wrap_socket(connection, server_hostname="localhost")
        except OSError:
            return  # the server may also end the connection
        encrypted.sendall(b"c NOOP\r\n")
        self.assertNotIn(b"b OK", encrypted.recv(4096))
