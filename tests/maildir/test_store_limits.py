"""Limits prevent one account from using up memory or disk."""

from __future__ import annotations

import errno
import os
from typing import Any

from imapshield.errors import StoreLimitExceeded
from imapshield.limits import LimitReached
from imapshield.maildir import folders, keywords, mailbox_status, subscription_file
from imapshield.testing.store_contract import MAIL
from tests.maildir.disk import DiskTestCase


class StoreLimitTests(DiskTestCase):
    def test_keywords_of_a_mailbox_are_limited(self) -> None:
        """A mailbox has at most as many keywords as the limit allows."""
        self.patch(keywords, "MAX_KEYWORDS", 30)
        self.append(*(b"k%d" % i for i in range(30)))
        error = self.assertRaises(StoreLimitExceeded, self.append, b"one-more")
        self.assertEqual(error.reached, LimitReached("MAX_KEYWORDS", 30, 31))
        key = self.store.mailbox_key("INBOX")
        self.assertRaises(
            StoreLimitExceeded, self.store.store_flags, key, [1], b"+", [b"one-more"], None, 0
        )
        self.assertEqual(len(self.flags()[1].split()), 30)
        self.assertEqual(self.append(b"K3"), 2)

    def test_flags_of_a_message_are_limited(self) -> None:
        """A message has at most four KiB of flags, whatever the command; flags can always be removed."""
        words = [b"k%02d" % i + b"x" * 100 for i in range(60)]
        key = self.store.mailbox_key("INBOX")
        self.assertRaises(StoreLimitExceeded, self.append, *words)
        self.append(*words[:30])
        for op, flags in ((b"+", words[30:]), (b"", words)):
            self.assertRaises(
                StoreLimitExceeded, self.store.store_flags, key, [1], op, flags, None, 0
            )
        self.patch(keywords, "MAX_FLAGS_SIZE", 100)
        self.store.store_flags(key, [1], b"-", words[:1], None, 0)
        self.assertEqual(len(self.flags()[1].split()), 29)

    def test_mailboxes_and_subscriptions_are_limited(self) -> None:
        """An account has at most as many mailboxes and subscriptions as the limits allow."""
        self.patch(folders, "MAX_MAILBOXES", 3)
        self.patch(subscription_file, "MAX_SUBSCRIPTIONS", 1)
        error = self.assertRaises(StoreLimitExceeded, self.store.create, "A/B/C", [])
        self.assertEqual(error.reached, LimitReached("MAX_MAILBOXES", 3, 4))
        self.store.create("A/B", [])
        self.store.set_subscribed("A", True)
        self.assertRaises(StoreLimitExceeded, self.store.set_subscribed, "B", True)
        self.assertEqual(len(list(self.store.mailboxes())), 3)

    def test_copy_makes_no_new_file_when_there_are_no_links_left(self) -> None:
        """COPY refuses a message with as many links as the file system permits, and undoes the copies before it."""
        self.append()
        self.append()
        self.store.create("A", [])
        link, calls = os.link, iter([False, True])

        def fail_second(*args: Any, **kwargs: Any) -> None:
            if next(calls):
                raise OSError(errno.EMLINK, "Too many links")
            link(*args, **kwargs)

        self.patch(os, "link", fail_second)
        key = self.store.mailbox_key("INBOX")
        error = self.assertRaises(StoreLimitExceeded, self.store.copy, key, [1, 2], "A", False, 0)
        self.assertIn("too many copies", error.text)
        self.assertEqual(self.store.status("A").messages, 0)
        self.assertEqual(os.listdir(os.path.join(self.root, ".A", "tmp")), [])

    def test_status_measures_few_messages_and_estimates_many(self) -> None:
        """STATUS measures a few small messages, and returns an upper bound for many, as RFC 8438 permits."""
        content = MAIL.replace(b"\r\n", b"\n")
        self.deliver(content)
        self.deliver(content)
        self.patch(mailbox_status, "MAX_MEASURED_BY_STATUS", len(content))
        self.assertEqual(self.store.status("INBOX").size, 4 * len(content))
        self.store.sizes(self.store.mailbox_key("INBOX"), [1])
        self.assertEqual(self.store.status("INBOX").size, 2 * len(MAIL))
