"""TEXT_VERSION is raised whenever the text index would hold something else, so that no account keeps an old one."""

from __future__ import annotations

import hashlib

from twisted.trial.unittest import SynchronousTestCase

from imapshield.mailbox.message_items import MessageItems
from imapshield.message.trigrams import TEXT_VERSION, index_texts
from tests.maildir.test_answer_version import AT_LIMITS, message
from tests.message import mails

RECORDED = (1, "134e0db372e76961")
"""TEXT_VERSION, and the digest of the texts of difficult messages at that version."""


class TextVersionTests(SynchronousTestCase):
    def test_changed_texts_have_a_new_version(self) -> None:
        """The texts of difficult messages are those that are recorded for this version."""
        digest = hashlib.sha256()
        for content in [*mails.ALL, *AT_LIMITS, *map(message, range(300))]:
            digest.update(repr(index_texts(MessageItems(content).part, content)).encode())
        found = TEXT_VERSION, digest.hexdigest()[:16]
        self.assertEqual(
            found,
            RECORDED,
            f"Texts have changed. Raise TEXT_VERSION in message/trigrams.py by 1, and record this: {found}",
        )
