"""IMAP commands as values: one frozen dataclass per command, one module per command family.

`wire.grammar` builds them, in modules that have the names of these families, and `session.handlers` executes them.
"""
