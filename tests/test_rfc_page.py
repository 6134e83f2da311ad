"""docs/rfc.rst lists the capabilities that the server announces, and no others."""

import re
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from imapshield.cred.sasl import IBearerToken, IScramProof, challengers
from imapshield.testing import Server

CHECKOUT = Path(__file__).parent.parent
ANNOUNCED, _, ABSENT = (CHECKOUT / "docs" / "rfc.rst").read_text().partition("\nNot announced\n")


class EveryMechanism:
    """Stands for a checker that supports all SASL mechanisms."""

    credentialInterfaces = (IScramProof, IBearerToken)

    def secret(self, user: bytes) -> Any:
        raise NotImplementedError


def announced() -> set[str]:
    """Return all that a server can announce, without the values after ``APPENDLIMIT=`` and ``MESSAGELIMIT=``."""
    server = Server(max_messages_per_command=4)
    texts = [server.connect().greeting, server.connect("192.0.2.1").greeting]
    texts.append(server.login()(b"a CAPABILITY"))
    server.factory.context_factory = object()
    client = server.connect()
    client.protocol.canStartTLS = True  # as on a transport that has startTLS
    texts.append(client(b"a CAPABILITY"))
    lists = [re.findall(rb"CAPABILITY ([^]\r]+)", text)[0].decode().split() for text in texts]
    names = {re.sub(r"(?<=LIMIT=)\d+", "", name) for each in lists for name in each}
    return names | {f"AUTH={name.decode()}" for name in challengers([EveryMechanism()])}


def first_cells(table: str) -> list[str]:
    """Return the names in the first column of a list table."""
    return [
        name
        for cell in re.findall(r"^   \* - (``.*)$", table, re.MULTILINE)
        for name in re.findall(r"``([^`]+)``", cell)
    ]


class RfcPageTests(SynchronousTestCase):
    def test_page_has_the_announced_capabilities(self) -> None:
        """Each announced capability has one row, and there is no row of another one."""
        self.assertEqual(sorted(first_cells(ANNOUNCED)), sorted(announced()))

    def test_absent_capabilities_are_not_announced(self) -> None:
        """No capability of the second table is announced."""
        absent = first_cells(ABSENT)
        self.assertGreater(len(absent), 20)
        self.assertEqual(announced().intersection(absent), set())

    def test_named_tests_exist(self) -> None:
        """Each row of an announced capability names tests, and they exist."""
        rows = re.split(r"^   \* - ", ANNOUNCED, flags=re.MULTILINE)[2:]
        for row in rows:
            paths = re.findall(r"``(\w+/test_\w+\.py)``", row)
            self.assertTrue(paths, row)
            for path in paths:
                self.assertEqual(len([*CHECKOUT.joinpath("tests").rglob(path)]), 1, path)
