"""Mail on disk: Maildir++ folders and an SQLite index beside them. Blocking; `worker` keeps it off the reactor."""
