"""Messages: bytes → MIME trees, positions and IMAP text that is ready to send. Pure; no message makes it raise."""
