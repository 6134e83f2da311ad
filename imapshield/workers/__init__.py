"""``--workers N``: a supervising process, and N processes that serve the clients and answer as one server."""
