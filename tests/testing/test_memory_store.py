"""The store in memory keeps the contract."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.testing.memory_store import MemoryStore
from tests.contract import StoreContract
from tests.harness import NOW


class Contract(StoreContract, SynchronousTestCase):
    def make_store(self) -> MemoryStore:
        return MemoryStore(lambda: NOW)
