"""Real clients on real mail: curl, imaplib, mbsync and neomutt against a Maildir of 10,000 varied messages."""

from __future__ import annotations

import atexit
import functools
import hashlib
import imaplib
import os
import pty
import re
import select
import shutil
import subprocess
import tempfile
import threading
import time

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.corpus import messages, write_maildir
from system_tests.server import PATIENCE, Server

COUNT = 10_000
SYNCED = 500
PASSWORD = "correct horse"


def digest(octets: bytes) -> bytes:
    return hashlib.blake2b(octets, digest_size=16).digest()


@functools.cache
def mail() -> tuple[str, Server]:
    """The mail root and a server on it, once for all tests."""
    folder = tempfile.mkdtemp(prefix="imapshield-mail-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_maildir(f"{folder}/alice", COUNT)
    server = Server(
        "--mail-root",
        folder,
        "--auth",
        f"memory:alice:{PASSWORD}:bob:{PASSWORD}:carol:{PASSWORD}:dan:{PASSWORD}",
    )
    atexit.register(lambda: server.process.poll() is None and server.process.kill())
    return folder, server.ready()


class ClientTests(SynchronousTestCase):
    def setUp(self):
        self.root, self.server = mail()
        self.home = os.path.abspath(self.mktemp())
        os.mkdir(self.home)
        self.begun = len(self.server.output)

    def tearDown(self):
        """Whatever an honest client does, no limit fires and nothing breaks."""
        self.server.drain()
        said = "".join(self.server.output[self.begun :])
        for word in ("limit ", "internal error", "bad command", "Traceback"):
            self.assertNotIn(word, said)

    def login(self, user="alice"):
        client = imaplib.IMAP4("127.0.0.1", self.server.port, timeout=PATIENCE)
        self.addCleanup(client.shutdown)
        client.login(user, PASSWORD)
        return client

    def run_it(self, *command, **options):
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=300,
            check=False,
            env={**os.environ, "HOME": self.home},
            **options,
        )
        self.assertEqual(done.returncode, 0, done.stderr.decode("utf-8", "replace")[-2000:])
        return done.stdout

    def fill(self, user, count, folder=""):
        write_maildir(os.path.join(self.root, user, folder), count)


class ImaplibTests(ClientTests):
    def test_every_message(self):
        """All 10,000 messages are there, each as it was stored, its size what was said."""
        client = self.login()
        self.assertEqual(client.select("INBOX", readonly=True), ("OK", [b"%d" % COUNT]))
        expected = {digest(m): len(m) for m in messages(COUNT)}
        got = {}
        for start in range(1, COUNT + 1, 200):
            _, data = client.fetch(f"{start}:{start + 199}", "(RFC822.SIZE BODY.PEEK[])")
            for one in data:
                if isinstance(one, tuple):
                    size = int(re.search(rb"RFC822.SIZE (\d+)", one[0]).group(1))
                    self.assertEqual(size, len(one[1]))
                    got[digest(one[1])] = size
        self.assertEqual(got, expected)

    def test_structure_of_every_message(self):
        """ENVELOPE and BODYSTRUCTURE of all 10,000 are answered, and flags and header fields."""
        client = self.login()
        client.select("INBOX", readonly=True)
        _, data = client.fetch(
            "1:*",
            "(UID FLAGS INTERNALDATE ENVELOPE BODYSTRUCTURE BODY.PEEK[HEADER.FIELDS (SUBJECT)])",
        )
        self.assertEqual(
            sum(1 for one in data if b"ENVELOPE (" in (one[0] if isinstance(one, tuple) else one)),
            COUNT,
        )

    def test_a_day_of_a_client(self):
        """Folders, APPEND, COPY, MOVE, STORE, SEARCH, EXPUNGE and DELETE do what they say."""
        client = self.login("carol")
        self.assertEqual(client.create("Work")[0], "OK")
        self.assertEqual(client.create('"Work/K&APY-ln"')[0], "OK")
        self.assertEqual(len(client.list()[1]), 3)
        for number in range(10):
            body = b"Subject: number %d\r\n\r\n%d\r\n" % (number, number)
            self.assertEqual(
                client.append("INBOX", "(\\Seen)" if number % 2 else None, None, body)[0], "OK"
            )
        self.assertEqual(client.select("INBOX")[1], [b"10"])
        self.assertEqual(client.search(None, "UNSEEN")[1], [b"1 3 5 7 9"])
        self.assertEqual(client.search(None, "SUBJECT", '"number 4"')[1], [b"5"])
        self.assertEqual(client.store("1:3", "+FLAGS", "(\\Flagged $Mine)")[0], "OK")
        self.assertEqual(client.search(None, "KEYWORD", "$Mine")[1], [b"1 2 3"])
        self.assertEqual(client.copy("1:3", "Work")[0], "OK")
        self.assertEqual(client.uid("MOVE", "4:5", '"Work/K&APY-ln"')[0], "OK")
        self.assertEqual(len(client.response("EXPUNGE")[1]), 2)
        self.assertEqual(client.store("1", "+FLAGS", "(\\Deleted)")[0], "OK")
        self.assertEqual(client.expunge()[1], [b"1"])
        self.assertEqual(client.status("Work", "(MESSAGES)")[1], [b"Work (MESSAGES 3)"])
        self.assertEqual(client.select("Work")[1], [b"3"])
        self.assertEqual(client.search(None, "FLAGGED")[1], [b"1 2 3"])
        self.assertEqual(client.rename("Work", "Play")[0], "OK")
        self.assertEqual(client.select('"Play/K&APY-ln"')[1], [b"2"])
        self.assertEqual(client.select("INBOX")[1], [b"7"])
        self.assertEqual(client.delete('"Play/K&APY-ln"')[0], "OK")

    def test_mail_from_outside(self):
        """A client in IDLE hears within a second of what a delivery agent drops into new/."""
        client = self.login("dan")
        client.select("INBOX")
        client.send(b"idle IDLE\r\n")
        self.assertTrue(client.readline().startswith(b"+ "))
        delay = []
        for number in range(3):
            began = time.monotonic()
            for place in ("tmp", "new"):
                path = os.path.join(self.root, "dan", place, f"{time.time():.6f}.x{number}.host")
                if place == "tmp":
                    with open(path, "wb") as file:
                        file.write(b"Subject: hello\n\nhello\n")
                    source = path
                else:
                    os.rename(source, path)
            while b"EXISTS" not in client.readline():
                pass
            delay.append(time.monotonic() - began)
        client.send(b"DONE\r\n")
        self.assertLess(max(delay), 1.0)


class CurlTests(ClientTests):
    def curl(self, path, *arguments):
        return self.run_it(
            "curl",
            "-sS",
            "-u",
            f"alice:{PASSWORD}",
            *arguments,
            f"imap://127.0.0.1:{self.server.port}/{path}",
        )

    def test_read(self):
        """curl lists folders and reads a message byte for byte."""
        self.assertIn(b"INBOX", self.curl(""))
        one = self.curl("INBOX;MAILINDEX=7")
        self.assertIn(digest(one), {digest(m) for m in messages(COUNT)})
        self.assertIn(b"Subject:", self.curl("INBOX;MAILINDEX=7;SECTION=HEADER.FIELDS%20(SUBJECT)"))

    def test_write(self):
        """curl uploads a message, marks it, copies, moves and expunges it."""
        message = os.path.join(self.home, "message")
        with open(message, "wb") as file:
            file.write(b"Subject: curl\r\n\r\nhello\r\n")
        for folder in ("Curl", "Other"):
            self.curl("", "-X", f"CREATE {folder}")
        self.curl("Curl", "-T", message)
        self.assertEqual(self.curl("Curl;MAILINDEX=1"), b"Subject: curl\r\n\r\nhello\r\n")
        self.curl("Curl", "-X", "COPY 1 Other")
        self.curl("Curl", "-X", "MOVE 1 Other")
        self.assertIn(b"MESSAGES 2", self.curl("", "-X", "STATUS Other (MESSAGES)"))
        self.curl("Other", "-X", "STORE 1 +FLAGS (\\Deleted)")
        self.curl("Other", "-X", "EXPUNGE")
        self.assertIn(b"MESSAGES 1", self.curl("", "-X", "STATUS Other (MESSAGES)"))


class MbsyncTests(ClientTests):
    def test_both_ways(self):
        """mbsync, which pipelines without end, syncs 500 messages each way: nothing is reset, nothing lost."""
        self.fill("bob", SYNCED, ".Far")
        os.makedirs(f"{self.home}/Mail")
        write_maildir(f"{self.home}/Mail/Near", SYNCED, seed=7)
        config = f"{self.home}/mbsyncrc"
        with open(config, "w", encoding="utf-8") as file:
            file.write(f"""\
IMAPStore far
Host 127.0.0.1
Port {self.server.port}
User bob
Pass "{PASSWORD}"
SSLType None
AuthMechs LOGIN

MaildirStore near
Path {self.home}/Mail/
Inbox {self.home}/Mail/Inbox
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Both
Expunge Both
SyncState *
CopyArrivalDate yes
""")

        def sync():
            self.run_it("mbsync", "-c", config, "all")

        sync()
        client = self.login("bob")
        self.assertEqual(client.select("Near")[1], [b"%d" % SYNCED])
        stored = {self.body(m) for m in messages(SYNCED, 7)}
        _, data = client.fetch("1:*", "(BODY.PEEK[])")
        self.assertEqual({self.body(one[1]) for one in data if isinstance(one, tuple)}, stored)
        self.assertEqual(self.bodies("Far"), {self.body(m) for m in messages(SYNCED)})

        # flags and deletions, from both ends
        self.assertEqual(client.select("Far")[0], "OK")
        client.store("1:100", "+FLAGS", "(\\Flagged)")
        client.store("101:150", "+FLAGS", "(\\Deleted)")
        client.expunge()
        near = f"{self.home}/Mail/Near/cur"
        gone = sorted(os.listdir(near))[:50]
        for name in gone:
            os.unlink(f"{near}/{name}")
        sync()
        flagged = [n for n in self.files("Far") if "F" in n.rpartition(":2,")[2]]
        self.assertGreaterEqual(len(flagged), 100)
        self.assertEqual(len(self.files("Far")), SYNCED - 50)
        self.assertEqual(client.select("Near")[1], [b"%d" % (SYNCED - len(gone))])
        before = self.files("Far")
        sync()
        self.assertEqual(self.files("Far"), before)

    def body(self, octets):
        """Without the header X-TUID, which mbsync adds while it copies, and in the LF form."""
        return digest(
            re.sub(rb"^X-TUID: .*\n", b"", octets.replace(b"\r\n", b"\n"), flags=re.MULTILINE)
        )

    def files(self, folder):
        return {
            f"{p}/{n}" for p in ("cur", "new") for n in os.listdir(f"{self.home}/Mail/{folder}/{p}")
        }

    def bodies(self, folder):
        found = set()
        for name in self.files(folder):
            with open(f"{self.home}/Mail/{folder}/{name}", "rb") as file:
                found.add(self.body(file.read()))
        return found


class NeomuttTests(ClientTests):
    def test_session(self):
        """neomutt opens a folder, reads, flags, copies to another folder, deletes and purges."""
        self.fill("carol", 5, ".Mutt")
        client = self.login("carol")
        self.assertEqual(client.create("Kept")[0], "OK")
        config = f"{self.home}/muttrc"
        keys = (
            "<first-entry><display-message><exit><first-entry><flag-message><first-entry><copy-message>=Kept<enter>"
            "<last-entry><delete-message><sync-mailbox><quit>"
        )
        with open(config, "w", encoding="utf-8") as file:
            file.write(f"""\
set imap_user=carol imap_pass="{PASSWORD}" ssl_starttls=no ssl_force_tls=no
set folder=imap://127.0.0.1:{self.server.port}/ spoolfile=+Mutt
set delete=yes confirmappend=no confirmcreate=no wait_key=no mark_old=no sort=mailbox-order mail_check=1 copy=no
push "{keys}"
""")
        self.in_terminal("neomutt", "-n", "-F", config)
        self.assertEqual(client.select("Kept")[1], [b"1"])
        self.assertEqual(client.select("Mutt")[1], [b"4"])
        self.assertEqual(client.search(None, "FLAGGED")[1].count(b""), 0)
        self.assertIn(b"1", client.search(None, "FLAGGED")[1][0].split())

    def in_terminal(self, *command):
        """Run a program that wants a terminal, and keep its screen read."""
        pid, terminal = pty.fork()
        if not pid:
            os.environ.update(HOME=self.home, TERM="xterm", LINES="24", COLUMNS="80")
            os.execvp(command[0], command)
        killer = threading.Timer(PATIENCE, os.kill, (pid, 9))
        killer.start()
        screen = b""
        try:
            while select.select([terminal], [], [], PATIENCE)[0]:
                data = os.read(terminal, 65536)
                if not data:
                    break
                screen += data
        except OSError:
            pass  # how Linux says that the other end of a terminal has gone
        finally:
            _, status = os.waitpid(pid, 0)
            killer.cancel()
            os.close(terminal)
        self.assertEqual(status, 0, screen[-2000:])
