"""Parses messages, and encodes their parts as IMAP text that is ready to send. No I/O.

No message makes a function raise, except that `section.binary_section` raises `CommandRefused` for an unknown
Content-Transfer-Encoding.
"""
