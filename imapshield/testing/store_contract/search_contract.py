"""How a store finds messages by search keys that need their content."""

from datetime import date

from imapshield.testing.store_contract.fixture import (
    EMAILID,
    SECOND_MAIL,
    StoreFixture,
)
from imapshield.wire.commands.search import (
    DateKey,
    EnvelopeKey,
    HeaderKey,
    ObjectIdKey,
    SearchKey,
    TextKey,
)


class SearchContract(StoreFixture):
    """How a store finds messages by search keys that need their content."""

    def search(self, key: SearchKey) -> list[int]:
        """Return the UIDs of the messages of INBOX that match `key`."""
        return self.store.search(self.key(), list(self.flags_by_uid()), key).matching

    def test_header_keys_match_decoded_text(self) -> None:
        """Header keys match decoded text in any letter case, also in fields that no store would index."""
        self.append()
        self.append(content=SECOND_MAIL)
        for key, expected in (
            (EnvelopeKey(b"SUBJECT", "lunch"), [1]),
            (HeaderKey(b"subject", "CAFÉ"), [2]),
            (EnvelopeKey(b"FROM", "example.org"), [1, 2]),
            (EnvelopeKey(b"FROM", "zoë"), [2]),
            (EnvelopeKey(b"TO", ""), [1]),
            (EnvelopeKey(b"CC", ""), []),
            (HeaderKey(b"TO", ""), [1]),
            (HeaderKey(b"CC", ""), []),
            (HeaderKey(b"X-Tag", "BLUE"), [2]),
            (HeaderKey(b"X-Tag", ""), [2]),
            (TextKey("noon"), [1]),
            (TextKey("lunch"), []),
            (TextKey("lunch", headers=True), [1]),
            (DateKey(b"ON", date(2023, 11, 13), b"SENT"), [1]),
            (DateKey(b"BEFORE", date(2023, 11, 13), b"SENT"), []),
            (DateKey(b"SINCE", date(2023, 11, 13), b"SENT"), [1]),
            (DateKey(b"SINCE", date(2023, 1, 1), b"SAVED"), [1, 2]),
            (DateKey(b"BEFORE", date(2023, 1, 1), b"SAVED"), []),
            (ObjectIdKey(False, self.fetch_bytes(2, EMAILID)[1:-1]), [2]),
            (ObjectIdKey(True, b"T1"), []),
        ):
            self.assertEqual(self.search(key), expected, key)
            self.assertEqual(self.search(key), expected, key)

    def test_envelope_keys_match_what_envelope_shows(self) -> None:
        """FROM and similar keys match what ENVELOPE shows, HEADER keys what is written, in headers of any length."""
        recipients = b",\r\n ".join(b"list%d@example.org" % i for i in range(5000))
        self.append(content=b"From: Ann (boss) <ann(x)@example.org>\r\nTo: %b\r\n\r\n" % recipients)
        self.append(content=b"From: ann@example.org (boss)\r\nTo: Team: bob@b;\r\n\r\n")
        for key, expected in (
            (EnvelopeKey(b"FROM", "boss"), [2]),
            (HeaderKey(b"FROM", "BOSS"), [1, 2]),
            (EnvelopeKey(b"FROM", "ann <ANN@example.org>"), [1]),
            (EnvelopeKey(b"FROM", "ann@example"), [1, 2]),
            (HeaderKey(b"FROM", "ann@example"), [2]),
            (HeaderKey(b"FROM", "ann("), [1]),
            (EnvelopeKey(b"TO", "team"), [2]),
            (EnvelopeKey(b"TO", "team:"), []),
            (EnvelopeKey(b"TO", "list4999@"), [1]),
            (HeaderKey(b"TO", "list4999@"), [1]),
            (EnvelopeKey(b"TO", ""), [1, 2]),
        ):
            self.assertEqual(self.search(key), expected, key)
            self.assertEqual(self.search(key), expected, key)
