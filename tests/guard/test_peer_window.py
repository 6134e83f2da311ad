"""Whether the window of a peer shows that it reads. The numbers are those that Linux shows on loopback."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.guard.peer_window import MIN_READ, MIN_UNREAD, PeerWindow

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
        self.assertFalse(peer.reads(107121, 1024))
        self.assertTrue(peer.reads(107142, 92160))

    def test_slow_peer(self) -> None:
        """A peer whose window stays small reads if its right edge moves by half of what it receives."""
        for read, expected in ((2000, True), (1999, False)):
            peer = PeerWindow()
            peer.reads(0, 65536)
            for i in range(1, 10):
                peer.reads(4000 * i, 65536 - 2000 * i)
            self.assertIs(peer.reads(40000, 65536 + 20000 - 2000 + read - 40000), expected)

    def test_small_differences_prove_nothing(self) -> None:
        """A window that is a little smaller is that of a peer that reads; an edge that moves a little is not."""
        peer = PeerWindow()
        peer.reads(0, 65536)
        self.assertTrue(peer.reads(MIN_UNREAD - 1, 65536 - MIN_UNREAD + 1))
        peer = PeerWindow()
        peer.reads(0, 65536)
        self.assertFalse(peer.reads(MIN_UNREAD, 65536 - MIN_UNREAD))
        self.assertFalse(peer.reads(MIN_UNREAD, 65536 - MIN_UNREAD))
        peer = PeerWindow()
        peer.reads(0, 65536)
        peer.reads(20000, 45536)
        self.assertFalse(peer.reads(20000, 45536 + MIN_READ - 1))
        self.assertTrue(peer.reads(20000, 45536 + 20000 // 2))
