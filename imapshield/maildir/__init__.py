"""Mail on disk: Maildir++ folders with an SQLite index beside them.

All modules block, except `watch` and `worker`. `worker` runs the blocking calls in threads, away from the reactor.
"""
