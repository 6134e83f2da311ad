"""Shares the guard of several servers through Redis (``--guard-redis``)."""
