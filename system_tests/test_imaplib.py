"""Python's imaplib: each of its commands, IDLE by hand, and 10,000 messages."""

from __future__ import annotations

import imaplib
import os
import re
import socket
import ssl
import threading
import time

from system_tests.cases import (
    PASSWORD,
    USER,
    ServerCase,
    by_subject,
    corpus,
    deliver,
    eventually,
    letters,
    plain,
    simple,
    stored,
)
from system_tests.certificate import write_certificate

COUNT = 10_000


class LargeTests(ServerCase):
    def prepare(self) -> None:
        self.link(COUNT)

    def test_every_message(self) -> None:
        """All 10,000 messages are there, each as it was stored, its size what was said."""
        client = self.login()
        self.assertEqual(self.ok(client.select("INBOX", readonly=True)), [b"%d" % COUNT])
        self.same(self.fetched(client), corpus(COUNT))
        data = self.ok(
            client.fetch("1:*", "(UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE)")
        )
        heads = [one[0] if isinstance(one, tuple) else one for one in data]
        self.assertEqual(sum(b"ENVELOPE (" in head for head in heads), COUNT)
        sizes = {len(o) for o in corpus(COUNT)}
        self.assertGreater(len(sizes), 1000)
        # On the wire each has CRLF: the size is that of the LF form and one octet for each line.
        told = sorted(int(n) for head in heads for n in re.findall(rb"RFC822.SIZE (\d+)", head))
        self.assertEqual(told, sorted(len(o) + o.count(b"\n") for o in corpus(COUNT)))


class ImaplibTests(ServerCase):
    def append(self, client, *subjects, folder="INBOX", flags="") -> None:
        for subject in subjects:
            self.ok(client.append(folder, flags, None, simple(subject)))

    def test_before_login(self) -> None:
        """CAPABILITY, NOOP and a login that is wrong and then right; LOGOUT says BYE."""
        client = imaplib.IMAP4("127.0.0.1", self.port, timeout=60)
        self.assertIn("IMAP4REV1", client.capabilities)
        self.ok(client.noop())
        self.assertRaises(imaplib.IMAP4.error, client.login, USER, "wrong")
        self.ok(client.login(USER, PASSWORD))
        self.assertEqual(client.logout()[0], "BYE")

    def test_authenticate(self) -> None:
        """AUTHENTICATE PLAIN, and a password of quotes and backslashes in LOGIN is wrong but no error."""
        client = imaplib.IMAP4("127.0.0.1", self.port, timeout=60)
        self.addCleanup(client.shutdown)
        self.assertRaises(imaplib.IMAP4.error, client.login, USER, 'wr"on\\g')
        self.ok(client.authenticate("PLAIN", lambda _: f"\0{USER}\0{PASSWORD}".encode()))
        self.ok(client.select())

    def test_folders(self) -> None:
        """CREATE, LIST, LSUB, SUBSCRIBE, UNSUBSCRIBE, STATUS, RENAME, DELETE and NAMESPACE."""
        client = self.login()
        self.assertEqual(self.ok(client.namespace()), [b'(("" "/")) NIL NIL'])
        for name in ("Work", "Work/2025", "Play"):
            self.ok(client.create(name))
            self.ok(client.subscribe(name))
        names = [line.rpartition(b" ")[2] for line in self.ok(client.list())]
        self.assertEqual(sorted(names), [b"INBOX", b"Play", b"Work", b"Work/2025"])
        names = [line.rpartition(b" ")[2] for line in self.ok(client.list('"Work/"', "%"))]
        self.assertEqual(names, [b"Work/2025"])
        self.ok(client.unsubscribe("Play"))
        names = [line.rpartition(b" ")[2] for line in self.ok(client.lsub())]
        self.assertEqual(sorted(names), [b"Work", b"Work/2025"])
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

    def test_utf7(self) -> None:
        """Folder names in modified UTF-7 lie on disk as other servers have them, and come back."""
        client = self.login()
        names = ("K&APY-ln", "&ZeVnLIqe-", "Q&-A", "with space", "Gr&APwA3w-e/&2D3eAA-")
        for name in names:
            self.ok(client.create(f'"{name}"'))
            self.append(client, "in it", folder=f'"{name}"')
            self.assertEqual(self.ok(client.select(f'"{name}"')), [b"1"])
        listed = b" ".join(self.ok(client.list()))
        for name in names:
            self.assertIn(name.encode(), listed)
        self.assertEqual(sum(stored(self.maildir(".K&APY-ln")).values()), 1)

    def test_literals(self) -> None:
        """Folder names, searches and messages as literals; octets above 127 and lone LFs."""
        client = self.login()
        client.literal = b"by literal"
        self.ok(client._simple_command("CREATE"))
        # A literal with something after it, by hand: imaplib only sends one at the end.
        client.send(b"x SELECT {10}\r\n")
        self.assertTrue(client.readline().startswith(b"+"))
        client.send(b"by literal\r\n")
        while not (line := client.readline()).startswith(b"x "):
            pass
        self.assertTrue(line.startswith(b"x OK"), line)
        eight = b"Subject: Gr\xfc\xdfe\r\n\r\n\xff\x80 \xc3\xa4 octets\r\n"
        lone = b"Subject: unix\n\nline\nline\n"
        for octets in (eight, lone):
            # imaplib makes CRLF of every line end in append; so the second goes by hand.
            self.ok(client.append('"by literal"', "", None, octets))
        self.ok(client.select('"by literal"'))
        self.assertEqual(self.ok(client.fetch("1", "BODY[]"))[0][1], eight)
        self.assertEqual(self.ok(client.fetch("2", "BODY[]"))[0][1], lone.replace(b"\n", b"\r\n"))
        client.literal = "Grüße".encode()
        self.ok(client.uid("SEARCH", "CHARSET", "UTF-8", "SUBJECT"))

    def test_search_utf8(self) -> None:
        """SEARCH CHARSET UTF-8 with a literal finds encoded words and 8-bit headers."""
        client = self.login()
        word = b"Subject: =?iso-8859-1?Q?Gr=FC=DFe?=\r\n\r\nx\r\n"
        for octets in (word, "Subject: Grüße\r\n\r\nx\r\n".encode(), simple("none")):
            self.ok(client.append("INBOX", "", None, octets))
        client.select()
        client.literal = "grüße".encode()
        self.assertEqual(self.ok(client.search("UTF-8", "SUBJECT")), [b"1 2"])

    def test_dates(self) -> None:
        """APPEND's date is INTERNALDATE, to the second, and its zone is understood."""
        client = self.login()
        when = imaplib.Time2Internaldate(1_600_000_000)
        self.ok(client.append("INBOX", "", when, simple("dated")))
        client.select()
        (answer,) = self.ok(client.fetch("1", "(INTERNALDATE)"))
        self.assertEqual(time.mktime(imaplib.Internaldate2tuple(answer)), 1_600_000_000)
        self.assertEqual(self.ok(client.search(None, "ON", "13-Sep-2020")), [b"1"])

    def test_change(self) -> None:
        """STORE in its forms, COPY, MOVE, SEARCH, EXPUNGE, UID EXPUNGE, CHECK, CLOSE and UNSELECT."""
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
        self.assertIn(
            b"COPYUID",
            b"".join(client.untagged_responses.get("OK", []))
            + b"".join(self.ok(client.copy("1:2", "Kept"))),
        )
        self.ok(client.uid("MOVE", "3:4", "Kept"))
        # imaplib keeps untagged answers until they are asked for: MOVE's, not EXPUNGE's.
        self.assertEqual(len(client.response("EXPUNGE")[1]), 2)
        self.ok(client.store("1:2", "+FLAGS", "(\\Deleted)"))
        self.ok(client.uid("EXPUNGE", "1"))
        self.assertEqual(client.response("EXPUNGE")[1], [b"1"])
        self.ok(client.check())
        self.assertEqual(self.ok(client.expunge()), [b"1"])
        self.assertEqual(letters(self.maildir(".Kept")).keys(), {b"a", b"b", b"c", b"d"})
        self.assertEqual(letters(self.maildir()).keys(), {b"e", b"f", b"g", b"h"})
        self.assertEqual(letters(self.maildir(".Kept"))[b"d"], "DRS")
        self.ok(client.select("Kept"))
        self.assertEqual(self.ok(client.search(None, "KEYWORD", "$Mine")), [b"1 2 3"])
        self.ok(client.store("1", "+FLAGS", "(\\Deleted)"))
        self.ok(client.unselect())
        self.assertEqual(self.ok(client.select("Kept")), [b"4"])
        self.ok(client.close())
        self.assertEqual(self.ok(client.select("Kept", readonly=True)), [b"3"])

    def test_read_only(self) -> None:
        """EXAMINE changes nothing: \\Seen is not set, STORE is refused."""
        client = self.login()
        self.append(client, "a")
        client.select(readonly=True)
        self.ok(client.fetch("1", "(BODY[])"))
        self.assertEqual(client.store("1", "+FLAGS", "(\\Flagged)")[0], "NO")
        self.assertEqual(letters(self.maildir()), {b"a": ""})

    def test_idle(self) -> None:
        """In IDLE a delivery is told within a second, and so are flags and deletions by another session."""
        client, other = self.login(), self.login()
        self.append(other, "first")
        client.select()
        other.select()
        client.send(b"idle IDLE\r\n")
        self.assertTrue(client.readline().startswith(b"+ "))
        for number in range(5):
            began = time.monotonic()
            deliver(self.maildir(), simple(f"mail {number}"))
            while b"EXISTS" not in client.readline():
                pass
            self.assertLess(time.monotonic() - began, 1.0)
        for change, word in (
            (lambda: other.store("1", "+FLAGS", "(\\Flagged)"), b"FETCH (FLAGS"),
            (lambda: other.store("1", "+FLAGS", "(\\Deleted)"), b"\\Deleted"),
            (other.expunge, b"* 1 EXPUNGE"),
        ):
            began = time.monotonic()
            self.ok(change())
            while word not in client.readline():
                pass
            self.assertLess(time.monotonic() - began, 1.0)
        client.send(b"DONE\r\n")
        while not (line := client.readline()).startswith(b"idle "):
            pass
        self.assertTrue(line.startswith(b"idle OK"), line)
        self.assertEqual(self.ok(client.search(None, "ALL")), [b"1 2 3 4 5"])

    def test_changes_on_disk(self) -> None:
        """What another program does to the Maildir is told at the next NOOP: mail, flags, a removal."""
        client = self.login()
        paths = [deliver(self.maildir(), simple(s)) for s in "abc"]
        self.assertEqual(self.ok(client.select()), [b"3"])
        here = by_subject(self.maildir())
        os.rename(here[b"a"], here[b"a"].replace("/new/", "/cur/").partition(":2,")[0] + ":2,FS")
        os.unlink(here[b"b"])
        deliver(self.maildir(), simple("d"))
        self.assertEqual(len(paths), 3)

        def told():
            client.noop()
            return self.ok(client.search(None, "ALL")) == [b"1 2 3"] and self.ok(
                client.search(None, "FLAGGED", "SEEN")
            ) == [b"1"]

        eventually(told, 5)
        data = self.ok(client.fetch("1:*", "(UID BODY.PEEK[HEADER.FIELDS (SUBJECT)])"))
        subjects = [one[1].strip() for one in data if isinstance(one, tuple)]
        self.assertEqual(subjects, [b"Subject: a", b"Subject: c", b"Subject: d"])

    def test_pipelined(self) -> None:
        """5,000 UID FETCHes sent without reading are all answered, and in order."""
        self.fill(50)
        client = self.login()
        client.select(readonly=True)
        lines = b"".join(b"p%d UID FETCH %d (FLAGS)\r\n" % (n, n % 50 + 1) for n in range(5000))
        sender = threading.Thread(target=client.sock.sendall, args=(lines,), daemon=True)
        sender.start()
        tags = []
        while len(tags) < 5000:
            line = client.readline()
            if line.startswith(b"p"):
                self.assertIn(b" OK", line)
                tags.append(int(line[1 : line.index(b" ")]))
        sender.join(60)
        self.assertEqual(tags, list(range(5000)))

    def test_two_at_once(self) -> None:
        """Two sessions of one user, and another user who sees nothing of it."""
        one, two, stranger = self.login(), self.login(), self.login("bob")
        one.select()
        two.select()
        self.append(one, "shared")
        self.ok(two.noop())
        self.assertEqual(self.ok(two.search(None, "ALL")), [b"1"])
        self.assertEqual(self.ok(stranger.select()), [b"0"])
        self.assertEqual(stored(self.maildir()), {plain(simple("shared")): 1})


class StartTlsTests(ServerCase):
    def prepare(self) -> None:
        self.pem = write_certificate(self.home)

    def start(self, **more) -> None:
        super().start(**{**more, "options": ("--certificate", self.pem)})

    def test_starttls(self) -> None:
        """STARTTLS with a checked certificate; the capabilities after it have no STARTTLS."""
        client = imaplib.IMAP4("localhost", self.port, timeout=60)
        self.assertIn("STARTTLS", client.capabilities)
        self.ok(client.starttls(ssl.create_default_context(cafile=self.pem)))
        self.assertNotIn("STARTTLS", client.capabilities)
        self.ok(client.login(USER, PASSWORD))
        self.ok(client.append("INBOX", "", None, simple("sealed")))
        self.ok(client.select())
        self.assertEqual(self.ok(client.fetch("1", "BODY[]"))[0][1], simple("sealed"))
        client.logout()

    def test_injected(self) -> None:
        """What is sent in the clear behind STARTTLS is not taken for a command inside TLS."""
        raw = socket.create_connection(("127.0.0.1", self.port), 60)
        self.addCleanup(raw.close)
        raw.recv(4096)
        raw.sendall(b"a STARTTLS\r\nb NOOP\r\n")
        answer = raw.recv(4096)
        context = ssl.create_default_context(cafile=self.pem)
        if not answer.startswith(b"a OK"):
            return
        try:
            sealed = context.wrap_socket(raw, server_hostname="localhost")
        except OSError:
            return  # to end the connection is right as well
        sealed.sendall(b"c NOOP\r\n")
        said = sealed.recv(4096)
        self.assertNotIn(b"b OK", said)
