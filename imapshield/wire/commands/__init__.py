"""IMAP commands as values: one frozen dataclass per command, one module per command family.

`wire.grammar` parses them, and `session.handlers` executes them, in modules that have the names of these families. The
commands of METADATA and NOTIFY are in `mailboxes`, too, because they need its classes.
"""
