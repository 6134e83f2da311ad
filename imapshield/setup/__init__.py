"""``imapshield setup``: asks five questions and writes what a server needs: configuration, users, directories, unit."""
