"""What the attackers of the flood benchmark send, and how their process counts what comes back."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable
from multiprocessing import Pipe

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.flood_attacks import (
    ATTACKS,
    NOOP,
    Answers,
    Attack,
    Behaviour,
    Bot,
    Close,
    Ready,
    Receive,
    Send,
    Sleep,
    Step,
    client_hello,
)
from benchmarks.flood_swarm import Plan, Swarm, TagCounter, Tally


def steps_of(
    attack: str, count: int, *, number: int = 0, answer: bytes = b"a OK\r\n"
) -> list[Step]:
    """Return the first steps of an attack; every wait returns `answer`."""
    behave = ATTACKS[attack].behave
    assert behave is not None
    steps = behave(Bot(number, "mallory", "secret", 0, random.Random(1)))
    found = [next(steps)]
    while len(found) < count:
        found.append(steps.send(answer if isinstance(found[-1], Receive | Answers) else b""))
    return found


class StepTests(SynchronousTestCase):
    def test_windows_are_below_the_limit_of_100_and_wait_for_their_answers(self) -> None:
        """A pipeline of 90 commands is sent, and the next one when all are answered."""
        window = [Send(NOOP * 90), Answers(90)]
        self.assertEqual(steps_of("window", 5), [Receive(), *window, *window])

    def test_tiny_segments_have_one_byte_each(self) -> None:
        """Each byte of a command is a segment of its own."""
        sent = [step.data for step in steps_of("tiny", 9)[1:] if isinstance(step, Send)]
        self.assertEqual((b"".join(sent), {len(data) for data in sent}), (NOOP, {1}))

    def test_half_commands_are_never_finished(self) -> None:
        """Half the bots send a line without an end, the others a part of a literal; then they wait."""
        line = steps_of("partial", 4)
        self.assertEqual(line[2:], [Receive(), Receive()])
        assert isinstance(line[1], Send)
        self.assertNotIn(b"\n", line[1].data)
        literal = steps_of("partial", 6, number=1)
        self.assertEqual(literal[4:], [Receive(), Receive()])
        assert isinstance(literal[3], Send)
        self.assertLess(len(literal[3].data), 4000)

    def test_half_a_handshake_is_less_than_a_client_hello(self) -> None:
        """After STARTTLS half of the first TLS message is sent."""
        steps = steps_of("tls-half", 5)
        assert isinstance(steps[3], Send)
        self.assertEqual(len(steps[3].data), len(client_hello()) // 2)
        self.assertEqual(steps[3].data[:1], b"\x16")

    def test_reconnecting_bots_leave_in_four_ways(self) -> None:
        """They leave with RST or FIN, with and without a command."""
        found = {
            str(steps_of("reconnect", length, number=n)) for n, length in enumerate((1, 2, 2, 4))
        }
        self.assertEqual(len(found), 4)
        self.assertEqual(steps_of("reconnect", 1), [Close(reset=True)])

    def test_drips_are_one_byte_per_second(self) -> None:
        """After each byte a drip waits a second."""
        steps = steps_of("drip", 6)[2:]
        self.assertEqual(steps, [Send(b"a"), Sleep(1), Send(b" "), Sleep(1)])

    def test_passwords_are_different_ones(self) -> None:
        """Each attempt has another user and another password."""
        sent = [step.data for step in steps_of("password", 21) if isinstance(step, Send)]
        self.assertEqual(len({data.split()[2] for data in sent}), 10)
        self.assertEqual(len({data.split()[3] for data in sent}), 10)

    def test_bots_with_accounts_are_logged_in_before_the_attack_begins(self) -> None:
        """Every attack that logs in sends LOGIN and SELECT, and then waits for the others."""
        for attack in ATTACKS.values():
            if attack.logs_in:
                steps = steps_of(attack.name, 7)
                self.assertEqual(steps[1], Send(b'a LOGIN "mallory" "secret"\r\n'))
                self.assertEqual(steps[5], Ready(), attack.name)
                self.assertIsInstance(steps[6], Send)

    def test_bots_whose_login_is_refused_wait_before_they_try_again(self) -> None:
        """A refused login is no flood of logins."""
        steps = steps_of("user-noop", 5, answer=b"a NO\r\n")
        self.assertEqual(steps[3:], [Sleep(1), Close(reset=True)])


class TagCounterTests(SynchronousTestCase):
    def test_responses_are_counted_however_the_stream_is_split(self) -> None:
        """Every split into two gives the same count, and untagged responses do not count."""
        stream = b"a OK\r\n* a \r\na NO\r\n+ a\r\na BAD\r\n"
        for position in range(len(stream) + 1):
            counter = TagCounter()
            counter.feed(stream[:position])
            counter.feed(stream[position:])
            self.assertEqual(counter.count, 3, position)


def _noops_of_ten(_: Bot) -> Behaviour:
    yield Receive()
    while True:
        yield Send(NOOP * 10)
        yield Answers(10)


class SwarmTests(SynchronousTestCase):
    """A swarm against a server on a real socket: ends of connections are a matter of TCP."""

    def attacked(self, serve: Callable[[socket.socket], None], reads: bool = True) -> Tally:
        """Attack a server that handles each connection with `serve`; one connection at a time."""
        attack = Attack("ten", "", _noops_of_ten, reads=reads)
        ATTACKS["ten"] = attack
        self.addCleanup(ATTACKS.pop, "ten")
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        listening.settimeout(60)

        def run() -> None:
            for _ in range(3):
                connection, _address = listening.accept()
                with connection:
                    serve(connection)
            finished.set()

        finished = threading.Event()
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self.addCleanup(thread.join, 60)
        plan = Plan(
            host="127.0.0.1",
            port=listening.getsockname()[1],
            attack="ten",
            seconds=120,
            connections=1,
        )
        swarm = Swarm(plan)
        parent, child = Pipe()

        def stop() -> None:
            finished.wait(60)
            tally, give_up = swarm.tally, time.monotonic() + 60
            # The end of the last connection is on its way.
            while tally.closed + tally.resets + tally.refused < 3 and time.monotonic() < give_up:
                time.sleep(0.001)
            parent.send("end")

        stopper = threading.Thread(target=stop)
        stopper.start()
        swarm.attack(120, child)
        stopper.join()
        swarm.close()
        return swarm.tally

    def test_connections_that_the_server_closes_are_counted_with_their_answers(self) -> None:
        """A FIN is a closed connection; the answers before it count."""

        def serve(connection: socket.socket) -> None:
            connection.sendall(b"* OK\r\n")
            connection.recv(len(NOOP) * 10)
            connection.sendall(b"a OK\r\n" * 10)
            connection.recv(len(NOOP) * 10, socket.MSG_WAITALL)

        tally = self.attacked(serve)
        self.assertEqual((tally.closed, tally.resets, tally.refused), (3, 0, 0))
        self.assertEqual(tally.answers, 30)
        self.assertEqual(len(tally.cut_after), 3)

    def test_connections_that_the_server_resets_are_counted(self) -> None:
        """A close with unread input is a RST."""

        def serve(connection: socket.socket) -> None:
            connection.sendall(b"* OK\r\n")
            connection.recv(1)

        self.assertEqual(self.attacked(serve).resets, 3)

    def test_connections_that_end_before_the_greeting_are_refused(self) -> None:
        """An attacker that gets no greeting was refused."""
        tally = self.attacked(lambda connection: None)
        self.assertEqual((tally.refused, tally.closed), (3, 0))
