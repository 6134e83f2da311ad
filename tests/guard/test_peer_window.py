"""Whether the window of a peer shows that it reads. The numbers are those that Linux shows on loopback."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard.peer_window import JUDGED_BYTES, MIN_UNREAD, PeerWindow

UNREAD = [
    (2100, 92160),
    (4200, 90112),
    (8400, 88064),
    (16800, 81920),
    (31500, 70656),
    (73500, 33792),
    (107100, 1024),
]
"""(acknowledged, window) of a peer that reads nothing."""


class PeerWindowTests(SynchronousTestCase):
    def test_peer_that_reads_nothing(self) -> None:
        """A peer reads until its window is `MIN_UNREAD` smaller, and not from then on, though the right edge moves."""
        peer = PeerWindow()
        seen = [peer.reads(*state) for state in UNREAD]
        self.assertEqual(seen, [True] * 3 + [False] * 4)

    def test_peer_that_reads_again(self) -> None:
        """A peer that reads again does so from the first acknowledgement that shows it."""
        peer = PeerWindow()
        for state in UNREAD:
            peer.reads(*state)
        self.assertIsNone(peer.reads(107121, 1024))
        self.assertIs(peer.reads(107142, 92160), True)

    def test_slow_peer(self) -> None:
        """A peer whose window stays small reads if its right edge moves by half of what it receives."""
        for read, expected in ((2000, True), (1999, False)):
            peer = PeerWindow()
            peer.reads(0, 65536)
            peer.reads(40000, 25536)
            self.assertIs(peer.reads(44000, 25536 - 4000 + read), expected)

    def test_window_that_stays_smaller(self) -> None:
        """A window that became smaller for another reason makes one judgement wrong, and none of those that follow."""
        peer = PeerWindow()
        peer.reads(0, 92160)
        self.assertIs(peer.reads(4000, 65536), False)
        for acked in range(8000, 80000, 4000):
            self.assertIs(peer.reads(acked, 65536), True)

    def test_few_bytes_prove_nothing(self) -> None:
        """A window that is a little smaller is that of a peer that reads; few acknowledged bytes say nothing."""
        peer = PeerWindow()
        peer.reads(0, 65536)
        self.assertIs(peer.reads(MIN_UNREAD - 1, 65536 - MIN_UNREAD + 1), True)
        peer = PeerWindow()
        peer.reads(0, 65536)
        peer.reads(20000, 45536)
        self.assertIsNone(peer.reads(20000 + JUDGED_BYTES - 1, 0))
        self.assertIs(peer.reads(20000 + JUDGED_BYTES, 45536 - JUDGED_BYTES), False)
