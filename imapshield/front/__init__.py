"""Front mode: the shield in front of another IMAP server, which keeps the mail and checks the passwords."""
