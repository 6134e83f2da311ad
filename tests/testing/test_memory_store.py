"""The store in memory keeps the contract."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.testing.in_process import NOW
from imapshield.testing.memory_store import MemoryStore
from imapshield.testing.store_contract import StoreContract


class Contract(StoreContract, SynchronousTestCase):
    def make_store(self) -> MemoryStore:
        return MemoryStore(lambda: NOW)
