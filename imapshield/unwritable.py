"""`unwritable`: says why a directory cannot be created or written, without trying it."""

import os


def unwritable(path: str) -> str | None:
    """Return why the process, with its effective user, cannot create a directory or write there; None if it can."""
    existing = path
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing)
    if not os.path.isdir(existing):
        return f"{existing} is not a directory"
    if not os.access(existing, os.W_OK | os.X_OK, effective_ids=True):
        return f"the user of the server cannot write in {existing}"
    return None
