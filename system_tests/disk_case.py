"""The base class of the tests of disk failures."""

from __future__ import annotations

import imaplib
import os
from typing import Any

from system_tests.maildirs import small_message
from system_tests.server_case import FAULTS, ServerCase, literals


class DiskCase(ServerCase):
    forbidden_log_texts = FAULTS

    def append(
        self, client: imaplib.IMAP4, *subjects: str, folder: str = "INBOX", body: str = "hello"
    ) -> None:
        for subject in subjects:
            self.ok(client.append(folder, "", "", small_message(subject, body)))

    def text_of(self, response: tuple[str, Any], *statuses: str) -> bytes:
        """Return the text of a response with one of the `statuses` (NO by default); it must not quote an exception."""
        self.assertIn(response[0], statuses or ("NO",), response)
        text: bytes = response[1][0] or b""
        self.assertNotRegex(text, rb"(?i)errno|error:|exception|/tmp|sqlite|cur/|reference")
        return text

    def fetch_literals(self, client: imaplib.IMAP4, numbers: str, items: str) -> list[bytes]:
        """Return the literals of a FETCH, even if it ends in NO: imaplib's fetch() does not return the data then."""
        response = client.fetch(numbers, items)
        data: Any = response[1]
        if response[0] != "OK":
            self.text_of(response)
            data = client.response("FETCH")[1]
        return literals(data)

    def staged_files(self) -> list[str]:
        """Return the paths of all files in any tmp/."""
        return [
            os.path.join(folder, name)
            for folder, _, names in os.walk(self.root)
            if folder.endswith("/tmp")
            for name in names
        ]
