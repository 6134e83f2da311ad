"""Mail that Dovecot's zlib plugin has compressed is read byte for byte, and Dovecot reads it afterwards."""

from __future__ import annotations

import imaplib
import lzma
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from benchmarks import peers
from benchmarks.corpus import messages
from system_tests.maildirs import message_files, small_message
from system_tests.server import TIMEOUT
from system_tests.server_case import FAULTS, ServerCase, close_quietly, literals

LARGE = b"Subject: large\r\n\r\n" + b"".join(b"line %d\r\n" % i for i in range(50_000))
MAILS = [*islice(messages(30), 30), LARGE, small_message("last")]
ITEMS = ("BODY.PEEK[]", "BODY.PEEK[TEXT]", "BODY.PEEK[HEADER]", "BODY.PEEK[]<7.400>")

Answers = Mapping[bytes, tuple[bytes, ...]]
"""What a server returns for each UID: RFC822.SIZE, and the literals of `ITEMS`."""


def answers(client: imaplib.IMAP4, folder: str) -> Answers:
    """Fetch all of a folder."""
    client.select(folder)
    found = {}
    data = client.uid("FETCH", "1:*", "(RFC822.SIZE)")[1]
    for entry in data:
        assert isinstance(entry, bytes), entry
        size = re.search(rb"RFC822.SIZE (\d+)", entry)
        uid = re.search(rb"UID (\d+)", entry)
        assert size and uid, entry
        strings = [client.uid("FETCH", uid[1].decode(), f"({item})")[1] for item in ITEMS]
        found[uid[1]] = (size[1], *(literals(string)[0] for string in strings))
    return found


class CompressedMailTests(ServerCase):
    forbidden_log_texts = (*FAULTS, "cannot read")

    def prepare(self) -> None:
        # Dovecot serves this mail as another user.
        os.chmod(self.base, 0o755)  # noqa: S103
        peers.change_owner(Path(self.root))

    @contextmanager
    def dovecot(self, algorithm: str) -> Iterator[imaplib.IMAP4]:
        """Run Dovecot over the mail; it saves new mail compressed, unless `algorithm` is empty."""
        peers.change_owner(Path(self.root))
        configuration = "mail_plugins = zlib\n"
        if algorithm:
            configuration += f"plugin {{\n  zlib_save = {algorithm}\n}}\n"
        with peers.start("dovecot", Path(self.root), configuration=configuration) as peer:
            client = imaplib.IMAP4(peer.host, peer.port, timeout=TIMEOUT)
            try:
                client.login(peer.user, peer.password)
                yield client
            finally:
                close_quietly(client)

    def check(self, algorithm: str, recompress: Callable[[bytes], bytes] | None = None) -> None:
        """Check the mail that Dovecot has saved.

        Args:
            algorithm: how Dovecot compresses it.
            recompress: compresses the files that Dovecot has saved, as the script in Dovecot's manual does.
        """
        with self.dovecot(algorithm) as client:
            for mail in MAILS:
                self.ok(client.append("INBOX", "($Work)", "", mail))
            if recompress is None:
                expected = answers(client, "INBOX")
        if recompress is not None:
            for path in message_files(self.maildir()):
                with open(path, "rb") as file:
                    content = file.read()
                with open(path, "wb") as file:
                    file.write(recompress(content))
                if "W=" in path and len(content) % 2:
                    os.rename(path, path.replace(":2,", ":2,Z"))
            with self.dovecot("") as client:
                expected = answers(client, "INBOX")
        self.assertEqual([answer[1] for answer in expected.values()], MAILS)
        files = message_files(self.maildir())
        self.assertLess(sum(map(os.path.getsize, files)), sum(map(len, MAILS)) * 2 // 3)

        ours = self.login()
        self.assertEqual(answers(ours, "INBOX"), expected)
        text = self.ok(ours.uid("SEARCH", "TEXT", '"line 49999"'))
        self.assertEqual(text, [list(expected)[-2]])
        self.change(ours, expected)

        with self.dovecot("") as client:
            self.assertEqual(answers(client, "INBOX"), answers(ours, "INBOX"))
            self.assertEqual(list(answers(client, "Copies").values()), list(expected.values()))
            self.ok(client.select("Copies"))
            flags = b" ".join(self.ok(client.fetch("1:*", "(FLAGS)")))
            self.assertEqual(flags.count(b"\\Flagged"), len(MAILS))
            self.assertEqual(flags.count(b"$Work"), len(MAILS))
            self.assertNotIn(b"Z", flags)

    def change(self, ours: imaplib.IMAP4, expected: Answers) -> None:
        """Change flags, copy, move, concatenate and replace the messages."""
        total = len(expected)
        self.ok(ours.store("1:*", "+FLAGS", "(\\Flagged)"))
        self.ok(ours.create("Copies"))
        self.ok(ours.copy("1:5", "Copies"))
        self.ok(ours.copy("6", "Copies"))
        self.ok(ours._simple_command("MOVE", "7:*", "Copies"))
        copies = answers(ours, "Copies")
        self.assertEqual(list(copies.values()), list(expected.values()))
        # CATENATE with a part of the large message, and REPLACE of a compressed message.
        large = f"/Copies/;UID={total - 1}/;SECTION=TEXT"
        imaplib.Commands.setdefault("REPLACE", ("SELECTED",))
        self.ok(ours.select("INBOX"))
        self.ok(ours._simple_command("APPEND", "INBOX", f'CATENATE (URL "{large}")'))
        ours.literal = small_message("new")  # type: ignore[assignment]
        self.ok(ours._simple_command("REPLACE", "1", "INBOX"))
        found = [answer[1] for answer in answers(ours, "INBOX").values()]
        self.assertEqual(
            found, [*MAILS[1:6], LARGE.partition(b"\r\n\r\n")[2], small_message("new")]
        )

    def test_mail_saved_with_gzip(self) -> None:
        """Mail that Dovecot has saved with gzip is read and changed."""
        self.check("gz")

    def test_mail_saved_with_bzip2(self) -> None:
        """Mail that Dovecot has saved with bzip2 is read and changed."""
        self.check("bz2")

    def test_mail_saved_with_zstd(self) -> None:
        """Mail that Dovecot has saved with zstd is read and changed."""
        self.check("zstd")

    def test_mail_that_a_script_has_compressed(self) -> None:
        """Mail that a script has compressed with xz, which Dovecot reads and cannot write, is read and changed."""
        self.check("", lzma.compress)
