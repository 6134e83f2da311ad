"""What a disk can do to a server: be full, refuse to be read or written, hold rubbish, lose the index."""

from __future__ import annotations

import imaplib
import os
import re
import shutil

from system_tests.cases import (
    FAULTS,
    ServerCase,
    by_subject,
    deliver,
    eventually,
    files,
    plain,
    simple,
    stored,
    tool,
)


class DiskCase(ServerCase):
    complaints = FAULTS

    def append(self, client, *subjects, folder="INBOX", body="hello") -> None:
        for subject in subjects:
            self.ok(client.append(folder, "", None, simple(subject, body)))

    def told(self, answer, *kinds):
        """The text of an answer that has to be one of these kinds, and of our own making."""
        self.assertIn(answer[0], kinds or ("NO",), answer)
        text = answer[1][0] or b""
        self.assertNotRegex(text, rb"(?i)errno|error:|exception|/tmp|sqlite|cur/|reference")
        return text

    def tuples(self, client, numbers, items):
        """What a FETCH brings, also where it ends in NO, which hides it from imaplib's caller."""
        answer = client.fetch(numbers, items)
        data = answer[1]
        if answer[0] != "OK":
            self.told(answer)
            data = client.response("FETCH")[1]
        return [one for one in data if isinstance(one, tuple)]

    def left_over(self):
        """What lies in any tmp/."""
        return [
            os.path.join(folder, name)
            for folder, _, names in os.walk(self.root)
            if folder.endswith("/tmp")
            for name in names
        ]


class FullTests(DiskCase):
    """The mail root is a tmpfs of 4 MB in a mount namespace of the server's own, which ends with it."""

    def start(self) -> None:
        shell = f'mount -t tmpfs -o size=4m tmpfs {self.root} && exec "$@"'
        namespace = (tool("unshare", "util-linux"), "--user", "--map-root-user", "--mount")
        super().start(before=(*namespace, "sh", "-c", shell, "sh"))
        self.root = f"/proc/{self.server.process.pid}/root{self.root}"

    def fill_up(self) -> None:
        with open(f"{self.root}/ballast", "wb", buffering=0) as file:
            size = 1 << 16
            while size:
                try:
                    if file.write(b"x" * size) < size:
                        size //= 2
                except OSError:
                    size //= 2

    def test_append(self) -> None:
        """A message too large for what is left is refused, leaves nothing behind, and a smaller one is stored."""
        client = self.login()
        self.append(client, "before")
        self.ok(client.select())
        for _ in range(5):
            large = simple("large", "0123456789\r\n" * 500_000)
            self.assertIn(b"OVERQUOTA", self.told(client.append("INBOX", "", None, large)))
        self.assertEqual(self.left_over(), [])
        self.append(client, "after")
        self.assertEqual(stored(self.maildir()), {plain(simple(s)): 1 for s in ("before", "after")})

    def test_full(self) -> None:
        """With not an octet left each command is answered; what was there is still read; later all goes on."""
        client = self.login()
        self.ok(client.create("Other"))
        self.append(client, *"abcdef", body="x" * 20_000)
        expected = {plain(simple(s, "x" * 20_000)): 1 for s in "abcdef"}
        self.ok(client.select())
        self.fill_up()
        self.told(client.append("INBOX", "", None, simple("late", "x" * 20_000)))
        self.assertEqual(self.fetched(client), expected)
        client.select()
        for answer in (
            client.store("1:2", "+FLAGS", "(\\Flagged)"),
            client.copy("1:2", "Other"),
            client.create("New"),
            client.subscribe("Other"),
            client.uid("MOVE", "3", "Other"),
            client.rename("Other", "Renamed"),
            client.status("INBOX", "(MESSAGES)"),
            client.list(),
            client.search(None, "ALL"),
        ):
            self.told(answer, "OK", "NO")
        os.unlink(f"{self.root}/ballast")
        again = self.login()
        self.append(again, "late")
        found = {}
        for line in self.ok(again.list()):
            name = line.rpartition(b" ")[2].decode()
            for octets in self.fetched(again, name):
                found.setdefault(octets, []).append(name)
        self.assertEqual(set(found), {*expected, plain(simple("late"))})
        self.assertEqual(self.left_over(), [])
        client.noop()
        self.ok(client.select())
        self.ok(client.store("1:*", "+FLAGS", "(\\Answered)"))


class ForbiddenTests(DiskCase):
    """Files and folders that the server's user may not read or write; root is without its capability to do so."""

    def start(self) -> None:
        before = ()
        if os.getuid() == 0:
            before = (
                tool("setpriv", "util-linux"),
                "--bounding-set=-dac_override,-dac_read_search",
            )
        super().start(before=before)

    def mode(self, path, mode):
        old = os.stat(path).st_mode & 0o777
        os.chmod(path, mode)
        self.addCleanup(lambda: os.path.exists(path) and os.chmod(path, old))
        return lambda: os.chmod(path, old)

    def test_unreadable_folder(self) -> None:
        """A folder that cannot be read is a clear NO, the others work, and afterwards it is as it was."""
        client = self.login()
        self.ok(client.create("Work"))
        self.append(client, "a", "b", folder="Work")
        self.append(client, "c")
        self.ok(client.select("Work"))
        valid = client.response("UIDVALIDITY")
        self.ok(client.unselect())
        back = [self.mode(self.maildir(f".Work/{part}"), 0) for part in ("cur", "new")]
        other = self.login()
        self.told(other.select("Work"))
        self.told(other.status("Work", "(MESSAGES)"), "OK", "NO")
        self.told(other.append("Work", "", None, simple("d")))
        self.ok(other.list())
        self.assertEqual(self.ok(other.select()), [b"1"])
        self.told(other.copy("1", "Work"))
        self.told(other.uid("MOVE", "1", "Work"))
        for restore in back:
            restore()
        self.assertEqual(self.ok(other.select("Work")), [b"2"])
        self.assertEqual(other.response("UIDVALIDITY"), valid)
        self.assertEqual(self.ok(other.uid("SEARCH", "ALL")), [b"1 2"])
        self.assertEqual(self.ok(other.select()), [b"1"])
        self.assertEqual(self.left_over(), [])

    def test_read_only_folder(self) -> None:
        """A folder that cannot be written is read, and whatever would change it is refused."""
        client = self.login()
        self.append(client, "a", "b")
        self.ok(client.select())
        for part in ("cur", "new", "tmp"):
            self.mode(self.maildir(part), 0o500)
        self.assertEqual(len(self.fetched(client)), 2)
        self.ok(client.select())
        self.told(client.append("INBOX", "", None, simple("c")))
        self.told(client.store("1", "+FLAGS", "(\\Flagged)"))
        self.ok(client.store("2", "+FLAGS", "()"))
        for part in ("cur", "new", "tmp"):
            os.chmod(self.maildir(part), 0o700)
        self.ok(client.store("1", "+FLAGS", "(\\Flagged)"))
        self.append(client, "c")
        self.assertEqual(sum(stored(self.maildir()).values()), 3)

    def test_unreadable_account(self) -> None:
        """A Maildir that is closed is nobody else's trouble."""
        self.append(self.login(), "a")
        restore = self.mode(self.maildir(), 0)
        try:
            client = self.login()
            self.told(client.select())
        except imaplib.IMAP4.error as error:
            self.assertNotIn("rrno", str(error))
        bob = self.login("bob")
        self.append(bob, "b")
        self.assertEqual(self.ok(bob.select()), [b"1"])
        restore()
        self.assertEqual(self.ok(self.login().select()), [b"1"])

    def test_unreadable_message(self) -> None:
        """One file that cannot be read: the others are fetched, and it too once it can be."""
        client = self.login()
        self.append(client, "a", "b", "c")
        restore = self.mode(by_subject(self.maildir())[b"b"], 0)
        self.stop()
        os.unlink(self.maildir("imapshield.sqlite"))  # nothing of it is remembered
        self.start()
        client = self.login()
        self.ok(client.select())
        kind, data = client.fetch("1:*", "(UID FLAGS ENVELOPE BODYSTRUCTURE BODY.PEEK[])")
        self.assertIn(kind, ("OK", "NO"))
        bodies = {one[1] for one in data if isinstance(one, tuple)}
        if kind == "NO":
            bodies = set()
            for number in range(1, int(client.select()[1][0]) + 1):
                kind, data = client.fetch(str(number), "(BODY.PEEK[])")
                bodies |= {one[1] for one in data if isinstance(one, tuple)}
        self.assertLessEqual({simple("a"), simple("c")}, bodies)
        self.told(client.search(None, "TEXT", "hello"), "OK", "NO")
        restore()
        self.assertEqual(len(self.fetched(client)), 3)


class RubbishTests(DiskCase):
    def test_broken_messages(self) -> None:
        """What is no message hides nothing: all that is good is fetched, nothing hangs, nothing of it is removed."""
        self.ok(self.login().select())
        cur = self.maildir("cur")
        for subject in ("a", "b", "c"):
            deliver(self.maildir(), simple(subject))
        os.mkdir(f"{cur}/1700000001.directory.host:2,S")
        os.symlink("/nowhere/at/all", f"{cur}/1700000002.dangling.host:2,S")
        os.symlink(f"{cur}/1700000003.loop.host:2,S", f"{cur}/1700000003.loop.host:2,S")
        os.symlink("/", f"{cur}/1700000004.root.host:2,S")
        os.symlink("/dev/zero", f"{cur}/1700000005.zero.host:2,S")
        os.mkfifo(f"{cur}/1700000006.fifo.host:2,S")
        for name, octets in (
            ("1700000010.empty.host:2,S", b""),
            ("1700000011.nuls.host:2,S", b"\0" * 50_000),
            ("1700000012.no-info.host", simple("no info")),
            ("1700000013.odd-info.host:1,x", simple("odd info")),
            ("1700000014.many-flags.host:2,DFPRSTabcdefghijklmnopqrstuvwxyzZ", simple("flags")),
            ("1700000015.new\nline.host:2,", simple("new line")),
            ("1700000016.\udcff\udcfe.host:2,", simple("not UTF-8")),
            ("1700000017.one-line.host:2,", b"x" * 2_000_000),
            ("1700000018.no-body.host:2,", b"Subject: no body"),
            ("1700000019.crs.host:2,", b"Subject: crs\r\rtext\r\r"),
            (
                "1700000020.deep.host:2,",
                b"Content-Type: multipart/mixed; boundary=x\n\n--x\n" * 3000,
            ),
        ):
            with open(f"{cur}/{name}", "wb") as file:
                file.write(octets)
        before = set(os.listdir(cur))
        client = self.login()
        count = int(self.ok(client.select())[0])
        self.assertGreaterEqual(count, 14)
        for items in (
            "(UID FLAGS INTERNALDATE RFC822.SIZE)",
            "(ENVELOPE BODYSTRUCTURE)",
            "(BODY.PEEK[])",
        ):
            good = 0
            for number in range(1, count + 1):
                kind, data = client.fetch(str(number), items)
                self.assertIn(kind, ("OK", "NO"))
                good += kind == "OK" and data != [None]
            self.assertGreaterEqual(good, 14, items)
        bodies = set()
        for number in range(1, count + 1):
            bodies |= {one[1] for one in self.tuples(client, str(number), "(BODY.PEEK[])")}
        for subject in ("a", "b", "c", "no info", "odd info", "flags", "new line", "not UTF-8"):
            self.assertIn(simple(subject), bodies)
        self.assertIn(b"\0" * 50_000, {b.replace(b"\x80", b"\0") for b in bodies})
        for search in (("TEXT", "hello"), ("SUBJECT", "a"), ("LARGER", "10"), ("BODY", "zzz")):
            self.told(client.search(None, *search), "OK", "NO")
        after = {os.path.basename(path).partition(":")[0] for path in files(self.maildir())}
        self.assertLessEqual({name.partition(":")[0] for name in before}, after)

    def test_gone_meanwhile(self) -> None:
        """A file that is removed behind our back is no more than one message less."""
        client = self.login()
        self.append(client, "a", "b", "c")
        self.ok(client.select())
        os.unlink(files(self.maildir())[0])
        self.assertGreaterEqual(len(self.tuples(client, "1:3", "(BODY.PEEK[])")), 2)
        eventually(lambda: client.noop() and client.search(None, "ALL")[1] == [b"1 2"], 5)

    def test_folder_gone_meanwhile(self) -> None:
        """A folder that is removed while it is selected is answered with NO, and its name can be used again."""
        client = self.login()
        self.ok(client.create("Work"))
        self.append(client, "a", folder="Work")
        self.ok(client.select("Work"))
        shutil.rmtree(self.maildir(".Work"))
        self.told(client.fetch("1", "(BODY.PEEK[])"), "OK", "NO")
        other = self.login()
        self.told(other.select("Work"))
        self.ok(other.create("Work"))
        self.append(other, "b", folder="Work")
        self.assertEqual(self.ok(other.select("Work")), [b"1"])


class IndexTests(DiskCase):
    """The index is a cache of what is on disk: it may be broken or lost, and the mail is all there."""

    def seen(self, client):
        """UIDVALIDITY, and message by UID."""
        if client.select()[0] == "NO":
            self.ok(
                client.select()
            )  # once it may be told that the index is broken, which is then set aside
        valid = client.response("UIDVALIDITY")[1][0]
        data = self.ok(client.uid("FETCH", "1:*", "(UID FLAGS BODY.PEEK[])"))
        found = {
            int(re.search(rb"UID (\d+)", one[0])[1]): one[1]
            for one in data
            if isinstance(one, tuple)
        }
        return valid, found

    def damage(self, harm):
        client = self.login()
        self.append(client, *"abcdefgh")
        self.ok(client.select())
        self.ok(client.store("1", "+FLAGS", "(\\Deleted)"))
        self.ok(client.expunge())
        self.ok(client.store("2", "+FLAGS", "(\\Flagged)"))
        valid, before = self.seen(client)
        self.stop()
        harm(self.maildir("imapshield.sqlite"))
        self.start()
        client = self.login()
        again, after = self.seen(client)
        self.assertEqual(sorted(after.values()), sorted(before.values()))
        if again == valid:
            self.assertEqual(after, before, "the same UIDVALIDITY, and other UIDs")
        self.assertEqual(len(self.ok(client.search(None, "FLAGGED"))[0].split()), 1)
        self.append(client, "new")
        self.assertEqual(len(self.seen(client)[1]), 8)
        return valid, again

    def test_kept(self) -> None:
        """Without any damage UIDs and UIDVALIDITY are the same after a restart."""
        valid, again = self.damage(lambda _: None)
        self.assertEqual(valid, again)

    def test_removed(self) -> None:
        """The index removed."""

        def harm(_) -> None:
            for name in os.listdir(self.maildir()):
                if name.startswith("imapshield"):
                    os.unlink(self.maildir(name))

        self.damage(harm)

    def test_garbage(self) -> None:
        """The index overwritten with rubbish."""

        def harm(path) -> None:
            size = os.path.getsize(path)
            with open(path, "wb") as file:
                file.write(os.urandom(size))

        self.damage(harm)

    def test_cut(self) -> None:
        """The index cut off in the middle."""
        self.damage(lambda path: os.truncate(path, os.path.getsize(path) // 2))

    def test_empty(self) -> None:
        """The index empty."""
        self.damage(lambda path: os.truncate(path, 0))

    def test_holes(self) -> None:
        """A few pages of the index overwritten, beyond the first."""

        def harm(path) -> None:
            with open(path, "r+b") as file:
                for page in range(2, os.path.getsize(path) // 4096, 3):
                    file.seek(page * 4096)
                    file.write(b"\xa5" * 4096)

        self.damage(harm)

    def test_directory(self) -> None:
        """A directory where the index should be is told with NO, and nothing is touched until it is gone."""
        self.append(self.login(), "a")
        self.stop()
        path = self.maildir("imapshield.sqlite")
        os.unlink(path)
        os.mkdir(path)
        self.start()
        self.told(self.login().select())
        os.rmdir(path)
        self.assertEqual(list(self.seen(self.login())[1].values()), [simple("a")])

    def test_removed_under_way(self) -> None:
        """The index removed while the server runs: it goes on, and so do those who log in later."""
        client = self.login()
        self.append(client, *"abc")
        self.ok(client.select())
        for name in os.listdir(self.maildir()):
            if name.startswith("imapshield"):
                os.unlink(self.maildir(name))
        self.told(client.noop(), "OK", "NO")
        self.told(client.append("INBOX", "", None, simple("d")), "OK", "NO")
        other = self.login()
        expected = sum(stored(self.maildir()).values())
        self.assertGreaterEqual(expected, 3)
        self.assertEqual(sum(self.fetched(other).values()), expected)
        self.append(other, "e")
        self.assertEqual(sum(self.fetched(self.login()).values()), expected + 1)
