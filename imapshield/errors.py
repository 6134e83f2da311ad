"""What can go wrong, in three kinds: the client's grammar, our refusal, the store.

Rules
-----
Whatever text reaches a client was written by us: it is the `text` of one of these, never the text of an
exception that somebody else raised.
"""


class BadCommand(Exception):
    """The command breaks the grammar: answered ``tag BAD [code] text`` (RFC 9051 section 7.1.3)."""

    def __init__(self, text: str, code: bytes | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.code = code


class CommandRefused(Exception):
    """The command is understood and refused: answered ``tag NO [code] text`` (RFC 5530)."""

    def __init__(self, code: bytes | None, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class StoreError(Exception):
    """Storage could not do it; nothing was half-done. `code` and `text` are fit for the client."""

    code: bytes | None = b"SERVERBUG"
    text = "The mail store could not do this"

    def __init__(self, text: str | None = None) -> None:
        super().__init__(text or self.text)
        if text is not None:
            self.text = text


class NoSuchMailbox(StoreError):
    """The mailbox does not exist (any more)."""

    code = b"NONEXISTENT"
    text = "There is no such mailbox"


class MailboxExists(StoreError):
    """A mailbox of that name is there already."""

    code = b"ALREADYEXISTS"
    text = "There is a mailbox of that name already"


class BadMailboxName(StoreError):
    """The name cannot be one of ours: empty parts, control characters, too long, too deep."""

    code = b"CANNOT"
    text = "That mailbox name cannot be used here"


class NotAllowed(StoreError):
    """The store will never do this to this mailbox, such as delete INBOX."""

    code = b"CANNOT"
    text = "That cannot be done to this mailbox"


class OverLimit(StoreError):
    """There would be more mailboxes, subscriptions or keywords than we keep (RFC 5530 LIMIT)."""

    code = b"LIMIT"
    text = "There are too many of these already"


class NoSpace(StoreError):
    """The disk, or the account's share of it, is full."""

    code = b"OVERQUOTA"
    text = "There is no space left for this; nothing was stored"


class TooManyEntries(StoreError):
    """A mailbox has as much metadata as it may (RFC 5464 section 4.3)."""

    code = b"METADATA TOOMANY"
    text = "There is too much metadata on this mailbox already"


class Unreadable(StoreError):
    """A folder or file is there and cannot be read or written; the log says which and why."""

    code = b"SERVERBUG"
    text = "The mail store could not read or write a file; nothing was lost"


class StoreBusy(StoreError):
    """Another program holds the account's index for longer than we wait."""

    code = b"INUSE"
    text = "The mailbox is in use by another program; try again"


class MessageGone(StoreError):
    """A message was expunged by another session while it was asked for (RFC 5530 EXPUNGEISSUED)."""

    code = b"EXPUNGEISSUED"
    text = "Some of the requested messages no longer exist"
