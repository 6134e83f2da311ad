"""Errors with a text for the client: a malformed command, a refused command, or a failure of the mail store.

Rules
-----
A client sees only texts that this package wrote: the `text` of one of these classes, never ``str()`` of another
exception, which could reveal paths or data.
"""

from imapshield.limits import LimitReached


class BadCommand(Exception):
    """The command breaks the grammar. The response is ``tag BAD [code] text`` (RFC 9051 section 7.1.3)."""

    def __init__(self, text: str, code: bytes | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.code = code


class CommandRefused(Exception):
    """The command is valid but refused. The response is ``tag NO [code] text`` (RFC 5530).

    Attributes:
        reached: the limit because of which it is refused, which is then reported; or None.
    """

    def __init__(self, code: bytes | None, text: str, reached: LimitReached | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.reached = reached


class StoreError(Exception):
    """The mail store could not complete the operation, and has undone any part of it.

    The response is ``tag NO [code] text``. Subclasses have their own default code and text. `reached`: as in
    `CommandRefused`.
    """

    code: bytes | None = b"SERVERBUG"
    text = "Mail store error"
    reached: LimitReached | None = None

    def __init__(self, text: str | None = None, reached: LimitReached | None = None) -> None:
        super().__init__(text or self.text)
        self.reached = reached
        if text is not None:
            self.text = text


class NoSuchMailbox(StoreError):
    """The mailbox does not exist, or no longer exists."""

    code = b"NONEXISTENT"
    text = "Mailbox does not exist"


class MailboxExists(StoreError):
    """A mailbox with this name already exists."""

    code = b"ALREADYEXISTS"
    text = "Mailbox already exists"


class BadMailboxName(StoreError):
    """The name is not valid in the store: an empty level, control characters, too many levels, or too long."""

    code = b"CANNOT"
    text = "Invalid mailbox name"


class NotAllowed(StoreError):
    """The store never permits this operation on this mailbox, for example deleting INBOX."""

    code = b"CANNOT"
    text = "Operation not allowed on this mailbox"


class StoreLimitExceeded(StoreError):
    """The account would exceed a limit of the store: mailboxes, subscriptions or keywords (RFC 5530 LIMIT)."""

    code = b"LIMIT"
    text = "Account limit exceeded"


class NoSpace(StoreError):
    """The disk is full."""

    code = b"OVERQUOTA"
    text = "Not enough disk space"


class QuotaExceeded(NoSpace):
    """The account would exceed its quota."""

    text = "Quota exceeded (mailbox for user is full)"


class TooMuchMetadata(StoreError):
    """The mailbox would have more METADATA entries than permitted (RFC 5464 section 4.3)."""

    code = b"METADATA TOOMANY"
    text = "Too many metadata entries on this mailbox"


class StoreIOError(StoreError):
    """A file or directory cannot be read or written. The log has its path and the reason."""

    code = b"SERVERBUG"
    text = "Mail store error; try again later"


class IndexTooNew(StoreIOError):
    """A newer version of imapshield wrote the index of the account."""

    code = b"UNAVAILABLE"
    text = "Mailbox index was written by a newer server version; ask the administrator"


class AccountMoved(StoreIOError):
    """The account is being moved to another node, or has been. The log has the node."""

    code = b"UNAVAILABLE"
    text = "Mailbox is being moved to another server; try again later"


class StoreBusy(StoreError):
    """Another program has locked the index of the account for too long."""

    code = b"INUSE"
    text = "Mailbox is in use by another program; try again later"


class IndexLocked(StoreBusy):
    """Another process holds the lock of the index, and the call has done nothing yet, so that it can be repeated."""


class RequestAbandoned(StoreError):
    """The client that asked for something has left."""


class MessageExpunged(StoreError):
    """Another session expunged a message that the command needs (RFC 5530 EXPUNGEISSUED)."""

    code = b"EXPUNGEISSUED"
    text = "Some of the requested messages no longer exist"
