"""What IMAP commands mean: coroutines over `mailbox.interfaces`, without Twisted and without files."""
