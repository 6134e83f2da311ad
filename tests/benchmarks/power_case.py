"""The base class of the tests of power cuts: a short history of one account, and what is served after a cut."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.client import Parts
from benchmarks.powercut_compare import FoundMailbox, FoundMessage, Snapshot
from benchmarks.powercut_messages import Append
from benchmarks.powercut_model import Account, Fault, Flags, Mailbox, Message
from benchmarks.powercut_operation import Operation
from benchmarks.powercut_verify import verify

SEEN = frozenset({"\\Seen"})
NONE: Flags = frozenset()
_modseqs = itertools.count(2)


def found_mailbox(
    messages: dict[int, tuple[str, Flags]], uidvalidity: int = 7, uidnext: int = 100
) -> FoundMailbox:
    """Return a mailbox as it is served, with messages as (token, flags) by UID; their MODSEQ is new."""
    modseq = next(_modseqs)
    found = {uid: FoundMessage(token, flags, modseq) for uid, (token, flags) in messages.items()}
    return FoundMailbox(uidvalidity, uidnext, 1000, found)


class PowerCase(SynchronousTestCase):
    """An account with the mailboxes INBOX and Box, of UIDVALIDITY 7."""

    def setUp(self) -> None:
        self.account = Account("alice")
        self.inbox, self.box = self.mailbox("INBOX"), self.mailbox("Box")

    def mailbox(self, name: str) -> Mailbox:
        mailbox = self.account.mailboxes[name] = Mailbox(name, "CREATE")
        self.assertEqual(list(self.account.learn_uidvalidity(mailbox, 7)), [])
        return mailbox

    def acknowledge(
        self, operation: Operation, code: str = "", untagged: Iterable[Parts] = ()
    ) -> None:
        """Handle an OK with a response code."""
        tagged = f"1 OK [{code}] completed\r\n".encode() if code else b"1 OK completed\r\n"
        faults = [*operation.announce(untagged, tagged), *operation.acknowledge()]
        self.assertEqual(faults, [])

    def append(self, mailbox: Mailbox, uid: int, flags: Flags = NONE) -> Message:
        """Store a message whose token is "m" and its UID."""
        operation = Append(self.account, mailbox, [f"m{uid}-200"], flags)
        self.acknowledge(operation, f"APPENDUID 7 {uid}")
        return mailbox.messages[uid]

    def verify(
        self,
        inbox: FoundMailbox | dict[int, tuple[str, Flags]],
        box: FoundMailbox | dict[int, tuple[str, Flags]] | None = None,
        in_flight: Iterable[Operation] = (),
        **others: FoundMailbox,
    ) -> list[Fault]:
        """Return the faults, if this is served."""
        served = {"INBOX": inbox, "Box": {} if box is None else box, **others}
        mailboxes = {
            name: found_mailbox(found) if isinstance(found, dict) else found
            for name, found in served.items()
        }
        return self.faults(Snapshot(mailboxes), in_flight)

    def faults(self, snapshot: Snapshot, in_flight: Iterable[Operation] = ()) -> list[Fault]:
        """Return the faults of a snapshot."""
        return list(verify(self.account, snapshot, in_flight, metadata=True))

    def assert_faults(self, faults: Iterable[Fault], *expected: tuple[str, str]) -> None:
        """Check the kinds and operations of faults."""
        found = list(faults)
        self.assertEqual([(fault.kind, fault.operation) for fault in found], list(expected), found)
