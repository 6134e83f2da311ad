"""The process of a worker: its first message, its sockets, and what it says when it cannot start."""

import contextlib
import os
import socket
from unittest import mock

from twisted.internet import reactor as real_reactor
from twisted.internet.protocol import ServerFactory
from twisted.trial.unittest import SynchronousTestCase, TestCase

from imapshield.workers import worker_process
from imapshield.workers.inherited_ports import InheritedEndpoint
from imapshield.workers.link_messages import BadMessage, Ready, Start, Stop, encode
from imapshield.workers.worker_process import first_message
from tests.workers.cluster import ClusterTestCase


def start_message(case: ClusterTestCase) -> Start:
    message = case.life._first_message(case.supervisor.workers[0])
    assert isinstance(message, Start)
    return message


class FirstMessageTests(ClusterTestCase):
    def test_later_messages_are_left(self) -> None:
        """What follows the first message is not read with it, so the link gets it from its first byte."""
        start, later = start_message(self), encode(Ready()) + encode(Stop())[:7]
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(encode(start) + later)
            self.assertEqual(first_message(theirs), start)
            self.assertEqual(theirs.recv(1000), later)

    def test_end_before(self) -> None:
        """A worker whose supervising process ends before, or in the first message, ends without an error."""
        for sent in (b"", encode(start_message(self))[:20]):
            ours, theirs = socket.socketpair()
            with theirs:
                ours.sendall(sent)
                ours.close()
                self.assertIsNone(first_message(theirs))

    def test_other_bytes(self) -> None:
        """Garbage, or another message, is an error."""
        for sent in (b"garbage!", encode(Stop())):
            ours, theirs = socket.socketpair()
            with ours, theirs:
                ours.sendall(sent)
                with self.assertRaises(BadMessage):
                    first_message(theirs)


class SayTests(SynchronousTestCase):
    def test_why_it_cannot_start(self) -> None:
        """A worker that cannot start prints why, which the supervising process logs, whatever its socket is by then."""
        for error in (SystemExit("--auth file:/x: no such file"), ValueError("broken")):
            ours, theirs = socket.socketpair()
            output, exits = mock.Mock(), list[int]()
            with (
                ours,
                theirs,
                mock.patch.object(worker_process, "LINK", theirs.fileno()),
                mock.patch("signal.signal"),
                mock.patch.object(worker_process, "first_message"),
                mock.patch.object(worker_process, "_run", side_effect=error),
                mock.patch.object(os, "_exit", exits.append),
                mock.patch("sys.stderr", output),
            ):
                worker_process.main()
                ours.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    self.fail(f"sent {ours.recv(1)!r}")
            printed = "".join(call.args[0] for call in output.write.call_args_list)
            self.assertIn("cannot start: ", printed)
            self.assertIn(str(error), printed)
            self.assertEqual(exits, [1])


class InheritedPortTests(TestCase):
    async def test_descriptor_is_closed(self) -> None:
        """The port has its own descriptor: that which was inherited is closed, and when the port stops, none is open."""
        directory = self.mktemp()
        os.mkdir(directory)
        for family, address in (
            (socket.AF_INET, ("127.0.0.1", 0)),
            (socket.AF_UNIX, os.path.relpath(os.path.join(directory, "s"))),
        ):
            listening = socket.socket(family)
            listening.bind(address)
            listening.listen()
            listening.setblocking(False)
            descriptor = listening.detach()
            port = await InheritedEndpoint(real_reactor, descriptor, family).listen(ServerFactory())
            self.assertNotEqual(port.fileno(), descriptor)
            with self.assertRaises(OSError):
                os.fstat(descriptor)
            self.assertFalse(os.get_inheritable(port.fileno()))
            await port.stopListening()
