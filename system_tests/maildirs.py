"""Makes messages and Maildirs for the tests with real clients, and reads them back from disk."""

from __future__ import annotations

import atexit
import collections
import functools
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable

from benchmarks.corpus import messages, write_maildir

MessageCounts = collections.Counter[bytes]
"""Messages, each with the number of times it is present."""


def with_lf(message: bytes) -> bytes:
    """Return a message with LF line ends, the form in which every client may store it."""
    return message.replace(b"\r\n", b"\n")


def small_message(subject: str, body: str = "hello") -> bytes:
    """Return a small message with CRLF line ends."""
    lines = (
        f"Subject: {subject}", "From: Bob <bob@example.org>", "To: alice@example.org",
        "Date: Wed, 01 Jan 2025 10:00:00 +0000", f"Message-ID: <{subject}@example.org>", "", body, "",
    )  # fmt: skip
    return "\r\n".join(lines).encode()


def corpus_messages(count: int, seed: int = 1999) -> MessageCounts:
    """Return the first messages of `benchmarks.corpus`, with LF line ends."""
    return MessageCounts(map(with_lf, messages(count, seed)))


@functools.cache
def shared_maildir(count: int) -> str:
    """Return the path of a Maildir with `count` messages that all tests of this process share.

    Tests hard-link its files and must not change them.
    """
    folder = tempfile.mkdtemp(prefix="imapshield-mail-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_maildir(f"{folder}/mail", count)
    return f"{folder}/mail"


def message_files(maildir: str) -> list[str]:
    """Return the paths of all messages in one Maildir folder."""
    return [
        os.path.join(maildir, part, name)
        for part in ("cur", "new")
        for name in sorted(os.listdir(os.path.join(maildir, part)))
    ]


def stored_messages(maildir: str, normalize: Callable[[bytes], bytes] = with_lf) -> MessageCounts:
    """Return the messages of one Maildir folder, each after `normalize`."""
    found = MessageCounts()
    for path in message_files(maildir):
        with open(path, "rb") as file:
            found[normalize(file.read())] += 1
    return found


def subject_of(message: bytes) -> bytes:
    """Return the Subject field of a message, or b"" if it has none."""
    match = re.search(rb"^Subject: (.*?)\r?$", message, re.MULTILINE)
    return match[1] if match else b""


def paths_by_subject(maildir: str) -> dict[bytes, str]:
    """Return the path of each message by its subject; subjects must be distinct."""
    found = {}
    for path in message_files(maildir):
        with open(path, "rb") as file:
            found[subject_of(file.read())] = path
    return found


def flags_by_subject(maildir: str) -> dict[bytes, str]:
    """Return the Maildir flag letters of each message by its subject."""
    return {
        subject: path.partition(":2,")[2] for subject, path in paths_by_subject(maildir).items()
    }


def deliver(maildir: str, message: bytes, name: str = "") -> str:
    """Deliver a message as a delivery agent does: write it in tmp/, rename it into new/. Return its path."""
    for part in ("tmp", "new", "cur"):
        os.makedirs(os.path.join(maildir, part), exist_ok=True)
    name = name or f"{time.time():.9f}.host"
    with open(os.path.join(maildir, "tmp", name), "wb") as file:
        file.write(message)
    path = os.path.join(maildir, "new", name)
    os.rename(os.path.join(maildir, "tmp", name), path)
    return path
