"""What every store has to do, as tests: mix `StoreContract` into a test case and override `make_store`.

Override `reopen` too if the mail outlives the store object, and `deliver` if mail can arrive from other programs. The
tests call nothing but the methods of `IStore`. Optional interfaces (`IQuotaStore`, `IMetadataStore`) are not covered.
"""

from zope.interface.verify import verifyObject

from imapshield.mailbox.storage import IStore
from imapshield.testing.in_process import MAIL
from imapshield.testing.store_contract.append_contract import AppendContract
from imapshield.testing.store_contract.copy_contract import CopyContract
from imapshield.testing.store_contract.fetch_contract import FetchContract
from imapshield.testing.store_contract.fixture import (
    BUDGET,
    DELETED,
    EMAILID,
    ENVELOPE,
    FLAGGED,
    SECOND_MAIL,
    SEEN,
    STRUCTURE,
    WHOLE,
)
from imapshield.testing.store_contract.flag_contract import FlagContract
from imapshield.testing.store_contract.mailbox_contract import MailboxContract
from imapshield.testing.store_contract.search_contract import SearchContract

__all__ = [
    "BUDGET",
    "DELETED",
    "EMAILID",
    "ENVELOPE",
    "FLAGGED",
    "MAIL",
    "SECOND_MAIL",
    "SEEN",
    "STRUCTURE",
    "WHOLE",
    "StoreContract",
]


class StoreContract(
    MailboxContract, AppendContract, FlagContract, CopyContract, FetchContract, SearchContract
):
    """The tests that every implementation of `mailbox.storage.IStore` has to pass.

    Mix it into a test case, before the class of the test framework::

        class MyStoreTests(StoreContract, SynchronousTestCase):
            def make_store(self):
                return MyStore(self.mktemp())
    """

    def test_provides_istore(self) -> None:
        """The store provides `IStore`, with the same signatures."""
        verifyObject(IStore, self.store)
