"""Messages: bytes in, offsets and ready-to-send IMAP text out. Pure; no mail makes it raise."""
