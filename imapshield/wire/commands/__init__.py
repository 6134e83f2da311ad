"""IMAP commands as values: one frozen dataclass per command, one module per command family.

`wire.grammar` builds them and `session.handlers` executes them; the families have the same names in all three packages.
"""
