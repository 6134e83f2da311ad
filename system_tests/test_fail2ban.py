"""fail2ban-regex with the filter in contrib/ and the log of a real server, whose clients try to have others banned."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
from collections import Counter

from system_tests.server import REPOSITORY, TIMEOUT
from system_tests.server_case import FAULTS, PASSWORD, USER, ServerCase

ROOT = os.environ.get("FAIL2BAN_ROOT", os.path.join(sys.prefix, "fail2ban"))
"""Where Debian's package of fail2ban is unpacked."""
FILTER = os.path.join(REPOSITORY, "contrib", "fail2ban", "filter.d", "imapshield.conf")
GUESSER, FLOODER, FORGER, HONEST = "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"
FORGED = "banned peer=198.51.100.1 network=198.51.100.1/32 seconds=600 shared=False limit="


class Fail2banTests(ServerCase):
    forbidden_log_texts = FAULTS
    options = ("--trust", "none", "--limit", "max_login_delay_seconds=0.1")

    def talk(self, address: str, data: bytes) -> bytes:
        """Send `data` from `address`; return everything until the server closes or resets the connection."""
        answer = b""
        with socket.socket() as client:
            client.settimeout(TIMEOUT)
            client.bind((address, 0))
            client.connect(("127.0.0.1", self.port))
            with contextlib.suppress(ConnectionError):
                client.sendall(data)
                while received := client.recv(65536):
                    answer += received
        return answer

    def matched_addresses(self, log: str) -> Counter[str]:
        """Return the addresses that fail2ban would count, with the number of lines that match."""
        script = f"{ROOT}/usr/bin/fail2ban-regex"
        self.assertTrue(os.path.exists(script), f"{script} not found: run system_tests/install")
        path = self.write_home_file("twistd.log", log)
        output = self.run_client(
            "/usr/bin/python3", script, "--config", f"{ROOT}/etc/fail2ban", "--out", "ip", path, FILTER,
            env={"PYTHONPATH": f"{ROOT}/usr/lib/python3/dist-packages"},
        )  # fmt: skip
        return Counter(output.decode().split())

    def test_only_banned_addresses_match(self) -> None:
        """A guesser and a flooder that the server bans match once each; whoever is not banned never does."""
        for number in range(5):
            guesses = b"".join(b"a LOGIN user%d%d wrong\r\n" % (number, n) for n in range(2))
            self.talk(GUESSER, guesses + b"b LOGOUT\r\n")
        for _ in range(10):
            self.talk(FLOODER, b"a NOOP\r\n" * 1000)
        for name in (
            FORGED.encode(),
            b'x" peer=198.51.100.1 "',
            b"\n[imapshield#warn] " + FORGED.encode(),
            b"2026-01-01T00:00:00+0000 [imapshield#warn] " + FORGED.encode(),
            b"<HOST> 198.51.100.1",
        ):
            login = b"a LOGIN {%d+}\r\n%b wrong\r\nb LOGOUT\r\n" % (len(name), name)
            self.talk(FORGER, login)
        identity = b'a ID ("name" "[imapshield#warn] %b")\r\n' % FORGED.encode()
        self.talk(FORGER, identity + b"b NOOP\r\n" * 1000)
        login = b"a LOGIN %b old\r\n" % USER.encode()
        for _ in range(3):
            self.talk(HONEST, login + b"b LOGOUT\r\n")
        self.talk(HONEST, b'a LOGIN %b "%b"\r\nb LOGOUT\r\n' % (USER.encode(), PASSWORD.encode()))
        log = self.stop()
        self.assertEqual(self.matched_addresses(log), {GUESSER: 1, FLOODER: 1}, log)

    def test_documented_lines(self) -> None:
        """Of the lines in docs/running.rst only that of a ban matches, and not if the address is shared."""
        with open(os.path.join(REPOSITORY, "docs", "running.rst"), encoding="utf-8") as page:
            text = page.read()
        words = "login|limit|banned|refused|unbanned|closed|suppressed"
        lines = re.findall(rf"^    ((?:{words}) .*)$", text, re.MULTILINE)
        lines += [line.replace("shared=False", "shared=True") for line in lines if "shared" in line]
        log = "".join(f"2026-01-01T00:00:00+0000 [imapshield#warn] {line}\n" for line in lines)
        self.assertEqual(self.matched_addresses(log), {"192.0.2.7": 1}, log)
