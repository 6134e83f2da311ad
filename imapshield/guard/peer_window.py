"""`PeerWindow`: finds out from the window that a peer's TCP advertises whether the program there reads.

TCP acknowledges what it receives whether or not the program reads it. But the window then becomes smaller by as much,
because its right edge (the acknowledged bytes and the window) stays where it is. When the program reads, the edge moves
on by what it has read.
"""

MIN_UNREAD = 8 << 10
"""Bytes by which the window of a peer that reads may be smaller than it was. It is a few kilobytes smaller while some
responses are on their way through the peer's TCP, which also counts memory that holds no data."""

JUDGED_BYTES = 2 << 10
"""Bytes that a peer must have acknowledged since the last judgement. Windows are rounded, by 1 KiB if they can be
large, so less would prove nothing."""


class PeerWindow:
    """What the acknowledgements of one peer have shown."""

    __slots__ = ("_acked", "_edge", "_largest")

    def __init__(self) -> None:
        self._acked = self._edge = self._largest = 0

    def reads(self, acked: int, window: int) -> bool | None:
        """Return whether the peer has read about as much as it has received since the last judgement, None if unknown.

        The edge also moves if the peer reads nothing: Linux lets the window grow with what arrives, by up to a quarter
        of it. So half of what has arrived must have been read. A window can become smaller for other reasons, once or
        twice, so one judgement is no proof.

        Args:
            acked: how many bytes the peer has acknowledged until now.
            window: how many more it is ready to receive, by its last acknowledgement.
        """
        self._largest = max(self._largest, window)
        edge = acked + window
        read, received = edge - self._edge, acked - self._acked
        if self._largest - window < MIN_UNREAD:
            reads = True
        elif received < JUDGED_BYTES:
            return None
        else:
            reads = read >= received // 2
        self._acked, self._edge = acked, edge
        return reads
