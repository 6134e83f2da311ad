"""`MemoryStore` keeps the contract of all stores."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.testing import NOW, MemoryStore, StoreContract


class MemoryStoreTests(StoreContract, SynchronousTestCase):
    """The contract of `IStore`, kept by `MemoryStore`."""

    def make_store(self) -> MemoryStore:
        return MemoryStore(lambda: NOW)
