"""``imapshield move``: moves a user's mail from one mail node to another. docs/move.rst explains it."""
