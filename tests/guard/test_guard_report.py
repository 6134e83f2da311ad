"""A report is the same after a journey as bytes; whatever else arrives is refused."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard.bans import SavedBan
from imapshield.guard.guard_report import (
    MAX_ENTRIES,
    MAX_REPORT_BYTES,
    RATES,
    GuardReport,
    MalformedReport,
    RateTaken,
    TalkerWork,
    network_bytes,
    network_from,
)
from imapshield.guard.login_news import FailedPair
from imapshield.guard.networks import networks_of

V4, V6 = networks_of("192.0.2.1"), networks_of("2001:db8::1")
HASH = b"12345678"

FULL = GuardReport(
    number=7,
    time=12.5,
    is_first=True,
    bans=(SavedBan("192.0.2.1/32", "operator", -2.5, 60.0, 3, True),),
    unbans=(("2001:db8::/64", 3.5),),
    failures=(
        (FailedPair(V4[0], HASH, HASH, HASH, True), 0.0),
        (FailedPair(V6[0], HASH, HASH, HASH, False), 1.5),
    ),
    logins=(((HASH, HASH), 2.5),),
    connections=((V4[0], 3), (V6[0], 0)),
    users=((HASH, 2),),
    violations=(((V4[0], HASH), 3.5),),
    rates=(
        RateTaken("connections", network_bytes(V4[2]), 1.0),
        RateTaken("guesses", network_bytes(V6[3]), -0.25),
        RateTaken("guesses of users", HASH + b"\1", 1.0),
        RateTaken("scram", HASH + HASH, 1.0),
    ),
    talkers=(TalkerWork("user", "commands", "älice", 3.0),),
)

BAD_VALUES: list[tuple[int, Any]] = [
    (0, -1),
    (0, True),
    (0, 1e3),
    (1, "1"),
    (1, 1e300),
    (1, 10**400),
    (1, -(10**400)),
    (0, 10**400),
    (10, [["scram", "00" * 16, 10**400]]),
    (1, True),
    (2, 1),
    (3, {}),
    (3, [[]]),
    (3, [["nonsense", "operator", 1, 1, 1, False]]),
    (3, [["192.0.2.1/32", "two\nlines", 1, 1, 1, False]]),
    (3, [["192.0.2.1/32", "x" * 301, 1, 1, 1, False]]),
    (4, [["192.0.2.1/32"]]),
    (5, [[network_bytes(V4[1]).hex(), HASH.hex(), HASH.hex(), HASH.hex(), False, 0]]),
    (6, [[HASH.hex(), "1234", 0]]),
    (6, [[HASH.hex(), "xx" * 8, 0]]),
    (6, [[HASH.hex(), HASH.hex(), -1]]),
    (7, [[network_bytes(V4[0]).hex()]]),
    (7, [["0420ffffffffffffffff", 1]]),
    (7, [["0419" + 16 * "0", 1]]),
    (8, [[HASH.hex(), -1]]),
    (9, 3),
    (10, [["unknown", "", 1]]),
    (10, [["connections", HASH.hex(), 1]]),
    (10, [["connections", "0419" + 16 * "0", 1]]),
    (11, [["user", "commands", "alice", -1]]),
    (11, [[1, "commands", "alice", 1]]),
    (9, [[network_bytes(V4[0]).hex(), 1, 0]]),
    (9, [[network_bytes(V4[0]).hex(), HASH.hex(), 0]] * (MAX_ENTRIES + 1)),
]


class GuardReportTests(SynchronousTestCase):
    def test_a_report_survives_the_journey(self) -> None:
        """`decode` returns what was encoded."""
        for report in (FULL, GuardReport(1, 0.0)):
            self.assertEqual(GuardReport.decode(report.encode()), report)

    def test_whether_there_is_something_to_tell(self) -> None:
        """A report without entries is empty, unless it is the first."""
        self.assertTrue(GuardReport(3, 1.0).is_empty)
        self.assertFalse(GuardReport(3, 1.0, is_first=True).is_empty)
        self.assertFalse(FULL.is_empty)

    def test_the_largest_report_fits(self) -> None:
        """A report with all entries has less than half of the bytes that are allowed."""
        values: list[Any] = list(FULL)
        for i, value in enumerate(values):
            if isinstance(value, tuple):
                number = MAX_ENTRIES * (len(RATES) if GuardReport._fields[i] == "rates" else 1)
                values[i] = value[:1] * number
        data = GuardReport(*values).encode()
        self.assertLess(len(data), MAX_REPORT_BYTES // 2)
        GuardReport.decode(data)

    def test_malformed_values_are_refused(self) -> None:
        """A wrong type, size or range anywhere refuses the whole report."""
        for index, value in BAD_VALUES:
            fields = json.loads(FULL.encode())
            fields[index] = value
            with self.assertRaises(MalformedReport, msg=f"{index} {value!r:.80}"):
                GuardReport.decode(json.dumps(fields).encode())

    def test_other_bytes_are_refused(self) -> None:
        """No JSON, other JSON, endless nesting, numbers that are none, and too many bytes."""
        samples = [b"", b"{}", b"[]", b"\xff", b"[" * 100_000, b"1", b"null", b"9" * 10_000]
        samples += [FULL.encode()[:-1], b" " * (MAX_REPORT_BYTES + 1)]
        samples.append(b"[1,NaN" + GuardReport(1, 1.0).encode()[6:])
        for data in samples:
            with self.assertRaises(MalformedReport, msg=repr(data[:40])):
                GuardReport.decode(data)

    @given(st.integers(0, 2000), st.integers(0, 255))
    def test_a_changed_byte_is_refused_or_read(self, at: int, byte: int) -> None:
        """A byte that has changed on the way raises no other error."""
        data = bytearray(FULL.encode())
        data[at % len(data)] = byte
        try:
            GuardReport.decode(bytes(data))
        except MalformedReport as error:
            self.assertLessEqual(len(str(error)), 300)

    def test_networks_as_bytes(self) -> None:
        """Each network of an address survives; other bytes are no network."""
        for network in V4 + V6:
            self.assertEqual(network_from(network_bytes(network)), network)
        self.assertRaises(ValueError, network_from, b"short")
