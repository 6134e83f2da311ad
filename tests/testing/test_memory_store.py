"""`MemoryStore` fulfils the contract of all stores."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.testing import NOW, MemoryStore, StoreContract


class MemoryStoreTests(StoreContract, SynchronousTestCase):
    """`MemoryStore` fulfils the contract of `IStore`."""

    store: MemoryStore

    def make_store(self) -> MemoryStore:
        return MemoryStore(lambda: NOW)

    def damage(self, uid: int) -> None:
        self.store.damaged.add(uid)
