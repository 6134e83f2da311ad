"""Mail on disk: Maildir++ folders with an SQLite index beside them.

The modules are blocking, except `watch` and `worker`. `worker` runs their calls in threads, away from the reactor.
"""
